import datetime

import numpy as np
import pytest
from sklearn import metrics as reference
from sklearn.linear_model import LogisticRegression

from eval.ehr import metrics
from eval.ehr.metrics import Bin, bins, evaluate
from eval.ehr.results import BINARY, MULTICLASS, MULTILABEL, CellResult
from preprocessing.common.errors import InputError


def predictions(n: int = 500, *, digits: int | None = None, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and overconfident probabilities; few digits give ties."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(size=n) - 1
    y = rng.random(n) < 1 / (1 + np.exp(-logit))
    p = 1 / (1 + np.exp(-2 * logit - 0.5 - rng.normal(size=n)))
    return y, p if digits is None else np.round(p, digits)


@pytest.mark.parametrize("digits", [None, 2, 1])
def test_binary_against_scikit_learn(digits):
    y, p = predictions(digits=digits)
    found = evaluate(y, p, BINARY, 0.3)
    assert found.auprc == pytest.approx(reference.average_precision_score(y, p), abs=1e-12)
    assert found.auroc == pytest.approx(reference.roc_auc_score(y, p), abs=1e-12)
    assert found.brier == pytest.approx(reference.brier_score_loss(y, p), abs=1e-12)
    assert found.f1 == pytest.approx(reference.f1_score(y, p >= 0.3), abs=1e-12)
    assert (found.samples, found.positives, found.prevalence) == (500, y.sum(), y.mean())


def test_binary_against_meds_evaluation():
    evaluation = pytest.importorskip("meds_evaluation.evaluate")
    polars = pytest.importorskip("polars")
    y, p = predictions()
    p = p.astype(np.float32)
    table = polars.DataFrame(
        {
            "subject_id": np.arange(len(y)),
            "prediction_time": [datetime.datetime(2030, 1, 1)] * len(y),
            "boolean_value": y,
            "predicted_boolean_value": p >= 0.3,
            "predicted_boolean_probability": p,
        }
    )
    theirs = evaluation.evaluate_binary_classification(table)["samples_equally_weighted"]
    found = evaluate(y, p, BINARY, 0.3)
    assert found.auroc == pytest.approx(theirs["roc_auc_score"], abs=1e-6)
    assert found.auprc == pytest.approx(theirs["average_precision_score"], abs=1e-6)
    assert found.brier == pytest.approx(theirs["brier_score"], abs=1e-6)
    assert found.f1 == pytest.approx(theirs["f1_score"], abs=1e-6)


def test_calibration_against_scikit_learn():
    y, p = predictions()
    logit = np.log(p / (1 - p))
    fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(logit[:, None], y)
    assert metrics.calibration_slope(y, p) == pytest.approx(fitted.coef_[0, 0], abs=1e-5)
    assert metrics.calibration_slope(y, p) < 0.7
    intercept = metrics.calibration_intercept(y, p)
    # At the maximum of the likelihood the mean risk is the observed rate.
    assert np.mean(1 / (1 + np.exp(-logit - intercept))) == pytest.approx(y.mean(), abs=1e-8)


@pytest.mark.parametrize("p", [np.full(4, 0.3), np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.9, 0.8, 0.2, 0.1])])
def test_no_slope_without_overlap(p):
    assert np.isnan(metrics.calibration_slope(np.array([False, False, True, True]), p))


def test_probabilities_of_0_and_1_are_scored():
    y, p = predictions(digits=0)
    found = evaluate(y, p, BINARY, 0.5)
    assert np.isfinite([found.auprc, found.slope, found.intercept]).all()


def test_one_outcome_has_no_figures():
    found = evaluate(np.zeros(5, bool), np.full(5, 0.2), BINARY, 0.5)
    assert (found.samples, found.positives) == (5, 0)
    assert np.isnan([found.auprc, found.auroc, found.brier, found.f1]).all()
    assert np.isnan(metrics.average_precision(np.zeros(5, bool), np.full(5, 0.2)))


def test_a_model_that_tells_nothing_apart_is_at_chance_in_folds_of_any_size():
    fold = np.repeat([0, 1, 2], [10, 25, 40])
    y = np.random.default_rng(0).random(75) < 0.2
    # Each fold has a model of its own, which gives all its samples the same probability.
    scores = evaluate(y, np.array([0.3, 0.1, 0.2])[fold], BINARY, float("nan"), fold)
    assert scores.auprc == pytest.approx(y.mean())
    assert scores.auroc == pytest.approx(0.5)


def test_classes_are_averaged_with_equal_weight():
    """The third class occurs in no label and does not count."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), size=300)
    y = rng.choice([0, 0, 0, 1, 3], size=300)
    found = evaluate(y, p, MULTICLASS, 0.25)
    there = [0, 1, 3]
    wanted = [reference.average_precision_score(y == one, p[:, one]) for one in there]
    assert found.auprc == pytest.approx(np.mean(wanted))
    assert found.auroc == pytest.approx(np.mean([reference.roc_auc_score(y == one, p[:, one]) for one in there]))
    assert found.f1 == pytest.approx(np.mean([reference.f1_score(y == one, p[:, one] >= 0.25) for one in there]))
    assert found.positives == min(np.bincount(y)[there])
    many = y[:, None] == np.arange(4)
    assert evaluate(many, p, MULTILABEL, 0.25) == found


def test_the_best_threshold_by_trying_all():
    y, p = predictions(80, digits=2)
    tried = {one: reference.f1_score(y, p >= one) for one in np.unique(p)}
    found = metrics.best_threshold(y, p, BINARY)
    assert tried[found] == max(tried.values())
    many = np.stack([y, ~y], axis=1), np.stack([p, p], axis=1)
    tried = {one: np.mean([reference.f1_score(y, p >= one), reference.f1_score(~y, p >= one)]) for one in np.unique(p)}
    assert tried[metrics.best_threshold(*many, MULTILABEL)] == pytest.approx(max(tried.values()))
    assert np.isnan(metrics.best_threshold(np.ones(3, bool), np.full(3, 0.5), BINARY))


def test_bins_have_equal_mass():
    y, p = predictions(1000)
    found = bins(y, p)
    assert [one.samples for one in found] == [100] * 10
    assert sum(one.positives for one in found) == y.sum()
    order = np.argsort(p)
    assert found[3].predicted == pytest.approx(p[order][300:400].mean())
    assert found[3].observed == pytest.approx(y[order][300:400].mean())


def test_bins_keep_equal_probabilities_together():
    y, p = predictions(1000, digits=1)
    found = bins(y, p)
    assert sum(one.samples for one in found) == 1000
    shuffled = np.random.default_rng(0).permutation(1000)
    assert [(one.samples, one.positives) for one in bins(y[shuffled], p[shuffled])] == [
        (one.samples, one.positives) for one in found
    ]
    assert bins(y, np.full(1000, 0.2)) == [Bin(1000, int(y.sum()), pytest.approx(0.2))]


def test_bins_do_not_show_few_outcomes():
    rng = np.random.default_rng(0)
    p = rng.random(1000) * 0.1
    y = rng.random(1000) < p
    assert min(one.positives for one in bins(y, p)) < 11
    found = bins(y, p, least=11)
    assert min(min(one.positives, one.samples - one.positives) for one in found) >= 11
    assert sum(one.samples for one in found) == 1000
    assert sum(one.samples * one.predicted for one in found) == pytest.approx(p.sum())
    assert bins(np.arange(1000) < 7, p, least=11) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"p": np.full(4, 0.1)}, "different lengths"),
        ({"p": np.array([0.1, np.nan, 0.3])}, "between 0 and 1"),
        ({"p": np.array([0.1, 1.2, 0.3])}, "between 0 and 1"),
        ({"p": np.full((3, 2), 0.1), "y": np.ones((3, 4), bool)}, "other classes"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(fields, message):
    arrays = {"y": np.ones(3, bool), "p": np.full(3, 0.1), "person": np.arange(3)} | fields
    with pytest.raises(InputError, match=message):
        CellResult("mortality", "codes", "logistic", "full", "", "coded", 0, **arrays, p_threshold=0.5, about={})
