"""Predict outcomes by models on counts of codes in windows: L2 logistic regression and LightGBM, as EHRSHOT has them.

Both read `windows.WindowFeatures`. A multilabel task has one model a class; a multiclass one has one multinomial model.
"""

import dataclasses
import functools
import os
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from eval.ehr.inputs import Inputs, bags
from eval.ehr.models import tuning as tune
from eval.ehr.models.model import Fitted
from eval.ehr.models.outcomes import check, columns, learnable, untaught, with_prevalence
from eval.ehr.models.windows import WindowFeatures, fit_windows
from eval.ehr.results import BINARY, MULTICLASS, MULTILABEL
from eval.ehr.split import Split
from eval.ehr.tokenizers.matrix import CodeMatrix
from preprocessing.common.extras import load

softmax = load("scipy.special").softmax

# Inverse penalties of logistic regression, the strongest penalty first: eight, as in EHRSHOT's grid. Rows of features
# have a mean square length of 1 a window, which puts the best one in the middle.
PENALTIES = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
# A fit ends when no entry of the gradient exceeds this share of the largest one of a feature at the start.
TOLERANCE = 0.005
# Up to this many training samples with more features than samples are rotated to as many features as samples, if they
# have many features; fewer samples always are.
MOST_ROTATED, ALL_ROTATED = 4096, 1024
# Settings of LightGBM in the order in which they are tried: learning rate x depth (-1: no limit).
BOOSTING = tuple(
    {"learning_rate": rate, "max_depth": depth, "num_leaves": leaves}
    for rate in (0.1, 0.03, 0.3)
    for depth, leaves in ((3, 8), (6, 31), (-1, 31))
)
ROUNDS = 200
PATIENCE = 20
# Trees are grown on the features that most training samples have, at most this many.
MOST_FEATURES = 4096
# Below this number of training samples threads wait for one another longer than they work.
LEAST_THREADED, MOST_THREADS = 50_000, 8


@dataclasses.dataclass(frozen=True)
class Logistic:
    """Fit logistic regression with an L2 penalty.

    All eight penalties are tried whatever the number of trials: each fit starts from the one before, with the stronger
    penalty, so that all take little longer than one.
    """

    name: str = "logistic"

    def fit_predict(
        self, split: Split, matrix: CodeMatrix, *, seed: int, trials: int, classes: int, kind: str
    ) -> Fitted:
        """Fit all penalties, keep the best on tuning; see `model.Model`. There is nothing random, hence no seed."""
        y = split.y
        check(y, kind, classes)
        started = time.perf_counter()
        features = fit_windows(split.train, matrix, unit_length=True)
        sets = [features(inputs) for inputs in (split.train, split.tuning, split.test)]
        with load("threadpoolctl").threadpool_limits(limits=_threads(len(y))):
            path = functools.partial(_logistic_path, design=_rotated(sets[0]))
            fits = _each_class(path, sets, y, split.y_tuning, kind=kind, classes=classes)
        return _chosen(
            fits, y, split.y_tuning, kind=kind, classes=classes, about=_about(features, sets[0], split.train, started)
        )


@dataclasses.dataclass(frozen=True)
class LightGBM:
    """Fit gradient boosting of trees, each setting for at most 200 rounds, stopped early on tuning.

    Attributes:
        rounds: most rounds of boosting.
    """

    name: str = "lightgbm"
    rounds: int = ROUNDS

    def fit_predict(
        self, split: Split, matrix: CodeMatrix, *, seed: int, trials: int, classes: int, kind: str
    ) -> Fitted:
        """Fit the first `trials` of nine settings, keep the best on tuning; see `model.Model`."""
        y = split.y
        check(y, kind, classes)
        started = time.perf_counter()
        features = fit_windows(split.train, matrix, unit_length=False)
        sets = [features(inputs) for inputs in (split.train, split.tuning, split.test)]
        common = np.argsort(-np.bincount(sets[0].indices, minlength=sets[0].shape[1]), kind="stable")[:MOST_FEATURES]
        sets = [x[:, np.sort(common)].astype(np.float32) for x in sets]
        path = functools.partial(_boosting_path, seed=seed, settings=BOOSTING[:trials], rounds=self.rounds)
        fits = _each_class(path, sets, y, split.y_tuning, kind=kind, classes=classes)
        return _chosen(
            fits, y, split.y_tuning, kind=kind, classes=classes, about=_about(features, sets[0], split.train, started)
        )


def _threads(samples: int) -> int:
    return 1 if samples < LEAST_THREADED else min(os.cpu_count() or 1, MOST_THREADS)


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
    """Return the predictions of all settings, of one model or, if multilabel, of one a class that can be learned.

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


def _about(features: WindowFeatures, made: Any, train: Inputs, started: float) -> dict[str, Any]:
    days = ["all" if block.days is None else f"{block.days:.0f} days" for block in features.blocks]
    # A code takes one position, however often a patient has it.
    positions = bags(train).nnz / max(len(train), 1)
    return {"windows": days, "features": made.shape[1], "positions": positions, "started": started}


@dataclasses.dataclass(frozen=True)
class _Design:
    """Hold training features as they are fitted: those of the samples, or `lower`, where `train = lower @ rotation`.

    Attributes:
        features: `[n, features]`, sparse, or `lower`.
        lower: `[n, n]` float64, lower triangular, with `lower @ lower.T = train @ train.T`; None where not rotated.
    """

    features: Any
    lower: np.ndarray | None

    def coefficients(self, fitted: np.ndarray, train: Any) -> np.ndarray:
        """Return coefficients of the features of the samples `[outputs, features]`, from those that were fitted."""
        if self.lower is None:
            return fitted
        return (train.T @ load("scipy.linalg").solve_triangular(self.lower, fitted.T, lower=True, trans="T")).T


def _rotated(train: Any) -> _Design:
    """Return the features, rotated to the span of the samples where these are fewer than the features.

    An L2 penalty does not change by a rotation, and the best coefficients lie in the span of the samples, so that the
    fit is the same. Few samples, and those with many features, are fitted faster in it; others stay sparse.
    """
    samples, features = train.shape
    if samples >= features or samples > MOST_ROTATED or (samples > ALL_ROTATED and train.nnz < samples**2 // 4):
        return _Design(train, None)
    products = (train @ train.T).toarray()
    # Equal samples make the products singular.
    products[np.diag_indices(samples)] += 1e-9 * np.trace(products) / samples
    lower = np.linalg.cholesky(products)
    return _Design(lower, lower)


def _logistic_path(
    sets: list[Any], y: np.ndarray, y_tuning: np.ndarray, kind: str, classes: int, *, design: _Design
) -> Iterator[_Predictions]:
    """Yield what each penalty predicts, from the strongest to the weakest, each fit starting from the one before."""
    train, tuning, test = sets
    model = load("sklearn.linear_model").LogisticRegression(solver="lbfgs", warm_start=True, max_iter=200)
    centered = columns(y, kind, classes) - columns(y, kind, classes).mean(axis=0)
    # The first four features are the statics, which may outweigh all others.
    slope = np.abs((train.T @ centered)[4:]).max(initial=0) / len(y)
    for penalty in PENALTIES:
        model.set_params(C=penalty, tol=TOLERANCE * slope or 1e-6)
        with warnings.catch_warnings():
            # The weakest penalties need not be followed to the end.
            warnings.filterwarnings("ignore", category=load("sklearn.exceptions").ConvergenceWarning)
            model.fit(design.features, y)
        coefficients = design.coefficients(model.coef_, train)
        logits = [x @ coefficients.T + model.intercept_ for x in (tuning, test)]
        tuned, tested = (_placed(_from_logits(z), model.classes_, kind, classes) for z in logits)
        yield _Predictions({"C": penalty}, tuned, tested, coefficients.size + model.intercept_.size)


def _from_logits(logits: np.ndarray) -> np.ndarray:
    """Return probabilities `[n, classes]` from the logits of each class, or from the one of the second of two."""
    return softmax(np.concatenate([np.zeros_like(logits), logits], axis=1) if logits.shape[1] == 1 else logits, axis=1)


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
    train, tuning, test = sets
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
        "num_threads": _threads(len(y)),
    }
    fitted = lightgbm.Dataset(train, label, params=data | {"seed": seed}, free_raw_data=False)
    valid = lightgbm.Dataset(tuning[known], np.searchsorted(found, y_tuning[known]), reference=fitted, params=data)
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
