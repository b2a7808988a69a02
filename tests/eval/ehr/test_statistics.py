import dataclasses
import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from eval.ehr import metrics, statistics
from eval.ehr.results import CellResult
from eval.ehr.statistics import AUPRC, AUROC, BRIER, PERSON_DRAWS, Draws, bootstrap, holm, is_small
from tests.helpers.ehr_cells import cell


def made(y, p, person=None, seed: int = 0) -> CellResult:
    y = np.asarray(y)
    person = np.arange(len(y)) if person is None else person
    return CellResult("t", "a", "m", "full", "", "coded", seed, y, np.asarray(p), person, 0.5, {})


def draws(one: CellResult, metric: str = AUROC) -> Draws:
    value, drawn = bootstrap([one])[0][metric]
    return Draws((one.seed,), np.array([value]), drawn[None])


def ranks(p, folds) -> np.ndarray:
    """Return scipy's ranks in each fold, less half a sample, as shares of the fold."""
    found = np.empty(p.shape)
    for one in np.unique(folds):
        rows = folds == one
        found[rows] = (stats.rankdata(p[rows], axis=0) - 0.5) / rows.sum()
    return found


def auroc_in_folds(y, p, folds) -> float:
    """Return the mean over pairs of one fold of scikit-learn's AUROC in it."""
    of_fold = [(y[folds == one], p[folds == one]) for one in np.unique(folds)]
    found = [(reference.roc_auc_score(a, b), a.sum() * (~a).sum()) for a, b in of_fold if 0 < a.sum() < len(a)]
    values, weights = zip(*found, strict=True)
    return np.average(values, weights=weights)


@pytest.mark.parametrize("digits", [8, 1])
@pytest.mark.parametrize(("classes", "folded"), [(0, False), (3, False), (0, True), (3, True)])
def test_draws_against_scikit_learn_on_resampled_rows(digits, classes, folded):
    """Two cells, one of which has samples of some persons only; few digits give ties."""
    one = cell(samples=150, persons=90, classes=classes)
    one = dataclasses.replace(one, p=np.round(one.p, digits))
    fold = one.person % 3
    one = dataclasses.replace(one, fold=fold) if folded else one
    rest = {"fold": fold[:100]} if folded else {}
    other = dataclasses.replace(one, y=one.y[:100], p=one.p[:100][::-1], person=one.person[:100], **rest)
    cells = [one, other]
    persons = np.unique(one.person)
    weights = statistics._draw(len(persons), statistics._BLOCK, [5, statistics._BLOCK])
    for found, given in zip(bootstrap(cells, seed=5), cells, strict=True):
        for number in range(4):
            times = weights[np.searchsorted(persons, given.person), number].astype(int)
            rows = np.repeat(np.arange(len(given.y)), times)
            assert len(rows) != len(given.y)
            y, p = given.y[rows].reshape(len(rows), -1), given.p[rows].reshape(len(rows), -1)
            every = given.fold if folded else np.zeros(len(given.y))
            folds, ranked = every[rows], ranks(given.p, every)[rows].reshape(len(rows), -1)
            pairs = list(zip(y.T, p.T, strict=True))
            drawn = {metric: values[statistics._BLOCK + number] for metric, (_, values) in found.items()}
            wanted = np.mean([reference.average_precision_score(a, b) for a, b in zip(y.T, ranked.T, strict=True)])
            assert drawn[AUPRC] == pytest.approx(wanted, abs=1e-6)
            assert drawn[AUROC] == pytest.approx(np.mean([auroc_in_folds(*one, folds) for one in pairs]), abs=1e-6)
            assert drawn[BRIER] == pytest.approx(np.mean((y - p) ** 2), abs=1e-6)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("classes", [0, 3])
def test_figures_are_those_of_the_metrics(classes, folded):
    one = cell(classes=classes)
    one = dataclasses.replace(one, fold=one.person % 5) if folded else one
    found, scores = bootstrap([one])[0], metrics.evaluate(one.y, one.p, one.kind, 0.5, one.fold)
    for metric in statistics.METRICS:
        assert found[metric][0] == pytest.approx(getattr(scores, metric), abs=1e-7)


def test_a_model_that_knows_nothing_is_not_judged_by_the_prevalence_of_its_folds():
    """Each fold's constant is the share of positives in the others, so pooled samples would be ranked the wrong way."""
    rng = np.random.default_rng(0)
    y, fold = rng.random(1_000) < 0.1, np.arange(1_000) % 5
    p = np.array([y[fold != one].mean() for one in fold])
    found = bootstrap([dataclasses.replace(made(y, p), fold=fold)])[0]
    assert found[AUROC][0] == 0.5
    np.testing.assert_allclose(found[AUROC][1], 0.5, atol=1e-6)
    assert bootstrap([made(y, p)])[0][AUROC][0] < 0.49


def test_chance_is_not_called_better_than_knowing_nothing_by_auprc():
    """The mean of the average precisions of small folds would be: it is biased upward for all but equal scores."""
    called = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        y, fold = rng.random(600) < 0.1, rng.integers(0, 5, 600)
        cells = [dataclasses.replace(made(y, p), fold=fold) for p in (rng.random(600), np.full(600, 0.1))]
        random, nothing = (Draws((0,), np.array([one[AUPRC][0]]), one[AUPRC][1][None]) for one in bootstrap(cells))
        called += random.minus(nothing).low > 0
    assert called <= 4


def test_every_draw_takes_as_many_persons():
    weights = statistics._draw(70, 200, [0])
    assert (weights.sum(axis=0) == 70).all()
    assert weights.mean() == 1
    assert weights.var() == pytest.approx(1, abs=0.1)
    assert len(np.unique(weights, axis=1).T) == 200


def test_blocks_of_draws_differ_and_repeat():
    one = cell(samples=60, persons=50)
    drawn = bootstrap([one])[0][AUROC][1]
    assert drawn.shape == (PERSON_DRAWS,)
    assert not np.array_equal(drawn[: statistics._BLOCK], drawn[statistics._BLOCK : 2 * statistics._BLOCK])
    assert np.array_equal(drawn, bootstrap([one])[0][AUROC][1])
    assert not np.array_equal(drawn, bootstrap([one], seed=1)[0][AUROC][1])


def test_persons_are_drawn_whole():
    """Ten equal samples of a person say no more than one of them."""
    one = cell(samples=100, persons=10**6)
    tenfold = dataclasses.replace(one, **{name: np.repeat(getattr(one, name), 10) for name in ("y", "p", "person")})
    assert draws(tenfold).interval()[:3] == pytest.approx(draws(one).interval()[:3], abs=1e-6)
    free = dataclasses.replace(tenfold, person=np.arange(1000))
    assert np.std(draws(free).drawn) < 0.5 * np.std(draws(one).drawn)


def simulated(rng: np.random.Generator, persons: int, shifts: tuple[float, float]) -> list[CellResult]:
    """Two scores of two samples of each person, which rank as AUROC says: normal, shifted by the outcome."""
    y = np.repeat(rng.random(persons) < 0.4, 2)
    shared = np.repeat(rng.normal(size=persons), 2)
    scores = [(shared + 0.5 * rng.normal(size=len(y)) + shift * y) / np.sqrt(1.25) for shift in shifts]
    return [made(y, stats.norm.cdf(score), np.repeat(np.arange(persons), 2)) for score in scores]


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Two samples of a person are nearly one: an interval over samples would be too narrow."""
    rng = np.random.default_rng(0)
    truth = np.diff(stats.norm.cdf(np.array([0.8, 1.3]) / np.sqrt(1.25) / np.sqrt(2)))[0]
    inside = alone = 0
    repeats = 120
    for _ in range(repeats):
        first, second = simulated(rng, 90, (1.3, 0.8))
        pair = bootstrap([first, second])
        mine, theirs = (Draws((0,), np.array([one[AUROC][0]]), one[AUROC][1][None]) for one in pair)
        found = mine.minus(theirs)
        inside += found.low <= truth <= found.high
        low, high = theirs.interval()[1:3]
        alone += low <= stats.norm.cdf(0.8 / np.sqrt(1.25) / np.sqrt(2)) <= high
    assert 0.89 * repeats <= inside <= 0.99 * repeats
    assert 0.88 * repeats <= alone <= 0.99 * repeats


def test_p_values_of_equal_scores():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(150):
        pair = bootstrap(simulated(rng, 80, (1.0, 1.0)))
        mine, theirs = (Draws((0,), np.array([one[AUROC][0]]), one[AUROC][1][None]) for one in pair)
        difference = mine.minus(theirs)
        assert (difference.p < 0.045) <= (not difference.is_noise)
        found.append(difference.p)
    assert 0.005 <= np.mean(np.array(found) < 0.05) <= 0.11
    assert 0.35 <= np.mean(np.array(found) < 0.5) <= 0.65


def test_a_difference_is_paired():
    rng = np.random.default_rng(0)
    first, second = simulated(rng, 200, (1.3, 1.0))
    one, other = draws(first), draws(second)
    found = one.minus(other)
    assert found.value == pytest.approx(one.values[0] - other.values[0])
    assert found.detectable == pytest.approx(2.8 * np.std(one.drawn - other.drawn, ddof=1), rel=0.02)
    assert found.high - found.low < one.interval().high - one.interval().low
    assert one.minus(one)[:3] == (0, 0, 0)
    assert one.minus(one).p == 1
    assert one.minus(one).is_noise
    clear = dataclasses.replace(one, drawn=other.drawn + 0.1).minus(other)
    assert clear.p == pytest.approx(2 / (PERSON_DRAWS + 1))
    assert not clear.is_noise


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_over_few_seeds_are_those_of_student(seeds):
    """Where the persons do not matter, the interval is that of the mean of a few normal values."""
    values = np.random.default_rng(seeds).normal(0.5, 0.01, size=seeds)
    draws = Draws(tuple(range(seeds)), values, np.repeat(values[:, None], statistics.PERSON_DRAWS, axis=1))
    found = draws.interval()
    low, high = stats.t.interval(0.95, seeds - 1, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.002)


def test_intervals_over_few_seeds_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(400):
        values = rng.normal(0.3, 0.1, 3)
        drawn = np.repeat(values[:, None], statistics.PERSON_DRAWS, axis=1)
        found = Draws((0, 1, 2), values, drawn).interval()
        held += found.low <= 0.3 <= found.high
    assert 0.92 < held / 400 < 0.98


def test_persons_and_seeds_vary_independently():
    """The variance of the mean is the sum of that of the persons' draws and that of the seeds."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=40)
    drawn = values[:, None] + rng.normal(0, 0.2, statistics.PERSON_DRAWS)
    spread = np.std(statistics._nested(values, drawn)) ** 2
    assert spread == pytest.approx(0.2**2 + np.var(values, ddof=1) / 40 * 39 / 37, rel=0.1)
    # One seed has no variance to tell.
    assert (statistics._nested(values[:1], drawn[:1]) == drawn[0]).all()


def test_seeds_are_compared_in_pairs():
    """Another tokenizer is always .05 lower, whatever the seed."""
    values = np.array([0.6, 0.7, 0.8])
    first = Draws((0, 1, 2), values, np.repeat(values[:, None], PERSON_DRAWS, axis=1))
    second = Draws((0, 1, 2), values - 0.05, first.drawn - 0.05)
    assert first.minus(second)[:3] == pytest.approx((0.05, 0.05, 0.05))
    turned = Draws((2, 0), second.values[[2, 0]], second.drawn[[2, 0]])
    assert first.minus(turned)[:3] == pytest.approx((0.05, 0.05, 0.05))
    apart = dataclasses.replace(second, seeds=(7, 8, 9)).minus(first)
    assert apart.value == pytest.approx(-0.05)
    assert apart.high - apart.low > 0.2


def test_draws_without_an_outcome_do_not_count():
    one = made(np.arange(6) == 2, [0.1, 0.2, 0.9, 0.3, 0.4, 0.5])
    found = bootstrap([one])[0][AUROC][1]
    assert 0.2 < np.isnan(found).mean() < 0.5
    assert draws(one).interval()[:3] == (1, 1, 1)
    none = draws(made(np.zeros(6, bool), np.linspace(0, 1, 6)))
    assert np.isnan(none.interval()[:3]).all()
    assert none.minus(none).is_noise


def test_holm_against_closed_testing():
    """A hypothesis is rejected if every set that holds it is, by Bonferroni in the set."""
    rng = np.random.default_rng(0)
    p = dict(zip("abcdef", [*(0.1 * rng.random(4)), 0.04, 0.9], strict=True))
    wanted = {}
    for name in p:
        sets = [s for size in range(1, 7) for s in itertools.combinations(p, size) if name in s]
        wanted[name] = max(min(1.0, len(one) * min(p[other] for other in one)) for one in sets)
    assert holm(p) == pytest.approx(wanted)
    assert list(holm(p)) == list(p)
    assert holm({"a": 0.02, "b": float("nan")}) == {"a": 0.04, "b": 1.0}
    assert holm({}) == {}


@pytest.mark.parametrize(("positives", "persons", "small"), [(50, 200, False), (49, 200, True), (50, 199, True)])
def test_small_test_sets(positives, persons, small):
    assert is_small(positives, persons) is small
