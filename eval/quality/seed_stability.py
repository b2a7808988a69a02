"""Measure whether tokenizers trained from different seeds consider the same codes similar.

The ids of two codebooks are unrelated, so the comparison is of neighborhoods: the ten nearest neighbors of a code, and
the codes that share its first token. Ties get their expectation, and shared tokens are corrected for chance, so that
constant tokens score about 0.
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
COMPARED_VIEWS = ("vectors", "tokens")
CODES = 1000


def measure(context: Context, others: Sequence[Representation]) -> list[Measurement]:
    """Measure the mean agreement of a tokenizer with other tokenizers of the same codes.

    Args:
        context: context of the tokenizer.
        others: representations by tokenizers of other seeds.

    Raises:
        InputError: one of the others has different codes.
    """
    mine = context.representation
    for other in others:
        if len(other) != len(mine) or (other.keys != mine.keys).any():
            raise InputError(f"{other.name} and {mine.name} have different codes; compare seeds of one configuration.")
    where = {"family": FAMILY, "scope": f"{len(others) + 1} tokenizers", "unit": "codes"}
    rows = context.subsample(context.in_split(np.arange(len(mine))), CODES)
    views = {scorer.name: scorer for scorer in retrieval.scorers(mine) if scorer.name in COMPARED_VIEWS}
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
        values = [token_agreement(first, other.part("tokens", embedding)[:, 0]) for other in others if other.embeddings]
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
    """Return the expected share of the k nearest neighbors of each code that two scorers agree on: float64 `[rows]`.

    Args:
        first, second: scorers of the same codes, each with ties in a random order.
        rows: rows of the codes.
        count: number of all codes, which are the candidates.
        k: number of neighbors.
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
    """Return the probability that each candidate is among the k of the highest score: `[b, candidates]`."""
    threshold = np.partition(scores, -k, axis=1)[:, -k][:, None]
    above = scores > threshold + retrieval.TIE
    tied = (scores >= threshold - retrieval.TIE) & ~above
    ranks = k - above.sum(1, keepdims=True)
    return above + tied * (ranks / np.maximum(tied.sum(1, keepdims=True), 1))


def token_agreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the share of the codes of equal token in `first` that are so in `second` too, beyond chance: `[n]`.

    The share is 1 where all are, and 0 where no more are than of random codes. A code with a unique token in `first`
    gets 1 where its token in `second` is unique too, and 0 otherwise.

    Args:
        first, second: `[n]` int, a token of each code.
    """
    count = len(first)
    pair = first.astype(np.int64) * (int(second.max()) + 1) + second
    both, a, b = (_sizes(labels) - 1 for labels in (pair, first, second))
    share = np.divide(both, a, out=np.zeros(count), where=a > 0)
    expected = b / max(count - 1, 1)
    beyond = np.divide(share - expected, 1 - expected, out=np.zeros(count), where=expected < 1)
    return np.where(a > 0, beyond, (b == 0).astype(float))


def _sizes(labels: np.ndarray) -> np.ndarray:
    """Return the number of codes that have the label of each code."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return counts[inverse]
