"""Hierarchy: does likeness follow the code tree? The graph holds the tree, so these figures tell of what was given."""

import numpy as np
from scipy.stats import rankdata

from eval.common.measurement import Measurement, together
from eval.quality import retrieval
from eval.quality.context import NEIGHBOR_QUERIES, Context

FAMILY = "tree"
SAME_CATEGORY, RANK_CORRELATION, SIBLINGS = "same-category 1-NN", "Spearman with closeness", "sibling above random"
ALL = "all systems"
SIBLING_OVERLAP, RANDOM_OVERLAP = "token overlap of siblings", "token overlap of random codes"


def measure(context: Context) -> list[Measurement]:
    """Neighbors, rank correlation and siblings in each system that has a tree; neighbors over all systems too."""
    neighbors = [figure for system in context.systems for figure in _neighbors(context, system)]
    closeness = [figure for system in context.systems for figure in _closeness(context, system)]
    views = [[one for one in neighbors if one.view == scorer.name] for scorer in context.scorers]
    return neighbors + [one for figures in views for one in together(figures, ALL)] + closeness


def _neighbors(context: Context, system: str) -> list[Measurement]:
    """Share of codes whose nearest code of the system is of their category; a code alone in its own is passed over."""
    candidates, category = context.rows_of(system), context.labels.category
    sizes = np.bincount(category[candidates] - category[candidates].min())
    with_others = candidates[sizes[category[candidates] - category[candidates].min()] > 1]
    rows = context.drawn(context.in_split(with_others), context.limit(NEIGHBOR_QUERIES))
    if not len(rows):
        return []
    chance = float((sizes * (sizes - 1)).sum() / (sizes.sum() * (sizes.sum() - 1)))
    found = []
    for scorer in context.scorers:
        values = retrieval.nearest_share(scorer, rows, candidates, category)
        where = _where(context, scorer.name, system, rows) | {"chance": chance}
        found.append(Measurement(metric=SAME_CATEGORY, values=values, **where))
    return found


def _closeness(context: Context, system: str) -> list[Measurement]:
    """Spearman of likeness with closeness in the tree, and siblings against random codes."""
    rng = np.random.default_rng([context.seed, 1])
    tree = Tree(context.labels.path, context.rows_of(system))
    rows = context.drawn(context.in_split(tree.rows), context.limit(NEIGHBOR_QUERIES))
    rows = rows[np.isin(rows, tree.rows)]
    if len(rows) < 3:
        return []
    others = tree.at_random_levels(rows, rng)
    closeness = -distance(context.labels.path[rows], context.labels.path[others])
    siblings = tree.siblings(rows, rng)
    has_sibling = siblings >= 0
    strangers = tree.rows[rng.integers(len(tree.rows), size=len(rows))]
    different = has_sibling & (strangers != rows)
    found = []
    for scorer in context.scorers:
        where = _where(context, scorer.name, system, rows) | {"chance": 0.0}
        values = correlation_items(scorer.pairs(rows, others), closeness)
        found.append(Measurement(metric=RANK_CORRELATION, values=values, **where))
        kept = rows[different]
        if not len(kept):
            continue
        near, far = scorer.pairs(kept, siblings[different]), scorer.pairs(kept, strangers[different])
        where = _where(context, scorer.name, system, kept)
        above = (near > far + retrieval.TIE) + 0.5 * (abs(near - far) <= retrieval.TIE)
        found.append(Measurement(metric=SIBLINGS, values=above.astype(float), chance=0.5, **where))
        if scorer.name == "tokens":
            found.append(Measurement(metric=SIBLING_OVERLAP, values=near.astype(float), **where))
            found.append(Measurement(metric=RANDOM_OVERLAP, values=far.astype(float), **where | {"better": "lower"}))
    return found


def _where(context: Context, view: str, scope: str, rows: np.ndarray) -> dict:
    items = {"items": context.items[rows], "clusters": context.labels.category[rows]}
    given = context.given(context.labels.given.get("tree", ""))
    return {"family": FAMILY, "view": view, "scope": scope, "unit": "codes", "given": given} | items


class Tree:
    """The codes of a system in the order of their tree, in which those under any node stand together.

    Args:
        path: `[n, L]`, see `Labels.path`.
        rows: of the system; those without a place in the tree are left out.

    Attributes:
        rows: `[m]` int64, in the order of the tree.
    """

    def __init__(self, path: np.ndarray, rows: np.ndarray):
        rows = rows[path[rows, 0] >= 0]
        self.rows = rows[np.lexsort(path[rows].T[::-1])]
        self.path = path[self.rows]
        self.place = np.full(len(path), -1)
        self.place[self.rows] = np.arange(len(self.rows))
        self.depth = (self.path >= 0).sum(1)
        changes = np.ones(self.path.shape, bool)
        changes[1:] = np.logical_or.accumulate(self.path[1:] != self.path[:-1], axis=1)
        number = np.arange(len(self.rows))[:, None]
        # Where the codes of the same first nodes begin and end, by level.
        self.begin = np.maximum.accumulate(np.where(changes, number, 0), axis=0)
        last = np.ones(self.path.shape, bool)
        last[:-1] = changes[1:]
        self.end = np.minimum.accumulate(np.where(last, number + 1, len(self.rows))[::-1], axis=0)[::-1]

    def at_random_levels(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Another code for each one, under one of the nodes above it, all levels (and no node at all) alike likely.

        Codes drawn from everywhere would nearly all be as far apart as codes can be.
        """
        place = self.place[rows]
        level = np.floor(rng.random(len(rows)) * self.depth[place]).astype(np.int64) - 1
        begin = np.where(level < 0, 0, self.begin[place, level])
        end = np.where(level < 0, len(self.rows), self.end[place, level])
        # Where a node has no other code under it the whole system is drawn from.
        alone = end - begin < 2
        return self._other(place, np.where(alone, 0, begin), np.where(alone, len(self.rows), end), rng)

    def siblings(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Another code under the same parent for each one, -1 where there is none."""
        place = self.place[rows]
        level = self.depth[place] - 2
        begin, end = self.begin[place, level], self.end[place, level]
        some = (end - begin > 1) & (level >= 0)
        drawn = self._other(place, begin, np.maximum(end, begin + 2), rng)
        return np.where(some, drawn, -1)

    def _other(self, place: np.ndarray, begin: np.ndarray, end: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A row for each place, drawn from `begin` to `end` without that place itself."""
        drawn = begin + np.floor(rng.random(len(place)) * (end - begin - 1)).astype(np.int64)
        return self.rows[np.minimum(drawn + (drawn >= place), len(self.rows) - 1)]


def distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Edges between codes in the tree, two more where only a root above all would join them: int64 [m].

    Args:
        first, second: `[m, L]` paths.
    """
    common = (np.logical_and.accumulate(first == second, axis=1) & (first >= 0)).sum(1)
    return (first >= 0).sum(1) + (second >= 0).sum(1) - 2 * common


def correlation_items(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """What each pair contributes to Spearman's correlation: float64 [m], whose mean is the correlation.

    These are pseudo-values of the infinitesimal jackknife: r + zx zy - r (zx² + zy²) / 2 with standardized ranks. Their
    spread gives the spread of the correlation (Efron 1982, "The Jackknife, the Bootstrap and Other Resampling Plans").
    """
    ranks = [rankdata(np.round(np.asarray(values, np.float64) / retrieval.TIE)) for values in (first, second)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return np.zeros(len(first))
    x, y = ((rank - rank.mean()) / rank.std() for rank in ranks)
    r = (x * y).mean()
    return r + x * y - r * (x**2 + y**2) / 2
