"""Logistic regression against scikit-learn on features made by hand; rules that hold for both models on counts."""

import dataclasses
import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from eval.ehr.inputs import bags, statics
from eval.ehr.metrics import auroc
from eval.ehr.models import counts, tuning
from eval.ehr.models.counts import LightGBM, Logistic
from eval.ehr.models.windows import fit_windows
from preprocessing.common.errors import InputError
from tests.helpers.planted_patients import CODES, patients, single_codes, some_tokens, some_vectors, split_of

MATRICES = {"codes": single_codes, "tokens": some_tokens, "vectors": some_vectors}
TRAIN, TUNING, TEST = np.arange(60), np.arange(60, 90), np.arange(90, 120)


def fit(model, inputs, y, matrix, *, kind="binary", classes=1, test=TEST, seed=0, trials=3):
    split = split_of(inputs, y, TRAIN, TUNING, test)
    return model.fit_predict(split, matrix, seed=seed, trials=trials, classes=classes, kind=kind)


def scaled_rows(matrix) -> np.ndarray:
    """Return the rows over tokens with a mean square length of 1, beside those of single codes."""
    rows = matrix.weights.toarray().astype(np.float64)
    rows[matrix.mapped] /= np.sqrt((rows[matrix.mapped] ** 2).sum(axis=1).mean())
    return rows


def by_hand(inputs, matrix) -> np.ndarray:
    """Return the features of all samples, which all lie within 30 days, from dense arrays."""
    known = statics(inputs).astype(np.float64)
    spread = known[TRAIN].std(axis=0)
    known = (known - known[TRAIN].mean(axis=0)) / np.where(spread > 1e-5, spread, 1)
    counted = np.log1p(bags(inputs).toarray().astype(np.float64))
    window = counted @ (scaled_rows(matrix) if matrix.vectors is None else matrix.own_rows.toarray())
    if matrix.vectors is not None:
        vectors = matrix.vectors.astype(np.float64)
        vectors /= np.sqrt((vectors[matrix.mapped] ** 2).sum(axis=1).mean())
        window = np.concatenate([window, counted @ vectors], axis=1)
    window /= np.linalg.norm(window, axis=1, keepdims=True)
    if matrix.vectors is not None:
        window[:, -6:] -= window[TRAIN, -6:].mean(axis=0)
    return np.concatenate([known, window / np.sqrt((window[TRAIN] ** 2).sum() / len(TRAIN))], axis=1)


@pytest.mark.parametrize("name", MATRICES)
def test_logistic_regression_is_that_of_scikit_learn(name, monkeypatch):
    monkeypatch.setattr(counts, "TOLERANCE", 1e-7)
    inputs, y = patients(120, signal="code")
    features = by_hand(inputs, MATRICES[name]())
    found = {}
    for penalty in counts.PENALTIES:
        model = LogisticRegression(C=penalty, tol=1e-9, max_iter=5000).fit(features[TRAIN], y[TRAIN])
        found[penalty] = [model.predict_proba(features[rows])[:, 1] for rows in (TUNING, TEST)]
    scores = {penalty: tuning.score(y[TUNING], tuned, "binary") for penalty, (tuned, _) in found.items()}
    best = max(scores, key=scores.get)

    fitted = fit(Logistic(), inputs, y, MATRICES[name]())
    assert fitted.about["setting"] == {"C": best}
    np.testing.assert_allclose(fitted.tuning, found[best][0], atol=1e-4)
    np.testing.assert_allclose(fitted.probabilities, found[best][1], atol=1e-4)
    assert fitted.about["parameters"] == features.shape[1] + 1
    assert fitted.about["tuning_score"] == pytest.approx(scores[best], abs=1e-6)


@pytest.mark.parametrize("rows", [np.arange(12), np.arange(14) // 2], ids=["distinct", "each sample twice"])
def test_the_rotation_changes_nothing(rows, monkeypatch):
    monkeypatch.setattr(counts, "TOLERANCE", 1e-7)
    inputs, y = patients(120, signal="code")
    made = fit_windows(inputs.take(rows), single_codes(), unit_length=True)(inputs.take(rows))
    assert made.shape[0] < made.shape[1]
    rotated = counts._rotated(made)
    assert rotated.lower is not None
    plain = counts._Design(made, None)
    sets = [made, made, fit_windows(inputs.take(rows), single_codes(), unit_length=True)(inputs.take(TEST))]
    for one, other in zip(
        counts._logistic_path(sets, y[rows], y[rows], "binary", 1, design=rotated),
        counts._logistic_path(sets, y[rows], y[rows], "binary", 1, design=plain),
        strict=True,
    ):
        np.testing.assert_allclose(one.test, other.test, atol=2e-4)


def test_windows_that_hold_less_are_features_of_their_own():
    inputs, _ = patients(120, signal="code")
    assert [block.days for block in fit_windows(inputs, single_codes(), unit_length=True).blocks] == [None]
    histories = inputs.histories
    histories.time[:] -= histories.visit * np.timedelta64(20, "D")
    # Counts are kept for as long as the samples are.
    inputs = dataclasses.replace(inputs)
    windows = fit_windows(inputs, single_codes(), unit_length=True)
    assert [block.days for block in windows.blocks] == [None, 30.0]
    recent = np.log1p(bags(inputs, 30).toarray())
    recent /= np.linalg.norm(recent, axis=1, keepdims=True)
    np.testing.assert_allclose(windows(inputs).toarray()[:, 4 + CODES :], recent, atol=1e-6)


def test_trees_read_counts_at_one_scale():
    inputs, _ = patients(120, signal="code")
    windows = fit_windows(inputs.take(TRAIN), some_tokens(), unit_length=False)
    expected = np.log1p(bags(inputs).toarray().astype(np.float64)) @ scaled_rows(some_tokens())
    expected /= np.sqrt((expected[TRAIN] ** 2).sum() / len(TRAIN))
    np.testing.assert_allclose(windows(inputs).toarray()[:, 4:], expected, atol=1e-6)


# Trees on so few samples find no direction in space, only single features.
@pytest.mark.parametrize(
    ("model", "name"),
    [(Logistic(), name) for name in MATRICES] + [(LightGBM(rounds=15), name) for name in ("codes", "tokens")],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_the_code_that_matters_is_found(model, name):
    inputs, y = patients(120, signal="code")
    fitted = fit(model, inputs, y, MATRICES[name]())
    assert fitted.probabilities.shape == (30,)
    assert fitted.probabilities[y[TEST]].mean() > fitted.probabilities[~y[TEST]].mean() + 0.2


@pytest.mark.parametrize("model", [Logistic(), LightGBM(rounds=15)], ids=lambda model: model.name)
def test_test_samples_are_only_predicted(model):
    inputs, y = patients(120, signal="code")
    whole = fit(model, inputs, y, some_tokens())
    part = fit(model, inputs, y, some_tokens(), test=TEST[5:8][::-1])
    np.testing.assert_array_equal(part.tuning, whole.tuning)
    np.testing.assert_allclose(part.probabilities, whole.probabilities[5:8][::-1], atol=1e-6)


@pytest.mark.parametrize("model", [Logistic(), LightGBM(rounds=15)], ids=lambda model: model.name)
def test_multilabel_outcomes_are_independent(model):
    inputs, y = patients(120, signal="code")
    y = np.stack([y, np.zeros(120, bool), np.ones(120, bool), ~y], axis=1)
    y[TUNING, 1] = True
    fitted = fit(model, inputs, y, single_codes(), kind="multilabel", classes=4)
    assert fitted.probabilities.shape == (30, 4)
    assert fitted.about["untaught_classes"] == [1, 2]
    assert (fitted.probabilities[:, 1] == 0).all()
    assert (fitted.probabilities[:, 2] == 1).all()
    assert np.corrcoef(fitted.probabilities[:, 0], fitted.probabilities[:, 3])[0, 1] < -0.8


@pytest.mark.parametrize("model", [Logistic(), LightGBM(rounds=15)], ids=lambda model: model.name)
def test_multiclass_outcomes_sum_to_one_and_may_lack_a_class(model):
    inputs, y = patients(120, signal="code")
    y = np.where(y, 3, np.arange(120) % 2)
    y[TUNING[0]] = 2
    fitted = fit(model, inputs, y, single_codes(), kind="multiclass", classes=4)
    assert fitted.probabilities.shape == (30, 4)
    np.testing.assert_allclose(fitted.probabilities.sum(axis=1), 1, atol=1e-5)
    assert fitted.about["untaught_classes"] == [2]
    assert (fitted.probabilities[:, 2] == 0).all()
    third = fitted.probabilities[:, 3]
    assert third[y[TEST] == 3].mean() > third[y[TEST] != 3].mean() + 0.2


@pytest.mark.parametrize("model", [Logistic(), LightGBM(rounds=15)], ids=lambda model: model.name)
def test_the_same_seed_gives_the_same_probabilities(model):
    inputs, y = patients(120, signal="code")
    first, second = (fit(model, inputs, y, some_tokens(), seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.probabilities, second.probabilities)


@pytest.mark.parametrize("model", [Logistic(), LightGBM()], ids=lambda model: model.name)
def test_outcomes_dealt_to_other_patients_leave_nothing_to_find(model):
    inputs, y = patients(1_200, signal="code")
    parts = np.split(np.arange(1_200), [400, 600])
    found = {}
    for name, outcome in (("own", y), ("dealt", np.random.default_rng(1).permutation(y))):
        fitted = model.fit_predict(
            split_of(inputs, outcome, *parts), single_codes(), seed=0, trials=3, classes=1, kind="binary"
        )
        found[name] = auroc(outcome[parts[2]], fitted.probabilities)
    positives = int(y[parts[2]].sum())
    error = np.sqrt(601 / (12 * positives * (600 - positives)))
    assert found["own"] > 0.99
    assert abs(found["dealt"] - 0.5) < 3 * error


@pytest.mark.parametrize("model", [Logistic(), LightGBM()], ids=lambda model: model.name)
def test_equal_outcomes_are_refused(model):
    inputs, y = patients(120, signal="code")
    with pytest.raises(InputError, match="same outcome"):
        fit(model, inputs, np.zeros_like(y), single_codes())


def test_few_samples_warn_of_nothing():
    inputs, y = patients(120, signal="code")
    first, second = np.stack([np.flatnonzero(y)[:2], np.flatnonzero(~y)[:2]], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split = split_of(inputs, y, first, second, TEST[-20:])
        fitted = Logistic().fit_predict(split, single_codes(), seed=0, trials=6, classes=1, kind="binary")
    assert np.isfinite(fitted.probabilities).all()


def test_samples_without_codes_are_predicted():
    inputs, y = patients(120, signal="code")
    nothing = inputs.masked(np.zeros(CODES, bool))
    for matrix in (some_tokens(), some_vectors()):
        windows = fit_windows(inputs, matrix, unit_length=True)
        assert np.isfinite(windows(nothing).data).all()
        assert windows(nothing).shape == windows(inputs).shape
        assert np.isfinite(fit(Logistic(), nothing, y, matrix).probabilities).all()
