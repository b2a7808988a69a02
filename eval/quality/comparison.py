"""Compare tokenizers on the same codes and items, with intervals of the differences between them."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from eval.common.intervals import Interval, difference, interval
from eval.common.measurement import Measurement, mean_of_seeds
from eval.common.representation import Representation
from eval.quality.labels import Labels
from preprocessing.common.errors import InputError
from preprocessing.common.progress import Bar

BETTER, WORSE, INCONCLUSIVE = "better", "worse", "inconclusive"


@dataclasses.dataclass(frozen=True)
class Difference:
    """Hold the difference of the first tokenizer from another one in one figure.

    Attributes:
        other: name of the other tokenizer.
        figure: `Measurement.name`.
        interval: the first figure minus the other one, with its interval by a paired bootstrap.
        verdict: `better` or `worse`, said of the first tokenizer, where the interval excludes 0, otherwise
            `inconclusive`; empty for figures of which neither high nor low is better.
    """

    other: str
    figure: tuple[str, str, str, str]
    interval: Interval
    verdict: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Hold the figures of several tokenizers and the differences between them.

    Attributes:
        names: names of the tokenizers; the others are compared with the first.
        about: name of a tokenizer -> its provenance.
        codes: number of codes that all tokenizers have.
        figures: name of a tokenizer -> name of a figure -> its measurement.
        intervals: name of a tokenizer -> name of a figure -> its value and interval.
        differences: differences of the first tokenizer from each other one.
        seeds: name of a figure -> its value with each seed of the first tokenizer; empty where there is one seed.
    """

    names: list[str]
    about: dict[str, dict]
    codes: int
    figures: dict[str, dict[tuple, Measurement]]
    intervals: dict[str, dict[tuple, Interval]]
    differences: list[Difference]
    seeds: dict[tuple, list[float]] = dataclasses.field(default_factory=dict)


def common_codes(names: Sequence[str], codes: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sorted keys of the codes that all tokenizers have, so that all search among the same codes.

    Args:
        names: names of the tokenizers.
        codes: sorted keys of the codes of each tokenizer.

    Raises:
        InputError: two tokenizers have the same name, or there is no code that all of them have.
    """
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise InputError(f"two tokenizers are called {min(repeated)}; rename one with --tokenizers=NAME=PATH.")
    keys = functools.reduce(functools.partial(np.intersect1d, assume_unique=True), codes)
    if not len(keys):
        raise InputError(f"{', '.join(names)} have no code in common; compare tokenizers of the same data set.")
    return keys


def compare(
    openers: Sequence[Callable[[], Representation]],
    labels: Labels,
    measure: Callable[[Representation, Labels], list[Measurement]],
    *,
    other_seeds: Sequence[Callable[[], Representation]] = (),
    seed: int = 0,
    progress: bool = False,
) -> Comparison:
    """Measure all tokenizers and the differences of the first from the others, item by item.

    Each tokenizer is opened twice, the first time for its codes, and only one is in memory at a time.

    Args:
        openers: one or more functions that open a tokenizer; the others are compared with the first.
        labels: labels of a data set that contains the codes.
        measure: function that returns the figures of a representation, such as `eval.tokenization.measure`.
        other_seeds: functions that open the first tokenizer as trained with other seeds; its figures are then means
            over its seeds, item by item, and intervals cover the draw of items alone.
        seed: seed of the bootstrap.
        progress: whether to show progress bars.

    Raises:
        InputError: two tokenizers have the same name, or there is no code that all of them have.
    """
    opened = [*openers, *other_seeds]
    bar = Bar(opened, "Opening", unit=" tokenizers", show=progress)
    names, codes, about = zip(*(_identify(open_it) for open_it in bar), strict=True)
    keys = common_codes(names, codes)
    figures = {}
    bar = Bar(opened, unit=" tokenizers", show=progress)
    for name, open_it in zip(names, bar, strict=True):
        bar.set_description(f"Measuring {name}")
        figures[name] = {found.name: found for found in measure(_restrict(open_it(), keys), labels)}
    first, further = names[0], names[len(openers) :]
    seeds: dict[tuple, list[float]] = {}
    if further:
        of_seeds = [figures[first], *(figures.pop(name) for name in further)]
        shared = [key for key in of_seeds[0] if all(key in one for one in of_seeds)]
        seeds = {key: [one[key].value() for one in of_seeds] for key in shared}
        figures[first] = {key: mean_of_seeds([one[key] for one in of_seeds]) for key in shared}
    intervals = {name: {key: interval(one, seed=seed) for key, one in of.items()} for name, of in figures.items()}
    differences = [
        _difference(found, figures[other][key], other, seed)
        for other in names[1 : len(openers)]
        for key, found in figures[first].items()
        if key in figures[other]
    ]
    known = dict(zip(names, about, strict=True))
    return Comparison(list(figures), known, len(keys), figures, intervals, differences, seeds)


def _identify(open_it: Callable[[], Representation]) -> tuple[str, np.ndarray, dict]:
    """Return the name, the codes and the provenance of a tokenizer, without keeping it in memory."""
    opened = open_it()
    return opened.name, opened.keys, opened.about


def _restrict(opened: Representation, keys: np.ndarray) -> Representation:
    """Restrict a representation to some of its keys, both sorted."""
    return opened if len(opened) == len(keys) else opened.take(np.flatnonzero(np.isin(opened.keys, keys)))


def _difference(first: Measurement, second: Measurement, other: str, seed: int) -> Difference:
    found = difference(first, second, seed=seed)
    verdict = ""
    if first.better:
        up = first.better == "higher"
        above, below = found.low > 0, found.high < 0
        verdict = BETTER if (above if up else below) else WORSE if (below if up else above) else INCONCLUSIVE
    return Difference(other, first.name, found, verdict)
