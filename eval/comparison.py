"""Tokenizers measured on the same codes and items, and the differences between them."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from tqdm import tqdm

from eval.intervals import Interval, difference, interval
from eval.labels import Labels
from eval.measurement import Measurement
from eval.representation import Representation
from preprocessing.errors import InputError

BETTER, WORSE, NOT_TOLD = "better", "worse", "not told apart"


@dataclasses.dataclass(frozen=True)
class Difference:
    """The first tokenizer minus another one in one figure.

    Attributes:
        other: name of the other.
        figure: `Measurement.name`.
        interval: of the difference, both drawn together.
        verdict: `better` or `worse` (what the first is) where the interval excludes 0, else `not told apart`; empty for
            figures of which neither high nor low is better.
    """

    other: str
    figure: tuple[str, str, str, str]
    interval: Interval
    verdict: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What several tokenizers come to.

    Attributes:
        names: of the tokenizers; the first is what the others are compared with.
        codes: number of codes that all of them hold.
        figures: name of a tokenizer -> name of a figure -> the measurement.
        intervals: likewise, with its interval.
        differences: of the first from each other one.
    """

    names: list[str]
    codes: int
    figures: dict[str, dict[tuple, Measurement]]
    intervals: dict[str, dict[tuple, Interval]]
    differences: list[Difference]


def common_codes(representations: Sequence[Representation]) -> list[Representation]:
    """The representations cut to the codes that all of them hold, so that all search among the same.

    Raises:
        InputError: two have one name, or there is no code that all hold.
    """
    names = [representation.name for representation in representations]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputError(f"two tokenizers are called {min(twice)}; name one by --tokenizers=NAME=PATH.")
    keys = representations[0].keys
    for representation in representations[1:]:
        keys = np.intersect1d(keys, representation.keys, assume_unique=True)
    if not len(keys):
        raise InputError(f"{', '.join(names)} hold no code in common; compare tokenizers of the same data set.")
    return [
        one if len(one) == len(keys) else one.take(np.flatnonzero(np.isin(one.keys, keys))) for one in representations
    ]


def compare(
    representations: Sequence[Representation],
    labels: Labels,
    measure: Callable[[Representation, Labels], list[Measurement]],
    *,
    seed: int = 0,
    progress: bool = False,
) -> Comparison:
    """Measures all and takes the differences of the first from the others, item by item.

    Args:
        representations: at least one; the first is what the others are compared with.
        labels: of a data set that holds their codes.
        measure: the figures of a representation, `eval.tokenization.measure`.
        seed: of the bootstrap.
        progress: whether to show a bar.
    """
    cut = common_codes(representations)
    figures, intervals = {}, {}
    bar = tqdm(cut, unit=" tokenizers", disable=not progress)
    for one in bar:
        bar.set_description(f"Measuring {one.name}")
        figures[one.name] = {found.name: found for found in measure(one, labels)}
        intervals[one.name] = {key: interval(found, seed=seed) for key, found in figures[one.name].items()}
    first = cut[0].name
    differences = [
        _difference(found, figures[other][key], other, seed)
        for other in list(figures)[1:]
        for key, found in figures[first].items()
        if key in figures[other]
    ]
    return Comparison(list(figures), len(cut[0]), figures, intervals, differences)


def _difference(first: Measurement, second: Measurement, other: str, seed: int) -> Difference:
    found = difference(first, second, seed=seed)
    verdict = ""
    if first.better:
        up = first.better == "higher"
        above, below = found.low > 0, found.high < 0
        verdict = BETTER if (above if up else below) else WORSE if (below if up else above) else NOT_TOLD
    return Difference(other, first.name, found, verdict)
