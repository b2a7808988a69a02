"""Which codes are like which: by the tokens they share, or by their quantized embeddings. No JAX here."""

import functools
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from medtok_jax.lookup.directory import TokenizerDirectory

# Codes whose embeddings are held at once.
CHUNK = 8192


class Neighbor(NamedTuple):
    """A code like another: its key, how like (1 for the same), and its description."""

    key: str
    score: float
    description: str


def merged_bags(ids: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bags of tokens: each row's ids sorted, and the weight of a token that comes twice summed up in one place.

    Args:
        ids, weights: `[codes, tokens]`.

    Returns:
        ids and weights of the same shape; a repeated id has weight 0 but in its first place.
    """
    order = np.argsort(ids, axis=1, kind="stable")
    ids, weights = np.take_along_axis(ids, order, 1), np.take_along_axis(weights, order, 1)
    for place in range(ids.shape[1] - 1, 0, -1):
        same = ids[:, place] == ids[:, place - 1]
        weights[same, place - 1] += weights[same, place]
        weights[same, place] = 0.0
    return ids, weights


class Similarity:
    """Compares codes of one tokenizer.

    Args:
        directory: its tokens.
    """

    def __init__(self, directory: TokenizerDirectory):
        self.directory, self.config = directory, directory.config
        self.num_tokens = directory.config.num_top_k_tokens

    @functools.cached_property
    def _postings(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the codes that hold each token, token after token, and where each token begins `[N + 1]`."""
        flat = self.directory.ids.reshape(-1)
        # Narrow numbers sort in linear time.
        narrow = flat.astype(np.uint16) if self.config.codebook_size <= 1 << 16 else flat
        rows = (np.argsort(narrow, kind="stable") // self.directory.ids.shape[1]).astype(np.int32)
        counts = np.bincount(flat, minlength=self.config.codebook_size)
        return rows, np.concatenate([[0], np.cumsum(counts)])

    def codes_with(self, token: int) -> np.ndarray:
        """Rows of the codes that hold a token, rising."""
        rows, starts = self._postings
        return np.unique(rows[starts[token] : starts[token + 1]])

    def shares(self, weights: np.ndarray) -> np.ndarray:
        """Weights `[codes, 4K]` scaled so that those of each embedding sum to one."""
        grouped = weights.reshape(len(weights), 4, self.num_tokens)
        # An embedding that no row points along has no share of any.
        return (grouped / np.maximum(grouped.sum(-1, keepdims=True), 1e-12)).reshape(weights.shape)

    def overlap(self, ids: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Weighted Jaccard overlap of a bag of tokens with every code that shares one: sum(min) / sum(max).

        Args:
            ids: `[tokens]`, the bag.
            weights: `[tokens]`, those of K tokens summing to one; None to count all tokens alike, those of codes too.

        Returns:
            Rows of codes, rising, and their overlap.
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
        """What there is to say of some codes."""
        table, rows = self.directory.table, pa.array(rows)
        columns = (table["key"].take(rows).to_pylist(), scores.tolist(), table["description"].take(rows).to_pylist())
        return [Neighbor(*fields) for fields in zip(*columns, strict=True)]

    def quantized(self, rows: np.ndarray) -> np.ndarray:
        """`[rows, 4, d]` float32 quantized embeddings, recomputed: codebook rows mixed by their weights (eq. 4)."""
        return quantize(self.directory.codebook, self.directory.ids[rows], self.directory.weights[rows])

    @functools.cached_property
    def _norms(self) -> np.ndarray:
        """`[codes]` float32, length of the four quantized embeddings end to end."""
        norms = np.empty(self.config.codes, np.float32)
        for start in range(0, len(norms), CHUNK):
            part = np.arange(start, min(start + CHUNK, len(norms)))
            norms[part] = np.linalg.norm(self.quantized(part).reshape(len(part), -1), axis=1)
        return norms

    def cosine(self, vectors: np.ndarray) -> np.ndarray:
        """Cosine `[codes]` of four embeddings `[4, d]` end to end with those of every code."""
        directory = self.directory
        # Similarity of each row of the codebook to each of the four; a code's is their mix by its weights.
        of_row = (directory.codebook @ vectors.T).astype(np.float32)
        products = np.zeros(self.config.codes, np.float32)
        for group in range(4):
            part = slice(group * self.num_tokens, (group + 1) * self.num_tokens)
            products += (of_row[directory.ids[:, part], group] * directory.weights[:, part]).sum(1)
        return products / np.maximum(self._norms * np.linalg.norm(vectors), 1e-12)


def quantize(codebook: np.ndarray, ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Quantized embeddings `[codes, 4, d]` from token ids and weights `[codes, 4K]`."""
    vectors = codebook[ids] * weights[..., None]
    return vectors.reshape(len(ids), 4, ids.shape[1] // 4, codebook.shape[1]).sum(2)


def best(rows: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` rows of highest score, best first, ties in the order of rows."""
    if 4 * k < len(rows):
        keep = np.flatnonzero(scores >= np.partition(scores, -k)[-k]) if k else np.zeros(0, np.int64)
        rows, scores = rows[keep], scores[keep]
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]
