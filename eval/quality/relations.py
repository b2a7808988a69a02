"""Measure whether codes joined by a held-out edge of the graph are more similar than other codes.

AUC is the probability that a code is more similar to a code at the other end of its edge than to a code at the end of
another edge of the relation, so that frequent targets are as frequent among the negatives. Hits@10 ranks the codes at
the other end among all codes of the system. Codes of the category of the query are excluded from both, since the code
tree makes them similar in any case.
"""

import numpy as np

from eval.common.measurement import Measurement, pool_scopes
from eval.quality import retrieval
from eval.quality.context import Context
from eval.quality.labels import Queries
from eval.quality.retrieval import Scorer
from preprocessing.common.hashing import mix
from preprocessing.graph import icd_graph

FAMILY = "relations"
AUC, HITS = "AUC", "Hits@10"
# Negatives drawn for each edge.
NEGATIVES = 50
ALL = "all notes"
# Relations of the graph whose edges are notes; a tokenizer that is trained on some of them learned what notes join.
SCORED_NOTES = icd_graph.EDGE_TYPES["note"]


def measure(context: Context) -> list[Measurement]:
    """Measure AUC and Hits@10 of each relation and of all relations pooled."""
    by_relation: dict[tuple[str, str], list[Measurement]] = {}
    for number, (relation, queries) in enumerate(context.labels.relations.items()):
        queries = queries.of_split(context.split)
        if len(queries) < 2:
            continue
        system = context.labels.systems[queries.query[0]]
        rng = np.random.default_rng([context.seed, 2, number])
        sampled = _sample(queries, context.labels.category, rng)
        for scorer in context.scorers:
            hits = retrieval.find(scorer, queries, context.rows_of(system), category=context.labels.category).hits(10)
            where = {"family": FAMILY, "view": scorer.name, "scope": relation, "unit": "edges"}
            where |= {"given": context.given(queries.given, [relation]), "trained": context.trained(SCORED_NOTES)}
            where |= {"items": _edge_numbers(context, queries, number)}
            where |= {"clusters": context.labels.category[queries.query]}
            for metric, values, chance in ((AUC, _wins(scorer, queries, *sampled), 0.5), (HITS, hits, None)):
                figure = Measurement(metric=metric, values=values, chance=chance, **where)
                by_relation.setdefault((metric, scorer.name), []).append(figure)
    return [figure for figures in by_relation.values() for figure in [*figures, *pool_scopes(figures, ALL)]]


def _edge_numbers(context: Context, queries: Queries, number: int) -> np.ndarray:
    """Return an identifier for each edge, made of its query, its first target and its relation."""
    first = context.items[queries.targets[queries.offsets[:-1]]]
    return mix(context.items[queries.query] ^ mix(first + np.uint64(number)))


def _sample(queries: Queries, category: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a positive `[q]` and negatives `[q, NEGATIVES]` for each edge.

    A negative is a code under the target node of another edge; it is -1 where that code is a target of the query or has
    its category.
    """
    sizes = np.diff(queries.offsets)
    right = queries.targets[queries.offsets[:-1] + np.floor(rng.random(len(queries)) * sizes).astype(np.int64)]
    other = rng.integers(len(queries), size=(len(queries), NEGATIVES))
    position = queries.offsets[other] + np.floor(rng.random(other.shape) * sizes[other]).astype(np.int64)
    wrong = queries.targets[position]
    pairs_known = {(int(q), int(t)) for q, t in zip(np.repeat(queries.query, sizes), queries.targets, strict=True)}
    near = category[wrong] == category[queries.query][:, None]
    for row, query in enumerate(queries.query.tolist()):
        near[row] |= np.fromiter(((query, code) in pairs_known for code in wrong[row].tolist()), bool, NEGATIVES)
    return right, np.where(near, -1, wrong)


def _wins(scorer: Scorer, queries: Queries, right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Return the share of negatives that each positive scores above, with ties counted half: float64 `[q]`."""
    row, column = np.nonzero(wrong >= 0)
    score = scorer.pairs(queries.query, right)[row]
    other = scorer.pairs(queries.query[row], wrong[row, column])
    won = (score > other + retrieval.TIE) + 0.5 * (abs(score - other) <= retrieval.TIE)
    count = np.bincount(row, minlength=len(queries))
    # An edge without negatives counts as chance.
    return np.divide(np.bincount(row, won, len(queries)), count, out=np.full(len(queries), 0.5), where=count > 0)
