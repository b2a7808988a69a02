"""Hold the tokens of the rows to which the codes of patient records are mapped. No JAX here.

The first rows are those of a tokenizer's table. The rows behind them are codes of the records that the table lacks, and
that the model of the tokenizer encoded from their descriptions.
"""

import dataclasses

import numpy as np

from medtok_jax.lookup.config import TokenizerConfig
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.lookup.similarity import quantize


@dataclasses.dataclass(frozen=True)
class EncodedCodes:
    """Hold codes of records that a tokenizer's table lacks, with the tokens that its model gives them.

    Attributes:
        keys: `[codes]`, `SYSTEM/code` of each.
        position: position among `keys` of each code as the events spell it.
        ids: `[codes, T]` int32 token ids, in the order of the table.
        weights: `[codes, T]` float32, likewise.
    """

    keys: list[str]
    position: dict[str, int]
    ids: np.ndarray
    weights: np.ndarray


@dataclasses.dataclass(frozen=True)
class TokenRows:
    """Hold tokens and weights of all rows, with the codebook that quantized embeddings are made of.

    Attributes:
        config: of the tokenizer.
        codebook: `[N, d]` float32.
        ids: `[rows, T]` int32 token ids.
        weights: `[rows, T]` float32.
    """

    config: TokenizerConfig
    codebook: np.ndarray
    ids: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, directory: TokenizerDirectory, encoded: EncodedCodes | None = None) -> "TokenRows":
        """Return the rows of a tokenizer directory, followed by the codes that its model encoded."""
        ids = directory.ids
        weights = directory.weights
        if encoded is not None:
            ids = np.concatenate([ids, encoded.ids])
            weights = np.concatenate([weights, encoded.weights])
        return cls(directory.config, directory.codebook, ids, weights)

    def quantized(self, rows: np.ndarray) -> np.ndarray:
        """Return the quantized embeddings of some rows, `[rows, E, d]` float32."""
        return quantize(self.codebook, self.ids[rows], self.weights[rows], self.config.bounds)
