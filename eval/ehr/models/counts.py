"""Predict outcomes by models on counts of codes in windows: L2 logistic regression and LightGBM, as EHRSHOT has them.

Both read `windows.WindowFeatures`. A multilabel task has one model a class; a multiclass one has one multinomial model.
"""

import dataclasses
import os
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from eval.ehr.inputs import Inputs
from eval.ehr.models import tuning as tune
from eval.ehr.models.model import Fitted
from eval.ehr.models.outcomes import BINARY, MULTICLASS, MULTILABEL, check, learnable, untaught, with_prevalence
from eval.ehr.models.windows import WindowFeatures, fit_windows
from eval.ehr.tokenizers.matrix import CodeMatrix
from preprocessing.common.extras import load

# Inverse penalties of logistic regression, the strongest penalty first: eight, as in EHRSHOT's grid.
PENALTIES = tuple(10.0**power for power in range(-4, 4))
# Settings of LightGBM in the order in which they are tried: learning rate x depth (-1: no limit).
BOOSTING = tuple(
    {"learning_rate": rate, "max_depth": depth, "num_leaves": leaves}
    for rate in (0.1, 0.03, 0.3)
    for depth, leaves in ((3, 8), (6, 31), (-1, 31))
)
ROUNDS = 200
PATIENCE = 20
MOST_THREADS = 8


@dataclasses.dataclass(frozen=True)
class Logistic:
    """Fit logistic regression with an L2 penalty.

    All eight penalties are tried whatever the number of trials: each fit starts from the one before, with the stronger
    penalty, so that all take little longer than one.
    """

    name: str = "logistic"

    def fit_predict(
        self,
        train: Inputs,
        y: np.ndarray,
        tuning: Inputs,
        y_tuning: np.ndarray,
        test: Inputs,
        matrix: CodeMatrix,
        *,
        seed: int,
        trials: int,
        classes: int,
        kind: str,
    ) -> Fitted:
        """Fit all penalties, keep the best on tuning; see `model.Model`. There is nothing random, hence no seed."""
        check(y, kind, classes)
        started = time.perf_counter()
        features = fit_windows(train, matrix)
        sets = [features(inputs) for inputs in (train, tuning, test)]
        fits = _each_class(_logistic_path, sets, y, y_tuning, kind=kind, classes=classes)
        return _chosen(fits, y, y_tuning, kind=kind, classes=classes, about=_about(features, sets[0], started))


@dataclasses.dataclass(frozen=True)
class LightGBM:
    """Fit gradient boosting of trees, each setting for at most 200 rounds, stopped early on tuning.

    Attributes:
        rounds: most rounds of boosting.
    """

    name: str = "lightgbm"
    rounds: int = ROUNDS

    def fit_predict(
        self,
        train: Inputs,
        y: np.ndarray,
        tuning: Inputs,
        y_tuning: np.ndarray,
        test: Inputs,
        matrix: CodeMatrix,
        *,
        seed: int,
        trials: int,
        classes: int,
        kind: str,
    ) -> Fitted:
        """Fit the first `trials` of nine settings, keep the best on tuning; see `model.Model`."""
        check(y, kind, classes)
        started = time.perf_counter()
        features = fit_windows(train, matrix)
        sets = [features(inputs) for inputs in (train, tuning, test)]

        def path(*args: Any) -> Iterator["_Predictions"]:
            return _boosting_path(*args, seed=seed, settings=BOOSTING[:trials], rounds=self.rounds)

        fits = _each_class(path, sets, y, y_tuning, kind=kind, classes=classes)
        return _chosen(fits, y, y_tuning, kind=kind, classes=classes, about=_about(features, sets[0], started))


@dataclasses.dataclass(frozen=True)
class _Predictions:
    """Hold what one setting predicts for tuning and test samples, and the number of its parameters."""

    setting: dict[str, Any]
    tuning: np.ndarray
    test: np.ndarray
    parameters: int


def _each_class(
    path: Callable[..., Iterator[_Predictions]],
    sets: list[Any],
    y: np.ndarray,
    y_tuning: np.ndarray,
    *,
    kind: str,
    classes: int,
) -> list[list[_Predictions]]:
    """Return the predictions of all settings, of one model or, if multilabel, of one for each class that can be learned.

    Args:
        path: fits settings one after another and yields their predictions.
        sets: features of training, tuning and test samples.
        y: training outcomes.
        y_tuning: tuning outcomes, on which boosting stops early.
        kind: kind of the task.
        classes: number of classes.
    """
    if kind != MULTILABEL:
        return [list(path(sets, y, y_tuning, kind, classes))]
    taught = np.flatnonzero(learnable(y, kind, classes))
    return [list(path(sets, y[:, one], y_tuning[:, one], BINARY, 1)) for one in taught]


def _chosen(
    fits: list[list[_Predictions]],
    y: np.ndarray,
    y_tuning: np.ndarray,
    *,
    kind: str,
    classes: int,
    about: dict[str, Any],
) -> Fitted:
    """Return the predictions of the best setting; a multilabel task has one setting for all of its classes."""
    taught = learnable(y, kind, classes)
    settings = []
    for parts in zip(*fits, strict=True):
        pair = [_joined([getattr(part, name) for part in parts], taught, kind) for name in ("tuning", "test")]
        settings.append([with_prevalence(p, y, kind, classes) for p in pair])
    scores = [tune.score(y_tuning, tuned, kind) for tuned, _ in settings]
    best = tune.best(scores)
    about |= {
        "setting": fits[0][best].setting,
        "trials": len(scores),
        "score": tune.score_name(y_tuning, kind, classes),
        "tuning_score": scores[best],
        "parameters": sum(fit[best].parameters for fit in fits),
        "untaught_classes": untaught(y, kind, classes),
        "seconds": time.perf_counter() - about.pop("started"),
    }
    return Fitted(probabilities=settings[best][1], tuning=settings[best][0], about=about)


def _joined(parts: list[np.ndarray], taught: np.ndarray, kind: str) -> np.ndarray:
    """Return predictions in the form of the task; classes without a model get zeros."""
    if kind != MULTILABEL:
        return parts[0]
    joined = np.zeros((len(parts[0]), len(taught)))
    joined[:, taught] = np.stack(parts, axis=1)
    return joined


def _about(features: WindowFeatures, made: Any, started: float) -> dict[str, Any]:
    days = ["all" if block.days is None else f"{block.days:.0f} days" for block in features.blocks]
    # A code takes one position; a patient has as many as distinct codes.
    return {"windows": days, "features": made.shape[1], "started": started}


def _logistic_path(
    sets: list[Any], y: np.ndarray, y_tuning: np.ndarray, kind: str, classes: int
) -> Iterator[_Predictions]:
    """Yield what each penalty predicts, from the strongest to the weakest, each fit starting from the one before."""
    train, tuning, test = sets
    linear = load("sklearn.linear_model")
    model = linear.LogisticRegression(solver="lbfgs", warm_start=True, max_iter=200, tol=1e-4)
    for penalty in PENALTIES:
        model.set_params(C=penalty)
        with warnings.catch_warnings():
            # The weakest penalties separate small samples and need not be followed to the end.
            warnings.filterwarnings("ignore", category=load("sklearn.exceptions").ConvergenceWarning)
            model.fit(train, y)
        tuned, tested = (_placed(model.predict_proba(x), model.classes_, kind, classes) for x in (tuning, test))
        yield _Predictions({"C": penalty}, tuned, tested, model.coef_.size + model.intercept_.size)


def _placed(probabilities: np.ndarray, found: np.ndarray, kind: str, classes: int) -> np.ndarray:
    """Return the probabilities of a scikit-learn model by class: those of True if binary, 0 for classes not seen."""
    if kind == BINARY:
        return probabilities[:, 1]
    placed = np.zeros((len(probabilities), classes))
    placed[:, found.astype(np.int64)] = probabilities
    return placed


def _boosting_path(
    sets: list[Any],
    y: np.ndarray,
    y_tuning: np.ndarray,
    kind: str,
    classes: int,
    *,
    seed: int,
    settings: tuple[dict[str, Any], ...],
    rounds: int,
) -> Iterator[_Predictions]:
    """Yield what each setting of LightGBM predicts.

    A few training samples are too few for leaves of 20, so the least leaf has at most a tenth of them. Boosting stops
    at the round with the lowest logarithmic loss on tuning, which exists for every outcome.
    """
    train, tuning, test = (x.astype(np.float32) for x in sets)
    lightgbm = load("lightgbm")
    found = np.unique(y)
    label = np.searchsorted(found, y)
    # Classes that training does not hold cannot be scored.
    known = np.isin(y_tuning, found)
    data = {"max_bin": 63, "min_data_in_leaf": int(np.clip(len(y) // 10, 1, 20)), "verbosity": -1}
    common = data | {
        "objective": "binary" if kind == BINARY else "multiclass",
        **({} if kind == BINARY else {"num_class": len(found)}),
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": min(os.cpu_count() or 1, MOST_THREADS),
    }
    fitted = lightgbm.Dataset(train, label, params=data | {"seed": seed}, free_raw_data=False)
    valid = lightgbm.Dataset(tuning[known], np.searchsorted(found, y_tuning[known]), reference=fitted)
    stop = [lightgbm.early_stopping(PATIENCE, verbose=False)] if known.any() else []
    for setting in settings:
        valid_sets = [valid] if known.any() else []
        booster = lightgbm.train(common | setting, fitted, rounds, valid_sets=valid_sets, callbacks=stop)
        tuned, tested = (booster.predict(x, num_iteration=booster.best_iteration) for x in (tuning, test))
        leaves = sum(
            tree["num_leaves"] for tree in booster.dump_model(num_iteration=booster.best_iteration)["tree_info"]
        )
        if kind == MULTICLASS:
            tuned, tested = (_placed(p.reshape(-1, len(found)), found, kind, classes) for p in (tuned, tested))
        yield _Predictions(setting, tuned, tested, leaves)
