"""Look up rows, tokens and embeddings of codes in the table of a tokenizer, one code at a time or many.

This file imports only numpy, as it lies in every tokenizer directory.
"""

import contextlib
import dataclasses
import inspect
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from medtok_jax.lookup.batch_encoding import as_list, as_token_ids, groups_of, is_list
from medtok_jax.lookup.code_index import AMBIGUOUS, UNKNOWN, CodeIndex, UnknownCodeError, is_missing
from medtok_jax.lookup.code_names import shown
from medtok_jax.lookup.code_tokens import CodeTokens
from medtok_jax.lookup.config import TokenizerConfig
from medtok_jax.lookup.similarity import Neighbor, Similarity, best
from medtok_jax.lookup.token_table import TokenTable
from preprocessing.common.errors import InputError

ERRORS = ("raise", "unk", "skip")
# Unknown codes that a warning names.
NAMED_UNKNOWN = 5
# Row of a text that is a special or added token.
ADDED = -10


class UnknownCodeWarning(UserWarning):
    """Warn that codes of a batch are not known to the tokenizer."""


class CodeLookup:
    """Look up codes in the table of a tokenizer; `MedTokTokenizer` is made of it.

    Attributes:
        config, table, index, similarity: what the files of the directory hold.
    """

    config: TokenizerConfig
    table: TokenTable
    index: CodeIndex
    similarity: Similarity

    @property
    def added(self) -> dict[str, int]:
        """Return the id of each special or added token, which stands for itself; here there is none."""
        return {}

    @property
    def tokens_per_code(self) -> int:
        """Return the number of tokens of a code, T."""
        return self.config.tokens_per_code

    @property
    def num_codes(self) -> int:
        """Return the number of codes with tokens: codes of the data set, categories and codes of earlier editions."""
        return len(self.table)

    @property
    def codebook(self) -> np.ndarray:
        """Return the codebook, `[N, d]` float32, read-only, for the first rows of a model's embedding matrix."""
        return self.table.codebook

    def __contains__(self, code: object) -> bool:
        return isinstance(code, str) and any(entry < self.num_codes for entry in self.index.candidates(code))

    def look_up(
        self,
        code: str,
        system: object = None,
        *,
        fallback: str | None = None,
        parents: Sequence[str] = (),
    ) -> CodeTokens:
        """Return the tokens of a code with its description and their source.

        A code without a row of the table gets the tokens of the nearest code above it, if `fallback` is given, and else
        those of the first of `parents` that has some.

        Args:
            code: see the class.
            system: its code system, for a `code` without a prefix.
            fallback: `ancestors` to use the nearest code above in the spelling of the code, or None.
            parents: codes above it, nearest first, such as `parent_codes` of MEDS.

        Raises:
            UnknownCodeError: the tokenizer has no tokens for the code; the message says what was tried.
            AmbiguousCodeError: several systems have the code.
            InputError: an argument cannot be used.
        """
        _check_fallback(fallback)
        if isinstance(parents, str):
            raise InputError(f"parents is {shown(parents)}; give a list of codes.")
        parents = as_list(parents) if parents is not None else []
        try:
            return self._from_table(self.index.find(code, system))
        except UnknownCodeError as error:
            tried = ["the table"]
            if fallback:
                tried.append("the codes above it")
                with contextlib.suppress(UnknownCodeError):
                    key, row = self.index.find_ancestor(code, system)
                    return self._replaced(row, key, "ancestor")
            for parent in parents:
                with contextlib.suppress(UnknownCodeError):
                    row = self.index.find(parent)
                    return self._replaced(row, self._key_of(code, system), "parent")
            if parents:
                tried.append("its parent codes")
            if len(tried) == 1:
                raise
            raise UnknownCodeError(f"{str(error).rstrip('.')}; tried: {', '.join(tried)}.") from error

    def encode_many(
        self, codes: Sequence[str], system: object = None, *, errors: str = "raise", fallback: str | None = None
    ) -> np.ndarray:
        """Return the token ids of many codes, `[codes, T]` int32.

        Args:
            codes: list, array or column of codes.
            system: code system of all codes, or of each as a list, array or column.
            errors: `raise`, `unk` to encode an unknown code as T times `[UNK]`, `skip` to leave it out.
            fallback: see `look_up`.

        Raises:
            UnknownCodeError, AmbiguousCodeError, InputError: see `__call__`.
        """
        rows = self._rows(as_list(codes) if is_list(codes) else codes, system, errors, fallback)
        return self._ids_of(rows[rows != UNKNOWN] if errors == "skip" else rows)

    def describe(self, code: str, system: object = None) -> str:
        """Return the description of a code, which is empty if the table holds none."""
        return self.table.description_at(self.index.find(code, system))

    def key_at(self, row: int) -> str:
        """Return the key, `SYSTEM/code`, of a row of the table."""
        return self.table.key_at(row)

    def _from_table(self, row: int) -> CodeTokens:
        ids, weights = self._tokens_of(np.array([row]))
        kind = self.table.kind_at(row)
        return CodeTokens(
            key=self.table.key_at(row),
            description=self.table.description_at(row),
            ids=ids[0],
            weights=weights[0],
            has_text=bool(self.table.arrays["has_text"][row]),
            has_graph=bool(self.table.arrays["has_graph"][row]),
            source="table" if kind == "code" else kind,
        )

    def _key_of(self, code: str, system: object) -> str:
        """Return the key of a code without tokens, or its text where it names no system, as custom codes of MEDS do."""
        try:
            return "/".join(self.index.infer_system(code, system))
        except InputError:
            return code

    def _replaced(self, row: int, key: str, source: str) -> CodeTokens:
        """Return the tokens of a row in place of those of the code `key`."""
        return dataclasses.replace(self._from_table(row), key=key, source=f"{source} {self.key_at(row)}")

    def nearest(
        self, token_ids: Sequence[int] | np.ndarray, k: int = 1, *, weights: Sequence[float] | None = None
    ) -> list[Neighbor]:
        """Return the `k` codes that share most tokens with those of one code, best first; special tokens are ignored.

        Args:
            token_ids: ids of a code, or some of them.
            k: number of codes to return.
            weights: weights of the tokens; None to weigh all tokens alike, those of the codes too.

        Raises:
            InputError: there are not as many weights as ids, or an id is no number.
        """
        ids = as_token_ids(token_ids)
        known = np.array([0 <= number < self.config.codebook_size for number in ids], bool)
        shares = None
        if weights is not None:
            shares = np.asarray(weights, np.float32).reshape(-1)
            if len(shares) != len(ids):
                raise InputError(f"There are {len(shares)} weights for {len(ids)} tokens; give one for each.")
            whole = known.all() and len(ids) == self.tokens_per_code
            # Of a part of a code it is not known which embedding a weight belongs to.
            shares = self.similarity.shares(shares) if whole else shares[known] * known.sum() / max(shares.sum(), 1e-12)
        tokens = np.array([number for number, kept in zip(ids, known, strict=True) if kept], np.int64)
        return self.similarity.describe(*best(*self.similarity.overlap(tokens, shares), k))

    def nearest_codes(self, token_ids: Sequence[int], k: int = 1) -> list[list[Neighbor]]:
        """Return `nearest` for each code of a sequence of tokens, leaving out special tokens."""
        groups = groups_of(as_token_ids(token_ids), self.tokens_per_code, self.config.special_tokens)
        return [self.nearest(group, k) for group in groups]

    def neighbors(
        self, code: str, k: int = 10, *, by: str = "tokens", system: object = None, within: object = None
    ) -> list[Neighbor]:
        """Return the codes most similar to a code, best first, without the code itself.

        Args:
            code, system: see `look_up`.
            k: number of codes to return.
            by: `tokens` for the weighted overlap of tokens (only codes that share one), `embedding` for the cosine of
                the quantized embeddings.
            within: code system of the codes to return; None for all.

        Raises:
            UnknownCodeError, AmbiguousCodeError: see `look_up`.
            InputError: `by` or `within` is not known.
        """
        row = self.index.find(code, system)
        ids, weights = self._tokens_of(np.array([row]))
        if by == "tokens":
            rows, scores = self.similarity.overlap(ids[0], self.similarity.shares(weights)[0])
        elif by == "embedding":
            rows = np.arange(self.num_codes)
            scores = self.similarity.cosine(self.similarity.quantized(np.array([row]))[0])
        else:
            raise InputError(f"by is {shown(by)}; it must be 'tokens' or 'embedding'.")
        kept = rows != row
        if within is not None:
            kept &= self.index.is_of(rows, within)
        return self.similarity.describe(*best(rows[kept], scores[kept], k))

    def embed(self, code: str | Sequence[str], system: object = None, *, pooled: bool = False) -> np.ndarray:
        """Return the quantized embeddings of a code, `[E, d]` float32, or of a list of codes, `[codes, E, d]`.

        Args:
            code, system: see `look_up`.
            pooled: whether to return the mean of the embeddings, `[d]` or `[codes, d]`.

        Raises:
            UnknownCodeError, AmbiguousCodeError: see `look_up`.
        """
        single = isinstance(code, str)
        rows = self._rows([code] if single else as_list(code), system, "raise", None)
        vectors = self.similarity.quantized(rows)
        vectors = vectors.mean(1) if pooled else vectors
        return vectors[0] if single else vectors

    def _rows(
        self, codes: object, system: object, errors: str, fallback: str | None, *, with_added: bool = False
    ) -> np.ndarray:
        """Return the row of each code, `UNKNOWN` where it has none; `with_added`, `ADDED` for a special or added token.

        Raises:
            UnknownCodeError, AmbiguousCodeError, InputError: see `__call__`.
        """
        if not isinstance(codes, list):
            raise InputError(f"Codes must be a list or an array, not {shown(codes)}.")
        if errors not in ERRORS:
            raise InputError(f"errors is {errors!r}; it must be one of {', '.join(map(repr, ERRORS))}.")
        _check_fallback(fallback)
        system = as_list(system) if is_list(system) else system
        added = self.added if with_added else {}
        is_added = np.array([isinstance(code, str) and code in added for code in codes], bool)
        if is_added.any():
            rows = self.index.find_many([None if a else c for a, c in zip(is_added, codes, strict=True)], system)
            rows[is_added] = ADDED
        else:
            rows = self.index.find_many(codes, system)

        def find(position: int) -> int:
            return self.index.find(codes[position], system[position] if isinstance(system, list) else system)

        if fallback:
            for position in np.flatnonzero(rows == UNKNOWN):
                if not is_missing(codes[position]):
                    one = system[position] if isinstance(system, list) else system
                    with contextlib.suppress(UnknownCodeError):
                        rows[position] = self.index.find_ancestor(codes[position], one)[1]
        for position in np.flatnonzero(rows == AMBIGUOUS)[:1]:
            find(int(position))
        unknown = np.flatnonzero(rows == UNKNOWN)
        if len(unknown):
            if errors == "raise":
                find(int(unknown[0]))
            self._warn(codes, unknown, errors)
        return rows

    def _warn(self, codes: list[Any], unknown: np.ndarray, errors: str) -> None:
        """Warn once of the unknown codes of a call."""
        distinct = list(dict.fromkeys(str(codes[p]) for p in unknown if not is_missing(codes[p])))
        missing = sum(is_missing(codes[position]) for position in unknown)
        outcome = "left out" if errors == "skip" else "encoded as [UNK]"
        if not distinct:
            warnings.warn(
                f"{missing:,} of {len(codes):,} codes are missing and {outcome}.",
                UnknownCodeWarning,
                stacklevel=_level_of_caller(),
            )
            return
        count = len(unknown) - missing
        named = ", ".join(shown(code) for code in distinct[:NAMED_UNKNOWN])
        more = f" and {len(distinct) - NAMED_UNKNOWN:,} more" if len(distinct) > NAMED_UNKNOWN else ""
        more += f" ({missing:,} more are missing)" if missing else ""
        warnings.warn(
            f"{count:,} of {len(codes):,} codes are unknown and {outcome}: {named}{more}; this tokenizer has tokens for"
            f" {self.config.codes:,} of the {self.config.known_codes:,} codes of its systems.",
            UnknownCodeWarning,
            stacklevel=_level_of_caller(),
        )

    def _tokens_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and weights, `[codes, T]` int32 and float32; all tokens of an unknown code are `[UNK]`."""
        weights = self.table.weights[rows].astype(np.float32)
        weights[rows == UNKNOWN] = len(self.config.bounds) / self.tokens_per_code
        return self._ids_of(rows), weights

    def _ids_of(self, rows: np.ndarray) -> np.ndarray:
        ids = self.table.ids[rows].astype(np.int32)
        ids[rows == UNKNOWN] = self.config.special_tokens["[UNK]"]
        return ids


def _level_of_caller() -> int:
    """Return the `stacklevel` with which the function that calls this one warns of the line outside of this folder."""
    folder, level, frame = os.path.dirname(__file__), 0, inspect.currentframe()
    frame = frame and frame.f_back
    while frame is not None and os.path.dirname(frame.f_code.co_filename) == folder:
        level, frame = level + 1, frame.f_back
    return level + 1


def _check_fallback(fallback: str | None) -> None:
    if fallback not in (None, "ancestors"):
        raise InputError(f"fallback is {shown(fallback)}; it must be None or 'ancestors'.")
