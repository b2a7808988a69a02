"""Choose the setting of a model on the tuning samples, by one rule for every model and every tokenizer."""

from collections.abc import Sequence

import numpy as np

from eval.ehr.models.outcomes import columns
from eval.ehr.results import BINARY, MULTICLASS
from preprocessing.common.extras import load

# Probabilities are kept this far from 0 and 1 in the logarithmic loss.
_EDGE = 1e-7


def score(y: np.ndarray, probabilities: np.ndarray, kind: str) -> float:
    """Return how well probabilities fit outcomes: the area under the precision-recall curve, macro over classes.

    Classes that all samples or none have are left out. Where that leaves no class, the score is the negative
    logarithmic loss: the outcomes decide which of the two it is, so that scores of one set of samples compare.

    Args:
        y: `[n]` bool, `[n]` int64 or `[n, classes]` bool.
        probabilities: `[n]`, or `[n, classes]`.
        kind: kind of the task.
    """
    metrics = load("sklearn.metrics")
    predicted = probabilities.reshape(len(y), -1).astype(np.float64)
    actual = columns(y, kind, predicted.shape[1])
    if not np.isfinite(predicted).all():
        return -np.inf
    mixed = [one for one in range(actual.shape[1]) if 0 < actual[:, one].mean() < 1] if len(y) else []
    if mixed:
        return float(np.mean([metrics.average_precision_score(actual[:, one], predicted[:, one]) for one in mixed]))
    predicted = np.clip(predicted, _EDGE, 1 - _EDGE)
    loss = np.where(actual, -np.log(predicted), 0 if kind == MULTICLASS else -np.log1p(-predicted))
    return -float(loss.sum(axis=1).mean()) if len(y) else 0.0


def best(scores: Sequence[float]) -> int:
    """Return the index of the best score, the first of several."""
    return int(np.argmax(scores))


def score_name(y: np.ndarray, kind: str, classes: int) -> str:
    """Return the name of what `score` computes for these outcomes."""
    share = columns(y, kind, classes).mean(axis=0) if len(y) else np.zeros(1)
    if not ((share > 0) & (share < 1)).any():
        return "negative log loss"
    return "AUPRC" if kind == BINARY else "macro AUPRC"
