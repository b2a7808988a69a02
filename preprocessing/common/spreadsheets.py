"""Write tables that a spreadsheet may open, in which no text is a formula that it would run.

A spreadsheet takes a cell for a formula if it begins with `=`, `+`, `-`, `@`, a tab or a carriage return. An apostrophe
in front makes it text (OWASP, "CSV Injection"), and `plain` takes it off again. Numbers and lists of numbers stay as
they are.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from typing import IO

_FORMULA = tuple("=+-@\t\r")
_NUMBERS = re.compile(r"[+-]?[0-9.]++(?:[eE][+-]?[0-9]++)?(?: [+-]?[0-9.]++(?:[eE][+-]?[0-9]++)?)*+")


def neutral(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula; `plain` returns the text again."""
    return f"'{text}" if _is_formula(text) else text


def plain(text: str) -> str:
    """Return the text of which `neutral` made this one."""
    return text[1:] if text.startswith("'") and _is_formula(text) else text


def _is_formula(text: str) -> bool:
    """Return whether a text, without apostrophes in front, begins as a formula does."""
    if not text.startswith((*_FORMULA, "'")):
        return False
    bare = text.lstrip("'")
    return bare.startswith(_FORMULA) and len(bare) > 1 and _NUMBERS.fullmatch(bare) is None


class TableWriter:
    """Write rows as CSV; texts that a spreadsheet would take for formulas are made neutral.

    Args:
        file: text file, opened with `newline=""`.
        line_end: ends each row.
    """

    def __init__(self, file: IO[str], *, line_end: str = "\n"):
        self._rows = csv.writer(file, lineterminator=line_end)

    def row(self, cells: Sequence[object]) -> None:
        """Write one row."""
        self._rows.writerow([neutral(cell) if isinstance(cell, str) else cell for cell in cells])

    def rows(self, rows: Iterable[Sequence[object]]) -> None:
        """Write rows, one after another."""
        for row in rows:
            self.row(row)
