"""Find the row of a code in the token table, whatever its spelling, one code at a time or a million. No JAX here.

A code may be given with its dot or without; a dot that is given must be in the right position.
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
    """Report a code that the tokenizer does not hold."""


class AmbiguousCodeError(InputError):
    """Report a bare code that several code systems have; `candidates` holds the key of each."""

    def __init__(self, message: str, candidates: Sequence[str]):
        super().__init__(message)
        self.candidates = tuple(candidates)


class SortedStrings:
    """Store strings sorted by their bytes and find one by bisection, in a few bytes a string without Python objects.

    Args:
        strings: in any order.
    """

    def __init__(self, strings: pa.StringArray):
        self.order = pc.sort_indices(strings).to_numpy().astype(np.int32)
        self.strings = strings.take(pa.array(self.order))
        _, offsets, content = self.strings.buffers()
        self._offsets = memoryview(offsets).cast("i")
        self._content = content.to_pybytes() if content else b""
        # After sorting, equal strings are adjacent.
        same = pc.equal(self.strings[1:], self.strings[:-1]).to_numpy(zero_copy_only=False)
        self.repeated = np.concatenate([same, [False]]) | np.concatenate([[False], same])

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> bytes:
        return self._content[self._offsets[position] : self._offsets[position + 1]]

    def find(self, text: str) -> list[int]:
        """Return the rows whose string is `text`."""
        wanted = text.encode("utf-8", "surrogatepass")
        position = bisect.bisect_left(self, wanted)
        rows = []
        while position < len(self) and self[position] == wanted:
            rows.append(int(self.order[position]))
            position += 1
        return rows


class CodeIndex:
    """Resolve codes to rows of a token table.

    Args:
        table: columns `key` (sorted), `system` and `code`.
        prefer: code systems in the order in which a bare code of several systems is looked up; empty to refuse such a
            code.
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
        """Return the code systems that an order of preference names, in that order.

        Raises:
            InputError: a name is not that of a code system.
        """
        return tuple(system for name in prefer for system in self.names.systems_named(name))

    def find(self, text: str, system: str | None = None) -> int:
        """Return the row of a code.

        Args:
            text: the code, with the name of its system as a prefix or without.
            system: its code system, for a code without a prefix.

        Raises:
            UnknownCodeError: the table does not hold the code.
            AmbiguousCodeError: several systems have it, and no order of preference was given.
            InputError: `text` is not a string, or `system` is not a code system.
        """
        rows = self.candidates(text, system)
        if not rows:
            raise UnknownCodeError(
                f"{shown(text)} is not among the {len(self.key):,} codes of this tokenizer"
                f"{f' as a code of {system}' if system else ''}; keys look like {self.key[0]}."
            )
        return self._choose(rows, text)

    def find_ancestor(self, text: str, system: str | None = None) -> tuple[str, int]:
        """Return the key of a code that the table lacks and the row of its nearest ancestor (see `hierarchy`).

        Raises:
            UnknownCodeError: the table holds no ancestor of the code either.
            AmbiguousCodeError, InputError: see `find`.
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
        """Return the code system and the code of a text that the table lacks.

        The system is the one that the prefix or `system` names, else the only one whose codes have this shape.

        Raises:
            InputError: neither settles the system.
        """
        named, code = self._read(text, system)
        if named is None or len(named) > 1:
            found = self.wellformed(text, system)
            if len(found) == 1:
                return found[0]
            raise InputError(
                f"{shown(text)} does not name its code system; give one of {', '.join(self.names.systems)}."
            )
        if not named or not code:
            raise InputError(f"{shown(text)} is not a code of {system}.")
        return named[0], code

    def wellformed(self, text: str, system: str | None = None) -> list[tuple[str, str]]:
        """Return each code system whose codes have the shape of a text, with the text in that system's normal form."""
        named, code = self._read(text, system)
        found = []
        for name in self.names.systems if named is None else named:
            # Normal forms are defined for ASCII.
            if code.isascii() and codes.is_wellformed(name, code):
                found.append((name, codes.display_code(name, code)))
        return found

    def _choose(self, rows: list[int], text: str) -> int:
        """Return the only row, or the only one of the most preferred system; raise `AmbiguousCodeError` otherwise."""
        if len(rows) > 1 and self.prefer:
            rank = {name: number for number, name in reversed(list(enumerate(self.prefer)))}
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
        """Return the systems that a text or `system` names (None where neither names any) and the code."""
        if not isinstance(text, str):
            raise InputError(f"A code must be text, such as 'E11.9' or 'ICD10CM/E11.9', not {shown(text)}.")
        named, code = self.names.split(text)
        if system is not None:
            given = self.names.systems_named(system)
            named = given if named is None else tuple(name for name in named if name in given)
        return named, code

    def candidates(self, text: str, system: str | None = None) -> list[int]:
        """Return the rows of all codes that a text may mean, ascending."""
        named, code = self._read(text, system)
        rows = self._spelled(_upper(code), named)
        if rows or "." in code:
            return rows
        # Some codes, such as dashed NDCs, have another official form.
        for name, normal in self.wellformed(text, system):
            rows += [row for row in self._spelled(_upper(normal), (name,)) if row not in rows]
        return sorted(rows)

    def system_of(self, row: int) -> str:
        """Return the code system of a row."""
        return self._system_names[self._system[row]]

    def _spelled(self, code: str, named: tuple[str, ...] | None) -> list[int]:
        rows = self._compact.find(code.replace(".", ""))
        if named is not None:
            rows = [row for row in rows if self.system_of(row) in named]
        if "." in code or len(rows) > 1:
            # A dot in another position makes another code, and a code with exactly this spelling takes precedence.
            exact = [row for row in rows if self._display[row].as_py() == code]
            if "." in code or (exact and named is not None and len(named) == 1):
                return exact
        return sorted(rows)

    def is_of(self, rows: np.ndarray, system: str) -> np.ndarray:
        """Return a `[rows]` bool mask of the rows whose code is of `system`."""
        named = [self._system_names.index(s) for s in self.names.systems_named(system) if s in self._system_names]
        return np.isin(self._system[rows], named)

    def find_many(self, texts: Sequence[str] | pa.Array, system: str | None = None) -> np.ndarray:
        """Return the rows of many codes, `[codes]` int32.

        A code that the table lacks, and None, give `UNKNOWN`; a code of several systems gives `AMBIGUOUS`.

        Raises:
            InputError: an element is neither a string nor None, or `system` is not a code system.
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
        """Return the rows of keys and of bare codes that only one system has, and `UNKNOWN` for all other texts."""
        rows = np.full(len(texts), UNKNOWN, np.int32)
        prefixed = pc.match_substring(texts, "/").fill_null(False).to_numpy(zero_copy_only=False)
        if prefixed.any():
            rows[prefixed] = pc.index_in(_select(texts, prefixed), self.key).fill_null(UNKNOWN).to_numpy()
        if prefixed.all():
            return rows
        code = pc.ascii_upper(_select(texts, ~prefixed))
        position = pc.index_in(pc.replace_substring(code, ".", ""), self._compact.strings, skip_nulls=True)
        known = position.is_valid().to_numpy(zero_copy_only=False)
        position = position.fill_null(0).to_numpy()
        found = self._compact.order[position]
        same = pc.equal(code, self._display.take(pa.array(found))).fill_null(False).to_numpy(zero_copy_only=False)
        dotted = pc.match_substring(code, ".").fill_null(False).to_numpy(zero_copy_only=False)
        settled = known & ~self._compact.repeated[position] & (same | ~dotted)
        rows[~prefixed] = np.where(settled, found, UNKNOWN)
        return rows

    def _find_each(self, texts: Sequence[str | None], system: str | None) -> np.ndarray:
        return np.array([self._find_or_flag(text, system) for text in texts], np.int32)

    def _find_or_flag(self, text: str | None, system: str | None) -> int:
        """Return the row of a code, or `UNKNOWN` or `AMBIGUOUS` in place of an error."""
        if is_missing(text):
            return UNKNOWN
        try:
            return self.find(text, system)
        except UnknownCodeError:
            return UNKNOWN
        except AmbiguousCodeError:
            return AMBIGUOUS


def text_at(texts: Sequence[str] | pa.Array, position: int) -> str | None:
    """Return one of the texts that `find_many` takes as a Python string, or None where it is missing."""
    text = texts[position]
    return text.as_py() if isinstance(text, pa.Scalar) else text


def _as_strings(texts: Sequence[str] | pa.Array) -> pa.StringArray | None:
    """Return texts as one array, or None if an element is not a string or has no UTF-8 form."""
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
    """Return True for a missing value: None, or the NaN that a data frame holds in its place."""
    return text is None or (isinstance(text, float) and text != text)


def _upper(code: str) -> str:
    """Return an ASCII code in capitals and any other as it is: capitals of `ſ` would be the S of real codes."""
    return code.upper() if code.isascii() else code
