"""The outputs of the model: embeddings of codes, and how each was quantized."""

import flax.struct
import jax


@flax.struct.dataclass
class Quantized:
    """What the quantizer says of a batch of embeddings.

    Attributes:
        ids: `[batch, K]` int32, global rows, nearest (or coarsest) first.
        weights: `[batch, K]` float32, what each row is multiplied by in `vector`, not negative; no gradient.
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
    """The four prepared embeddings of a batch, each `[batch, width]` float32 (paper section 3.1)."""

    text_specific: jax.Array
    graph_specific: jax.Array
    text_cross: jax.Array
    graph_cross: jax.Array


@flax.struct.dataclass
class View:
    """One view of a batch: its embeddings and their quantization, in the same order."""

    embeddings: Embeddings
    text_specific: Quantized
    graph_specific: Quantized
    text_cross: Quantized
    graph_cross: Quantized

    def pairs(self) -> list[tuple[jax.Array, Quantized]]:
        """Each embedding with its quantization: text-specific, graph-specific, text cross, graph cross."""
        names = ("text_specific", "graph_specific", "text_cross", "graph_cross")
        return [(getattr(self.embeddings, name), getattr(self, name)) for name in names]
