"""Count rows that could not be used as they stood, and write each with its file, its line and the reason.

A reader hands every such row to `Rejects.add` and goes on with the next one. What could be repaired without losing
anything (a byte order mark, Windows line ends) goes to `Rejects.note`. Both end up in one CSV file with the columns
`file,line,kind,reason,row`; a repair stands there once a file, at the line where it was first needed. Rejects of
patient records have no column `row`: file and line are enough to find it, and its values are not for a report.
"""

import contextlib
import re
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from rich.table import Table

from preprocessing.common.atomic import whole_file
from preprocessing.common.errors import UserError
from preprocessing.common.spreadsheets import TableWriter

COLUMNS = ("file", "line", "kind", "reason", "row")
# A row is shown to be recognized, and one binary file taken for a table must not fill the disk.
_LONGEST_ROW = 2000
_UNPRINTABLE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff\\ufeff\\\\]")


class _Dropped(Exception):
    """End the writing of a file that is not wanted any more."""


class Rejects:
    """Collect rejected rows; a context manager, whose file appears complete at its end or at `finish`.

    Rows go to disk as they come, so a million of them take no memory. They stand in the order of `add`.

    Attributes:
        counts: `(file name, kind)` -> rows rejected.
        notes: `(file name, kind)` -> rows repaired.
    """

    def __init__(self, path: Path | None, root: Path | None = None, *, with_rows: bool = True):
        """Open `path` under a provisional name; None only counts.

        Args:
            path: where the file is to appear.
            root: files below it are named relative to it, all others by their bare name.
            with_rows: False leaves out the text of the rows, which in patient records are values of patients.

        Raises:
            InputError: `path` cannot be written.
        """
        self.path = None if path is None else Path(path)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.notes: Counter[tuple[str, str]] = Counter()
        self._root = None if root is None else Path(root)
        self._columns = COLUMNS if with_rows else COLUMNS[:-1]
        self._file: IO[str] | None = None
        if self.path is not None:
            self._whole = contextlib.ExitStack()
            partial = self._whole.enter_context(whole_file(self.path))
            self._file = self._whole.enter_context(partial.open("w", encoding="utf-8", newline=""))
            self._writer = TableWriter(self._file)
            self._writer.row(self._columns)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._publish()
        elif self._file is not None:
            self._file = None
            # The file is dropped; the error of the body, such as a full disk, is not one of this file.
            self._whole.__exit__(_Dropped, _Dropped(), None)

    def add(self, file: Path | str, line: int, kind: str, reason: str, row: str | bytes = "") -> None:
        """Record one row that was not used, or only in part.

        Args:
            file: where it stands. line: its line there, from 1; 0 speaks of the whole file.
            kind: a few fixed words that it is counted under, for example `wrong column count`.
            reason: what is wrong with this row.
            row: its text. Control characters are written as backslash escapes, a long row is cut.
        """
        name = self._name(file)
        self.counts[name, kind] += 1
        self._write(name, line, kind, reason, row)

    def note(self, file: Path | str, line: int, kind: str) -> None:
        """Count one thing that was repaired; nothing was lost, and `strict` does not mind."""
        name = self._name(file)
        self.notes[name, kind] += 1
        if self.notes[name, kind] == 1:
            self._write(name, line, kind, "repaired", "")

    def summary(self) -> list[tuple[str, str, str, int]]:
        """Return rows `(file, kind, "rejected" or "repaired", rows)`, sorted."""
        rows = [(file, kind, "rejected", count) for (file, kind), count in self.counts.items()]
        rows += [(file, kind, "repaired", count) for (file, kind), count in self.notes.items()]
        return sorted(rows)

    def table(self) -> Table:
        """Return `summary` as a table for the terminal."""
        table = Table(title="Rows rejected or repaired", title_justify="left", title_style="bold")
        for header in ("file", "kind", "outcome"):
            table.add_column(header, overflow="fold")
        table.add_column("rows", justify="right")
        for file, kind, outcome, count in self.summary():
            table.add_row(file, kind, outcome, f"{count:,}")
        return table

    def finish(self, strict: bool = False) -> None:
        """Put the file in place.

        Raises:
            UserError: with `strict`, rows were rejected. All was read and the file is complete.
        """
        self._publish()
        total = self.counts.total()
        if strict and total:
            (file, kind), most = min(self.counts.items(), key=lambda item: (-item[1], item[0]))
            where = "" if self.path is None else f"; they are listed in {self.path}"
            raise UserError(
                f"{total:,} rows were rejected, most of all {most:,} of {file} ({kind}), "
                f"and --strict does not allow that{where}."
            )

    def _publish(self) -> None:
        if self._file is not None:
            self._file = None
            self._whole.close()

    def _name(self, file: Path | str) -> str:
        if isinstance(file, str):
            return file
        if self._root is not None and file.is_relative_to(self._root):
            return file.relative_to(self._root).as_posix()
        return file.name

    def _write(self, name: str, line: int, kind: str, reason: str, row: str | bytes) -> None:
        if self._file is not None:
            cells = (_printable(name), line, kind, _printable(reason), _printable(row))
            self._writer.row(cells[: len(self._columns)])


def _printable(text: str | bytes) -> str:
    """Return `text` on one line, with control characters, backslashes and bytes that are no UTF-8 escaped."""
    if isinstance(text, bytes):
        text = text[: 4 * _LONGEST_ROW].decode("utf-8", "surrogateescape")
    shown = _UNPRINTABLE.sub(_escape, text[:_LONGEST_ROW])
    return shown if len(text) <= _LONGEST_ROW else f"{shown}..."


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if "\udc80" <= character <= "\udcff":  # A byte, as `surrogateescape` decodes it.
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode() if character != "\\" else "\\\\"
