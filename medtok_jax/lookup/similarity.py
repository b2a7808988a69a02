"""Measure how similar codes are, by the tokens they share or by their quantized embeddings. No JAX here."""

import functools
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from medtok_jax.lookup.directory import TokenizerDirectory

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
        directory: the tokenizer.
    """

    def __init__(self, directory: TokenizerDirectory):
        self.directory = directory
        self.config = directory.config
        self.num_tokens = directory.config.num_top_k_tokens

    @functools.cached_property
    def _postings(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the codes that hold each token, token after token, and the `[N + 1]` token offsets."""
        flat = self.directory.ids.reshape(-1)
        # A stable sort of 16-bit integers is a radix sort, which takes linear time.
        narrow = flat.astype(np.uint16) if self.config.codebook_size <= 1 << 16 else flat
        rows = (np.argsort(narrow, kind="stable") // self.directory.ids.shape[1]).astype(np.int32)
        counts = np.bincount(flat, minlength=self.config.codebook_size)
        return rows, np.concatenate([[0], np.cumsum(counts)])

    def codes_with(self, token: int) -> np.ndarray:
        """Return the rows of the codes that hold a token, ascending."""
        rows, starts = self._postings
        return np.unique(rows[starts[token] : starts[token + 1]])

    def shares(self, weights: np.ndarray) -> np.ndarray:
        """Return weights `[codes, 4K]` scaled so that those of each embedding sum to one."""
        grouped = weights.reshape(len(weights), 4, self.num_tokens)
        # The weights of an embedding may all be 0; its shares are 0 too.
        return (grouped / np.maximum(grouped.sum(-1, keepdims=True), 1e-12)).reshape(weights.shape)

    def overlap(self, ids: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the weighted Jaccard overlap, sum(min) / sum(max), of a bag of tokens with every code that shares one.

        Args:
            ids: `[tokens]`, the bag.
            weights: `[tokens]`, each K of them summing to one; None to weigh all tokens alike, those of codes too.

        Returns:
            Rows of codes, ascending, and their overlap.
        """
        rows, starts = self._postings
        found = [rows[starts[token] : starts[token + 1]] for token in np.unique(ids)]
        candidates = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int32)
        bag = np.zeros(self.config.codebook_size, np.float32)
        np.add.at(bag, ids, 1 / self.num_tokens if weights is None else weights)
        theirs = self.directory.weights[candidates]
        other, theirs = merged_bags(
            self.directory.ids[candidates], self.shares(np.ones_like(theirs) if weights is None else theirs)
        )
        both = np.minimum(theirs, np.where(theirs > 0, bag[other], 0.0)).sum(1)
        return candidates, both / (theirs.sum(1) + bag.sum() - both)

    def describe(self, rows: np.ndarray, scores: np.ndarray) -> list[Neighbor]:
        """Return key, score and description of the codes in `rows`."""
        table = self.directory.table
        rows = pa.array(rows)
        columns = (table["key"].take(rows).to_pylist(), scores.tolist(), table["description"].take(rows).to_pylist())
        return [Neighbor(*fields) for fields in zip(*columns, strict=True)]

    def quantized(self, rows: np.ndarray) -> np.ndarray:
        """Return quantized embeddings, `[rows, 4, d]` float32: sums of codebook rows times their weights (eq. 4)."""
        return quantize(self.directory.codebook, self.directory.ids[rows], self.directory.weights[rows])

    @functools.cached_property
    def _norms(self) -> np.ndarray:
        """Return the `[codes]` float32 norms of each code's four quantized embeddings, concatenated."""
        norms = np.empty(self.config.codes, np.float32)
        for start in range(0, len(norms), CHUNK):
            part = np.arange(start, min(start + CHUNK, len(norms)))
            norms[part] = np.linalg.norm(self.quantized(part).reshape(len(part), -1), axis=1)
        return norms

    def cosine(self, vectors: np.ndarray) -> np.ndarray:
        """Return the cosine `[codes]` of four embeddings `[4, d]`, concatenated, with those of every code."""
        directory = self.directory
        # A code's inner product with each of the four is the weighted sum of those of its codebook rows.
        row_products = (directory.codebook @ vectors.T).astype(np.float32)
        products = np.zeros(self.config.codes, np.float32)
        for group in range(4):
            part = slice(group * self.num_tokens, (group + 1) * self.num_tokens)
            products += (row_products[directory.ids[:, part], group] * directory.weights[:, part]).sum(1)
        return products / np.maximum(self._norms * np.linalg.norm(vectors), 1e-12)


def quantize(codebook: np.ndarray, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the quantized embeddings `[codes, 4, d]` of token ids and weights `[codes, 4K]`."""
    vectors = codebook[ids] * weights[..., None]
    return vectors.reshape(len(ids), 4, ids.shape[1] // 4, codebook.shape[1]).sum(2)


def best(rows: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `k` rows of highest score and their scores, best first, ties in the order of rows."""
    if 4 * k < len(rows):
        keep = np.flatnonzero(scores >= np.partition(scores, -k)[-k]) if k else np.zeros(0, np.int64)
        rows, scores = rows[keep], scores[keep]
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]
