"""Insert tokens for the time between the events of a patient, and estimate the duration of each token.

The source is `ethos/tokenize/common/time_interval.py` of github.com/ipolharvard/ethos-ares.
"""

from collections.abc import Sequence

import numpy as np

from medtok_jax.convert.ethos.directory import Timelines
from medtok_jax.convert.ethos.files.events import INTERVALS

_MINUTE = 60_000_000
_NAMES = list(INTERVALS)
_BOUNDS = np.array(list(INTERVALS.values()), np.int64) * _MINUTE
_STATISTICS = {"min": 0.0, "q1": 0.25, "median": 0.5, "q3": 0.75, "max": 1.0}


def interval_counts(times: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the interval token before each event, and how often it is repeated.

    Args:
        times: `[events]` int64 microseconds, ascending within a patient.
        starts: `[events]` bool mask of each patient's first event, which no interval precedes.

    Returns:
        `[events]` int64 indices into `INTERVALS` (-1 for less than the shortest) and `[events]` int64 counts; only the
        longest interval is repeated.
    """
    gaps = np.diff(times, prepend=times[:1])
    gaps[starts] = 0
    kind = np.searchsorted(_BOUNDS, gaps, side="right") - 1
    counts = (kind >= 0).astype(np.int64)
    longest = kind == len(_BOUNDS) - 1
    counts[longest] = np.floor(gaps[longest] / _BOUNDS[-1] + 0.5)
    return kind, counts


def with_intervals(timelines: Timelines, ids: Sequence[int], end: int) -> Timelines:
    """Return timelines with interval tokens before events and an end token after each patient.

    Args:
        timelines: events without interval tokens.
        ids: token ids of `INTERVALS`.
        end: id of `TIMELINE_END`.
    """
    starts = np.zeros(len(timelines), bool)
    starts[timelines.patient_offsets] = True
    kind, counts = interval_counts(timelines.times, starts)
    last = np.append(timelines.patient_offsets[1:], len(timelines)) - 1
    is_last = np.zeros(len(timelines), bool)
    is_last[last] = True
    width = counts + 1 + is_last
    # The token of an event follows the intervals before it.
    positions = np.cumsum(width) - width + counts
    source = np.repeat(np.arange(len(timelines)), width)
    tokens = np.asarray(ids, np.int64)[kind[source]]
    tokens[positions] = timelines.tokens
    tokens[positions[last] + 1] = end
    return Timelines(
        tokens=tokens,
        times=timelines.times[source],
        patient_ids=timelines.patient_ids,
        patient_offsets=(np.cumsum(width) - width)[timelines.patient_offsets],
        stays={name: values[source] for name, values in timelines.stays.items()},
    )


class IntervalEstimates:
    """Collect the durations that each interval token stands for."""

    def __init__(self):
        self._lengths: list[list[np.ndarray]] = [[] for _ in _NAMES]

    def add(self, timelines: Timelines) -> None:
        """Add the durations in timelines without interval tokens."""
        starts = np.zeros(len(timelines), bool)
        starts[timelines.patient_offsets] = True
        kind, counts = interval_counts(timelines.times, starts)
        gaps = np.diff(timelines.times, prepend=timelines.times[:1])
        for number, found in enumerate(self._lengths):
            selected = kind == number
            if selected.any():
                found.append(np.repeat(gaps[selected] / counts[selected], counts[selected]).astype(np.float32))

    def statistics(self) -> dict[str, dict[str, float]]:
        """Return `{statistic: {token: microseconds}}`; intervals that never occurred get the middle of their range."""
        found: dict[str, dict[str, float]] = {name: {} for name in ("min", "q1", "mean", "median", "q3", "max")}
        ends = np.append(_BOUNDS[1:], _BOUNDS[-1])
        for name, lengths, low, high in zip(_NAMES, self._lengths, _BOUNDS, ends, strict=True):
            values = np.concatenate(lengths).astype(np.float64) if lengths else np.array([(low + high) / 2])
            for statistic, quantile in _STATISTICS.items():
                found[statistic][name] = float(np.quantile(values, quantile))
            found["mean"][name] = float(values.mean())
        return found
