"""Spell codes in the vocabulary of another model: as MedTok tokens, as tokens of their own, or as the unknown token.

A token is written `MEDTOK//<id>` with its id, the row of the codebook. The tokens of a code are ordered by rank: the
first token of each embedding, then the second of each, and so on; repeated tokens are left out. The first
tokens are thus the most important ones of every embedding.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medtok_jax.convert.ehr_models.projection import Projected, project
from medtok_jax.records.token_rows import TokenRows
from medtok_jax.records.visits import Visits
from preprocessing.common.errors import InputError
from preprocessing.common.ragged import offsets_of

PREFIX = "MEDTOK//"
# Number of codes whose embeddings are computed at once.
CHUNK = 8192


@dataclasses.dataclass(frozen=True)
class Spelling:
    """Hold a vocabulary and the tokens that spell each code of `Visits.key` in it.

    Attributes:
        tokens: the vocabulary; the index of a token is its id.
        vectors: `[tokens, d]` float32, of MedTok tokens or codes; rows of other tokens are NaN.
        offsets: `[keys + 1]` int64, the tokens of key k are `ids[offsets[k]:offsets[k + 1]]`.
        ids: `[...]` int32, indices into `tokens`.
    """

    tokens: list[str]
    vectors: np.ndarray
    offsets: np.ndarray
    ids: np.ndarray

    def of(self, key: int) -> np.ndarray:
        """Return the token ids that spell the code with index `key` in `Visits.key`."""
        return self.ids[self.offsets[key] : self.offsets[key + 1]]

    def count(self, codes: np.ndarray) -> int:
        """Return the number of tokens that spell all codes with these indices in `Visits.key`."""
        return int(np.diff(self.offsets)[codes].sum())

    @property
    def has_vector(self) -> np.ndarray:
        """Return a `[tokens]` bool mask of the tokens whose vectors come from the tokenizer."""
        return ~np.isnan(self.vectors[:, 0])

    def initial_matrix(self, width: int, *, std: float, seed: int = 0) -> Projected:
        """Return an initial embedding table, `[tokens, width]` float32: projected vectors, or else normal numbers.

        Its share of variance is that of the projected vectors alone.

        Args:
            width: of the model.
            std: standard deviation of both, equal to that of the model's own initialization.
            seed: of the projection and of the normal numbers.

        Raises:
            InputError: the vectors are all equal.
        """
        matrix = np.random.default_rng(seed).normal(0.0, std, (len(self.tokens), width)).astype(np.float32)
        share = 1.0
        if self.has_vector.any():
            matrix[self.has_vector], share = project(self.vectors[self.has_vector], width, seed=seed, std=std)
        return Projected(matrix, share)


class TokenLists(NamedTuple):
    """Hold the ordered tokens of each row: those of row r are `ids[offsets[r]:offsets[r + 1]]`, both int64."""

    ids: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, rows: TokenRows, per_code: int) -> "TokenLists":
        """Return the tokens of all rows, `per_code` of each at most or all if it is 0; see `ordered_tokens`."""
        ids, counts = ordered_tokens(rows.ids, per_code, rows.config.levels)
        return cls(ids.astype(np.int64), offsets_of(counts))


def by_tokens(rows: TokenRows, visits: Visits, *, special: list[str], unknown: str | None, per_code: int) -> Spelling:
    """Spell every code that has a row by MedTok tokens, which are all in the vocabulary.

    Args:
        rows: the tokens of `visits.row`.
        visits: the visits whose codes are spelled.
        special: the model's own tokens, which begin the vocabulary.
        unknown: the special token for all codes without a row; None to give each of them a token of
            its own, after the MedTok tokens.
        per_code: number of tokens of a code at most; 0 for all.

    Raises:
        InputError: a code is spelled like a token of the model.
    """
    codebook = rows.codebook
    mapped = visits.row >= 0
    own = _own(visits, unknown)
    tokens = [*special, *(f"{PREFIX}{number}" for number in range(len(codebook))), *own]
    ordered, counts = ordered_tokens(rows.ids[visits.row[mapped]], per_code, rows.config.levels)
    lengths = np.ones(len(visits.key), np.int64)
    lengths[mapped] = counts
    offsets = offsets_of(lengths)
    ids = np.empty(offsets[-1], np.int32)
    is_mapped = np.repeat(mapped, lengths)
    ids[is_mapped] = ordered + len(special)
    ids[~is_mapped] = _unmapped_ids(visits, special, unknown, len(special) + len(codebook))
    return _checked(tokens, _vectors(len(tokens), codebook, len(special)), offsets, ids)


def by_codes(rows: TokenRows, visits: Visits, *, special: list[str], unknown: str | None) -> Spelling:
    """Spell every code by a token of its own, whose vector is the mean of the code's quantized embeddings.

    Args and errors as for `by_tokens`.
    """
    mapped = visits.row >= 0
    own = _own(visits, unknown)
    keys = [str(key) for key in visits.key[mapped]]
    ids = np.empty(len(visits.key), np.int32)
    ids[mapped] = len(special) + np.arange(len(keys))
    ids[~mapped] = _unmapped_ids(visits, special, unknown, len(special) + len(keys))
    vectors = pooled(rows, visits.row[mapped])
    tokens = [*special, *keys, *own]
    return _checked(tokens, _vectors(len(tokens), vectors, len(special)), np.arange(len(ids) + 1), ids)


def pooled(rows: TokenRows, chosen: np.ndarray) -> np.ndarray:
    """Return the mean of the quantized embeddings of each chosen row, `[chosen, d]` float32."""
    parts = [chosen[start : start + CHUNK] for start in range(0, len(chosen), CHUNK)]
    found = [rows.quantized(part).mean(1) for part in parts]
    return np.concatenate(found or [np.zeros((0, rows.config.embedding_dim), np.float32)])


def ordered_tokens(ids: np.ndarray, per_code: int, levels: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Order the tokens of codes by rank, as the head of this file defines, without repetitions.

    Args:
        ids: `[codes, T]` token ids in the tokenizer's order.
        per_code: number of tokens of a code at most; 0 for all.
        levels: `[T]` level of each position, see `TokenizerConfig`.

    Returns:
        Tokens, code after code, and the `[codes]` number of tokens of each code.
    """
    ids = ids[:, np.argsort(levels, kind="stable")]
    kept = np.ones(ids.shape, bool)
    for rank in range(1, ids.shape[1]):
        kept[:, rank] = (ids[:, :rank] != ids[:, rank : rank + 1]).all(1)
    if per_code:
        kept &= np.cumsum(kept, axis=1) <= per_code
    return ids[kept], kept.sum(1)


def _own(visits: Visits, unknown: str | None) -> list[str]:
    """Return the codes that get a token of their own although the tokenizer does not hold them."""
    return [] if unknown else [str(key) for key in visits.key[visits.row < 0]]


def _unmapped_ids(visits: Visits, special: list[str], unknown: str | None, start: int) -> np.ndarray | int:
    return special.index(unknown) if unknown else start + np.arange((visits.row < 0).sum())


def _vectors(tokens: int, known: np.ndarray, start: int) -> np.ndarray:
    vectors = np.full((tokens, known.shape[1]), np.nan, np.float32)
    vectors[start : start + len(known)] = known
    return vectors


def _checked(tokens: list[str], vectors: np.ndarray, offsets: np.ndarray, ids: np.ndarray) -> Spelling:
    if len(set(tokens)) != len(tokens):
        repeated = next(token for token in tokens if tokens.count(token) > 1)
        raise InputError(f"{repeated!r} is a code of the events and a token of the model; use --unmapped=unk or drop.")
    return Spelling(tokens, vectors, offsets, ids)
