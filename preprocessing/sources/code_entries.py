"""Collect the codes of one system while its files are read: normalized, one entry per code, with faults counted."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from preprocessing.codes import display_code
from preprocessing.common.errors import InputError
from preprocessing.common.rejects import Rejects

# The one kind of rejected row whose code is kept as it would be without the fault.
EMPTY_DESCRIPTION = "empty description"


class Entry(NamedTuple):
    """Hold one code; `description` may be empty, and `attributes` is a JSON object or the empty string."""

    code: str
    description: str
    attributes: str


def read_attributes(text: str) -> dict | None:
    """Return the attributes in a cell of `codes.csv`, texts or lists of them by name; None if the cell holds others."""
    try:
        known = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return None
    is_known = isinstance(known, dict) and all(map(_is_text, known.values()))
    return known if is_known else None


def _is_text(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))


class CodeEntries:
    """Collect the codes of one system; the first row of a code wins over later rows.

    Attributes:
        system: OMOP vocabulary name.
        rejects: receives every row that is not used, or used only in part.
        files: the files that were read, in order.
        counts: numbers of rows that a reader skipped on purpose, and `duplicates`: rows that only repeat another.
        remarks: sentences for the user.
    """

    def __init__(self, system: str, rejects: Rejects):
        self.system = system
        self.rejects = rejects
        self.files: list[Path] = []
        self.counts: Counter[str] = Counter()
        self.remarks: list[str] = []
        self._entries: dict[str, tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(
        self, file: Path, line: int, code: str, description: str, attributes: Mapping | None = None, *, row: str
    ) -> None:
        """Add one row of `file`.

        A malformed code is rejected. A code without a description is kept and reported, and takes the description of
        a later row if there is one. A repeated code with another description or other attributes is rejected.

        Args:
            file, line, row: file and line number of the row, and its text.
            code: in any spelling of its system.
            description: the official text; blanks are collapsed.
            attributes: further values of the row by name; empty values are left out.
        """
        try:
            code = display_code(self.system, code)
        except InputError as error:
            self.rejects.add(file, line, "malformed code", str(error), row)
            return
        description = " ".join(description.split())
        known = {name: value for name, value in (attributes or {}).items() if value}
        text = json.dumps(known, ensure_ascii=False, separators=(",", ":")) if known else ""
        first = self._entries.get(code)
        if first is None:
            self._entries[code] = (description, text)
            if not description:
                self.rejects.add(file, line, EMPTY_DESCRIPTION, f"{code} has no description; it was kept", row)
        elif not first[0] and description:
            self._entries[code] = (description, text)
        elif first == (description, text):
            self.counts["duplicates"] += 1
        else:
            differs = "another description" if first[0] != description else "other attributes"
            reason = f"{code} came before with {differs}: {first[0]}"
            self.rejects.add(file, line, "duplicate code", reason, row)

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries, sorted by code."""
        for code in sorted(self._entries):
            yield Entry(code, *self._entries[code])

    def codes(self) -> Iterable[str]:
        """Return the codes, in the order of their first rows."""
        return self._entries.keys()

    @property
    def without_description(self) -> int:
        """Return the number of codes that no row describes."""
        return sum(not description for description, _ in self._entries.values())
