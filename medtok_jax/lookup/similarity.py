"""Measure how similar codes are, by the tokens they share or by their quantized embeddings.

This file imports only numpy, as it lies in every tokenizer directory.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medtok_jax.lookup.token_table import TokenTable

# Number of codes whose embeddings are in memory at once.
CHUNK = 8192


class Neighbor(NamedTuple):
    """Hold a code that is similar to another: its key, the similarity (1 for equal tokens), and its description."""

    key: str
    score: float
    description: str


def merged_bags(ids: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort the ids of each row and add up the weights of equal ids.

    Args:
        ids, weights: `[codes, tokens]`.

    Returns:
        ids and weights of the same shape; the first of equal ids has the sum of their weights, the others have 0.
    """
    order = np.argsort(ids, axis=1, kind="stable")
    ids = np.take_along_axis(ids, order, 1)
    weights = np.take_along_axis(weights, order, 1)
    for column in range(ids.shape[1] - 1, 0, -1):
        same = ids[:, column] == ids[:, column - 1]
        weights[same, column - 1] += weights[same, column]
        weights[same, column] = 0.0
    return ids, weights


class Similarity:
    """Compare the codes of one tokenizer.

    Args:
        table: the tokens of all codes.
        bounds: the first and one past the last position of each embedding.
    """

    def __init__(self, table: TokenTable, bounds: Sequence[tuple[int, int]]):
        self.table = table
        self.bounds = tuple(bounds)

    @functools.cached_property
    def _postings(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the codes that hold each token, token after token, and the `[N + 1]` token offsets."""
        # A stable sort of 16-bit integers is a radix sort, which takes linear time.
        flat = self.table.ids.reshape(-1)
        rows = (np.argsort(flat, kind="stable") // self.table.ids.shape[1]).astype(np.int32)
        counts = np.bincount(flat, minlength=len(self.table.codebook))
        return rows, np.concatenate([[0], np.cumsum(counts)])

    def codes_with(self, token: int) -> np.ndarray:
        """Return the rows of the codes that hold a token, ascending."""
        rows, starts = self._postings
        return np.unique(rows[starts[token] : starts[token + 1]])

    def shares(self, weights: np.ndarray) -> np.ndarray:
        """Return weights `[..., T]` scaled so that those of each embedding sum to the number of its tokens."""
        scaled = np.array(weights, np.float32)
        for start, stop in self.bounds:
            # The weights of an embedding may all be 0; its shares are 0 too.
            sums = np.maximum(scaled[..., start:stop].sum(-1, keepdims=True), 1e-12)
            scaled[..., start:stop] *= (stop - start) / sums
        return scaled

    def overlap(self, ids: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the weighted Jaccard overlap, sum(min) / sum(max), of a bag of tokens with every code that shares one.

        Args:
            ids: `[tokens]`, the bag.
            weights: `[tokens]`, see `shares`; None to weigh all tokens alike, those of codes too.

        Returns:
            Rows of codes, ascending, and their overlap.
        """
        rows, starts = self._postings
        found = [rows[starts[token] : starts[token + 1]] for token in np.unique(ids)]
        candidates = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int32)
        bag = np.zeros(len(self.table.codebook), np.float32)
        np.add.at(bag, ids, 1.0 if weights is None else weights)
        other = self.table.ids[candidates].astype(np.int64)
        if weights is None:
            theirs = np.ones(other.shape, np.float32)
        else:
            theirs = self.shares(self.table.weights[candidates])
        other, theirs = merged_bags(other, theirs)
        both = np.minimum(theirs, np.where(theirs > 0, bag[other], 0.0)).sum(1)
        return candidates, both / (theirs.sum(1) + bag.sum() - both)

    def describe(self, rows: np.ndarray, scores: np.ndarray) -> list[Neighbor]:
        """Return key, score and description of the codes in `rows`."""
        pairs = zip(rows.tolist(), scores.tolist(), strict=True)
        return [Neighbor(self.table.key_at(row), score, self.table.description_at(row)) for row, score in pairs]

    def quantized(self, rows: np.ndarray) -> np.ndarray:
        """Return quantized embeddings, `[rows, E, d]` float32: sums of codebook rows times their weights (eq. 4)."""
        return quantize(self.table.codebook, self.table.ids[rows], self.table.weights[rows], self.bounds)

    @functools.cached_property
    def _norms(self) -> np.ndarray:
        """Return the `[codes]` float32 norms of each code's quantized embeddings, scaled and concatenated."""
        norms = np.empty(len(self.table), np.float32)
        for start in range(0, len(norms), CHUNK):
            part = np.arange(start, min(start + CHUNK, len(norms)))
            scaled = self.quantized(part) * scales(self.bounds)[:, None]
            norms[part] = np.linalg.norm(scaled.reshape(len(part), -1), axis=1)
        return norms

    def cosine(self, vectors: np.ndarray) -> np.ndarray:
        """Return the cosine `[codes]` of the embeddings `[E, d]` of a code with those of every code.

        They are scaled and concatenated, see `scales`.
        """
        table, scale = self.table, scales(self.bounds)[:, None]
        # A code's inner product with each embedding is the weighted sum of those of its codebook rows.
        row_products = (table.codebook @ (vectors * scale**2).T).astype(np.float32)
        products = np.zeros(len(table), np.float32)
        for group, (start, stop) in enumerate(self.bounds):
            part = slice(start, stop)
            products += (row_products[table.ids[:, part], group] * table.weights[:, part]).sum(1)
        return products / np.maximum(self._norms * np.linalg.norm(vectors * scale), 1e-12)


def scales(bounds: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the factor of each embedding where codes are compared by the cosine of all of them, `[E]` float32.

    Each counts by its tokens: the factor is the square root of their number, divided by its mean over embeddings.

    Args:
        bounds: the first and one past the last position of each of the E embeddings.
    """
    counts = np.array([stop - start for start, stop in bounds], np.float32)
    return np.sqrt(counts / counts.mean())


def quantize(
    codebook: np.ndarray, ids: np.ndarray, weights: np.ndarray, bounds: Sequence[tuple[int, int]]
) -> np.ndarray:
    """Return quantized embeddings, sums of codebook rows times their weights.

    Args:
        codebook: `[N, d]` float32.
        ids, weights: `[codes, T]`.
        bounds: the first and one past the last position of each of the E embeddings.

    Returns:
        `[codes, E, d]` float32.
    """
    vectors = codebook[ids] * weights[..., None].astype(np.float32)
    return np.stack([vectors[:, start:stop].sum(1) for start, stop in bounds], axis=1)


def best(rows: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `k` rows of highest score and their scores, best first, ties in the order of rows; none for k < 1."""
    k = max(k, 0)
    if 4 * k < len(rows):
        keep = np.flatnonzero(scores >= np.partition(scores, -k)[-k]) if k else np.zeros(0, np.int64)
        rows, scores = rows[keep], scores[keep]
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]
