"""Tokenizers measured on the same codes and items, and the differences between them."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
from tqdm import tqdm

from eval.common.intervals import Interval, difference, interval
from eval.common.measurement import Measurement
from eval.common.representation import Representation
from eval.quality.labels import Labels
from preprocessing.common.errors import InputError

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
        about: name of a tokenizer -> what made it.
        codes: number of codes that all of them hold.
        figures: name of a tokenizer -> name of a figure -> the measurement.
        intervals: likewise, with its interval.
        differences: of the first from each other one.
    """

    names: list[str]
    about: dict[str, dict]
    codes: int
    figures: dict[str, dict[tuple, Measurement]]
    intervals: dict[str, dict[tuple, Interval]]
    differences: list[Difference]


def common_codes(names: Sequence[str], codes: Sequence[np.ndarray]) -> np.ndarray:
    """The codes that all tokenizers hold, so that all search among the same: rising keys.

    Args:
        names: of the tokenizers.
        codes: keys of the codes of each, rising.

    Raises:
        InputError: two have one name, or there is no code that all hold.
    """
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputError(f"two tokenizers are called {min(twice)}; name one by --tokenizers=NAME=PATH.")
    keys = functools.reduce(functools.partial(np.intersect1d, assume_unique=True), codes)
    if not len(keys):
        raise InputError(f"{', '.join(names)} hold no code in common; compare tokenizers of the same data set.")
    return keys


def compare(
    openers: Sequence[Callable[[], Representation]],
    labels: Labels,
    measure: Callable[[Representation, Labels], list[Measurement]],
    *,
    seed: int = 0,
    progress: bool = False,
) -> Comparison:
    """Measures all and takes the differences of the first from the others, item by item.

    Each is opened twice, once for its codes, and none is held while another one is.

    Args:
        openers: at least one, each opens a tokenizer; the first is what the others are compared with.
        labels: of a data set that holds their codes.
        measure: the figures of a representation, `eval.tokenization.measure`.
        seed: of the bootstrap.
        progress: whether to show bars.
    """
    bar = tqdm(openers, "Opening", unit=" tokenizers", disable=not progress)
    names, codes, about = zip(*(_what_it_is(open_it) for open_it in bar), strict=True)
    keys = common_codes(names, codes)
    figures, intervals = {}, {}
    bar = tqdm(openers, unit=" tokenizers", disable=not progress)
    for name, open_it in zip(names, bar, strict=True):
        bar.set_description(f"Measuring {name}")
        figures[name] = {found.name: found for found in measure(_cut(open_it(), keys), labels)}
        intervals[name] = {key: interval(found, seed=seed) for key, found in figures[name].items()}
    first = names[0]
    differences = [
        _difference(found, figures[other][key], other, seed)
        for other in list(figures)[1:]
        for key, found in figures[first].items()
        if key in figures[other]
    ]
    return Comparison(list(names), dict(zip(names, about, strict=True)), len(keys), figures, intervals, differences)


def _what_it_is(open_it: Callable[[], Representation]) -> tuple[str, np.ndarray, dict]:
    """Name, codes and making of a tokenizer that is not kept open."""
    opened = open_it()
    return opened.name, opened.keys, opened.about


def _cut(opened: Representation, keys: np.ndarray) -> Representation:
    """Of a representation the codes of some of its keys, both rising."""
    return opened if len(opened) == len(keys) else opened.take(np.flatnonzero(np.isin(opened.keys, keys)))


def _difference(first: Measurement, second: Measurement, other: str, seed: int) -> Difference:
    found = difference(first, second, seed=seed)
    verdict = ""
    if first.better:
        up = first.better == "higher"
        above, below = found.low > 0, found.high < 0
        verdict = BETTER if (above if up else below) else WORSE if (below if up else above) else NOT_TOLD
    return Difference(other, first.name, found, verdict)
