"""Which codes are found when codes look for others. Ties get what they are expected to get in a random order.

Without that, tokens that are all the same would win wherever the wanted code happens to stand first.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from scipy.special import gammaln

from eval.common.representation import Representation
from eval.quality.bags import OverlapBlocks, bags_of, overlaps
from eval.quality.labels import Queries
from preprocessing.common.ragged import positions

# Scores that differ by less are tied: float32 products of vectors that are equal differ by that much.
TIE = 1e-5
# Numbers of one block of scores: queries x candidates.
_BLOCK = 1 << 23


@dataclasses.dataclass(frozen=True)
class Scorer:
    """How alike codes are.

    Attributes:
        name: of the view.
        against: candidate rows -> function from `[b]` rows to float32 `[b, candidates]` scores, the higher the more
            alike.
        pairs: two arrays of `[m]` rows -> float32 `[m]` scores.
    """

    name: str
    against: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]]
    pairs: Callable[[np.ndarray, np.ndarray], np.ndarray]


def cosine_scorer(name: str, vectors: np.ndarray) -> Scorer:
    """Cosines of `[n, D]` vectors; a vector of zeros is like none."""
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
    """Weighted Jaccard overlap of tokens."""
    bags = bags_of(representation, weighted=weighted)
    return Scorer(name, lambda candidates: OverlapBlocks(bags, candidates), lambda a, b: overlaps(bags, a, b))


def scorers(representation: Representation, *, alike: bool = False) -> list[Scorer]:
    """Views of a representation: `vectors`, `tokens`, `unquantized`, as far as it has them.

    Args:
        representation: what is judged.
        alike: also `tokens alike`, in which tokens count without their weights.
    """
    found = []
    if representation.vectors is not None:
        found.append(cosine_scorer("vectors", representation.vectors))
    if representation.tokens is not None:
        found.append(overlap_scorer("tokens", representation))
        if alike and representation.weights is not None:
            found.append(overlap_scorer("tokens alike", representation, weighted=False))
    if representation.unquantized is not None:
        found.append(cosine_scorer("unquantized", representation.unquantized))
    return found


def blocks(count: int, width: int) -> Iterator[np.ndarray]:
    """Places 0 .. count - 1 in blocks, for scores against `width` candidates."""
    size = int(np.clip(_BLOCK // max(width, 1), 1, 1024))
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


@dataclasses.dataclass(frozen=True)
class Found:
    """Where the best target of each query stands among the candidates, each `[q]` int64.

    Attributes:
        above: wrong candidates that score higher than the best target.
        level: wrong candidates that score as high.
        targets: targets that score as high as the best.
    """

    above: np.ndarray
    level: np.ndarray
    targets: np.ndarray

    def hits(self, k: int) -> np.ndarray:
        """Probability that a target is among the first k: float64 [q]."""
        return expected_hits(self.above, self.level, self.targets, k)

    def reciprocal_rank(self) -> np.ndarray:
        """Expected reciprocal rank of the first target: float64 [q]."""
        return expected_reciprocal_rank(self.above, self.level, self.targets)


def find(
    scorer: Scorer,
    queries: Queries,
    candidates: np.ndarray,
    *,
    wanted: np.ndarray | None = None,
    category: np.ndarray | None = None,
) -> Found:
    """Ranks candidates for each query.

    Args:
        scorer: how alike codes are.
        queries: each has at least one wanted target among the candidates.
        candidates: rows, rising. A query itself is no candidate.
        wanted: `[t]` bool, which targets are looked for; the others count neither as right nor as wrong. None for all.
        category: `[n]` category of each code; candidates of the query's own category are left out. None to keep them.
    """
    wanted = np.ones(len(queries.targets), bool) if wanted is None else wanted
    place_of = np.full(int(max(candidates.max(), queries.targets.max(), queries.query.max())) + 1, -1)
    place_of[candidates] = np.arange(len(candidates))
    score = scorer.against(candidates)
    found = np.zeros((3, len(queries)), np.int64)
    for block in blocks(len(queries), len(candidates)):
        rows = queries.query[block]
        scores = score(rows)
        if category is not None:
            scores[category[rows][:, None] == category[candidates][None, :]] = -np.inf
        itself = place_of[rows]
        scores[np.flatnonzero(itself >= 0), itself[itself >= 0]] = -np.inf
        where, counts = positions(queries.offsets, block)
        owner, target = np.repeat(np.arange(len(block)), counts), place_of[queries.targets[where]]
        usable = wanted[where] & (target >= 0)
        right = scores[owner[usable], target[usable]].copy()
        scores[owner[target >= 0], target[target >= 0]] = -np.inf
        best = np.full(len(block), -np.inf, np.float32)
        np.maximum.at(best, owner[usable], right)
        above = scores > best[:, None] + TIE
        found[0, block] = above.sum(1)
        found[1, block] = (scores >= best[:, None] - TIE).sum(1) - found[0, block]
        found[2, block] = np.bincount(owner[usable][right >= best[owner[usable]] - TIE], minlength=len(block))
    return Found(*found)


def nearest_share(
    scorer: Scorer,
    rows: np.ndarray,
    candidates: np.ndarray,
    label: np.ndarray,
    *,
    itself: np.ndarray | None = None,
) -> np.ndarray:
    """Probability that the nearest candidate of each code, itself left out, has its label: float64 [rows].

    Args:
        scorer: how alike codes are.
        rows: codes. candidates: rows, rising.
        label: `[n]` int.
        itself: `[rows]` the candidate that each code is, where it stands in another row than among them.
    """
    itself = rows if itself is None else itself
    score, place_of = scorer.against(candidates), np.full(len(label), -1)
    place_of[candidates] = np.arange(len(candidates))
    found = np.empty(len(rows))
    for block in blocks(len(rows), len(candidates)):
        scores, own = score(rows[block]), place_of[itself[block]]
        scores[np.flatnonzero(own >= 0), own[own >= 0]] = -np.inf
        owner, place = np.nonzero(scores >= scores.max(1, keepdims=True) - TIE)
        same = label[candidates[place]] == label[rows[block][owner]]
        found[block] = np.bincount(owner, same, len(block)) / np.bincount(owner, minlength=len(block))
    return found


def expected_hits(above: np.ndarray, level: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Probability that one of `targets` is among the first k when it is tied with `level` others, `above` ahead.

    Of the `k - above` places left, none holds a target with probability C(level, places) / C(level + targets, places).
    """
    places = np.clip(k - above, 0, None).astype(np.float64)
    none_fits = places > level
    places = np.minimum(places, level)
    log_none = _log_choose(level, places) - _log_choose(level + targets, places)
    return np.where(none_fits, 1.0, -np.expm1(log_none))


def expected_reciprocal_rank(above: np.ndarray, level: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Expected 1 / rank of the first of `targets` tied with `level` others, `above` ahead.

    It is the sum over places j of P(the first target stands at j) / (above + j).
    """
    cases, inverse = np.unique(np.stack([above, level, targets]), axis=1, return_inverse=True)
    found = np.empty(cases.shape[1])
    for number, (a, t, r) in enumerate(cases.T):
        # Places j = 1 .. t + 1; the first j - 1 of them hold no target.
        passed = np.arange(t + 1)
        log_first = _log_choose(t, passed) - _log_choose(t + r, passed) + np.log(r) - np.log(t + r - passed)
        found[number] = (np.exp(log_first) / (a + passed + 1)).sum()
    return found[inverse.reshape(-1)]


def _log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    return gammaln(np.add(n, 1.0)) - gammaln(np.add(k, 1.0)) - gammaln(np.subtract(n, k) + 1.0)
