"""One figure: a mean over items, each with a value of its own.

Every metric is brought into this form, because then one bootstrap gives every interval, and the difference of two
representations can be taken item by item. Figures that are no plain means are means of what each item contributes to
them: the perplexity is the exponential of a mean, and a rank correlation the mean of pseudo-values.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

MEAN, EXPONENTIAL = "mean", "exp"


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A figure and the items it is made of.

    Attributes:
        family: of metrics: codebook, identity, cross_system, tree, groups, relations, robustness, seeds.
        metric: its name, such as `R@1`.
        view: what was compared: `vectors`, `tokens`, `unquantized`, or empty.
        scope: what it is about: a code system, a direction, a region.
        unit: what the items are.
        items: `[n]` numbers that tell the items apart; the same item has the same number for every representation.
        values: `[n]` float64.
        clusters: `[n]` numbers of what is drawn together in a bootstrap, None where each item is drawn alone.
        macro: `[n]` numbers of groups whose means are averaged, None for a plain mean.
        given: what the graph was given of the labels, empty for nothing.
        chance: expected of tokens that know nothing, None where that is not told.
        better: `higher`, `lower`, or empty where neither is.
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
    chance: float | None = None
    better: str = "higher"
    transform: str = MEAN

    @property
    def name(self) -> tuple[str, str, str, str]:
        """What tells a figure apart from the others of one representation."""
        return self.family, self.metric, self.view, self.scope

    def value(self) -> float:
        """The figure."""
        if self.macro is None:
            mean = float(np.mean(self.values)) if len(self.values) else float("nan")
        else:
            _, group = np.unique(self.macro, return_inverse=True)
            mean = float(np.mean(np.bincount(group, self.values) / np.bincount(group))) if len(group) else float("nan")
        return float(np.exp(mean)) if self.transform == EXPONENTIAL else mean


def together(figures: Sequence[Measurement], scope: str) -> list[Measurement]:
    """The figure over several scopes, each item counting alike; none where there is but one."""
    if len(figures) < 2:
        return []
    first, counts = figures[0], [len(figure.values) for figure in figures]
    chances = [figure.chance for figure in figures]
    joined = {name: np.concatenate([getattr(f, name) for f in figures]) for name in ("items", "values", "clusters")}
    chance = None if None in chances else float(np.average(chances, weights=counts))
    return [dataclasses.replace(first, scope=scope, chance=chance, **joined)]
