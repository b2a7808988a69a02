import dataclasses

import numpy as np
import pytest
from scipy import stats

from eval.common import intervals
from eval.common.intervals import difference, interval
from eval.common.measurement import EXPONENTIAL, Measurement


def measurement(values, **fields) -> Measurement:
    values = np.asarray(values, float)
    return Measurement("f", "m", "", "", "codes", fields.pop("items", np.arange(len(values))), values, **fields)


@pytest.mark.parametrize("n", [60, 9000])
def test_means_against_scipy(n):
    """Also where items are dealt into blocks."""
    values = np.random.default_rng(0).exponential(size=n)
    found = interval(measurement(values))
    wanted = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert found.value == pytest.approx(values.mean())
    assert found.n == n
    width = wanted.high - wanted.low
    assert found.low == pytest.approx(wanted.low, abs=0.08 * width)
    assert found.high == pytest.approx(wanted.high, abs=0.08 * width)


def test_clusters_are_drawn_whole():
    """Ten equal items say no more than one of them."""
    values = np.random.default_rng(0).normal(size=50)
    alone = interval(measurement(values))
    tenfold = measurement(np.repeat(values, 10), clusters=np.repeat(np.arange(50), 10))
    assert interval(tenfold)[:3] == pytest.approx(alone[:3])
    assert interval(tenfold).n == 500
    free = interval(dataclasses.replace(tenfold, clusters=None))
    assert free.high - free.low < 0.5 * (alone.high - alone.low)


def test_macro_by_hand():
    """Groups score 1, 0 and 1/2, whatever their sizes."""
    one = measurement([1, 1, 1, 1, 0, 1, 0], macro=np.array([5, 5, 5, 5, 6, 7, 7]))
    assert one.value() == pytest.approx(0.5)
    found = interval(one)
    assert 0 <= found.low < 0.5 < found.high <= 1


def test_exponential():
    logs = np.random.default_rng(0).normal(size=200)
    plain, found = interval(measurement(logs)), interval(measurement(logs, transform=EXPONENTIAL))
    assert found[:3] == pytest.approx(np.exp(plain[:3]))


def test_paired_difference_is_taken_over_common_items():
    rng = np.random.default_rng(0)
    hard = rng.normal(size=300)
    first, second = measurement(hard + 0.1), measurement(hard + rng.normal(scale=0.01, size=300))
    found = difference(first, second)
    assert found.value == pytest.approx(0.1, abs=0.01)
    assert found.high - found.low < 0.01
    apart = interval(first)
    assert apart.high - apart.low > 0.1
    shifted = measurement(second.values[::-1], items=np.arange(300)[::-1])
    assert difference(first, shifted)[:3] == pytest.approx(found[:3])
    assert difference(first, measurement(second.values[:100])).n == 100


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        found = interval(measurement(rng.integers(2, size=100)))
        inside += found.low <= 0.5 <= found.high
    assert 180 <= inside <= 199


def test_the_same_every_time_and_nothing_of_nothing():
    one = measurement(np.random.default_rng(0).normal(size=5000))
    first = interval(one)
    intervals._weights.cache_clear()
    assert interval(one) == first
    assert interval(one, seed=1) != first
    empty = interval(measurement([]))
    assert empty.n == 0
    assert np.isnan(empty.value)
