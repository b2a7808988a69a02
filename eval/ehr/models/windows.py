"""Turn histories into features of models that count: what the codes of the last 30 days, of the last year and of all
time say, beside age, sex and the number of distinct codes.

Of each window, x = log(1 + counts of codes) times the tokenizer's row of each code: its weights over features, or its
vector, with the learned rows of codes without tokens beside it. Vectors first get a mean square length of 1 over the
codes. Each sample's x is then brought to unit length, as texts are: how many codes a patient has is told by a feature
of its own, for every tokenizer. Vectors, which may share a large common part, are centered at the training mean. In the
end each window is divided by the root mean square length of its rows over the training samples, so that one penalty
means the same for 64 features and for 30,000; no feature is scaled by itself, which would blow up the rare ones.
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
    """

    matrix: CodeMatrix
    blocks: tuple[_Block, ...]
    center: np.ndarray
    spread: np.ndarray

    def __call__(self, inputs: Inputs) -> Any:
        """Return the features of samples, a `[n, features]` float64 CSR matrix: statics first, then the windows."""
        known = (statics(inputs).astype(np.float64) - self.center) / self.spread
        parts = [sparse.csr_matrix(known)]
        for block in self.blocks:
            weighted, vectors = _pooled(_log_counts(inputs, block.days), self.matrix)
            if weighted is not None:
                parts.append(weighted / block.scale)
            if vectors is not None:
                parts.append(sparse.csr_matrix((vectors - block.center) / block.scale))
        return sparse.hstack(parts, format="csr")


def fit_windows(train: Inputs, matrix: CodeMatrix) -> WindowFeatures:
    """Fit the scales on training samples, and leave out windows that hold the same as the longer one before.

    Args:
        train: training samples.
        matrix: what the tokenizer says of each code.
    """
    blocks = []
    longer = None
    for days in WINDOWS:
        counts = _log_counts(train, days)
        if longer is not None and _equal(counts, longer):
            continue
        longer = counts
        weighted, vectors = _pooled(counts, matrix)
        center = None if vectors is None else vectors.mean(axis=0)
        squares = 0.0 if weighted is None else float(weighted.multiply(weighted).sum())
        squares += 0.0 if vectors is None else float(np.square(vectors - center).sum())
        blocks.append(_Block(days, np.sqrt(squares / max(len(train), 1)) or 1.0, center))
    return WindowFeatures(matrix, tuple(blocks), *scale_of_statics(statics(train)))


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


def _pooled(counts: Any, matrix: CodeMatrix) -> tuple[Any, np.ndarray | None]:
    """Return counts times the rows of the codes, both parts together of unit length or 0.

    Returns:
        the part over features, `[n, features]` CSR, and that over vectors, `[n, D]`; None where a matrix has none.
    """
    if matrix.vectors is None:
        weighted = (counts @ matrix.weights.astype(np.float64)).tocsr()
        return _divided(weighted, np.sqrt(weighted.multiply(weighted).sum(axis=1).A1)), None
    weighted = (counts @ matrix.own_rows.astype(np.float64)).tocsr()
    fixed = matrix.vectors.astype(np.float64)
    fixed /= np.sqrt(np.square(fixed[matrix.mapped]).sum(axis=1).mean()) if fixed[matrix.mapped].any() else 1.0
    vectors = np.asarray(counts @ fixed)
    lengths = np.sqrt(weighted.multiply(weighted).sum(axis=1).A1 + np.square(vectors).sum(axis=1))
    return _divided(weighted, lengths), vectors / np.where(lengths > 0, lengths, 1)[:, None]


def _divided(rows: Any, lengths: np.ndarray) -> Any:
    """Return CSR rows divided by their lengths; rows of length 0 stay."""
    rows.data /= np.repeat(np.where(lengths > 0, lengths, 1), np.diff(rows.indptr))
    return rows


def _equal(a: Any, b: Any) -> bool:
    return a.nnz == b.nnz and abs(a - b).nnz == 0
