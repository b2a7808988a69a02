"""Compute 95 % intervals, paired differences and p-values by a bootstrap over persons, nested with seeds.

A draw takes as many persons as there are, with replacement, and all samples of each as often as it was drawn. All
predictions that are compared are scored on the same draws, which makes their differences paired. Where a tokenizer was
trained with several seeds, its figure is the mean over seeds. Three seeds are too few to be drawn again: percentiles of
their resamples would cover 74 %. So each draw moves the mean of its seeds by their standard error times a draw from
Student's distribution, whose interval is exact for a few normal values. Two tokenizers are compared on the seeds that
both have, by the differences of each seed, as a seed stands for the training samples that it drew (few-shot) as much as
for the initialization.

Where samples were predicted by the models of several folds, see `metrics` on how AUPRC and AUROC join folds.

Intervals are percentiles of the draws (Efron and Tibshirani 1993, chapter 13). AUPRC and AUROC of a draw are computed
from sums of the persons' weights between one distinct score and the next, so that no draw sorts anything.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from eval.common.intervals import LEVEL, Interval
from eval.ehr.metrics import outcomes, ranks_in_folds, rows_of_folds
from eval.ehr.results import CellResult
from preprocessing.common.extras import load

sparse = load("scipy.sparse")
stats = load("scipy.stats")

PERSON_DRAWS = 2000
AUPRC, AUROC, BRIER = "auprc", "auroc", "brier"
METRICS = (AUPRC, AUROC, BRIER)
LOWER_IS_BETTER = (BRIER,)
# A test set with fewer ranks no tokenizers.
FEWEST_POSITIVES, FEWEST_PERSONS = 50, 200
# A true difference of 2.8 standard errors is found in 80 % of studies at a two-sided level of 5 %.
DETECTABLE = 2.8
# Draws that are computed at once, which bounds the memory.
_BLOCK = 500


class PairedDifference(NamedTuple):
    """Hold a paired difference with its interval; NaN where no draw has both outcomes.

    Attributes:
        value: the first figure less the second.
        low, high: bounds of the 95 % interval.
        p: two-sided p-value of the bootstrap, not corrected for other comparisons.
        detectable: true difference that would be found with a power of 80 %.
    """

    value: float
    low: float
    high: float
    p: float
    detectable: float

    @property
    def is_noise(self) -> bool:
        """Return True if the interval includes 0, or is not defined."""
        return not (self.low > 0 or self.high < 0)


@dataclasses.dataclass(frozen=True)
class Draws:
    """Hold one metric of one tokenizer, for each seed.

    Attributes:
        seeds: the seeds, sorted.
        values: `[seeds]` figure on all test samples.
        drawn: `[seeds, PERSON_DRAWS]` figure in each draw.
    """

    seeds: tuple[int, ...]
    values: np.ndarray
    drawn: np.ndarray

    def interval(self) -> Interval:
        """Return the mean over seeds with its interval, within 0 and 1, and the number of seeds."""
        low, high = _percentiles(np.clip(_nested(self.values, self.drawn), 0, 1))
        return Interval(float(np.mean(self.values)), low, high, len(self.seeds))

    def minus(self, other: "Draws") -> PairedDifference:
        """Return the paired difference from another tokenizer, over the seeds that both have, or else over all."""
        common = [seed for seed in self.seeds if seed in other.seeds]
        if common:
            mine = [self.seeds.index(seed) for seed in common]
            theirs = [other.seeds.index(seed) for seed in common]
            values = self.values[mine] - other.values[theirs]
            value = float(np.mean(values))
            drawn = _nested(values, self.drawn[mine] - other.drawn[theirs])
        else:
            value = float(np.mean(self.values) - np.mean(other.values))
            drawn = _nested(self.values, self.drawn) - _nested(other.values, other.drawn, stream=1)
        return _difference(value, drawn)


def _difference(value: float, drawn: np.ndarray) -> PairedDifference:
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < 2:
        return PairedDifference(value, *[float("nan")] * 4)
    low, high = _percentiles(drawn)
    tail = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    p = min(1.0, 2 * (1 + tail) / (1 + len(drawn)))
    # Half of the interval counts as two standard errors; of a few seeds these have no standard deviation to speak of.
    error = (high - low) / 2 / stats.norm.ppf((1 + LEVEL) / 2)
    return PairedDifference(value, low, high, p, DETECTABLE * float(error))


def _nested(values: np.ndarray, drawn: np.ndarray, *, stream: int = 0) -> np.ndarray:
    """Return draws of the mean over seeds, `[PERSON_DRAWS]`, that vary with the persons and with the seeds.

    Args:
        values: `[seeds]` figure of each seed on all persons.
        drawn: `[seeds, PERSON_DRAWS]` figure of each seed in each draw of persons.
        stream: another number gives other draws.
    """
    seeds, draws = drawn.shape
    mean = np.mean(drawn, axis=0)
    if seeds == 1:
        return mean
    rng = np.random.default_rng([seeds, stream])
    error = np.std(values, ddof=1) / np.sqrt(seeds)
    # Taken at the middles of equal shares, so that few draws have no chance tail.
    student = stats.t.ppf((rng.permutation(draws) + 0.5) / draws, seeds - 1)
    return mean + error * student


def _percentiles(drawn: np.ndarray) -> tuple[float, float]:
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def bootstrap(cells: Sequence[CellResult], *, seed: int = 0) -> list[dict[str, tuple[float, np.ndarray]]]:
    """Return the figures of predictions, on all of their samples and in the same draws of persons.

    Several classes are averaged as `metrics.evaluate` does; a class does not count in draws that lack an outcome of it.

    Args:
        cells: predictions whose numbers of persons mean the same persons.
        seed: seed of the draws.

    Returns:
        For each cell, metric -> its figure and the `[PERSON_DRAWS]` float64 figures of the draws.
    """
    persons = np.unique(np.concatenate([cell.person for cell in cells]))
    ranked = [_ranked(cell, persons) for cell in cells]
    drawn = np.full((len(cells), len(METRICS), PERSON_DRAWS), np.nan)
    for start in range(0, PERSON_DRAWS, _BLOCK):
        weights = _draw(len(persons), min(_BLOCK, PERSON_DRAWS - start), [seed, start])
        for number, classes in enumerate(ranked):
            drawn[number, :, start : start + _BLOCK] = _figures(classes, weights)
    everyone = np.ones((len(persons), 1), np.float32)
    whole = [_figures(classes, everyone)[:, 0] for classes in ranked]
    return [
        {metric: (float(whole[number][row]), drawn[number, row]) for row, metric in enumerate(METRICS)}
        for number in range(len(cells))
    ]


def _ranked(cell: CellResult, persons: np.ndarray) -> "list[_RankedClass]":
    """Return the ranked samples of each class."""
    person = np.searchsorted(persons, cell.person)
    folds = rows_of_folds(cell.fold, len(person))
    found = []
    for y, p in outcomes(cell.y, cell.p, cell.kind):
        ranks = _rank(y, ranks_in_folds(p, folds), person, len(persons))
        # A single fold is in the same order by its ranks.
        within = (
            [_rank(y[rows], p[rows], person[rows], len(persons)) for rows in folds if y[rows].any()]
            if len(folds) > 1
            else [ranks]
        )
        errors = np.bincount(person, (p - y) ** 2, len(persons))
        found.append(_RankedClass(ranks, tuple(within), sparse.csr_matrix(errors.astype(np.float32))))
    return found


def _draw(persons: int, draws: int, seed: list[int]) -> np.ndarray:
    """Return how often each person is drawn: float32 `[persons, draws]`."""
    taken = np.random.default_rng(seed).integers(persons, size=(draws, persons))
    flat = taken + np.arange(draws)[:, None] * persons
    counts = np.bincount(flat.reshape(-1), minlength=draws * persons).reshape(draws, persons)
    return np.ascontiguousarray(counts.T, np.float32)


@dataclasses.dataclass(frozen=True)
class _Ranked:
    """Hold samples of one class by score, from the highest, as matrices that sum the weights of persons.

    A step is a distinct score that a positive has.

    Attributes:
        passed: `[steps, persons]` number of samples with this score, or above it but below that of the step before.
        positive: `[steps, persons]` number of positives with this score.
        tied: `[steps, persons]` number of negatives with this score.
        samples: `[1, persons]` number of samples.
    """

    passed: "sparse.csr_matrix"
    positive: "sparse.csr_matrix"
    tied: "sparse.csr_matrix"
    samples: "sparse.csr_matrix"


@dataclasses.dataclass(frozen=True)
class _RankedClass:
    """Hold the samples of one class.

    Attributes:
        ranks: all samples, by their ranks in the folds.
        folds: the samples of each fold that has a positive, by their probabilities.
        errors: `[1, persons]` sum of squared errors.
    """

    ranks: _Ranked
    folds: tuple[_Ranked, ...]
    errors: "sparse.csr_matrix"


def _rank(y: np.ndarray, p: np.ndarray, person: np.ndarray, persons: int) -> _Ranked:
    steps = np.unique(p[y])[::-1]
    # The step at which a sample has been passed: the first whose score is not above its own.
    step = np.searchsorted(-steps, -p, side="left")
    reached = step < len(steps)
    tied = np.zeros(len(y), bool)
    tied[reached] = (p[reached] == steps[step[reached]]) & ~y[reached]
    counts = [_sums(step[rows], person[rows], (len(steps), persons)) for rows in (reached, y, tied)]
    # As a sparse matrix like the others: a product of BLAS would start threads for this row.
    return _Ranked(*counts, sparse.csr_matrix(np.bincount(person, minlength=persons).astype(np.float32)))


def _sums(step: np.ndarray, person: np.ndarray, shape: tuple[int, int]) -> "sparse.csr_matrix":
    return sparse.csr_matrix((np.ones(len(step), np.float32), (step, person)), shape=shape)


def _figures(classes: list[_RankedClass], weights: np.ndarray) -> np.ndarray:
    """Return the mean over classes of `METRICS` under each draw's weights `[persons, draws]`: `[metrics, draws]`."""
    if not classes:
        return np.full((len(METRICS), weights.shape[1]), np.nan)
    found = np.stack([_of_class(one, weights) for one in classes])
    counts = np.isfinite(found).sum(axis=0)
    return np.where(counts > 0, np.nansum(found, axis=0) / np.maximum(counts, 1), np.nan)


def _of_class(one: _RankedClass, weights: np.ndarray) -> np.ndarray:
    """Return `METRICS` of one class under each draw's weights, `[metrics, draws]`."""
    passed = _passed(one.ranks, weights)
    precision = passed.true / np.maximum(passed.all, 1)
    ordered = pairs = 0
    for fold in one.folds:
        more = _pairs(fold, weights, passed if fold is one.ranks else _passed(fold, weights))
        ordered, pairs = ordered + more[0], pairs + more[1]
    positives = passed.positive.sum(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        auprc = np.einsum("sd,sd->d", passed.positive, precision, dtype=np.float64) / positives
        found = np.stack([auprc, ordered / pairs, (one.errors @ weights)[0] / passed.samples])
    return np.where((positives > 0) & (passed.samples > positives) & (pairs > 0), found, np.nan)


class _Passed(NamedTuple):
    """Hold the weights of the samples down to each step under each draw's weights.

    Attributes:
        positive: `[steps, draws]`, positives of the step.
        true: `[steps, draws]`, positives down to the step.
        all: `[steps, draws]`, samples down to the step.
        samples: `[draws]`, all samples.
    """

    positive: np.ndarray
    true: np.ndarray
    all: np.ndarray
    samples: np.ndarray


def _passed(ranked: _Ranked, weights: np.ndarray) -> _Passed:
    positive = ranked.positive @ weights
    passed = np.cumsum(ranked.passed @ weights, axis=0)
    return _Passed(positive, np.cumsum(positive, axis=0), passed, (ranked.samples @ weights)[0])


def _pairs(ranked: _Ranked, weights: np.ndarray, passed: _Passed) -> tuple[np.ndarray, np.ndarray]:
    """Return, under each draw's weights, how many pairs of a positive and a negative are in the right order, and how
    many there are, `[draws]` float64 each.
    """
    positives = passed.positive.sum(axis=0, dtype=np.float64)
    negatives = passed.samples - positives
    # A negative with the score of a positive counts as half below it.
    below = negatives - (passed.all - passed.true)
    if ranked.tied.nnz:
        below += 0.5 * (ranked.tied @ weights)
    return np.einsum("sd,sd->d", passed.positive, below, dtype=np.float64), positives * negatives


def holm(p: Mapping[object, float]) -> dict[object, float]:
    """Return p-values corrected for their number by the step-down method of Holm (1979).

    Args:
        p: comparison -> p-value; NaN counts as 1.
    """
    given = {name: 1.0 if np.isnan(value) else value for name, value in p.items()}
    corrected, largest = {}, 0.0
    for rank, name in enumerate(sorted(given, key=given.get)):
        largest = max(largest, min(1.0, (len(given) - rank) * given[name]))
        corrected[name] = largest
    return {name: corrected[name] for name in p}


def is_small(positives: int, persons: int) -> bool:
    """Return True if a test set holds too little to rank tokenizers by it."""
    return positives < FEWEST_POSITIVES or persons < FEWEST_PERSONS
