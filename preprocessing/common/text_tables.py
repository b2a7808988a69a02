"""Read text files line by line and tables row by row, whatever state they are in.

A line that cannot be read is rejected, by file and line, and the next one is read. Values never span lines, so that an
unbalanced quotation mark costs its own line only. Tables of millions of rows with heavy use of columns are read by
`large_csv` instead.
"""

import contextlib
import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from preprocessing.common.errors import InputError, lacks_column
from preprocessing.common.foreign_files import BOM, FOREIGN, reading
from preprocessing.common.rejects import Rejects
from preprocessing.common.spreadsheets import plain
from preprocessing.common.text_files import opened

# Separators of the values of a user's table, of which the header decides.
SEPARATORS = ",\t;|"
_END_OF_FILE = b"\x1a"
# License notices may stand in front of a header.
_LONGEST_PREAMBLE = 60
_NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]+")


class Line(NamedTuple):
    """Hold one line of a file: `number` from 1, `text` without its line end."""

    number: int
    text: str


class Row(NamedTuple):
    """Hold one row of a table: where it stands, the values asked for, and the whole row as it stands."""

    line: int
    values: tuple[str, ...]
    text: str


def lines(path: Path, rejects: Rejects, *, cp1252: bool = False, users: bool = False) -> Iterator[Line]:
    """Yield the lines that are not blank.

    A line that is not UTF-8 is read as cp1252, and reported unless the file may be in cp1252. A byte order mark, CRLF
    line ends and the end-of-file mark of DOS are taken off and noted.

    Args:
        path: the file.
        rejects: gets every line that is not used.
        cp1252: whether the publisher writes cp1252.
        users: whether the file is a user's, who may have saved it as UTF-16 or compressed it by gzip; an official file
            in such a state is refused.

    Raises:
        InputError: the file cannot be read, is not text, or holds nothing.
    """
    found = crlf = False
    with _opened(path, users) as file:
        for number, raw in enumerate(file, 1):
            if number == 1:
                raw = _without_mark(path, raw, rejects, users)
            if raw.endswith(b"\r\n") and not crlf:
                crlf = True
                rejects.note(path, number, "Windows line ends")
            raw = raw.rstrip(b"\r\n")
            if raw == _END_OF_FILE:
                rejects.note(path, number, "end-of-file mark")
            elif raw.strip():
                found = True
                text = _decode(path, number, raw, rejects, cp1252)
                if text is not None:
                    yield Line(number, text)
    if not found:
        raise InputError(f"{path} is empty; fetch it again.")


@contextlib.contextmanager
def _opened(path: Path, users: bool) -> Iterator[BinaryIO]:
    if users:
        with opened(path) as (file, _):
            yield file
    else:
        with reading(path), path.open("rb") as file:
            yield file


def _without_mark(path: Path, raw: bytes, rejects: Rejects, users: bool) -> bytes:
    for start, advice in () if users else FOREIGN.items():
        if raw.startswith(start):
            raise InputError(f"{path} {advice}.")
    if raw.startswith(BOM):
        rejects.note(path, 1, "byte order mark")
    return raw.removeprefix(BOM)


def _decode(path: Path, number: int, raw: bytes, rejects: Rejects, cp1252: bool) -> str | None:
    if b"\0" in raw:
        rejects.add(path, number, "NUL byte", "the line holds a NUL byte", raw)
        return None
    if b"\r" in raw:
        rejects.add(path, number, "stray carriage return", "the line holds a carriage return", raw)
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        pass
    try:
        text = raw.decode("cp1252")
    except UnicodeDecodeError:
        rejects.add(path, number, "bad encoding", "neither UTF-8 nor cp1252; what is in neither was replaced", raw)
        return raw.decode("cp1252", errors="replace")
    if not cp1252:
        rejects.add(path, number, "bad encoding", "not UTF-8; read as cp1252", raw)
    return text


def rows(path: Path, rejects: Rejects, *, separator: str, width: int) -> Iterator[Row]:
    """Yield the rows, with all their values, of a table without header or quotation marks, such as RRF.

    Args:
        path: the file, UTF-8. rejects: gets every row that is not used.
        separator: stands between values. width: values of a row, counting an empty one behind a last separator.

    Raises:
        InputError: see `lines`.
    """
    for number, text in lines(path, rejects):
        values = text.split(separator)
        if len(values) != width:
            rejects.add(path, number, "wrong column count", f"{len(values)} columns, not {width}", text)
            continue
        yield Row(number, tuple(values), text)


def table(
    path: Path,
    rejects: Rejects,
    *,
    columns: Mapping[str, Sequence[str]],
    optional: Mapping[str, Sequence[str]] | None = None,
    separators: str = "\t",
    quoted: bool = False,
    cp1252: bool = False,
    users: bool = False,
) -> Iterator[Row]:
    """Yield the rows of a table with a header; lines in front of the header are passed over.

    Args:
        path: the file. rejects: gets every row that is not used.
        columns: columns that are needed: name -> further names it may go by. Case, blanks and punctuation of names
            do not matter.
        optional: columns that may be absent, and then are the empty string; their values follow those of `columns`.
        separators: candidates; the header decides.
        quoted: whether a value may stand in quotation marks (CSV), or behind an apostrophe that keeps a spreadsheet
            from running it.
        cp1252, users: see `lines`.

    Raises:
        InputError: see `lines`; or a needed column is missing.
    """
    source = lines(path, rejects, cp1252=cp1252, users=users)
    header = _find_header(path, source, columns, separators, quoted)
    if header.line > 1:
        rejects.note(path, header.line, "header below the first line")
    wanted = {**columns, **(optional or {})}
    places = [_place(header.names, name, others) for name, others in wanted.items()]
    width = len(header.names)
    for number, text in source:
        try:
            values = split_values(text, header.separator, quoted)
        except csv.Error as error:
            rejects.add(path, number, "unbalanced quotation mark", f"the row cannot be split: {error}", text)
            continue
        if len(values) != width:
            rejects.add(path, number, "wrong column count", f"{len(values)} columns, not {width}", text)
            continue
        if quoted and "'" in text:
            values = [plain(value) for value in values]
        yield Row(number, tuple("" if place is None else values[place] for place in places), text)


class _Header(NamedTuple):
    line: int
    names: list[str]
    separator: str


def _find_header(
    path: Path, source: Iterator[Line], columns: Mapping[str, Sequence[str]], separators: str, quoted: bool
) -> _Header:
    nearest: tuple[int, int, list[str]] | None = None
    for _, (number, text) in zip(range(_LONGEST_PREAMBLE), source, strict=False):
        for separator in separators:
            try:
                names = [plain_name(name) for name in split_values(text, separator, quoted)]
            except csv.Error:
                continue
            missing = [name for name, others in columns.items() if _place(names, name, others) is None]
            if not missing:
                return _Header(number, names, separator)
            if nearest is None or len(missing) < len(nearest[2]):
                nearest = number, len(names), missing
    if nearest is None:
        raise InputError(f"{path} has no header; its first line must name the columns {', '.join(columns)}.")
    number, cells, missing = nearest
    others = columns[missing[0]]
    known = f" (or {', '.join(others)})" if others else ""
    found = [name for name in columns if name not in missing]
    raise lacks_column(path, f"{missing[0]!r}{known}", found, cells, line=number)


def split_values(text: str, separator: str, quoted: bool) -> list[str]:
    """Return the values of one line.

    Raises:
        csv.Error: a quotation mark is not closed in the line, or text follows a closing one.
    """
    if not quoted or '"' not in text:
        return text.split(separator)
    return next(csv.reader((text,), delimiter=separator, strict=True))


def _place(names: Sequence[str], name: str, others: Sequence[str]) -> int | None:
    return next((names.index(plain) for plain in map(plain_name, (name, *others)) if plain in names), None)


def plain_name(name: str) -> str:
    """Return the name of a column in lower case, with letters and digits only."""
    return _NOT_ALPHANUMERIC.sub("", name.lower())
