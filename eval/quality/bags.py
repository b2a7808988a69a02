"""Codes as bags of tokens: a sparse matrix of what each token counts, and how much two bags overlap."""

import numpy as np
import scipy.sparse as sp

from eval.common.representation import Representation


def bags_of(representation: Representation, *, weighted: bool = True) -> sp.csr_array:
    """The bag of each code: `[n, N]` float32, rows of canonical form (rising ids, no repeats).

    A token's weight is its share of the embedding it belongs to, so that each embedding counts alike; a token that
    stands for two embeddings counts for both. Without embeddings weights are taken as they are.

    Args:
        representation: has tokens.
        weighted: whether tokens count by their weights; otherwise all alike.
    """
    tokens = representation.tokens
    present = tokens >= 0
    weights = representation.weights if weighted else None
    weights = present.astype(np.float32) if weights is None else np.where(present, weights, 0).astype(np.float32)
    if representation.embeddings:
        grouped = weights.reshape(len(weights), len(representation.embeddings), -1)
        sums = grouped.sum(-1, keepdims=True)
        weights = np.divide(grouped, sums, out=np.zeros_like(grouped), where=sums > 0).reshape(weights.shape)
    counts = present.sum(1)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    bags = sp.csr_array(
        (weights[present], tokens[present].astype(np.int32), offsets), shape=(len(tokens), representation.num_ids)
    )
    bags.sum_duplicates()
    return bags


def overlaps(bags: sp.csr_array, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Weighted Jaccard overlap, sum(min) / sum(max), of `[m]` pairs of rows: float32 [m]; 0 for two empty bags."""
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
    """Overlaps of some codes with many candidates at once, by the lists of candidates that hold each token.

    Args:
        bags: of all codes.
        candidates: rows of the candidates.
    """

    def __init__(self, bags: sp.csr_array, candidates: np.ndarray):
        self.bags, self.totals = bags, np.asarray(bags.sum(axis=1)).ravel().astype(np.float32)
        self.holders = bags[candidates].tocsc()
        self.candidate_totals = self.totals[candidates]

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Overlap of `[b]` rows with every candidate: float32 `[b, candidates]`."""
        own, holders = self.bags[rows], self.holders
        owner = np.repeat(np.arange(len(rows)), np.diff(own.indptr))
        starts, counts = holders.indptr[own.indices], np.diff(holders.indptr)[own.indices]
        ends = np.cumsum(counts)
        place = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)
        width = len(self.candidate_totals)
        cell = np.repeat(owner * width, counts) + holders.indices[place]
        smaller = np.minimum(np.repeat(own.data, counts), holders.data[place])
        both = np.bincount(cell, smaller, len(rows) * width).reshape(len(rows), width).astype(np.float32)
        either = self.totals[rows][:, None] + self.candidate_totals - both
        return np.divide(both, either, out=both, where=either > 0)
