"""Render a comparison as Markdown, as JSON values and as a figure."""

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from rich.table import Table

from eval.common.intervals import Interval
from eval.quality.comparison import BETTER, INCONCLUSIVE, WORSE, Comparison, Difference
from eval.reports import writer
from eval.reports.headlines import HEADLINES
from eval.reports.plots import COLORS, save
from eval.reports.quality import TITLES

FILES = ("comparison.json", "comparison.md", "comparison.png")
MARKS = {BETTER: " ▲", WORSE: " ▼", INCONCLUSIVE: " ="}
FIELDS = ("family", "metric", "view", "scope")


def as_values(comparison: Comparison, about: dict) -> dict:
    """Return values for JSON: `about`, all figures of all tokenizers, and the differences of the first from others."""
    figures = {}
    for name, of in comparison.figures.items():
        facts = ("unit", "given", "trained", "chance", "better")
        figures[name] = [
            dict(zip(FIELDS, key, strict=True))
            | {fact: getattr(found, fact) for fact in facts}
            | comparison.intervals[name][key]._asdict()
            | ({"seeds": comparison.seeds[key]} if name == comparison.names[0] and comparison.seeds else {})
            for key, found in of.items()
        ]
    differences = [
        {"first": comparison.names[0], "other": one.other, "verdict": one.verdict}
        | dict(zip(FIELDS, one.figure, strict=True))
        | one.interval._asdict()
        for one in comparison.differences
    ]
    return about | {"codes": comparison.codes, "figures": figures, "differences": differences}


def markdown(comparison: Comparison, about: dict, picture: str) -> str:
    """Return the report as Markdown: headlines, then every family, with a column for each tokenizer.

    Args:
        comparison: the comparison.
        about: data set, split and other settings of the comparison.
        picture: file name of the figure.
    """
    first = comparison.names[0]
    parts = [
        "# Tokenizers compared",
        f"{comparison.codes:,} codes that all tokenizers have; labels of `{about['data_set']}`; {about['split']} items"
        + (", fewer of them (quick)" if about["quick"] else "")
        + ". In brackets 95 % bootstrap intervals.",
        f"▲ {first} is better, ▼ {first} is worse, by a paired bootstrap of the difference over the same items; = the"
        f" interval of the difference includes 0. {writer.GIVEN} the graph that the tokenizer read contains part of the"
        f" labels; {writer.TRAINED} the tokenizer was trained on other pairs of the kind that is scored.",
        *_seeds(comparison),
        *_trials(comparison),
        _table([(one.title, one.name) for one in HEADLINES], comparison, intervals=True),
        f"![differences]({picture})",
    ]
    keys = list(dict.fromkeys(key for of in comparison.figures.values() for key in of))
    for family in dict.fromkeys(key[0] for key in keys):
        rows = [(", ".join(filter(None, (key[3], key[1], key[2]))), key) for key in keys if key[0] == family]
        parts += [f"## {TITLES.get(family, family)}", _table(rows, comparison, intervals=False)]
    return writer.document(parts)


def _seeds(comparison: Comparison) -> list[str]:
    """Return a sentence on the seeds of the first tokenizer and how far apart they are, where there are several."""
    values = [comparison.seeds[one.name] for one in HEADLINES if one.name in comparison.seeds]
    if not values:
        return []
    apart = max((np.std(of, ddof=1) for of in values), default=0.0)
    return [
        f"Figures of {comparison.names[0]} are means over {len(values[0])} seeds, item by item; intervals are of the"
        f" draw of items. Among the figures of the first table the largest deviation of seeds is {apart:.3f}."
    ]


def _trials(comparison: Comparison) -> list[str]:
    """Return a sentence on how many settings of each tokenizer were tried, where that is known."""
    known = {name: about["trials"] for name, about in comparison.about.items() if "trials" in about}
    if not known:
        return []
    told = ", ".join(f"{name} {count}" for name, count in known.items())
    return [f"Settings that were tried before these figures: {told}."]


def _table(rows: list[tuple[str, tuple]], comparison: Comparison, *, intervals: bool) -> str:
    verdicts = {(one.other, one.figure): one.verdict for one in comparison.differences}
    lines = []
    for title, key in rows:
        if not any(key in of for of in comparison.figures.values()):
            continue
        cells = [title]
        for name in comparison.names:
            value, figure = comparison.intervals[name].get(key), comparison.figures[name].get(key)
            if value is None:
                cells.append(None)
                continue
            marks = writer.marks(bool(figure.given), bool(figure.trained)) + MARKS.get(verdicts.get((name, key)), "")
            cells.append(_shown(value, intervals) + marks)
        lines.append(cells)
    return writer.markdown_table(["figure", *comparison.names], lines)


def _shown(interval: Interval, with_interval: bool) -> str:
    if with_interval:
        return writer.with_interval(interval.value, interval.low, interval.high)
    return writer.number(interval.value)


def console_table(comparison: Comparison, about: dict) -> Table:
    """Return the headline figures as a table for the terminal; for the arguments see `markdown`."""
    rows = []
    for one in HEADLINES:
        found = [comparison.intervals[name].get(one.name) for name in comparison.names]
        if any(found):
            rows.append([one.title, *(None if interval is None else interval.value for interval in found)])
    return writer.console_table(f"{about['data_set']}, {about['split']}", ["figure", *comparison.names], rows)


def write(comparison: Comparison, about: dict, folder: Path) -> None:
    """Write `FILES` to a folder; for the arguments see `markdown`.

    Raises:
        InputError: a file cannot be written.
    """
    text, picture = (folder / name for name in FILES[1:])
    draw(comparison, picture)
    writer.write(text, markdown(comparison, about, picture.name), as_values(comparison, about))


def draw(comparison: Comparison, path: Path) -> None:
    """Draw the headline figures of all tokenizers and the differences of the first from the others, with intervals."""
    shown = [one for one in HEADLINES if any(one.name in of for of in comparison.intervals.values())]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(14, 1.5 + 0.22 * len(shown) * max(len(comparison.names), 2)), layout="constrained", sharey=True
    )
    heights = np.arange(len(shown))[::-1].astype(float)
    for position, name in enumerate(comparison.names):
        values = [comparison.intervals[name].get(one.name) for one in shown]
        _bars(left, values, heights, position, comparison, name)
        if position:
            by_figure: dict[tuple, Difference] = {d.figure: d for d in comparison.differences if d.other == name}
            values = [by_figure[one.name].interval if one.name in by_figure else None for one in shown]
            _bars(right, values, heights, position, comparison, f"{comparison.names[0]} - {name}")
    left.set(title="Figures, 95 % intervals", yticks=heights, yticklabels=[one.title for one in shown])
    right.set(title="Paired differences, 95 % intervals")
    right.axvline(0.0, color="grey", linewidth=1)
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
    left.legend(fontsize="small")
    if len(comparison.names) > 1:
        right.legend(fontsize="small")
    save(figure, path)


def _bars(
    axes: Axes, values: list[Interval | None], heights: np.ndarray, position: int, comparison: Comparison, label: str
) -> None:
    there = [(value, height) for value, height in zip(values, heights, strict=True) if value is not None]
    if not there:
        return
    found, at = zip(*there, strict=True)
    middle = np.array([value.value for value in found])
    spread = np.abs(
        np.array([[value.value - value.low for value in found], [value.high - value.value for value in found]])
    )
    shift = 0.7 * ((position + 0.5) / len(comparison.names) - 0.5)
    color = COLORS[position % len(COLORS)]
    axes.errorbar(middle, np.array(at) - shift, xerr=spread, fmt="o", markersize=4, color=color, label=label)
