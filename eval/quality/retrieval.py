"""Rank candidates by similarity to a code, and score tied candidates by their expectation in a random order.

Without the expectation, identical tokens for all codes would win wherever the wanted code happens to come first.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from scipy.special import gammaln

from eval.common.representation import Representation
from eval.quality.bags import OverlapBlocks, bags_of, overlaps
from eval.quality.labels import Queries
from preprocessing.common.ragged import positions

# Scores that differ by less are tied: float32 products of equal vectors can differ by as much.
TIE = 1e-5
# Size of one block of scores: queries x candidates.
_BLOCK = 1 << 23


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Hold the functions that score the similarity of codes in one view; higher scores are more similar.

    Attributes:
        name: name of the view.
        against: candidate rows -> function from `[b]` rows to float32 `[b, candidates]` scores.
        pairs: two arrays of `[m]` rows -> float32 `[m]` scores.
    """

    name: str
    against: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]]
    pairs: Callable[[np.ndarray, np.ndarray], np.ndarray]


def cosine_scorer(name: str, vectors: np.ndarray) -> Scorer:
    """Return a scorer by the cosine of `[n, D]` vectors; the cosine with a vector of zeros is 0."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    scale = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0).astype(np.float32)

    def unit(rows: np.ndarray) -> np.ndarray:
        return vectors[rows] * scale[rows, None]

    def against(candidates: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        everything = unit(candidates)
        return lambda rows: unit(rows) @ everything.T

    def pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        found = np.empty(len(first), np.float32)
        for start in range(0, len(first), 65536):
            part = slice(start, start + 65536)
            found[part] = np.einsum("nd,nd->n", unit(first[part]), unit(second[part]))
        return found

    return Scorer(name, against, pairs)


def overlap_scorer(name: str, representation: Representation, *, weighted: bool = True) -> Scorer:
    """Return a scorer by the Jaccard overlap of tokens, weighted or not."""
    bags = bags_of(representation, weighted=weighted)
    return Scorer(name, lambda candidates: OverlapBlocks(bags, candidates), lambda a, b: overlaps(bags, a, b))


def scorers(representation: Representation) -> list[Scorer]:
    """Return a scorer for each view that a representation has.

    Views are `vectors`, `tokens`, `unquantized`, and where tokens have weights `unweighted tokens`, in which all count
    equally, as a model does that reads ids alone. Vectors of several embeddings count by their numbers of tokens.
    """
    found = []
    if representation.vectors is not None:
        found.append(cosine_scorer("vectors", representation.scaled("vectors")))
    if representation.tokens is not None:
        found.append(overlap_scorer("tokens", representation))
        if representation.weights is not None:
            found.append(overlap_scorer("unweighted tokens", representation, weighted=False))
    if representation.unquantized is not None:
        found.append(cosine_scorer("unquantized", representation.scaled("unquantized")))
    return found


def blocks(count: int, width: int) -> Iterator[np.ndarray]:
    """Yield the indices 0 to count - 1 in blocks, small enough for scores against `width` candidates."""
    size = int(np.clip(_BLOCK // max(width, 1), 1, 1024))
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Hold the rank of the best target of each query among the candidates; each field is `[q]` int64.

    Attributes:
        above: number of wrong candidates that score higher than the best target.
        tied: number of wrong candidates that score as high as the best target.
        targets: number of targets that score as high as the best target.
    """

    above: np.ndarray
    tied: np.ndarray
    targets: np.ndarray

    def hits(self, k: int) -> np.ndarray:
        """Return the probability that a target is among the first k: float64 `[q]`."""
        return expected_hits(self.above, self.tied, self.targets, k)

    def reciprocal_rank(self) -> np.ndarray:
        """Return the expected reciprocal rank of the first target: float64 `[q]`."""
        return expected_reciprocal_rank(self.above, self.tied, self.targets)


def find(
    scorer: Scorer,
    queries: Queries,
    candidates: np.ndarray,
    *,
    wanted: np.ndarray | None = None,
    category: np.ndarray | None = None,
) -> Ranks:
    """Rank the candidates for each query.

    Args:
        scorer: scores the similarity of codes.
        queries: queries, each with at least one wanted target among the candidates.
        candidates: rows in ascending order; the query itself is excluded.
        wanted: `[t]` bool mask of the targets to search; the others count neither as right nor as wrong. None for all.
        category: `[n]` category of each code, to exclude candidates of the category of the query; None to keep them.
    """
    wanted = np.ones(len(queries.targets), bool) if wanted is None else wanted
    index_of = np.full(int(max(candidates.max(), queries.targets.max(), queries.query.max())) + 1, -1)
    index_of[candidates] = np.arange(len(candidates))
    score = scorer.against(candidates)
    found = np.zeros((3, len(queries)), np.int64)
    for block in blocks(len(queries), len(candidates)):
        rows = queries.query[block]
        scores = score(rows)
        if category is not None:
            scores[category[rows][:, None] == category[candidates][None, :]] = -np.inf
        itself = index_of[rows]
        scores[np.flatnonzero(itself >= 0), itself[itself >= 0]] = -np.inf
        where, counts = positions(queries.offsets, block)
        owner, target = np.repeat(np.arange(len(block)), counts), index_of[queries.targets[where]]
        usable = wanted[where] & (target >= 0)
        right = scores[owner[usable], target[usable]].copy()
        scores[owner[target >= 0], target[target >= 0]] = -np.inf
        best = np.full(len(block), -np.inf, np.float32)
        np.maximum.at(best, owner[usable], right)
        above = scores > best[:, None] + TIE
        found[0, block] = above.sum(1)
        found[1, block] = (scores >= best[:, None] - TIE).sum(1) - found[0, block]
        found[2, block] = np.bincount(owner[usable][right >= best[owner[usable]] - TIE], minlength=len(block))
    return Ranks(*found)


def average_precision(scorer: Scorer, queries: Queries, candidates: np.ndarray, depth: int = 100) -> np.ndarray:
    """Return the average precision of each query within the first `depth` candidates: float64 `[q]`.

    It is the sum of the precisions at the ranks of targets, divided by the number of targets, or by `depth` if that is
    less. Tied candidates count by their expectation in a random order (McSherry and Najork 2008, "Computing information
    retrieval performance measures efficiently in the presence of tied scores", section 3).

    Args:
        scorer: scores the similarity of codes.
        queries: queries, each with at least one target among the candidates; no query is a candidate.
        candidates: rows in ascending order.
        depth: number of first ranks that count.
    """
    index_of = np.full(int(max(candidates.max(), queries.targets.max())) + 1, -1)
    index_of[candidates] = np.arange(len(candidates))
    score = scorer.against(candidates)
    found = np.zeros(len(queries))
    for block in blocks(len(queries), len(candidates)):
        scores = score(queries.query[block])
        for row, number in enumerate(block):
            targets = index_of[queries.targets[queries.offsets[number] : queries.offsets[number + 1]]]
            right = np.zeros(len(candidates), bool)
            right[targets[targets >= 0]] = True
            found[number] = _average_precision(scores[row], right, min(depth, len(candidates)))
    return found


def _average_precision(scores: np.ndarray, right: np.ndarray, depth: int) -> float:
    """Return the expected average precision of `[c]` scores with `[c]` bool targets, see `average_precision`."""
    lowest = np.partition(scores, -depth)[-depth]
    first = np.flatnonzero(scores > lowest + TIE)
    first = first[np.argsort(-scores[first], kind="stable")]
    tied = np.abs(scores - lowest) <= TIE
    # Ranks in groups of tied candidates, of which the last one may reach beyond the depth.
    starts = np.flatnonzero(np.diff(scores[first], prepend=np.inf) < -TIE)
    sizes = np.append(np.diff(starts, append=len(first)), np.count_nonzero(tied))
    targets = np.append(
        np.add.reduceat(right[first], starts, dtype=np.int64) if len(first) else [], np.count_nonzero(right & tied)
    ).astype(np.int64)
    before, found_before = np.cumsum(sizes) - sizes, np.cumsum(targets) - targets
    group = np.repeat(np.arange(len(sizes)), sizes)[:depth]
    place = np.arange(len(group)) - before[group]
    others = (targets[group] - 1) / np.maximum(sizes[group] - 1, 1)
    precision = (found_before[group] + place * others + 1) / (np.arange(len(group)) + 1)
    return float((targets[group] / sizes[group] * precision).sum() / min(np.count_nonzero(right), depth))


def nearest_share(
    scorer: Scorer,
    rows: np.ndarray,
    candidates: np.ndarray,
    label: np.ndarray,
    *,
    itself: np.ndarray | None = None,
) -> np.ndarray:
    """Return the probability that the nearest other candidate of each code has its label: float64 `[rows]`.

    Args:
        scorer: scores the similarity of codes.
        rows: rows of the codes.
        candidates: rows of the candidates in ascending order.
        label: `[n]` int.
        itself: `[rows]` the candidate to exclude for each code; None for the row of the code.
    """
    itself = rows if itself is None else itself
    score = scorer.against(candidates)
    index_of = np.full(len(label), -1)
    index_of[candidates] = np.arange(len(candidates))
    found = np.empty(len(rows))
    for block in blocks(len(rows), len(candidates)):
        scores = score(rows[block])
        own = index_of[itself[block]]
        scores[np.flatnonzero(own >= 0), own[own >= 0]] = -np.inf
        owner, index = np.nonzero(scores >= scores.max(1, keepdims=True) - TIE)
        same = label[candidates[index]] == label[rows[block][owner]]
        found[block] = np.bincount(owner, same, len(block)) / np.bincount(owner, minlength=len(block))
    return found


def expected_hits(above: np.ndarray, tied: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return the probability that one of several tied targets is among the first k in a random order.

    None of the `k - above` ranks left has a target with probability C(tied, ranks) / C(tied + targets, ranks).

    Args:
        above: `[q]` number of wrong candidates that score higher.
        tied: `[q]` number of wrong candidates that score as high.
        targets: `[q]` number of targets with this score.
        k: number of first ranks that count.
    """
    ranks = np.clip(k - above, 0, None).astype(np.float64)
    all_fit = ranks > tied
    ranks = np.minimum(ranks, tied)
    log_none = _log_choose(tied, ranks) - _log_choose(tied + targets, ranks)
    return np.where(all_fit, 1.0, -np.expm1(log_none))


def expected_reciprocal_rank(above: np.ndarray, tied: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the expected reciprocal rank of the first of several tied targets in a random order.

    It is the sum over j of P(the first target is the j-th of the tied candidates) / (above + j).

    Args:
        above, tied, targets: `[q]`, see `expected_hits`.
    """
    cases, inverse = np.unique(np.stack([above, tied, targets]), axis=1, return_inverse=True)
    found = np.empty(cases.shape[1])
    for number, (a, t, r) in enumerate(cases.T):
        # j = 1 .. t + 1; the first j - 1 of the tied candidates are no targets.
        passed = np.arange(t + 1)
        log_first = _log_choose(t, passed) - _log_choose(t + r, passed) + np.log(r) - np.log(t + r - passed)
        found[number] = (np.exp(log_first) / (a + passed + 1)).sum()
    return found[inverse.reshape(-1)]


def _log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Return the logarithm of the binomial coefficients C(n, k)."""
    return gammaln(np.add(n, 1.0)) - gammaln(np.add(k, 1.0)) - gammaln(np.subtract(n, k) + 1.0)
