"""Draw token quality: the use of the codebook, similarity by distance in the tree, and the main figures."""

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from eval.quality import groups, tree_metrics
from eval.quality.context import Context
from eval.reports.plots import COLORS, save

MAIN = ("R@1", "R@10", tree_metrics.SAME_CATEGORY, groups.MACRO_ACCURACY, "AUC")
_PAIRS = 4000


def draw(context: Context, report: dict, folder: Path) -> list[str]:
    """Draw the plots that the representation allows into a folder, and return their file names."""
    drawn = []
    if context.representation.tokens is not None:
        drawn.append(_use_of_codebook(context, folder / "codebook.png"))
    if any(figure["metric"] in MAIN for figure in report["figures"]):
        drawn.append(_main_figures(report, folder / "figures.png"))
    if (context.labels.path[:, 0] >= 0).any():
        drawn.append(_similarity(context, folder / "tree.png"))
    return drawn


def _use_of_codebook(context: Context, path: Path) -> str:
    """Draw how often each token is used, in order of frequency."""
    representation = context.representation
    figure, axes = plt.subplots(figsize=(6, 4))
    regions = representation.regions or {"all": (0, representation.num_ids)}
    tokens = representation.tokens[representation.tokens >= 0]
    counts = np.bincount(tokens, minlength=representation.num_ids)
    for color, (name, (start, stop)) in zip(COLORS, regions.items(), strict=False):
        ordered = np.sort(counts[start:stop])[::-1]
        axes.plot(np.arange(1, stop - start + 1), np.where(ordered > 0, ordered, np.nan), color=color, label=name)
    axes.set(xscale="log", yscale="log", xlabel="token, most frequent first", ylabel="times used")
    axes.set_title(representation.name)
    axes.legend()
    return _save(figure, path)


def _main_figures(report: dict, path: Path) -> str:
    """Draw the main figures of each view with their intervals."""
    figures = [f for f in report["figures"] if f["metric"] in MAIN and f["family"] not in ("robustness",)]
    names = list(dict.fromkeys(f"{f['metric']}, {f['scope']}" for f in figures))
    views = list(dict.fromkeys(f["view"] for f in figures))
    figure, axes = plt.subplots(figsize=(8, 0.35 * len(names) + 1.2))
    for number, view in enumerate(views):
        mine = [f for f in figures if f["view"] == view]
        values = np.array([f["value"] for f in mine])
        errors = np.abs(np.array([[f["low"] for f in mine], [f["high"] for f in mine]]) - values)
        positions = [names.index(f"{f['metric']}, {f['scope']}") + 0.15 * (number - (len(views) - 1) / 2) for f in mine]
        axes.errorbar(values, positions, xerr=errors, fmt="o", ms=3, color=COLORS[number % len(COLORS)], label=view)
    axes.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 1), title=report["name"])
    axes.invert_yaxis()
    axes.legend(fontsize="small")
    return _save(figure, path)


def _similarity(context: Context, path: Path) -> str:
    """Draw the similarity of codes by their distance in the tree."""
    rng = np.random.default_rng([context.seed, 3])
    tree = tree_metrics.Tree(context.labels.path, np.arange(len(context.representation)))
    rows = tree.rows[rng.integers(len(tree.rows), size=min(_PAIRS, len(tree.rows)))]
    others = tree.at_random_levels(rows, rng)
    distance = tree_metrics.distance(context.labels.path[rows], context.labels.path[others])
    levels = np.unique(distance)
    figure, all_axes = plt.subplots(1, len(context.scorers), figsize=(4 * len(context.scorers), 3.2), squeeze=False)
    for axes, scorer in zip(all_axes[0], context.scorers, strict=True):
        scores = scorer.pairs(rows, others)
        axes.boxplot([scores[distance == level] for level in levels], tick_labels=levels.tolist(), showfliers=False)
        axes.set(xlabel="edges between two codes in the tree", ylabel="similarity", title=scorer.name)
    return _save(figure, path)


def _save(figure: Figure, path: Path) -> str:
    figure.tight_layout()
    save(figure, path)
    return path.name
