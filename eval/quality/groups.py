"""Measure whether a linear probe predicts the CCSR or CCS group of codes in categories that it never saw.

Complete categories (the first three characters of an ICD code) are assigned to fitting, to the choice of the penalty,
to validation or to test: codes of a category share most words of their descriptions, so a probe that has seen one of
them could recognize the others by their words alone. Scores are means over groups, because a few groups (injuries)
contain most codes, and only groups that occur in the fitting part are scored.

The probe is ridge regression onto the groups (Hastie et al., "The Elements of Statistical Learning", section 4.2) with
equal weight for each group: convex, without random initialization, and fast for bags of thousands of tokens too.
"""

import warnings

import numpy as np
import scipy.sparse as sp
from scipy.linalg import LinAlgWarning
from sklearn.linear_model import RidgeClassifier

from eval.common.measurement import Measurement
from eval.quality.bags import bags_of
from eval.quality.context import PROBE_BAGS, PROBE_CODES, Context
from preprocessing.common.hashing import hash_strings, uniform

FAMILY = "groups"
MACRO_ACCURACY = "macro accuracy"
FIT, TUNE = "fit", "tune"
# Shares of categories: to fit on, to choose the penalty on, validation, test.
PARTS = {FIT: 0.5, TUNE: 0.1, "validation": 0.2, "test": 0.2}
# Penalties as shares of the mean squared length of a code's features.
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
# Scores of groups, between -1 and 1, that differ by less are tied.
_TIE = 1e-4


def measure(context: Context) -> list[Measurement]:
    """Measure macro accuracy for each grouping and each view."""
    found = []
    for name, group in context.labels.groups.items():
        part = part_of_category(context.labels.category, context.labels.keys, name)
        for view, features, sizes in _features(context):
            fitted = _balanced(context, group, np.flatnonzero((part == FIT) & (group >= 0)), context.limit(sizes))
            learned = np.isin(group, group[fitted])
            tuned, scored = (np.flatnonzero((part == p) & learned) for p in (TUNE, context.split))
            if len(np.unique(group[fitted])) < 2 or not len(tuned) or not len(scored):
                continue
            shares = probe(features, group, fitted, tuned, scored)
            found.append(
                Measurement(
                    family=FAMILY,
                    metric=MACRO_ACCURACY,
                    view=view,
                    scope=name,
                    unit=f"codes in {len(np.unique(group[scored]))} groups",
                    items=context.items[scored],
                    values=shares,
                    clusters=context.labels.category[scored],
                    macro=group[scored],
                    given=context.given(context.labels.given.get("groups", "")),
                    chance=1 / len(np.unique(group[fitted])),
                )
            )
    return found


def part_of_category(category: np.ndarray, keys: np.ndarray, salt: str) -> np.ndarray:
    """Return the key of `PARTS` for each code, the same for all codes of a category: str `[n]`.

    Args:
        category: `[n]` int, see `Labels`.
        keys: `[n]` str, sorted; the assignment depends on the keys alone.
        salt: salt of the hash, so that each grouping has another assignment.
    """
    _, first, inverse = np.unique(category, return_index=True, return_inverse=True)
    names = [_category_name(key) for key in keys[first].tolist()]
    bounds = np.cumsum(list(PARTS.values()))[:-1]
    draws = uniform(hash_strings(f"eval/groups/{salt}", names))
    return np.array(list(PARTS))[np.searchsorted(bounds, draws, side="right")][inverse]


def _category_name(key: str) -> str:
    """Return the key of the category of a code: the part before the dot, or the first three characters."""
    system, _, code = key.partition("/")
    return f"{system}/{code.partition('.')[0]}" if "." in code else f"{system}/{code[:3]}"


def _features(context: Context) -> list[tuple[str, np.ndarray | sp.csr_array, tuple[int, int]]]:
    """Return (view, features `[n, p]` float32, numbers of codes to fit on) for each view of the representation."""
    representation = context.representation
    found = []
    if representation.vectors is not None:
        found.append(("vectors", representation.vectors, PROBE_CODES))
    if representation.tokens is not None:
        found.append(("tokens", bags_of(representation), PROBE_BAGS))
    if representation.unquantized is not None:
        found.append(("unquantized", representation.unquantized, PROBE_CODES))
    return found


def _balanced(context: Context, group: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Return at most `count` rows in ascending order, with as equal numbers of each group as there are codes."""
    order = rows[np.argsort(context.items[rows], kind="stable")]
    order = order[np.argsort(group[order], kind="stable")]
    starts = np.searchsorted(group[order], group[order])
    rank = np.arange(len(order)) - starts
    return np.sort(order[np.argsort(rank, kind="stable")[:count]])


def probe(
    features: np.ndarray | sp.csr_array, group: np.ndarray, fitted: np.ndarray, tuned: np.ndarray, scored: np.ndarray
) -> np.ndarray:
    """Return the probability that a probe assigns each of the rows `scored` to its group: float64 `[scored]`.

    The probability is 0 or 1 except where groups are tied.

    Args:
        features: `[n, p]` float32, dense or sparse.
        group: `[n]` int.
        fitted: rows to fit the probe on.
        tuned: rows to choose the penalty on.
        scored: rows to score.
    """
    used = _standard(features, fitted)
    scale = _mean_squared(used[fitted])
    best = None
    best_score = -1.0
    for penalty in PENALTIES:
        model = RidgeClassifier(penalty * scale, fit_intercept=False, class_weight="balanced", solver="cholesky")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LinAlgWarning)
            model.fit(used[fitted], group[fitted])
        score = _macro(_own_share(model, used[tuned], group[tuned]), group[tuned])
        if score > best_score:
            best, best_score = model, score
    return _own_share(best, used[scored], group[scored])


def _own_share(model: RidgeClassifier, features: np.ndarray | sp.csr_array, group: np.ndarray) -> np.ndarray:
    """Return the share of each code that its group gets when the groups of the highest score split it equally."""
    scores = np.asarray(model.decision_function(features))
    if scores.ndim == 1:  # For two groups scikit-learn returns the score of the second alone.
        scores = np.stack([-scores, scores], axis=1)
    first = scores >= scores.max(1, keepdims=True) - _TIE
    own = model.classes_[None, :] == group[:, None]
    return (first & own).sum(1) / first.sum(1)


def _standard(features: np.ndarray | sp.csr_array, fitted: np.ndarray) -> np.ndarray | sp.csr_array:
    """Return features with a column of ones: dense features centered, tokens reduced to those that occur."""
    if sp.issparse(features):
        used = np.unique(features[fitted].indices)
        ones = sp.csr_array(np.ones((features.shape[0], 1), np.float32))
        # In float32, tokens that always occur together make a system that cannot be solved.
        return sp.hstack([features[:, used], ones], format="csr").astype(np.float64)
    centered = features - features[fitted].mean(0)
    return np.concatenate([centered, np.ones((len(features), 1), np.float32)], axis=1)


def _mean_squared(features: np.ndarray | sp.csr_array) -> float:
    values = features.data if sp.issparse(features) else features
    return float(np.square(values, dtype=np.float64).sum() / features.shape[0])


def _macro(right: np.ndarray, group: np.ndarray) -> float:
    _, number = np.unique(group, return_inverse=True)
    return float(np.mean(np.bincount(number, right) / np.bincount(number)))
