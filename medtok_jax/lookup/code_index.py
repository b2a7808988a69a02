"""Finds the row of a code: exact, whatever the spelling, one at a time or a million. No JAX here.

A code is looked up with its dot or without: a code that is given with a dot must have it in the right place.
"""

import bisect
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medtok_jax.lookup import hierarchy
from medtok_jax.lookup.code_names import CodeNames, shown
from preprocessing import codes
from preprocessing.common.errors import InputError

UNKNOWN, AMBIGUOUS = -1, -2


class UnknownCodeError(InputError):
    """A code that the tokenizer does not hold."""


class AmbiguousCodeError(InputError):
    """A bare code that several code systems have; `candidates` are their keys."""

    def __init__(self, message: str, candidates: Sequence[str]):
        super().__init__(message)
        self.candidates = tuple(candidates)


class SortedStrings:
    """Strings in the order of their bytes, where one is found by bisection: a few bytes a string, nothing per object.

    Args:
        strings: in any order.
    """

    def __init__(self, strings: pa.StringArray):
        self.order = pc.sort_indices(strings).to_numpy().astype(np.int32)
        self.strings = strings.take(pa.array(self.order))
        _, offsets, content = self.strings.buffers()
        self._offsets = memoryview(offsets).cast("i")
        self._content = content.to_pybytes() if content else b""
        # Equal strings stand side by side.
        same = pc.equal(self.strings[1:], self.strings[:-1]).to_numpy(zero_copy_only=False)
        self.repeated = np.concatenate([same, [False]]) | np.concatenate([[False], same])

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> bytes:
        return self._content[self._offsets[place] : self._offsets[place + 1]]

    def find(self, text: str) -> list[int]:
        """Rows whose string is `text`."""
        wanted = text.encode("utf-8", "surrogatepass")
        place, rows = bisect.bisect_left(self, wanted), []
        while place < len(self) and self[place] == wanted:
            rows.append(int(self.order[place]))
            place += 1
        return rows


class CodeIndex:
    """All ways to a row of a token table.

    Args:
        table: columns `key` (sorted), `system` and `code`.
        prefer: code systems in the order in which a bare code of several is looked up; empty to refuse such a code.
    """

    def __init__(self, table: pa.Table, prefer: Sequence[str] = ()):
        self.key, code = (table[name].combine_chunks() for name in ("key", "code"))
        system = table["system"].combine_chunks().dictionary_encode()
        self._system_names = system.dictionary.to_pylist()
        self._system = system.indices.to_numpy().astype(np.int16)
        self._display = pc.ascii_upper(code)
        self._compact = SortedStrings(pc.replace_substring(self._display, ".", ""))
        self.names = CodeNames(self._system_names)
        self.prefer = self.resolve_order(prefer)

    def resolve_order(self, prefer: Sequence[str]) -> tuple[str, ...]:
        """Code systems named in order of preference.

        Raises:
            InputError: one is no code system.
        """
        return tuple(system for name in prefer for system in self.names.systems_named(name))

    def find(self, text: str, system: str | None = None) -> int:
        """Row of a code.

        Args:
            text: the code, with a prefix or without.
            system: its code system, where the prefix does not tell.

        Raises:
            UnknownCodeError: there is none.
            AmbiguousCodeError: several systems have it, and no order of preference was given.
            InputError: `text` is no text, or `system` no code system.
        """
        rows = self.candidates(text, system)
        if not rows:
            raise UnknownCodeError(
                f"{shown(text)} is not among the {len(self.key):,} codes of this tokenizer"
                f"{f' as a code of {system}' if system else ''}; keys look like {self.key[0]}."
            )
        return self._choose(rows, text)

    def find_ancestor(self, text: str, system: str | None = None) -> tuple[str, int]:
        """The key of a code that is not in the table, and the row of the nearest code above it (see `hierarchy`).

        Raises:
            UnknownCodeError, AmbiguousCodeError, InputError: as `find`.
        """
        keys = {}
        for name, code in self.wellformed(text, system):
            above = (self._spelled(_upper(ancestor), (name,)) for ancestor in hierarchy.ancestors(name, code))
            keys |= {row: f"{name}/{code}" for row in next(filter(None, above), [])}
        if not keys:
            raise UnknownCodeError(f"{shown(text)} is not in this tokenizer, and neither is a code above it.")
        row = self._choose(list(keys), text)
        return keys[row], row

    def infer_system(self, text: str, system: str | None = None) -> tuple[str, str]:
        """Code system and code of a text that is not in the table: as it says, else by the shape of the code.

        Raises:
            InputError: that does not settle the system.
        """
        named, code = self._read(text, system)
        if named is None or len(named) > 1:
            found = self.wellformed(text, system)
            if len(found) == 1:
                return found[0]
            raise InputError(
                f"{shown(text)} does not tell its code system; give one of {', '.join(self.names.systems)}."
            )
        if not named or not code:
            raise InputError(f"{shown(text)} is no code of {system}.")
        return named[0], code

    def wellformed(self, text: str, system: str | None = None) -> list[tuple[str, str]]:
        """Code systems whose codes look like a text, and the text in their normal form."""
        named, code = self._read(text, system)
        found = []
        for name in self.names.systems if named is None else named:
            # Normal forms are made for ASCII; a dot in another place than theirs makes another code.
            if code.isascii() and codes.is_wellformed(name, code):
                normal = codes.display_code(name, code)
                if "." not in code or normal == code.upper():
                    found.append((name, normal))
        return found

    def _choose(self, rows: list[int], text: str) -> int:
        """The one row, or the one of the system that is preferred."""
        if len(rows) > 1 and self.prefer:
            rank = {name: place for place, name in reversed(list(enumerate(self.prefer)))}
            best = min(rank.get(self.system_of(row), len(rank)) for row in rows)
            rows = [row for row in rows if rank.get(self.system_of(row)) == best] or rows
        if len(rows) > 1:
            keys = [self.key[row].as_py() for row in rows]
            raise AmbiguousCodeError(
                f"{shown(text)} is a code of several systems: {', '.join(keys)}; give one of these, or an order of"
                " preference.",
                keys,
            )
        return rows[0]

    def _read(self, text: str, system: str | None) -> tuple[tuple[str, ...] | None, str]:
        """Systems that a text or `system` names, None for none, and the code."""
        if not isinstance(text, str):
            raise InputError(f"A code must be text, such as 'E11.9' or 'ICD10CM/E11.9', not {shown(text)}.")
        named, code = self.names.split(text)
        if system is not None:
            asked = self.names.systems_named(system)
            named = asked if named is None else tuple(name for name in named if name in asked)
        return named, code

    def candidates(self, text: str, system: str | None = None) -> list[int]:
        """Rows of all codes that a text may mean, rising."""
        named, code = self._read(text, system)
        rows = self._spelled(_upper(code), named)
        if rows or "." in code:
            return rows
        # Codes whose official form is another, such as a dashed NDC.
        for name, normal in self.wellformed(text, system):
            rows += [row for row in self._spelled(_upper(normal), (name,)) if row not in rows]
        return sorted(rows)

    def system_of(self, row: int) -> str:
        """Code system of a row."""
        return self._system_names[self._system[row]]

    def _spelled(self, code: str, named: tuple[str, ...] | None) -> list[int]:
        rows = self._compact.find(code.replace(".", ""))
        if named is not None:
            rows = [row for row in rows if self.system_of(row) in named]
        if "." in code or len(rows) > 1:
            # A dot in the wrong place makes another code, and the code spelled exactly so goes before another's.
            exact = [row for row in rows if self._display[row].as_py() == code]
            if "." in code or (exact and named is not None and len(named) == 1):
                return exact
        return sorted(rows)

    def is_of(self, rows: np.ndarray, system: str) -> np.ndarray:
        """`[rows]` bool, whether they are of a code system."""
        named = [self._system_names.index(s) for s in self.names.systems_named(system) if s in self._system_names]
        return np.isin(self._system[rows], named)

    def find_many(self, texts: Sequence[str] | pa.Array, system: str | None = None) -> np.ndarray:
        """Rows of many codes, `[codes]` int32: `UNKNOWN` where there is none (also for None), `AMBIGUOUS` for several.

        Raises:
            InputError: something is neither text nor None, or `system` is no code system.
        """
        if system is not None:
            self.names.systems_named(system)
        array = _as_strings(texts)
        if array is None:
            return self._find_each(texts.to_pylist() if hasattr(texts, "to_pylist") else texts, system)
        rows = np.full(len(array), UNKNOWN, np.int32) if system else self._find_plain(array)
        left = np.flatnonzero((rows == UNKNOWN) & array.is_valid().to_numpy(zero_copy_only=False))
        if len(left):
            encoded = array.take(pa.array(left)).dictionary_encode()
            rows[left] = self._find_each(encoded.dictionary.to_pylist(), system)[encoded.indices.to_numpy()]
        return rows

    def _find_plain(self, texts: pa.StringArray) -> np.ndarray:
        """Rows of keys and of bare codes that one system alone has; `UNKNOWN` where one must look closer."""
        rows = np.full(len(texts), UNKNOWN, np.int32)
        prefixed = pc.match_substring(texts, "/").fill_null(False).to_numpy(zero_copy_only=False)
        if prefixed.any():
            rows[prefixed] = pc.index_in(_select(texts, prefixed), self.key).fill_null(UNKNOWN).to_numpy()
        if prefixed.all():
            return rows
        code = pc.ascii_upper(_select(texts, ~prefixed))
        place = pc.index_in(pc.replace_substring(code, ".", ""), self._compact.strings, skip_nulls=True)
        known = place.is_valid().to_numpy(zero_copy_only=False)
        place = place.fill_null(0).to_numpy()
        found = self._compact.order[place]
        same = pc.equal(code, self._display.take(pa.array(found))).fill_null(False).to_numpy(zero_copy_only=False)
        dotted = pc.match_substring(code, ".").fill_null(False).to_numpy(zero_copy_only=False)
        settled = known & ~self._compact.repeated[place] & (same | ~dotted)
        rows[~prefixed] = np.where(settled, found, UNKNOWN)
        return rows

    def _find_each(self, texts: Sequence[str | None], system: str | None) -> np.ndarray:
        return np.array([self._find_or_tell(text, system) for text in texts], np.int32)

    def _find_or_tell(self, text: str | None, system: str | None) -> int:
        if is_missing(text):
            return UNKNOWN
        try:
            return self.find(text, system)
        except UnknownCodeError:
            return UNKNOWN
        except AmbiguousCodeError:
            return AMBIGUOUS


def text_at(texts: Sequence[str] | pa.Array, place: int) -> str | None:
    """One of the texts that `find_many` takes."""
    text = texts[place]
    return text.as_py() if isinstance(text, pa.Scalar) else text


def _as_strings(texts: Sequence[str] | pa.Array) -> pa.StringArray | None:
    """The same as one array, or None where something among them is no text, or has no UTF-8 form."""
    try:
        array = texts if isinstance(texts, (pa.Array, pa.ChunkedArray)) else pa.array(texts)
    except (pa.ArrowException, TypeError, ValueError, OverflowError, RecursionError):
        return None
    kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        return None
    array = array.cast(pa.string())
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _select(strings: pa.StringArray, mask: np.ndarray) -> pa.StringArray:
    return strings if mask.all() else strings.filter(pa.array(mask))


def is_missing(text: object) -> bool:
    """Whether this stands for a value that is not there: None, or the NaN of a table of numbers."""
    return text is None or (isinstance(text, float) and text != text)


def _upper(code: str) -> str:
    """Capitals; beyond ASCII nothing changes, or other letters would become those of codes (`ſ` an S)."""
    return code.upper() if code.isascii() else code
