"""Read tables of delimited text (CSV, TSV), whose separator the header decides, one row after another.

A stray quotation mark costs its own line only: a quoted value may span lines, but never one that is a row by itself.
"""

import collections
import contextlib
import csv
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from medtok_jax.tokenize.columns import is_prefixed_code, pick_columns
from medtok_jax.tokenize.rows import RawRow
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import BOM
from preprocessing.common.progress import Bar
from preprocessing.common.text_files import opened
from preprocessing.common.text_tables import SEPARATORS, split_values

# A quoted value of more lines than this is taken for one whose quotation mark is a stray one.
_MOST_LINES = 1000
_END_OF_FILE = "\x1a"
_CHUNK = 1 << 16
# Excel writes `sep=;` above the header.
_EXCEL = re.compile(r'"?sep=([,;\t|])"?', re.IGNORECASE)
_OPEN = "unexpected end of data"
# A line with none of these characters, and shorter than a value may be, is split at its separators.
_SPECIAL = re.compile('["\0\r]')
_LONGEST = csv.field_size_limit()


class TextHeader(NamedTuple):
    """Hold the names of the columns, their separator, and the first line if it is a row, because there is no header."""

    names: list[str]
    separator: str
    first_row: str | None = None


def read_header(path: Path, columns: Mapping[str, str | None]) -> TextHeader:
    """Return the header of a table of delimited text.

    Raises:
        InputError: see `read_rows`.
    """
    with opened(path) as (file, _):
        return _header(_Lines(file), columns, path)


def read_rows(path: Path, columns: Mapping[str, str | None], bar: Bar, *, keep: bool) -> Iterator[RawRow]:
    """Yield the rows of a table of delimited text.

    A file of one column may lack the header. A line that cannot be read is a row with a reason.

    Args:
        path: the file, see `text_files.opened`.
        columns: see `pick_columns`.
        bar: counts the bytes that are read.
        keep: whether rows hold all other columns too.

    Raises:
        InputError: the file cannot be read, or has no column of codes.
    """
    with opened(path) as (file, position):
        lines = _Lines(file)
        names, separator, first_row = _header(lines, columns, path)
        picked = pick_columns(names, columns, path)
        places = {kind: names.index(name) for kind, name in picked.items()}
        unique = unique_names(names)
        code = unique[places["code"]]
        width = len(names)
        header = None if first_row is not None else picked["code"]
        if first_row is not None:
            lines.put_back(first_row)
        for number in itertools.count(1):
            text = lines.next_row()
            if text is None:
                break
            if _SPECIAL.search(text) is None and len(text) < _LONGEST:
                cells = text.split(separator)
                problem = None if len(cells) == width else _wrong_width(cells, width)
            else:
                cells, problem = _cells(text, separator, width, lines)
            if problem is not None:
                yield RawRow(number, problem=problem)
                continue
            others = {}
            if keep:
                others = dict(zip(unique, map(_decoded, cells), strict=True))
                del others[code]
            found = {kind: cells[place] for kind, place in places.items()}
            if "description" in found:
                found["description"] = _decoded(found["description"])
            yield RawRow(number, found, header, others)
            if number % 1024 == 0:
                bar.update(position() - bar.n)
        bar.update(position() - bar.n)


def unique_names(names: Sequence[str]) -> list[str]:
    """Return the names of columns, where a name that occurs again has a number: `note`, `note_2`."""
    unique: dict[str, None] = {}
    for name in names:
        numbered = (f"{name}_{number}" for number in itertools.count(2))
        unique[name if name not in unique else next(n for n in numbered if n not in unique and n not in names)] = None
    return list(unique)


class _Lines:
    """Read lines without their ends, as text in which bytes that are not UTF-8 are lone surrogates."""

    def __init__(self, file: BinaryIO):
        head = file.peek(_CHUNK)
        self._lines = iter(file) if b"\n" in head or b"\r" not in head[:-1] else _carriage_lines(file)
        self._waiting: collections.deque[str] = collections.deque()
        self._is_first = True
        self.number = 0

    def next_row(self) -> str | None:
        """Return the next line that is not empty, or None at the end of the file."""
        while (text := self._waiting.popleft() if self._waiting else self._read()) is not None:
            self.number += 1
            if text not in ("", _END_OF_FILE):
                return text
        return None

    def put_back(self, text: str) -> None:
        """Make a line that was just read the next one again."""
        self._waiting.appendleft(text)
        self.number -= 1

    def ahead(self) -> Iterator[str]:
        """Yield the lines that follow, which remain to be read."""
        for position in itertools.count():
            if position == len(self._waiting):
                text = self._read()
                if text is None:
                    return
                self._waiting.append(text)
            yield self._waiting[position]

    def skip(self, count: int) -> None:
        """Pass over lines that `ahead` yielded."""
        for _ in range(count):
            self._waiting.popleft()
        self.number += count

    def _read(self) -> str | None:
        raw = next(self._lines, None)
        if raw is None:
            return None
        if self._is_first:
            raw, self._is_first = raw.removeprefix(BOM), False
        return raw.rstrip(b"\r\n").decode("utf-8", "surrogateescape")


def _carriage_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file whose lines end in a carriage return alone, as old spreadsheets of the Mac write it."""
    rest = b""
    while chunk := file.read(max(_CHUNK, len(rest))):
        *lines, rest = (rest + chunk).split(b"\r")
        yield from lines
    if rest:
        yield rest


def _header(lines: _Lines, columns: Mapping[str, str | None], path: Path) -> TextHeader:
    text = lines.next_row() or ""
    separators = SEPARATORS
    if (match := _EXCEL.fullmatch(text)) is not None:
        separators, text = match[1], lines.next_row() or ""
    candidates = {}
    for separator in separators:
        try:
            candidates[separator] = [_decoded(name) for name in split_values(text, separator, quoted=True)]
        except csv.Error as error:
            reason = error
    if not candidates:
        raise InputError(f"{path} has no readable header ({reason}).")
    is_free = not any(columns.values())
    if not (is_free and is_prefixed_code(text)):
        for separator, names in candidates.items():
            with contextlib.suppress(InputError):
                pick_columns(names, columns, path)
                return TextHeader(names, separator)
    # Every code has a digit, and the header of a single column rarely does.
    is_single = all(len(names) == 1 for names in candidates.values()) or is_prefixed_code(text)
    if is_free and is_single and any(character.isdigit() for character in text):
        return TextHeader(["code"], SEPARATORS[0], text)
    separator, names = max(candidates.items(), key=lambda candidate: len(candidate[1]))
    pick_columns(names, columns, path)
    return TextHeader(names, separator)


def _cells(text: str, separator: str, width: int, lines: _Lines) -> tuple[list[str], str | None]:
    """Return the cells of the row that begins with a line, and the reason for which it cannot be used, or None.

    Where a quoted value is not closed in its line, the lines that belong to it are taken from `lines`.
    """
    if "\0" in text:
        return [], f"line {lines.number} of the file holds a NUL byte"
    try:
        cells = _split(text, separator)
    except csv.Error as error:
        if str(error) != _OPEN:
            return [], f"line {lines.number} of the file cannot be read ({error})"
        cells = _joined(text, separator, width, lines)
        if cells is None:
            return [], f"a quotation mark is not closed in line {lines.number} of the file"
    return cells, None if len(cells) == width else _wrong_width(cells, width)


def _wrong_width(cells: Sequence[str], width: int) -> str:
    return f"the row has {len(cells)} cells where the header has {width}"


def _joined(text: str, separator: str, width: int, lines: _Lines) -> list[str] | None:
    """Return the cells of a row with a value that spans lines, or None if its quotation mark is a stray one."""
    parts = [f"{text}\n"]
    for count, following in enumerate(itertools.islice(lines.ahead(), _MOST_LINES), 1):
        if _is_row(following, separator, width):
            return None
        parts.append(f"{following}\n")
        if '"' not in following:
            continue
        try:
            cells = next(csv.reader(parts, delimiter=separator, strict=True))
        except csv.Error as error:
            if str(error) != _OPEN:
                return None
            continue
        if len(cells) != width:
            return None
        lines.skip(count)
        return cells
    # Nothing follows: the end of the file closes the value.
    return next(csv.reader((text,), delimiter=separator)) if len(parts) == 1 else None


def _is_row(text: str, separator: str, width: int) -> bool:
    """Return whether a line is a row by itself, or would be without its quotation marks."""
    if width > 1 and text.count(separator) < width - 1:
        return False
    if len(text.split(separator)) == width:
        return True
    try:
        return len(_split(text, separator)) == width
    except csv.Error:
        return False


def _split(text: str, separator: str) -> list[str]:
    if "\r" in text or len(text) > _LONGEST:
        return next(csv.reader((text,), delimiter=separator, strict=True))
    return split_values(text, separator, quoted=True)


def _decoded(cell: str) -> str:
    """Return a cell in which bytes that are not UTF-8 are read as cp1252."""
    if cell.isascii():
        return cell
    try:
        cell.encode()
        return cell
    except UnicodeEncodeError:
        return cell.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
