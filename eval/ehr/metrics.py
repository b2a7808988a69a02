"""Score predicted probabilities: discrimination, calibration, and F1 at a threshold that was chosen elsewhere.

Multiclass and multilabel tasks are scored one class against the rest, and the figures of the classes averaged with
equal weight. A class that has no positive or no negative sample has no figure and does not count.

Where samples were predicted by the models of several folds, their probabilities are not on one scale, and a model that
knows nothing would be judged by the prevalence of its training samples (Forman and Scholz, "Apples-to-apples in
cross-validation studies", 2010). AUROC then compares samples of one fold with one another. AUPRC is that of the ranks
within the folds, over all samples: the mean of the average precisions of small folds would be biased upward.
"""

import dataclasses

import numpy as np

from eval.ehr.results import BINARY, MULTICLASS

BINS = 10
# Probabilities of 0 and 1 have no finite logit.
_LEAST = 1e-7
_STEPS = 50


@dataclasses.dataclass(frozen=True)
class Bin:
    """Hold a bin of calibration: its number of samples and positives, and the mean of its probabilities."""

    samples: int
    positives: int
    predicted: float

    @property
    def observed(self) -> float:
        """Return the share of positives."""
        return self.positives / self.samples


@dataclasses.dataclass(frozen=True)
class Scores:
    """Hold the figures of one set of predictions; NaN where one is not defined.

    Attributes:
        samples: number of samples.
        positives: number of positive samples; of several classes, of the rarest that counts.
        prevalence: share of positives, which is the AUPRC of chance; the mean over classes.
        auprc: average precision.
        auroc: area under the receiver operating characteristic.
        brier: mean squared error of the probabilities.
        slope: slope of a logistic regression of the outcome on the logit; 1 is calibrated, less is overconfident.
        intercept: intercept of the same with the slope fixed to 1; 0 is calibrated, less is overestimated risk.
        f1: F1 at the given threshold.
    """

    samples: int
    positives: int
    prevalence: float
    auprc: float
    auroc: float
    brier: float
    slope: float
    intercept: float
    f1: float


def evaluate(
    y: np.ndarray, p: np.ndarray, kind: str, threshold: float | np.ndarray, fold: np.ndarray | None = None
) -> Scores:
    """Return the figures of predictions.

    Args:
        y: `[n]` bool, `[n]` int or `[n, classes]` bool labels.
        p: `[n]` or `[n, classes]` float probabilities.
        kind: `binary`, `multiclass` or `multilabel`.
        threshold: probability from which on a sample counts as positive, for every class, or `[n]` of each sample; NaN
            for no F1.
        fold: `[n]` int fold of each sample; None for one fold.
    """
    folds = rows_of_folds(fold, len(y))
    scored = [_score(of_class, predicted, threshold, folds) for of_class, predicted in outcomes(y, p, kind)]
    if not scored:
        return Scores(len(y), 0, *[float("nan")] * 7)
    figures = [field.name for field in dataclasses.fields(Scores)[2:]]
    means = {name: _mean([getattr(one, name) for one in scored]) for name in figures}
    return Scores(len(y), min(one.positives for one in scored), **means)


def outcomes(y: np.ndarray, p: np.ndarray, kind: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return `[n]` bool labels and `[n]` float64 probabilities of each class that has both outcomes.

    For the arguments see `evaluate`. A binary task has one class.
    """
    if kind == BINARY:
        pairs = [(y, p)]
    elif kind == MULTICLASS:
        pairs = [(y == number, p[:, number]) for number in range(p.shape[1])]
    else:
        pairs = [(y[:, number], p[:, number]) for number in range(p.shape[1])]
    return [(np.asarray(a, bool), np.asarray(b, np.float64)) for a, b in pairs if 0 < np.count_nonzero(a) < len(a)]


def rows_of_folds(fold: np.ndarray | None, samples: int) -> list[np.ndarray]:
    """Return the samples of each fold, int64 each; all samples where there is one fold."""
    if fold is None:
        return [np.arange(samples)]
    return [np.flatnonzero(fold == number) for number in np.unique(fold)]


def ranks_in_folds(p: np.ndarray, folds: list[np.ndarray]) -> np.ndarray:
    """Return the share of its fold that each sample is above, half of itself included, `[n]` float64.

    Equal ones share their mean, so that all samples of a model that tells nothing apart have 1/2, in folds of any size.
    """
    ranks = np.empty(len(p))
    for rows in folds:
        _, place, count = np.unique(p[rows], return_inverse=True, return_counts=True)
        ranks[rows] = ((np.cumsum(count) - count / 2) / len(rows))[place]
    return ranks


def _score(y: np.ndarray, p: np.ndarray, threshold: float | np.ndarray, folds: list[np.ndarray]) -> Scores:
    positives = int(np.count_nonzero(y))
    in_fold = np.array([np.count_nonzero(y[rows]) for rows in folds], np.float64)
    pairs = in_fold * ([len(rows) for rows in folds] - in_fold)
    return Scores(
        samples=len(y),
        positives=positives,
        prevalence=positives / len(y),
        auprc=average_precision(y, ranks_in_folds(p, folds)),
        auroc=_weighted([auroc(y[rows], p[rows]) for rows in folds], pairs),
        brier=float(np.mean((p - y) ** 2)),
        slope=calibration_slope(y, p),
        intercept=calibration_intercept(y, p),
        f1=f1(y, p, threshold),
    )


def _weighted(values: list[float], weights: np.ndarray) -> float:
    """Return the weighted mean of figures of folds, of which those without weight have none."""
    return float(np.sum(np.where(weights > 0, values, 0) * weights) / weights.sum()) if weights.any() else float("nan")


def _mean(values: list[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def average_precision(y: np.ndarray, p: np.ndarray) -> float:
    """Return the mean, over positives, of the precision among all samples scored at least as high.

    Args:
        y: `[n]` bool.
        p: `[n]` float.
    """
    true, passed = _curve(y, p)
    return float(np.sum(np.diff(true, prepend=0) * true / passed) / true[-1]) if true[-1] else float("nan")


def auroc(y: np.ndarray, p: np.ndarray) -> float:
    """Return the share of pairs of a positive and a negative in which the positive is scored higher, ties half.

    For the arguments see `average_precision`.
    """
    true, passed = _curve(y, p)
    false = passed - true
    if not true[-1] or not false[-1]:
        return float("nan")
    return float(np.trapezoid(np.append(0, true), np.append(0, false)) / (true[-1] * false[-1]))


def _curve(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of positives and of samples down to each distinct score, from the highest: `[scores]` float."""
    order = np.argsort(-p, kind="stable")
    last = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)
    return np.cumsum(y[order], dtype=np.float64)[last], last + 1.0


def f1(y: np.ndarray, p: np.ndarray, threshold: float | np.ndarray) -> float:
    """Return F1 if samples from a threshold on count as positive; NaN without a threshold.

    For the other arguments see `average_precision`.
    """
    if np.isnan(threshold).any():
        return float("nan")
    chosen = p >= threshold
    found = np.count_nonzero(chosen & y)
    return 2 * found / max(np.count_nonzero(chosen) + np.count_nonzero(y), 1)


def best_threshold(y: np.ndarray, p: np.ndarray, kind: str) -> float:
    """Return the probability from which on F1 is the highest on tuning samples; NaN if no class has both outcomes.

    The mean of F1 over classes decides where there are several. For the arguments see `evaluate`.
    """
    pairs = outcomes(y, p, kind)
    if not pairs:
        return float("nan")
    found, means = np.unique(np.concatenate([predicted for _, predicted in pairs])), 0
    for labels, predicted in pairs:
        order = np.argsort(predicted)
        first = np.searchsorted(predicted[order], found)
        below = np.append(0, np.cumsum(labels[order]))[first]
        positives = np.count_nonzero(labels)
        means = means + 2 * (positives - below) / (len(labels) - first + positives)
    return float(found[np.argmax(means)])


def calibration_slope(y: np.ndarray, p: np.ndarray) -> float:
    """Return the slope of the maximum-likelihood logistic regression of the outcome on the logit (Cox 1958).

    It is NaN where the likelihood has no maximum, as when probabilities are all equal or separate the outcomes.
    For the arguments see `average_precision`.
    """
    logit = _logit(p)
    high, low = logit[y], logit[~y]
    if not len(high) or not len(low) or high.min() >= low.max() or high.max() <= low.min():
        return float("nan")
    return float(_fit(y, np.stack([np.ones_like(logit), logit], axis=1), np.zeros_like(logit))[1])


def calibration_intercept(y: np.ndarray, p: np.ndarray) -> float:
    """Return the intercept of the same regression with the slope fixed to 1: calibration in the large."""
    if not 0 < np.count_nonzero(y) < len(y):
        return float("nan")
    logit = _logit(p)
    return float(_fit(y, np.ones((len(y), 1)), logit)[0])


def _logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, _LEAST, 1 - _LEAST)
    return np.log(p) - np.log1p(-p)


def _fit(y: np.ndarray, inputs: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Return the coefficients of a logistic regression by Newton's method with halved steps; NaN without a maximum."""
    found = np.zeros(inputs.shape[1])
    loss = _loss(y, offset)
    for _ in range(_STEPS):
        mean = 1 / (1 + np.exp(-np.clip(inputs @ found + offset, -500, 500)))
        gradient = inputs.T @ (y - mean)
        if np.abs(gradient).max() < 1e-8 * len(y):
            return found
        hessian = (inputs * (mean * (1 - mean))[:, None]).T @ inputs
        if np.linalg.cond(hessian) > 1e12:
            break
        step = np.linalg.solve(hessian, gradient)
        while (after := _loss(y, inputs @ (found + step) + offset)) > loss + 1e-12 and np.abs(step).max() > 1e-10:
            step = step / 2
        found, loss = found + step, after
    return np.full(len(found), np.nan)


def _loss(y: np.ndarray, logit: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0, logit) - y * logit))


def bins(y: np.ndarray, p: np.ndarray, *, least: int = 0) -> list[Bin]:
    """Return bins of equally many samples by probability, `BINS` at most; equal probabilities stay together.

    Args:
        y: `[n]` bool.
        p: `[n]` float.
        least: positives, and negatives, that a bin must have: smaller ones are merged with the next, so that no small
            count can be read off.
    """
    order = np.argsort(p, kind="stable")
    _, group, size = np.unique(p[order], return_inverse=True, return_counts=True)
    middle = np.cumsum(size) - size / 2
    number = np.minimum((BINS * middle / len(p)).astype(int), BINS - 1)[group]
    found: list[Bin] = []
    rows = np.zeros(0, np.int64)
    for part in np.split(order, np.flatnonzero(np.diff(number)) + 1):
        rows = np.append(rows, part)
        if _is_large(y[rows], least):
            found.append(_bin(y[rows], p[rows]))
            rows = rows[:0]
    if len(rows) and found:
        last = found.pop()
        rest = _bin(y[rows], p[rows])
        samples = last.samples + rest.samples
        mean = (last.predicted * last.samples + rest.predicted * rest.samples) / samples
        found.append(Bin(samples, last.positives + rest.positives, mean))
    return found


def _is_large(y: np.ndarray, least: int) -> bool:
    positives = np.count_nonzero(y)
    return min(positives, len(y) - positives) >= least


def _bin(y: np.ndarray, p: np.ndarray) -> Bin:
    return Bin(len(y), int(np.count_nonzero(y)), float(np.mean(p)))
