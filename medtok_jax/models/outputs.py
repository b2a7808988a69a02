"""Hold the outputs of the model: embeddings of codes, how each was quantized, and the tokens of both."""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Quantized:
    """Hold the quantization of a batch of embeddings.

    Attributes:
        embedding: `[batch, width]` float32, what was quantized.
        ids: `[batch, K]` int32, global rows, nearest (or coarsest) first.
        weights: `[batch, K]` float32, factor of each row in `vector`, not negative; no gradient.
        vector: `[batch, width]` float32, the quantized embedding; gradient to the codebook only.
        output: `[batch, width]` float32, same value as `vector`; gradient to the embedding only.
        distances: `[batch, region]` float32, Euclidean distance to every row of the region.
    """

    embedding: jax.Array
    ids: jax.Array
    weights: jax.Array
    vector: jax.Array
    output: jax.Array
    distances: jax.Array


@flax.struct.dataclass
class Embeddings:
    """Hold the four prepared embeddings of a batch, each `[batch, width]` float32 (paper section 3.1)."""

    text_specific: jax.Array
    graph_specific: jax.Array
    text_cross: jax.Array
    graph_cross: jax.Array


@flax.struct.dataclass
class View:
    """Hold one view of a batch.

    Attributes:
        embeddings: its four embeddings.
        quantized: those that are quantized, in the order of `names`.
        shared_distances: distances of the text's and of the graph's cross-modal embedding to the rows that the shared
            region searches, `[batch, rows]` float32 each.
        names: see `regions.parts_of`.
    """

    embeddings: Embeddings
    quantized: tuple[Quantized, ...]
    shared_distances: tuple[jax.Array, jax.Array]
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)

    def of(self, name: str) -> Quantized:
        """Return the quantization of one embedding."""
        return self.quantized[self.names.index(name)]

    def tokens(self) -> "BatchTokens":
        """Return the tokens of the batch."""
        return BatchTokens(
            ids=jnp.concatenate([quantized.ids for quantized in self.quantized], axis=1),
            weights=jnp.concatenate([quantized.weights for quantized in self.quantized], axis=1),
            vectors=jnp.stack([quantized.vector for quantized in self.quantized], axis=1),
            embeddings=jnp.stack([quantized.embedding for quantized in self.quantized], axis=1),
        )


@flax.struct.dataclass
class BatchTokens:
    """Hold the tokens of a batch of codes, embedding after embedding in the order of `regions.parts_of`.

    Attributes:
        ids: `[batch, T]` int32 global token ids.
        weights: `[batch, T]` float32, likewise.
        vectors: `[batch, E, width]` float32, quantized embeddings.
        embeddings: `[batch, E, width]` float32, embeddings before quantization.
    """

    ids: jax.Array
    weights: jax.Array
    vectors: jax.Array
    embeddings: jax.Array
