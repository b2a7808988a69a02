"""Stability across seeds: do tokenizers trained from other seeds put the same codes together?

The ids of two codebooks have nothing to do with each other, so what is compared is which codes are alike: the ten
nearest neighbors of a code, and the codes that share its first token. Both are corrected for what tokens that are all
the same would agree on.
"""

from collections.abc import Callable, Sequence

import numpy as np

from eval.common.measurement import Measurement
from eval.common.representation import Representation
from eval.quality import retrieval
from eval.quality.context import Context
from preprocessing.common.errors import InputError

FAMILY = "seeds"
NEIGHBORS = 10
CODES = 1000


def measure(context: Context, others: Sequence[Representation]) -> list[Measurement]:
    """Agreement of a tokenizer with each of some others of the same codes, averaged over them.

    Raises:
        InputError: they hold other codes.
    """
    mine = context.representation
    for other in others:
        if len(other) != len(mine) or (other.keys != mine.keys).any():
            raise InputError(f"{other.name} and {mine.name} hold different codes; compare seeds of one configuration.")
    where = {"family": FAMILY, "scope": f"{len(others) + 1} tokenizers", "unit": "codes"}
    rows = context.drawn(context.in_split(np.arange(len(mine))), CODES)
    views = {scorer.name: scorer for scorer in retrieval.scorers(mine) if scorer.name != "unquantized"}
    theirs = [{scorer.name: scorer for scorer in retrieval.scorers(other)} for other in others]
    found = []
    drawn = where | {"items": context.items[rows], "clusters": context.labels.category[rows]}
    for name, scorer in views.items():
        shares = [shared_neighbors(scorer, scorers[name], rows, len(mine)) for scorers in theirs if name in scorers]
        if shares:
            metric = f"shared neighbors among {NEIGHBORS}"
            found.append(Measurement(metric=metric, view=name, values=np.mean(shares, axis=0), chance=0.0, **drawn))
    for embedding in mine.embeddings:
        first = mine.part("tokens", embedding)[:, 0]
        values = [mates(first, other.part("tokens", embedding)[:, 0]) for other in others if other.embeddings]
        if values:
            metric = f"codes that share the first token, {embedding}"
            where_all = where | {"items": context.items, "clusters": context.labels.category}
            found.append(
                Measurement(metric=metric, view="tokens", values=np.mean(values, axis=0), chance=0.0, **where_all)
            )
    return found


def shared_neighbors(
    first: retrieval.Scorer, second: retrieval.Scorer, rows: np.ndarray, count: int, k: int = NEIGHBORS
) -> np.ndarray:
    """Expected share of a code's k nearest neighbors that both scorers agree on, ties in a random order each.

    Args:
        first, second: of the same codes.
        rows: codes. count: codes that there are, all of them candidates.
        k: neighbors.
    """
    everything = np.arange(count)
    scores = [scorer.against(everything) for scorer in (first, second)]
    found = np.empty(len(rows))
    for block in retrieval.blocks(len(rows), count):
        chosen = [membership(_without_itself(score, rows[block]), k) for score in scores]
        found[block] = np.einsum("bc,bc->b", *chosen) / k
    return found


def _without_itself(score: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
    scores = score(rows)
    scores[np.arange(len(rows)), rows] = -np.inf
    return scores


def membership(scores: np.ndarray, k: int) -> np.ndarray:
    """Probability that each candidate is among the k of highest score: `[b, candidates]`."""
    threshold = np.partition(scores, -k, axis=1)[:, -k][:, None]
    above = scores > threshold + retrieval.TIE
    level = (scores >= threshold - retrieval.TIE) & ~above
    places = k - above.sum(1, keepdims=True)
    return above + level * (places / np.maximum(level.sum(1, keepdims=True), 1))


def mates(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Share of the codes with the same token in `first` that have the same in `second` too, beyond chance: [n].

    1 where the mates are the same, 0 where they are no more than a random code would have. A code without mates in
    `first` gets 1 where it has none in `second` either.

    Args:
        first, second: `[n]` tokens.
    """
    count = len(first)
    pair = first.astype(np.int64) * (int(second.max()) + 1) + second
    both, a, b = (_sizes(labels) - 1 for labels in (pair, first, second))
    share = np.divide(both, a, out=np.zeros(count), where=a > 0)
    expected = b / max(count - 1, 1)
    beyond = np.divide(share - expected, 1 - expected, out=np.zeros(count), where=expected < 1)
    return np.where(a > 0, beyond, (b == 0).astype(float))


def _sizes(labels: np.ndarray) -> np.ndarray:
    """How many codes have the label of each code."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return counts[inverse]
