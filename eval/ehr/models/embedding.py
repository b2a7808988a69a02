"""Embed the codes of a data set by what a tokenizer says of them: pooled rows of a trainable table, or fixed vectors.

A code is one position, whatever its number of tokens: the weighted sum of its rows of the table. The table starts as
the tokenizer's codebook, turned to the width of the model by its principal axes: an orthogonal map, fixed, that keeps
distances and is not learned; a codebook wider than the model keeps the axes of most variance. Fixed vectors pass
through a learned linear layer instead and stay as they are. Codes without tokens have rows of the table of their own.

All embeddings start with the same mean square over the codes, so that no tokenizer begins louder than another.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from eval.ehr.tokenizers.matrix import CodeMatrix

# Root mean square of the entries of embedded codes at the start.
SCALE = 0.2


class CodeLookup(NamedTuple):
    """Hold what the embedding reads of each code. Codes and slots are padded to powers of two, to share programs.

    Attributes:
        ids: `[codes, slots]` int32, rows of the table.
        weights: `[codes, slots]` float32, 0 at padding.
        vectors: `[codes, D]` float32, fixed, or None.
    """

    ids: jax.Array
    weights: jax.Array
    vectors: jax.Array | None


def make_lookup(matrix: CodeMatrix) -> CodeLookup:
    """Return the lookup of the codes of a data set; where the matrix is `expanded`, that of single features."""
    if matrix.expanded:
        count = matrix.num_features
        ids, weights = np.arange(count, dtype=np.int32)[:, None], np.ones((count, 1), np.float32)
    else:
        rows = (matrix.weights if matrix.vectors is None else matrix.own_rows).tocsr()
        count, slots = rows.shape[0], np.diff(rows.indptr)
        ids = np.zeros((count, power_of_two(int(slots.max(initial=1)))), np.int32)
        weights = np.zeros(ids.shape, np.float32)
        code = np.repeat(np.arange(count), slots)
        slot = np.arange(len(code)) - np.repeat(rows.indptr[:-1], slots)
        ids[code, slot], weights[code, slot] = rows.indices, rows.data
    more = ((0, power_of_two(count) - count), (0, 0))
    vectors = None if matrix.vectors is None else jnp.asarray(np.pad(_standardized(matrix), more))
    return CodeLookup(jnp.asarray(np.pad(ids, more)), jnp.asarray(np.pad(weights, more)), vectors)


def power_of_two(count: int) -> int:
    """Return the least power of two that is not below `count`; 1 for 0."""
    return 1 << max(count - 1, 0).bit_length()


def _standardized(matrix: CodeMatrix) -> np.ndarray:
    """Return the vectors centered and at the scale at which embeddings start; zeros for codes without one."""
    vectors = np.zeros(matrix.vectors.shape, np.float32)
    found = matrix.vectors[matrix.mapped].astype(np.float64)
    if len(found):
        found -= found.mean(axis=0)
        vectors[matrix.mapped] = found * (SCALE / (np.sqrt(np.mean(found**2)) or 1.0))
    return vectors


def used_features(matrix: CodeMatrix, codes: np.ndarray) -> np.ndarray:
    """Return which features some codes have, `[features]` bool; where the matrix is `expanded`, codes are features."""
    used = np.zeros(matrix.num_features, bool)
    if matrix.expanded:
        used[codes] = True
    else:
        rows = matrix.weights if matrix.vectors is None else matrix.own_rows
        used[rows[np.unique(codes)].indices] = True
    return used


def first_table(matrix: CodeMatrix, width: int, *, used: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows with which the table of the features starts, padded to a power of two.

    Rows of single codes, and all rows of a tokenizer without a codebook, are random; those that no training sample can
    teach are zero instead, as noise would be read as something known.

    Args:
        matrix: what the tokenizer says of each code.
        width: width of the model.
        used: `[features]` bool, features that training samples have, see `used_features`.
        seed: seed of the random rows: the first are the same for all tokenizers.

    Returns:
        `[rows, width]` float32.
    """
    count = matrix.num_features
    rows = matrix.weights if matrix.vectors is None else matrix.own_rows
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(count, width)) * SCALE
    if matrix.initial is not None:
        turned = _principal(matrix.initial[matrix.own :].astype(np.float64), width)
        pooled = rows[:, matrix.own :] @ turned
        size = np.sqrt(np.mean(pooled[matrix.mapped] ** 2)) if matrix.mapped.any() else 0.0
        table[matrix.own :] = turned * (SCALE / (size or 1.0))
    elif matrix.weights is not None and matrix.mapped.any():
        # The mean of many random rows is shorter than one row.
        lengths = np.sqrt(rows[:, matrix.own :].power(2).sum(axis=1).A1[matrix.mapped].mean())
        table[matrix.own :] /= lengths or 1.0
    random = np.arange(count) < (count if matrix.initial is None else matrix.own)
    table[random & ~used] = 0
    return np.pad(table, ((0, power_of_two(count) - count), (0, 0))).astype(np.float32)


def _principal(rows: np.ndarray, width: int) -> np.ndarray:
    """Return centered rows in their principal axes, the first `width` of them; zeros where there are fewer."""
    rows = rows - rows.mean(axis=0) if len(rows) else rows
    _, axes = np.linalg.eigh(rows.T @ rows)
    kept = axes[:, ::-1][:, :width]
    # An axis has no sign of its own: its largest entry is made positive.
    kept = kept * np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])])
    turned = rows @ kept
    return np.pad(turned, ((0, 0), (0, width - turned.shape[1])))


class CodeEmbedding(nnx.Module):
    """Embed codes: the weighted sum of rows of a trainable table, plus a linear map of fixed vectors if there are any.

    Args:
        table: `[rows, width]` first rows.
        vector_width: width of the fixed vectors, 0 if there are none.
        rngs: initializes the linear map.
    """

    def __init__(self, table: np.ndarray, vector_width: int, *, rngs: nnx.Rngs):
        self.table = nnx.Param(jnp.asarray(table))
        width = table.shape[1]
        self.project = nnx.Linear(vector_width, width, use_bias=False, rngs=rngs) if vector_width else None

    def __call__(self, lookup: CodeLookup, code: jax.Array) -> jax.Array:
        """Embed `[batch, length]` int32 codes to `[batch, length, width]` float32."""
        if len(lookup.ids) <= code.size:
            # Fewer codes than positions: each code is pooled once.
            return self._pooled(lookup)[code]
        return self._pooled(jax.tree.map(lambda array: array[code], lookup))

    def _pooled(self, lookup: CodeLookup) -> jax.Array:
        pooled = jnp.einsum("...s,...sw->...w", lookup.weights, self.table[...][lookup.ids])
        return pooled if self.project is None else pooled + self.project(lookup.vectors)
