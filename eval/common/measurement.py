"""Represent every figure as a mean over items, such as codes or edges, each of which has a value.

In this form one bootstrap gives every interval, and two representations can be compared item by item. Figures that are
not plain means are means of the contribution of each item: the perplexity is the exponential of a mean, and a rank
correlation is the mean of pseudo-values.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

MEAN, EXPONENTIAL = "mean", "exp"


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Hold a figure and the items it is the mean of.

    Attributes:
        family: family of metrics, such as `cross_system`; see `docs/evaluation.md`.
        metric: name of the metric, such as `R@1`.
        view: the data that were compared: `vectors`, `tokens`, `unweighted tokens`, `unquantized`, or empty.
        scope: the codes or rows that the figure covers, such as a code system, a direction or a region.
        unit: plural noun for the items, such as `codes`.
        items: `[n]` identifiers of the items; an item has the same number in every representation.
        values: `[n]` float64.
        clusters: `[n]` cluster of each item, resampled together in the bootstrap; None to resample single items.
        macro: `[n]` group of each item, for the mean of the means of groups; None for a plain mean.
        given: the part of the labels that the graph contains, empty for none.
        trained: what of the kind that is scored was in the training loss, empty for nothing.
        chance: expected value of random tokens, None where it is not known.
        better: `higher`, `lower`, or empty where neither is better.
        transform: `mean`, or `exp` for the exponential of the mean.
    """

    family: str
    metric: str
    view: str
    scope: str
    unit: str
    items: np.ndarray
    values: np.ndarray
    clusters: np.ndarray | None = None
    macro: np.ndarray | None = None
    given: str = ""
    trained: str = ""
    chance: float | None = None
    better: str = "higher"
    transform: str = MEAN

    @property
    def name(self) -> tuple[str, str, str, str]:
        """Return (family, metric, view, scope), which identifies the figure within one representation."""
        return self.family, self.metric, self.view, self.scope

    def value(self) -> float:
        """Return the figure, NaN without items."""
        if self.macro is None:
            mean = float(np.mean(self.values)) if len(self.values) else float("nan")
        else:
            _, group = np.unique(self.macro, return_inverse=True)
            mean = float(np.mean(np.bincount(group, self.values) / np.bincount(group))) if len(group) else float("nan")
        return float(np.exp(mean)) if self.transform == EXPONENTIAL else mean


def mean_of_seeds(figures: Sequence[Measurement]) -> Measurement:
    """Return one figure of several seeds of a tokenizer, whose values are means over the seeds, by their common items.

    The mean of figures that are exponentials is geometric.
    """
    items = functools.reduce(np.intersect1d, [figure.items for figure in figures])
    rows = [np.flatnonzero(np.isin(figure.items, items)) for figure in figures]
    rows = [at[np.argsort(figure.items[at], kind="stable")] for figure, at in zip(figures, rows, strict=True)]
    values = np.mean([figure.values[at] for figure, at in zip(figures, rows, strict=True)], axis=0)
    arrays = {name: getattr(figures[0], name) for name in ("items", "clusters", "macro")}
    kept = {name: array if array is None else array[rows[0]] for name, array in arrays.items()}
    return dataclasses.replace(figures[0], values=values, **kept)


def pool_scopes(figures: Sequence[Measurement], scope: str) -> list[Measurement]:
    """Pool one figure over several scopes with equal weight for each item; return nothing for fewer than two scopes."""
    if len(figures) < 2:
        return []
    counts = [len(figure.values) for figure in figures]
    chances = [figure.chance for figure in figures]
    joined = {name: np.concatenate([getattr(f, name) for f in figures]) for name in ("items", "values", "clusters")}
    chance = None if None in chances else float(np.average(chances, weights=counts))
    return [dataclasses.replace(figures[0], scope=scope, chance=chance, **joined)]
