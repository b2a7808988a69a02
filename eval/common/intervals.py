"""Compute 95 % intervals of figures and of paired differences by the percentile bootstrap.

The method is that of Efron and Tibshirani (1993, chapter 13). Clusters are resampled where a measurement has them, and
single items otherwise. More than `BLOCKS` of these units are first grouped at random into that many blocks, and blocks
are resampled instead: the variance of a mean stays the same, and the matrix of draws stays small.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from eval.common.measurement import EXPONENTIAL, Measurement
from preprocessing.common.hashing import mix

DRAWS = 1000
BLOCKS = 2000
LEVEL = 0.95


class Interval(NamedTuple):
    """Hold a figure, the bounds of its interval and the number of items; figure and bounds are NaN without items."""

    value: float
    low: float
    high: float
    n: int


def interval(measurement: Measurement, *, seed: int = 0) -> Interval:
    """Return the figure of a measurement with its bootstrap interval.

    Args:
        measurement: a mean over items.
        seed: seed of the bootstrap.
    """
    draws = _draws(measurement, _units(measurement), seed)
    return Interval(measurement.value(), *_percentiles(draws), len(measurement.values))


def difference(first: Measurement, second: Measurement, *, seed: int = 0) -> Interval:
    """Return the first figure minus the second over their common items, by a paired bootstrap.

    Args:
        first, second: measurements whose items have the same numbers.
        seed: seed of the bootstrap.
    """
    _, mine, theirs = np.intersect1d(first.items, second.items, return_indices=True)
    pair = [_select(measurement, rows) for measurement, rows in ((first, mine), (second, theirs))]
    units = _units(pair[0])
    low, high = _percentiles(_draws(pair[0], units, seed) - _draws(pair[1], units, seed))
    return Interval(pair[0].value() - pair[1].value(), low, high, len(mine))


def _select(measurement: Measurement, rows: np.ndarray) -> Measurement:
    names = ("items", "values", "clusters", "macro")
    arrays = {name: getattr(measurement, name) for name in names}
    return dataclasses.replace(measurement, **{n: a if a is None else a[rows] for n, a in arrays.items()})


def _units(measurement: Measurement) -> np.ndarray:
    """Return the number of the resampled unit that each item belongs to: int64 `[n]`, from 0 without gaps."""
    labels = measurement.items if measurement.clusters is None else measurement.clusters
    distinct, unit = np.unique(labels, return_inverse=True)
    if len(distinct) > BLOCKS:
        # Ranks of a hash make blocks of equal size, whatever the numbers are.
        unit = (np.argsort(np.argsort(mix(distinct.astype(np.uint64)))) % BLOCKS)[unit]
    return unit


@functools.lru_cache(maxsize=64)
def _weights(units: int, seed: int) -> np.ndarray:
    """Return how often each unit is drawn: float32 `[DRAWS, units]`."""
    rng = np.random.default_rng([seed, units])
    drawn = rng.integers(units, size=(DRAWS, units))
    flat = drawn + np.arange(DRAWS)[:, None] * units
    return np.bincount(flat.reshape(-1), minlength=DRAWS * units).reshape(DRAWS, units).astype(np.float32)


def _draws(measurement: Measurement, units: np.ndarray, seed: int) -> np.ndarray:
    """Return the figure in each bootstrap draw: float64 `[DRAWS]`."""
    if not len(measurement.values):
        return np.full(DRAWS, np.nan)
    count = int(units.max()) + 1
    weights = _weights(count, seed)
    if measurement.macro is None:
        sums = np.stack([np.bincount(units, measurement.values), np.bincount(units)], axis=1)
        drawn = weights.astype(np.float64) @ sums
        means = drawn[:, 0] / drawn[:, 1]
    else:
        _, group = np.unique(measurement.macro, return_inverse=True)
        shape = (count, int(group.max()) + 1)
        cell = units * shape[1] + group
        total = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float32)
        sums = np.bincount(cell, measurement.values, shape[0] * shape[1]).reshape(shape).astype(np.float32)
        numbers = weights @ total
        # Groups of which nothing was drawn have no mean.
        with np.errstate(invalid="ignore"):
            means = np.nanmean(np.where(numbers > 0, (weights @ sums) / numbers, np.nan), axis=1)
    return np.exp(means) if measurement.transform == EXPONENTIAL else means


def _percentiles(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
