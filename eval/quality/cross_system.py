"""Measure whether a code finds its crosswalk partners among all codes of the other system.

R@k is the share of codes that have a partner among the k nearest, MRR the mean reciprocal rank of the first partner.
Exact and approximate partners are also searched separately; partners of the other kind then count neither as right nor
as wrong.
"""

from collections.abc import Sequence

import numpy as np

from eval.common.measurement import Measurement
from eval.quality import retrieval
from eval.quality.context import BACKWARD_QUERIES, Context
from eval.quality.label_building import APPROXIMATE, BACKWARD, EXACT, FORWARD
from eval.quality.labels import Queries
from eval.quality.retrieval import Ranks, Scorer
from preprocessing.graph import icd_graph

FAMILY = "cross_system"
DEPTHS = (1, 10)
# Relations of the graph whose edges are crosswalks.
CROSSWALK_RELATIONS = icd_graph.EDGE_TYPES["gem"]
WANTED = {"": (EXACT, APPROXIMATE), "exact": (EXACT,), "approximate": (APPROXIMATE,)}


def measure(context: Context, kinds: Sequence[str] = tuple(WANTED)) -> list[Measurement]:
    """Measure R@1, R@10 and MRR in both directions, by each view.

    Args:
        context: context of the representation.
        kinds: kinds of partners that are searched, keys of `WANTED`.
    """
    found = []
    for direction in (FORWARD, BACKWARD):
        if direction not in context.labels.crosswalk:
            continue
        queries = context.labels.crosswalk[direction].of_split(context.split)
        if direction == BACKWARD:
            queries = _subsample(context, queries, context.limit(BACKWARD_QUERIES))
        candidates = context.rows_of(direction.split(" to ")[1])
        for scorer in context.scorers:
            for kind in kinds:
                chosen, wanted = with_kind(queries, kind)
                if len(chosen):
                    ranks = retrieval.find(scorer, chosen, candidates, wanted=wanted)
                    found += _figures(context, scorer, ", ".join(filter(None, (direction, kind))), chosen, ranks)
    return found


def with_kind(queries: Queries, kind: str) -> tuple[Queries, np.ndarray]:
    """Return the queries that have a target of one kind, and a mask of their wanted targets.

    Args:
        queries: queries with targets of several kinds.
        kind: a key of `WANTED`.

    Returns:
        The selected queries, and `[t]` bool over their targets.
    """
    wanted = np.isin(queries.kinds, WANTED[kind])
    owner = np.repeat(np.arange(len(queries)), np.diff(queries.offsets))
    chosen = queries.take(np.unique(owner[wanted]))
    return chosen, np.isin(chosen.kinds, WANTED[kind])


def _subsample(context: Context, queries: Queries, count: int) -> Queries:
    kept = context.subsample(np.unique(queries.query), count)
    return queries.take(np.flatnonzero(np.isin(queries.query, kept)))


def _figures(context: Context, scorer: Scorer, scope: str, queries: Queries, ranks: Ranks) -> list[Measurement]:
    where = {
        "family": FAMILY,
        "view": scorer.name,
        "scope": scope,
        "unit": "codes",
        "given": context.given(queries.given, CROSSWALK_RELATIONS),
        "trained": context.trained(CROSSWALK_RELATIONS),
    }
    where |= {"items": context.items[queries.query], "clusters": context.labels.category[queries.query]}
    figures = [Measurement(metric=f"R@{k}", values=ranks.hits(k), **where) for k in DEPTHS]
    return [*figures, Measurement(metric="MRR", values=ranks.reciprocal_rank(), **where)]
