"""Check outcomes, and predict those that training samples cannot teach."""

import numpy as np

from eval.ehr.results import BINARY, KINDS, MULTICLASS, MULTILABEL
from preprocessing.common.errors import InputError


def check(y: np.ndarray, kind: str, classes: int) -> None:
    """Check that training outcomes can be learned from.

    Raises:
        InputError: there are fewer than two different outcomes (of a multilabel task: in no class).
        ValueError: the kind is unknown, or the outcomes have another shape or other classes than it asks for.
    """
    if kind not in KINDS:
        raise ValueError(f"the kind of a task must be one of {', '.join(KINDS)}, not {kind!r}")
    if y.shape != ((len(y), classes) if kind == MULTILABEL else (len(y),)):
        raise ValueError(f"outcomes of kind {kind} with {classes} classes cannot have the shape {y.shape}")
    if kind == MULTICLASS and len(y) and not 0 <= y.min() <= y.max() < classes:
        raise ValueError(f"classes must be from 0 to {classes - 1}")
    if not learnable(y, kind, classes).any():
        raise InputError(
            f"All {len(y):,} training samples have the same outcome, so there is nothing to learn; choose another task,"
            " regime or more patients."
        )


def columns(y: np.ndarray, kind: str, classes: int) -> np.ndarray:
    """Return outcomes as one bool column a class, `[n, classes]`; a binary outcome is one column."""
    if kind == MULTICLASS:
        return y[:, None] == np.arange(classes)
    return y.reshape(len(y), -1).astype(bool)


def prevalence(y: np.ndarray, kind: str, classes: int) -> np.ndarray:
    """Return the share of the samples that each class has, `[classes]` float64."""
    return columns(y, kind, classes).mean(axis=0)


def learnable(y: np.ndarray, kind: str, classes: int) -> np.ndarray:
    """Return which classes some samples have and some have not, `[classes]` bool."""
    share = prevalence(y, kind, classes) if len(y) else np.zeros(1)
    return (share > 0) & (share < 1)


def untaught(y: np.ndarray, kind: str, classes: int) -> list[int]:
    """Return the classes that are the same for all training samples; their prediction is their prevalence."""
    return [int(one) for one in np.flatnonzero(~learnable(y, kind, classes))]


def with_prevalence(probabilities: np.ndarray, y: np.ndarray, kind: str, classes: int) -> np.ndarray:
    """Return probabilities in which classes of which training teaches nothing have their prevalence there.

    Args:
        probabilities: `[n]` if binary, else `[n, classes]`.
        y: training outcomes.
        kind: kind of the task.
        classes: number of classes.

    Returns:
        Probabilities of the same shape, float32; of a multiclass task they sum to 1.
    """
    fixed = untaught(y, kind, classes)
    if kind == BINARY or not fixed:
        return probabilities.astype(np.float32)
    probabilities = probabilities.astype(np.float64)
    probabilities[:, fixed] = prevalence(y, kind, classes)[fixed]
    if kind == MULTICLASS:
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32)
