"""Hold the outputs of the model: embeddings of codes, how each was quantized, and the tokens of both."""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Quantized:
    """Hold the quantization of a batch of embeddings.

    Attributes:
        ids: `[batch, K]` int32, global rows, nearest (or coarsest) first.
        weights: `[batch, K]` float32, factor of each row in `vector`, not negative; no gradient.
        vector: `[batch, width]` float32, the quantized embedding; gradient to the codebook only.
        output: `[batch, width]` float32, same value as `vector`; gradient to the embedding only.
        distances: `[batch, region]` float32, Euclidean distance to every row of the region.
    """

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
    """Hold one view of a batch: its embeddings and their quantization."""

    embeddings: Embeddings
    text_specific: Quantized
    graph_specific: Quantized
    text_cross: Quantized
    graph_cross: Quantized

    def pairs(self) -> list[tuple[jax.Array, Quantized]]:
        """Return each embedding with its quantization, in the order of `EMBEDDINGS`."""
        e = self.embeddings
        return [
            (e.text_specific, self.text_specific),
            (e.graph_specific, self.graph_specific),
            (e.text_cross, self.text_cross),
            (e.graph_cross, self.graph_cross),
        ]

    def tokens(self) -> "BatchTokens":
        """Return the tokens of the batch."""
        pairs = self.pairs()
        return BatchTokens(
            ids=jnp.concatenate([quantized.ids for _, quantized in pairs], axis=1),
            weights=jnp.concatenate([quantized.weights for _, quantized in pairs], axis=1),
            vectors=jnp.stack([quantized.vector for _, quantized in pairs], axis=1),
            embeddings=jnp.stack([embedding for embedding, _ in pairs], axis=1),
        )


@flax.struct.dataclass
class BatchTokens:
    """Hold the tokens of a batch of codes, embedding after embedding in the order of `EMBEDDINGS`.

    Attributes:
        ids: `[batch, 4K]` int32 global token ids, K an embedding.
        weights: `[batch, 4K]` float32, likewise.
        vectors: `[batch, 4, width]` float32, quantized embeddings.
        embeddings: `[batch, 4, width]` float32, embeddings before quantization.
    """

    ids: jax.Array
    weights: jax.Array
    vectors: jax.Array
    embeddings: jax.Array
