"""Represent codes as bags of tokens in a sparse matrix of weights, and compute how much bags overlap."""

import numpy as np
import scipy.sparse as sp

from eval.common.representation import Representation


def bags_of(representation: Representation, *, weighted: bool = True) -> sp.csr_array:
    """Return the bag of each code: `[n, N]` float32 in canonical form (ascending ids without repeats).

    The weights of each embedding are scaled to a sum of the number of its tokens, so that embeddings count as their
    tokens do; a token of two embeddings counts for both. Without embeddings, weights are not scaled.

    Args:
        representation: a representation with tokens.
        weighted: whether tokens count by their weights; otherwise all count equally.
    """
    tokens = representation.tokens
    present = tokens >= 0
    weights = representation.weights if weighted else None
    weights = present.astype(np.float32) if weights is None else np.where(present, weights, 0).astype(np.float32)
    if representation.embeddings:
        for start, stop in representation.bounds:
            part = weights[:, start:stop]
            sums, count = part.sum(1, keepdims=True), present[:, start:stop].sum(1, keepdims=True)
            weights[:, start:stop] = np.divide(part * count, sums, out=np.zeros_like(part), where=sums > 0)
    counts = present.sum(1)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    bags = sp.csr_array(
        (weights[present], tokens[present].astype(np.int32), offsets), shape=(len(tokens), representation.num_ids)
    )
    bags.sum_duplicates()
    return bags


def overlaps(bags: sp.csr_array, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the weighted Jaccard overlap, sum(min) / sum(max), of pairs of bags: float32 `[m]`.

    Args:
        bags: bags of all codes, see `bags_of`.
        first, second: `[m]` rows. The overlap of two empty bags is 0.
    """
    found = np.zeros(len(first), np.float32)
    totals = np.asarray(bags.sum(axis=1)).ravel()
    for start in range(0, len(first), 65536):
        part = slice(start, start + 65536)
        a, b = first[part], second[part]
        both = np.asarray(bags[a].minimum(bags[b]).sum(axis=1)).ravel()
        either = totals[a] + totals[b] - both
        np.divide(both, either, out=found[part], where=either > 0, casting="same_kind")
    return found


class OverlapBlocks:
    """Compute the overlap of some codes with many candidates at once, by an inverted index of the candidates.

    Args:
        bags: bags of all codes.
        candidates: rows of the candidates.
    """

    def __init__(self, bags: sp.csr_array, candidates: np.ndarray):
        self.bags = bags
        self.totals = np.asarray(bags.sum(axis=1)).ravel().astype(np.float32)
        self.holders = bags[candidates].tocsc()
        self.candidate_totals = self.totals[candidates]

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return the overlap of `[b]` rows with every candidate: float32 `[b, candidates]`."""
        own = self.bags[rows]
        holders = self.holders
        owner = np.repeat(np.arange(len(rows)), np.diff(own.indptr))
        starts, counts = holders.indptr[own.indices], np.diff(holders.indptr)[own.indices]
        ends = np.cumsum(counts)
        position = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)
        width = len(self.candidate_totals)
        cell = np.repeat(owner * width, counts) + holders.indices[position]
        smaller = np.minimum(np.repeat(own.data, counts), holders.data[position])
        both = np.bincount(cell, smaller, len(rows) * width).reshape(len(rows), width).astype(np.float32)
        either = self.totals[rows][:, None] + self.candidate_totals - both
        return np.divide(both, either, out=both, where=either > 0)
