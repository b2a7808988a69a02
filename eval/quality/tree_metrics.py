"""Measure whether similarity follows the code tree.

The graph contains the tree, so these figures show how much of a known input the tokens keep.
"""

import numpy as np
from scipy.stats import rankdata

from eval.common.measurement import Measurement, pool_scopes
from eval.quality import retrieval
from eval.quality.context import NEIGHBOR_QUERIES, Context

FAMILY = "tree"
SAME_CATEGORY, RANK_CORRELATION, SIBLINGS = "same-category 1-NN", "Spearman with closeness", "sibling above random"
ALL = "all systems"
# The relation of the graph that makes the tree.
TREE_RELATIONS = ("parent",)
SIBLING_OVERLAP, RANDOM_OVERLAP = "token overlap of siblings", "token overlap of random codes"


def measure(context: Context) -> list[Measurement]:
    """Measure neighbors, rank correlation and siblings in each system with a tree, and neighbors over all systems."""
    closeness = [figure for system in context.systems for figure in _closeness(context, system)]
    return neighbors(context, context.limit(NEIGHBOR_QUERIES)) + closeness


def neighbors(context: Context, count: int) -> list[Measurement]:
    """Measure the share of codes whose nearest code of their system has their category, and its mean over all systems.

    Args:
        context: context of the representation.
        count: most codes of a system whose neighbors are searched.
    """
    found = [figure for system in context.systems for figure in _neighbors(context, system, count)]
    views = [[one for one in found if one.view == scorer.name] for scorer in context.scorers]
    return found + [one for figures in views for one in pool_scopes(figures, ALL)]


def _neighbors(context: Context, system: str, count: int) -> list[Measurement]:
    """Measure `neighbors` in one system; codes that are alone in their category are not measured."""
    candidates = context.rows_of(system)
    category = context.labels.category
    sizes = np.bincount(category[candidates] - category[candidates].min())
    with_others = candidates[sizes[category[candidates] - category[candidates].min()] > 1]
    rows = context.subsample(context.in_split(with_others), count)
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
    """Measure the rank correlation of similarity with closeness in the tree, and siblings against random codes."""
    rng = np.random.default_rng([context.seed, 1])
    tree = Tree(context.labels.path, context.rows_of(system))
    rows = context.subsample(context.in_split(tree.rows), context.limit(NEIGHBOR_QUERIES))
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
    marks = {"given": context.given(context.labels.given.get("tree", "")), "trained": context.trained(TREE_RELATIONS)}
    return {"family": FAMILY, "view": view, "scope": scope, "unit": "codes"} | marks | items


class Tree:
    """Hold the codes of a system in depth-first order of their tree, in which the codes under a node are adjacent.

    Args:
        path: `[n, L]` int32, see `Labels.path`.
        rows: rows of the codes of the system; codes outside the tree are dropped.

    Attributes:
        rows: `[m]` int64, rows of the codes in the order of the tree.
        path: `[m, L]` int32, their paths.
        depth: `[m]` int64, number of nodes on each path.
        begin, end: `[m, L]` int64; `rows[begin[i, j]:end[i, j]]` are the codes under the node `path[i, j]`.
    """

    def __init__(self, path: np.ndarray, rows: np.ndarray):
        rows = rows[path[rows, 0] >= 0]
        self.rows = rows[np.lexsort(path[rows].T[::-1])]
        self.path = path[self.rows]
        self.position = np.full(len(path), -1)
        self.position[self.rows] = np.arange(len(self.rows))
        self.depth = (self.path >= 0).sum(1)
        changes = np.ones(self.path.shape, bool)
        changes[1:] = np.logical_or.accumulate(self.path[1:] != self.path[:-1], axis=1)
        number = np.arange(len(self.rows))[:, None]
        self.begin = np.maximum.accumulate(np.where(changes, number, 0), axis=0)
        last = np.ones(self.path.shape, bool)
        last[:-1] = changes[1:]
        self.end = np.minimum.accumulate(np.where(last, number + 1, len(self.rows))[::-1], axis=0)[::-1]

    def at_random_levels(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw another code for each code, from the codes under one of its ancestors or from all codes.

        The ancestor, or none, is drawn uniformly: nearly all pairs of codes drawn from everywhere would have the
        largest distance.

        Args:
            rows: `[m]` rows of codes of the tree.
            rng: random generator.

        Returns:
            `[m]` rows.
        """
        position = self.position[rows]
        level = np.floor(rng.random(len(rows)) * self.depth[position]).astype(np.int64) - 1
        begin = np.where(level < 0, 0, self.begin[position, level])
        end = np.where(level < 0, len(self.rows), self.end[position, level])
        # A code that is alone under the node gets one from the complete system.
        alone = end - begin < 2
        return self._other(position, np.where(alone, 0, begin), np.where(alone, len(self.rows), end), rng)

    def siblings(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw another code under the same parent for each code, -1 where there is none: `[m]` rows of `[m]` rows."""
        position = self.position[rows]
        level = self.depth[position] - 2
        begin, end = self.begin[position, level], self.end[position, level]
        some = (end - begin > 1) & (level >= 0)
        drawn = self._other(position, begin, np.maximum(end, begin + 2), rng)
        return np.where(some, drawn, -1)

    def _other(self, position: np.ndarray, begin: np.ndarray, end: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw a row for each position, from `begin` to `end` without the position itself."""
        drawn = begin + np.floor(rng.random(len(position)) * (end - begin - 1)).astype(np.int64)
        return self.rows[np.minimum(drawn + (drawn >= position), len(self.rows) - 1)]


def distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the number of edges between codes in the tree, joined by a common root where need be: int64 `[m]`.

    Args:
        first, second: `[m, L]` paths, see `Labels.path`.
    """
    common = (np.logical_and.accumulate(first == second, axis=1) & (first >= 0)).sum(1)
    return (first >= 0).sum(1) + (second >= 0).sum(1) - 2 * common


def correlation_items(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the contribution of each pair to Spearman's correlation: float64 `[m]`, whose mean is the correlation.

    The contributions are pseudo-values of the infinitesimal jackknife: r + zx zy - r (zx² + zy²) / 2 with standardized
    ranks. Their variance gives the variance of the correlation (Efron 1982, "The Jackknife, the Bootstrap and Other
    Resampling Plans").
    """
    ranks = [rankdata(np.round(np.asarray(values, np.float64) / retrieval.TIE)) for values in (first, second)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return np.zeros(len(first))
    x, y = ((rank - rank.mean()) / rank.std() for rank in ranks)
    r = (x * y).mean()
    return r + x * y - r * (x**2 + y**2) / 2
