"""Draw few-shot curves, calibration and paired differences as SVG, the same bytes for the same results."""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.ehr.report import names
from eval.ehr.report.study import SetupResult
from eval.ehr.statistics import AUPRC, AUROC
from eval.reports.plots import COLORS

# More tokenizers than these and the primary one cannot be told apart in one plot.
COLORED = ("codes", "words", "text_pursuit", "shuffled")
OTHERS = {"color": "#9aa5b1", "linewidth": 0.8}
# Names of elements are made from this instead of at random, and no date is written.
_STABLE = {"svg.hashsalt": "medtok", "font.size": 10}


def few_shot(series: Sequence[SetupResult], primary: str, *, chance: float | None) -> bytes:
    """Draw AUPRC and AUROC by the number of training patients of each class.

    Tokenizers that are neither the primary one nor `COLORED` are grey lines without a name.

    Args:
        series: results in the order of the number of patients.
        primary: name of the primary tokenizer.
        chance: AUPRC of chance; None where it must not be shown.
    """
    shots = np.array([result.setup.shots for result in series])
    tokenizers = list(dict.fromkeys(name for result in series for name in result.tokenizers))
    figure, panels = _figure(1, 2, (10, 4.6))
    for axes, metric, title in zip(panels[0], (AUPRC, AUROC), ("AUPRC", "AUROC"), strict=True):
        for name in tokenizers:
            found = [
                result.tokenizers[name].draws[metric].interval() if name in result.tokenizers else None
                for result in series
            ]
            value, low, high = (
                np.array([np.nan if one is None else getattr(one, field) for one in found])
                for field in ("value", "low", "high")
            )
            axes.plot(shots, value, **_style(name, primary))
            if name == primary:
                axes.fill_between(shots, low, high, color=COLORS[0], alpha=0.15, linewidth=0)
        axes.set_xscale("log", base=2)
        axes.set(xlabel="training patients of each class", ylabel=title, xticks=shots, xticklabels=shots)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    if chance is not None:
        panels[0][0].axhline(chance, color="grey", linewidth=1)
    panels[0][1].axhline(0.5, color="grey", linewidth=1)
    _legend(figure)
    return _svg(figure)


def calibration(results: Sequence[SetupResult], primary: str) -> bytes | None:
    """Draw the observed share of positives by the predicted one, a panel for each setup; None if nothing can be shown.

    Only the primary tokenizer and `COLORED` are drawn.
    """
    shown = [(result, _calibrated(result, primary)) for result in results]
    shown = [(result, tokenizers) for result, tokenizers in shown if tokenizers]
    if not shown:
        return None
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure, panels = _figure(rows, columns, (3.5 * columns, 3.4 * rows + 0.5))
    for axes in panels.flat[len(shown) :]:
        axes.set_axis_off()
    for axes, (result, tokenizers) in zip(panels.flat, shown, strict=False):
        _calibration_panel(axes, result, tokenizers, primary)
    _legend(figure)
    return _svg(figure)


def _legend(figure: Figure) -> None:
    """Draw one legend for all panels, below them."""
    found = (axes.get_legend_handles_labels() for axes in figure.axes)
    handles = {label: handle for pair in found for handle, label in zip(*pair, strict=True)}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=6, fontsize="small", frameon=False)


def _calibrated(result: SetupResult, primary: str) -> list[str]:
    return [name for name in (primary, *COLORED) if name in result.tokenizers and result.tokenizers[name].bins]


def _calibration_panel(axes: Axes, result: SetupResult, tokenizers: Sequence[str], primary: str) -> None:
    largest = 0.0
    for name in tokenizers:
        bins = result.tokenizers[name].bins
        predicted, observed = [one.predicted for one in bins], [one.observed for one in bins]
        largest = max(largest, *predicted, *observed)
        axes.plot(predicted, observed, **_style(name, primary))
    limit = min(1.0, 1.08 * largest)
    axes.plot([0, limit], [0, limit], color="grey", linewidth=1)
    axes.set(xlim=(0, limit), ylim=(0, limit), xlabel="predicted", ylabel="observed")
    axes.set_title(result.setup.title, fontsize="small")
    axes.grid(alpha=0.3)


def forest(results: Sequence[SetupResult], primary: str) -> bytes | None:
    """Draw the paired differences of the primary tokenizer from every other one; None if there are none.

    A filled mark says that the interval does not include 0, on a test set that is not small. Joined tokenizers are
    left out.
    """
    lines = []
    for result in results:
        others = [name for name in result.tokenizers if name != primary and not names.is_joined(name)]
        if primary in result.tokenizers and others:
            lines.append((result.setup.title, None))
            lines += [(name, result) for name in others]
    if not lines:
        return None
    heights = -np.arange(len(lines), dtype=float)
    figure, panels = _figure(1, 2, (10, 0.9 + 0.24 * len(lines)))
    for axes, metric, title in zip(panels[0], (AUPRC, AUROC), ("AUPRC", "AUROC"), strict=True):
        for height, (name, result) in zip(heights, lines, strict=True):
            if result is not None:
                _forest_line(axes, result, primary, name, metric, height)
        axes.axvline(0, color="grey", linewidth=1)
        axes.grid(axis="x", alpha=0.3)
        axes.set(title=f"Difference in {title}, 95 % intervals", yticks=heights, ylim=(heights[-1] - 0.7, 0.7))
        axes.title.set_fontsize("medium")
    left, right = panels[0]
    left.set_yticklabels([name for name, _ in lines])
    right.set_yticklabels([])
    for label, (_, result) in zip(left.get_yticklabels(), lines, strict=True):
        label.set_fontweight("bold" if result is None else "normal")
    for axes in (left, right):
        axes.tick_params(axis="y", length=0)
    return _svg(figure)


def _forest_line(axes: Axes, result: SetupResult, primary: str, name: str, metric: str, height: float) -> None:
    found = result.difference(primary, name, metric)
    if not np.isfinite([found.value, found.low, found.high]).all():
        return
    axes.plot([found.low, found.high], [height, height], color=COLORS[0], linewidth=1.5)
    filled = "white" if found.is_noise or result.is_small else COLORS[0]
    axes.plot([found.value], [height], "o", markersize=5, color=COLORS[0], markerfacecolor=filled)


def _style(name: str, primary: str) -> dict[str, object]:
    """Return the line of a tokenizer: grey and behind all others for those that are not told apart."""
    if name != primary and name not in COLORED:
        return OTHERS | {"label": "others", "zorder": 1}
    color = COLORS[(primary, *COLORED).index(name)]
    return {"color": color, "label": names.title(name, primary), "zorder": 3, "marker": "o", "markersize": 3}


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, np.ndarray]:
    with matplotlib.rc_context(_STABLE):
        return plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)


def _svg(figure: Figure) -> bytes:
    target = io.BytesIO()
    with matplotlib.rc_context(_STABLE):
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return target.getvalue()
