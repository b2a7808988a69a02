"""Find the row of a code in the table of a tokenizer, whatever its spelling, one code at a time or a million.

A code may be given with its dot or without; a dot that is given must be in the right position. Whether a bare code is
ambiguous is decided by what the code systems know (codes, categories, codes of earlier editions), never by which of
them have tokens. This file imports only numpy, as it lies in every tokenizer directory.
"""

import bisect
import functools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from medtok_jax.lookup.code_names import CodeNames, shown
from medtok_jax.lookup.token_table import KINDS, Strings, capitals, index_arrays
from preprocessing.codes import ATC, CPT4, HCPCS, ancestors, display_code, is_wellformed
from preprocessing.common.errors import InputError

UNKNOWN, AMBIGUOUS = -1, -2
# Texts of a batch from which on common spellings of all codes are put into a dictionary.
MANY = 20_000
# A bare code in which nothing can be read as the name of a system.
_PLAIN = re.compile(r"[A-Za-z0-9.]+")


class UnknownCodeError(InputError):
    """Report a code that the tokenizer has no tokens for."""


class AmbiguousCodeError(InputError):
    """Report a bare code that several code systems know; `candidates` holds the key of each."""

    def __init__(self, message: str, candidates: Sequence[str] = ()):
        super().__init__(message)
        self.candidates = tuple(candidates)


class CodeIndex:
    """Resolve codes to rows of a token table.

    Args:
        arrays: `key`, `compact`, `compact_entry`, `system` and perhaps `kind`, as in `token_table`.
        systems: names of the code systems.
        rows: number of codes with tokens; the keys behind them are known but have no row.
        prefer: code systems in the order in which a bare code of several systems is looked up; empty to refuse such a
            code.
    """

    def __init__(self, arrays: dict[str, np.ndarray], systems: Sequence[str], rows: int, prefer: Sequence[str] = ()):
        self.key = Strings(arrays["key_text"], arrays["key_offsets"])
        self.rows = rows
        self._compact_codes = Strings(arrays["compact_text"], arrays["compact_offsets"])
        self._entry = np.ascontiguousarray(arrays["compact_entry"], np.int32).data
        self._system = arrays["system"]
        self._kind = arrays.get("kind", np.zeros(len(self.key), np.uint8))
        self._system_names = tuple(systems)
        self.names = CodeNames(list(systems))
        self.prefer = self.resolve_order(prefer)
        self._rows_of_spellings: dict[str, int] = {}

    @classmethod
    def of_keys(cls, keys: Sequence[str]) -> "CodeIndex":
        """Index keys, of which each is a row."""
        arrays, systems = index_arrays(keys)
        return cls(arrays, systems, len(keys))

    def resolve_order(self, prefer: Sequence[str]) -> tuple[str, ...]:
        """Return the code systems that an order of preference names, in that order.

        Raises:
            InputError: a name is not that of a code system.
        """
        return tuple(system for name in prefer for system in self.names.systems_named(name))

    def find(self, text: str, system: object = None) -> int:
        """Return the row of a code.

        Args:
            text: the code, with the name of its system as a prefix or without.
            system: its code system, for a code without a prefix, by any name of `CodeNames.systems_named`.

        Raises:
            UnknownCodeError: the table has no tokens for the code.
            AmbiguousCodeError: several systems know it, and no order of preference was given.
            InputError: `text` is not a string, or `system` is not a code system.
        """
        entries = self.candidates(text, system)
        if not entries:
            of_system = f" as a code of {_listed(system)}" if system else ""
            raise UnknownCodeError(
                f"{shown(text)} is not among the {self.rows:,} codes of this tokenizer{of_system}"
                f"{self._other_shapes(text, system)}; keys look like {self.key_at(0)}."
            )
        entry = self._choose(entries, text)
        if entry >= self.rows:
            codes, known = self.counts()
            raise UnknownCodeError(
                f"{self.key_at(entry)} has no tokens: this tokenizer holds {codes:,} of the {known:,} codes of its"
                " systems; train on all of them, use fallback='ancestors', or give a description to a directory with a"
                " model."
            )
        return entry

    def counts(self) -> tuple[int, int]:
        """Return the number of codes (without categories and retired ones) with tokens, and of all that are known."""
        codes = self._kind == KINDS.index("code")
        return int(codes[: self.rows].sum()), int(codes.sum())

    def find_ancestor(self, text: str, system: object = None) -> tuple[str, int]:
        """Return the key of a code without tokens and the row of its nearest ancestor (see `codes.ancestors`).

        Raises:
            UnknownCodeError: the table holds no ancestor of the code either.
            AmbiguousCodeError, InputError: see `find`.
        """
        known = self.candidates(text, system)
        if known:
            entry = self._choose(known, text)
            named = [(self.system_of(entry), self.key_at(entry).split("/", 1)[1])]
        else:
            self._check_shape(text, system)
            named = self.wellformed(text, system)
        # Which system the code is of is decided by all codes above it, with tokens or without.
        nearest: dict[int, tuple[str, list[int]]] = {}
        for name, code in named:
            spelled = (self._spelled(capitals(above), (name,)) for above in ancestors(name, code))
            entries = [entry for found in spelled for entry in found[:1]]
            if entries:
                nearest[entries[0]] = f"{name}/{code}", [entry for entry in entries if entry < self.rows]
        key, rows = nearest[self._choose(list(nearest), text)] if nearest else ("", [])
        if not rows:
            raise UnknownCodeError(f"{shown(text)} is not in this tokenizer, and neither is a code above it.")
        return key, rows[0]

    def infer_system(self, text: str, system: object = None) -> tuple[str, str]:
        """Return the code system and the code of a text that has no row.

        The system is the one that the prefix or `system` names, else the only one that knows the code, else the only
        one whose codes have this shape. A code of a shape that is known is in its normal form.

        Raises:
            InputError: neither settles the system, or the code does not have the shape of a code of its system.
        """
        named, code = self._read(text, system)
        if named is not None and (not named or not code):
            raise InputError(f"{shown(text)} is not a code of {_listed(system)}; correct the code or its system.")
        known = self.candidates(text, system)
        if known:
            name, code = self.key_at(self._choose(known, text)).split("/", 1)
            return name, code
        self._check_shape(text, system)
        found = self.wellformed(text, system)
        if len(found) == 1:
            return found[0]
        if named is None or len(named) > 1:
            raise InputError(
                f"{shown(text)} does not name its code system; give one of {', '.join(self.names.systems)}."
            )
        return named[0], code

    def _other_shapes(self, text: str, system: object) -> str:
        """Return in words what an unknown bare code may be beside ICD: J1815 is HCPCS and no pneumonia, J01CA04 a drug.

        Codes of these systems have no dot, as a compact code of ICD has none. A text that names a system is of it.
        """
        named, code = self._read(text, system)
        fitting = [name for name in (CPT4, HCPCS, ATC) if named is None and is_wellformed(name, code)]
        return f"; it may be a code of {' or '.join(fitting)}, so name its system" if fitting else ""

    def _check_shape(self, text: str, system: object) -> None:
        """Refuse to take an unknown bare code of such a shape for one of another system.

        Raises:
            UnknownCodeError: see `_other_shapes`.
        """
        if other := self._other_shapes(text, system):
            raise UnknownCodeError(f"{shown(text)} does not name its code system{other}.")

    def wellformed(self, text: str, system: object = None) -> list[tuple[str, str]]:
        """Return each code system whose codes have the shape of a text, with the text in that system's normal form."""
        named, code = self._read(text, system)
        # Normal forms are defined for ASCII.
        found = [name for name in (self.names.systems if named is None else named) if code.isascii()]
        return [(name, display_code(name, code)) for name in found if is_wellformed(name, code)]

    def _choose(self, entries: list[int], text: str) -> int:
        """Return the only entry, or the only one of the most preferred system; raise `AmbiguousCodeError` otherwise."""
        if len(entries) > 1 and self.prefer:
            rank = {name: number for number, name in reversed(list(enumerate(self.prefer)))}
            ranks = [rank.get(self.system_of(entry), len(rank)) for entry in entries]
            entries = [entry for entry, place in zip(entries, ranks, strict=True) if place == min(ranks)]
        if len(entries) > 1:
            keys = sorted(self.key_at(entry) for entry in entries)
            raise AmbiguousCodeError(
                f"{shown(text)} is a code of several systems: {', '.join(keys)}; give one of these, or an order of"
                " preference.",
                keys,
            )
        return entries[0]

    def _read(self, text: str, system: object) -> tuple[tuple[str, ...] | None, str]:
        """Return the systems that a text or `system` names (None where neither names any) and the code."""
        if not isinstance(text, str):
            raise InputError(f"A code must be text, such as 'E11.9' or 'ICD10CM/E11.9', not {shown(text)}.")
        named, code = self.names.split(text)
        if system is not None:
            given = self.names.systems_named(system)
            named = given if named is None else tuple(name for name in named if name in given)
        return named, code

    def candidates(self, text: str, system: object = None) -> list[int]:
        """Return the entries of all codes that a text may mean, ascending; those from `rows` on have no tokens."""
        named, code = self._read(text, system)
        entries = self._spelled(capitals(code), named)
        if entries or "." in code:
            return entries
        # Some codes, such as dashed NDCs, have another official form.
        for name, normal in self.wellformed(text, system):
            entries += [entry for entry in self._spelled(capitals(normal), (name,)) if entry not in entries]
        return sorted(entries)

    def systems_knowing(self, text: str, system: object = None) -> frozenset[str]:
        """Return the code systems that know a code, with tokens or without."""
        return frozenset(self.system_of(entry) for entry in self.candidates(text, system))

    def system_of(self, entry: int) -> str:
        """Return the code system of an entry."""
        return self._system_names[self._system[entry]]

    def key_at(self, entry: int) -> str:
        """Return the key, `SYSTEM/code`, of an entry."""
        return self.key[entry].decode()

    @functools.cached_property
    def _compact(self) -> list[bytes]:
        """Return the compact codes, sorted; they are unpacked when a code is looked up first."""
        return self._compact_codes.to_bytes()

    def _spelled(self, code: str, named: tuple[str, ...] | None) -> list[int]:
        wanted = code.replace(".", "").encode("utf-8", "surrogatepass")
        position = bisect.bisect_left(self._compact, wanted)
        entries = []
        while position < len(self._compact) and self._compact[position] == wanted:
            entries.append(self._entry[position])
            position += 1
        if named is not None:
            entries = [entry for entry in entries if self.system_of(entry) in named]
        if "." in code or len(entries) > 1:
            # A dot in another position makes another code, and a code with exactly this spelling takes precedence.
            exact = [entry for entry in entries if capitals(self.key_at(entry).split("/", 1)[1]) == code]
            if "." in code or (exact and named is not None and len(named) == 1):
                return exact
        return sorted(entries)

    def is_of(self, rows: np.ndarray, system: object) -> np.ndarray:
        """Return a `[rows]` bool mask of the rows whose code is of `system`."""
        named = [self._system_names.index(s) for s in self.names.systems_named(system) if s in self._system_names]
        return np.isin(self._system[rows], named)

    def find_many(self, texts: Sequence[object], system: object = None) -> np.ndarray:
        """Return the rows of many codes, `[codes]` int32.

        A code without tokens, and a missing one, give `UNKNOWN`; a code of several systems gives `AMBIGUOUS`.

        Args:
            texts: list of str and of missing values.
            system: code system of all codes, or a list of the same length with one for each, None where there is none.

        Raises:
            InputError: an element is neither a string nor missing, or a system is not a code system.
        """
        systems = system if isinstance(system, list) else None
        if systems is None and system is not None:
            self.names.systems_named(system)
        if systems is not None and len(systems) != len(texts):
            raise InputError(f"There are {len(systems):,} systems for {len(texts):,} codes; give one for each code.")
        known = self._common_spellings() if len(texts) >= MANY and system is None else {}
        found: dict[object, int] = {}
        rows: list[int | None] = [None] * len(texts)
        if known:
            rows = [known.get(text) if isinstance(text, str) else None for text in texts]
        for position, row in enumerate(rows):
            if row is not None:
                continue
            text = texts[position]
            if is_missing(text):
                rows[position] = UNKNOWN
                continue
            one = systems[position] if systems is not None else system
            name = (text, None if is_missing(one) or one == "" else one)
            try:
                row = found.get(name)
            except TypeError:
                row = None
            if row is None:
                row = found[name] = self._find_or_flag(*name)
            rows[position] = row
        return np.array(rows, np.int32)

    def _common_spellings(self) -> dict[str, int]:
        """Return the row of every key, and of bare codes that only one system knows, with their dot and without."""
        if not self._rows_of_spellings:
            keys, entries = self.key.to_list(), self._entry.tolist()
            compact = ["", *self._compact_codes.to_list(), ""]
            spellings: dict[str, int] = {}
            for place, entry in enumerate(entries, 1):
                spelled, code = compact[place], keys[entry].split("/", 1)[1]
                if spelled in (compact[place - 1], compact[place + 1]) or not _PLAIN.fullmatch(code):
                    continue
                spellings[code] = spellings[spelled] = entry if entry < self.rows else UNKNOWN
            spellings |= {key: row for row, key in enumerate(keys[: self.rows])}
            self._rows_of_spellings = spellings
        return self._rows_of_spellings

    def _find_or_flag(self, text: Any, system: object) -> int:
        """Return the row of a code, or `UNKNOWN` or `AMBIGUOUS` in place of an error."""
        try:
            return self.find(text, system)
        except UnknownCodeError:
            return UNKNOWN
        except AmbiguousCodeError:
            return AMBIGUOUS


def _listed(system: object) -> str:
    return " or ".join(sorted(system)) if isinstance(system, frozenset) else str(system)


def is_missing(text: object) -> bool:
    """Return True for a missing value: None, NaN, or pandas' NA and NaT."""
    return text is None or (isinstance(text, float) and text != text) or type(text).__name__ in ("NAType", "NaTType")
