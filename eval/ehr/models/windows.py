"""Turn histories into features of models that count: what the codes of the last 30 days, of the last year and of all
time say, beside age, sex and the number of distinct codes.

Of each window, x = log(1 + counts of codes) times the tokenizer's row of each code: its weights over features, or its
vector, with the learned rows of codes without tokens beside it. Rows over tokens and vectors first get a mean square
length of 1 over the codes that have them, which is the length of the rows of single codes: a code of 32 tokens would
else weigh less than a drug beside it. For linear models each sample's x is brought to unit length, as texts are: how
many codes a patient has is told by a feature of its own, for every tokenizer. Trees read x as it is, as they cut at
counts. Vectors, which may share a large common part, are centered at the training mean. In the end each window is
divided by the root mean square length of its rows over the training samples, so that one penalty means the same for 64
features and for 30,000; no feature is scaled by itself, which would blow up the rare ones.
"""

import dataclasses
from typing import Any

import numpy as np

from eval.ehr.inputs import Inputs, bags, statics
from eval.ehr.tokenizers.matrix import CodeMatrix
from preprocessing.common.extras import load

sparse = load("scipy.sparse")

# Days before the prediction time; None for all time. The longest comes first.
WINDOWS = (None, 365.0, 30.0)
# Statics that deviate less are constant.
_CONSTANT = 1e-5


@dataclasses.dataclass(frozen=True)
class _Block:
    """Hold how the features of one window are scaled: `(x - center) / scale`."""

    days: float | None
    scale: float
    center: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class WindowFeatures:
    """Make features of samples, scaled as the training samples were.

    Attributes:
        matrix: what the tokenizer says of each code.
        blocks: the windows that are used, the longest first.
        center: `[4]` float64, means of the statics over the training samples.
        spread: `[4]` float64, their standard deviations; 1 where a static is constant.
        unit_length: whether what a window holds of a sample has length 1.
    """

    matrix: CodeMatrix
    blocks: tuple[_Block, ...]
    center: np.ndarray
    spread: np.ndarray
    unit_length: bool

    def __call__(self, inputs: Inputs) -> Any:
        """Return the features of samples, a `[n, features]` float64 CSR matrix: statics first, then the windows."""
        known = (statics(inputs).astype(np.float64) - self.center) / self.spread
        parts = [sparse.csr_matrix(known)]
        for block in self.blocks:
            weighted, vectors = _pooled(_log_counts(inputs, block.days), self.matrix, self.unit_length)
            if weighted is not None:
                parts.append(weighted / block.scale)
            if vectors is not None:
                parts.append(sparse.csr_matrix((vectors - block.center) / block.scale))
        return sparse.hstack(parts, format="csr")


def fit_windows(train: Inputs, matrix: CodeMatrix, *, unit_length: bool) -> WindowFeatures:
    """Fit the scales on training samples, and leave out windows that hold the same as the longer one before.

    Args:
        train: training samples.
        matrix: what the tokenizer says of each code.
        unit_length: whether what a window holds of a sample is brought to length 1.
    """
    blocks = []
    longer = None
    for days in WINDOWS:
        counts = _log_counts(train, days)
        if longer is not None and _equal(counts, longer):
            continue
        longer = counts
        weighted, vectors = _pooled(counts, matrix, unit_length)
        center = None if vectors is None else vectors.mean(axis=0)
        squares = 0.0 if weighted is None else float(weighted.multiply(weighted).sum())
        squares += 0.0 if vectors is None else float(np.square(vectors - center).sum())
        blocks.append(_Block(days, np.sqrt(squares / max(len(train), 1)) or 1.0, center))
    return WindowFeatures(matrix, tuple(blocks), *scale_of_statics(statics(train)), unit_length)


def scale_of_statics(known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the statics of training samples, `[4]` float64 each.

    The deviation of a static that is constant, up to rounding, is 1.
    """
    known = known.astype(np.float64)
    spread = known.std(axis=0)
    return known.mean(axis=0), np.where(spread > _CONSTANT, spread, 1.0)


def _log_counts(inputs: Inputs, days: float | None) -> Any:
    """Return log(1 + counts) of codes in a window, `[n, codes]` CSR float64."""
    counts = bags(inputs, days).astype(np.float64)
    counts.data = np.log1p(counts.data)
    return counts


def _pooled(counts: Any, matrix: CodeMatrix, unit_length: bool) -> tuple[Any, np.ndarray | None]:
    """Return counts times the rows of the codes; if asked, both parts together are of unit length or 0.

    Returns:
        the part over features, `[n, features]` CSR, and that over vectors, `[n, D]`; None where a matrix has none.
    """
    over = (matrix.weights if matrix.vectors is None else matrix.own_rows).astype(np.float64)
    if matrix.vectors is None:
        mean_square = over.multiply(over).sum(axis=1).A1[matrix.mapped].mean() if matrix.mapped.any() else 1.0
        over = sparse.diags(np.where(matrix.mapped, 1 / np.sqrt(mean_square), 1.0)) @ over
    weighted = (counts @ over).tocsr()
    vectors = None
    squares = weighted.multiply(weighted).sum(axis=1).A1
    if matrix.vectors is not None:
        fixed = matrix.vectors.astype(np.float64)
        fixed /= np.sqrt(np.square(fixed[matrix.mapped]).sum(axis=1).mean()) if fixed[matrix.mapped].any() else 1.0
        vectors = np.asarray(counts @ fixed)
        squares = squares + np.square(vectors).sum(axis=1)
    if not unit_length:
        return weighted, vectors
    lengths = np.where(squares > 0, np.sqrt(squares), 1)
    return _divided(weighted, lengths), None if vectors is None else vectors / lengths[:, None]


def _divided(rows: Any, lengths: np.ndarray) -> Any:
    """Return CSR rows divided by their lengths."""
    rows.data /= np.repeat(lengths, np.diff(rows.indptr))
    return rows


def _equal(a: Any, b: Any) -> bool:
    return a.nnz == b.nnz and abs(a - b).nnz == 0
