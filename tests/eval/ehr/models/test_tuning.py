"""The score that settings are chosen by, against scikit-learn, and what replaces it where it does not exist."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, log_loss

from eval.ehr.models import tuning
from eval.ehr.models.outcomes import check, with_prevalence
from preprocessing.common.errors import InputError

RNG = np.random.default_rng(0)


def test_the_score_is_the_area_under_the_precision_recall_curve():
    y, p = RNG.random(50) < 0.3, RNG.random(50)
    assert tuning.score(y, p, "binary") == pytest.approx(average_precision_score(y, p))


def test_classes_that_all_or_none_have_are_left_out():
    y, p = RNG.random((50, 4)) < 0.3, RNG.random((50, 4))
    y[:, 1], y[:, 2] = False, True
    expected = np.mean([average_precision_score(y[:, one], p[:, one]) for one in (0, 3)])
    assert tuning.score(y, p, "multilabel") == pytest.approx(expected)
    assert tuning.score_name(y, "multilabel", 4) == "macro AUPRC"


def test_multiclass_is_one_class_against_the_others():
    y, p = RNG.integers(0, 3, 50), RNG.dirichlet(np.ones(4), 50)
    expected = np.mean([average_precision_score(y == one, p[:, one]) for one in range(3)])
    assert tuning.score(y, p, "multiclass") == pytest.approx(expected)


def test_equal_outcomes_are_scored_by_the_logarithmic_loss():
    y, p = np.zeros(5, bool), RNG.random(5)
    assert tuning.score(y, p, "binary") == pytest.approx(-log_loss(y, p, labels=[False, True]))
    assert tuning.score_name(y, "binary", 1) == "negative log loss"
    same, shares = np.full(5, 2), RNG.dirichlet(np.ones(3), 5)
    assert tuning.score(same, shares, "multiclass") == pytest.approx(-log_loss(same, shares, labels=[0, 1, 2]))


def test_probabilities_that_are_not_finite_never_win():
    y = np.array([True, False])
    assert tuning.best([tuning.score(y, np.array([np.nan, 0]), "binary"), 0.1, 0.1]) == 1


def test_untaught_classes_get_their_prevalence():
    y = np.array([0, 0, 3, 3, 3])
    found = with_prevalence(np.full((2, 4), 0.25), y, "multiclass", 4)
    np.testing.assert_allclose(found, [[0.5, 0, 0, 0.5]] * 2)
    labels = np.array([[True, True, False], [False, True, False]])
    found = with_prevalence(np.full((2, 3), 0.25), labels, "multilabel", 3)
    np.testing.assert_allclose(found, [[0.25, 1, 0]] * 2)


def test_outcomes_that_teach_nothing_are_refused():
    with pytest.raises(InputError, match="All 3 training samples have the same outcome"):
        check(np.ones(3, bool), "binary", 1)
    with pytest.raises(InputError):
        check(np.zeros((3, 2), bool), "multilabel", 2)
    with pytest.raises(ValueError, match="from 0 to 2"):
        check(np.array([0, 3]), "multiclass", 3)
    with pytest.raises(ValueError, match="shape"):
        check(np.zeros((3, 2), bool), "binary", 1)
