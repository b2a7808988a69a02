"""Read a large comma-separated file in blocks, setting aside every line that would make a parser fail or slip.

A parser that meets an unbalanced quotation mark reads on until the next one and swallows the lines between. So lines
are judged one by one first, by vectorized counts of their bytes, and only sound ones reach the parser. A quoted value
must therefore not span lines.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from preprocessing.common.errors import InputError, lacks_column
from preprocessing.common.foreign_files import BOM
from preprocessing.common.rejects import Rejects
from preprocessing.common.text_files import opened

BLOCK_BYTES = 64 << 20
_NEWLINE, _RETURN, _QUOTE, _COMMA = 10, 13, 34, 44


class Block(NamedTuple):
    """Hold some sound rows of a file.

    Attributes:
        columns: name -> dictionary array (int32 -> string) of n rows.
        lines: int64 [n], line of the file that each row stands on; the header is line 1.
        size: bytes of the file that were read for the block.
        rows: lines that were read for the block, without blank ones but with those that were set aside.
    """

    columns: dict[str, pa.DictionaryArray]
    lines: np.ndarray
    size: int
    rows: int


def read_blocks(
    path: Path,
    columns: Sequence[str],
    rejects: Rejects,
    block_bytes: int = BLOCK_BYTES,
    *,
    optional: Sequence[str] = (),
    fold_case: bool = False,
) -> Iterator[Block]:
    """Yield the sound rows of a file with a header, in order; further columns and their order do not matter.

    A line that is not UTF-8 is read as cp1252 and reported; nothing of it is lost.

    Args:
        path: the file, in UTF-8 or UTF-16, which may be compressed by gzip; a byte order mark and CRLF line ends are
            understood.
        columns: names of the columns that are needed.
        rejects: gets every line that is set aside.
        block_bytes: bytes read at a time.
        optional: columns that are read where the file has them.
        fold_case: whether the header may be in capitals; `columns` and `optional` are in lower case then.

    Raises:
        InputError: the file is absent, empty or damaged, or lacks a column.
    """
    with opened(path) as (file, position):
        first = file.readline()
        header = _header(path, first, columns, fold_case)
        columns = [*columns, *(name for name in optional if name in header)]
        if first.startswith(BOM):
            rejects.note(path, 1, "byte order mark")
        if first.endswith(b"\r\n"):
            rejects.note(path, 1, "Windows line ends")
        line, rest, told = 2, b"", 0
        while chunk := file.read(block_bytes):
            chunk = rest + chunk
            end = chunk.rfind(b"\n") + 1
            chunk, rest = chunk[:end], chunk[end:]
            if chunk:
                here = position()
                yield _block(path, chunk, line, header, columns, rejects, here - told)
                line, told = line + chunk.count(b"\n"), here
        if rest:
            yield _block(path, rest + b"\n", line, header, columns, rejects, position() - told)


def _header(path: Path, line: bytes, columns: Sequence[str], fold_case: bool) -> list[str]:
    text = line.removeprefix(BOM).decode("utf-8", errors="replace").strip("\r\n")
    if not text.strip():
        raise InputError(f"{path} is empty or has no header; fetch it again.")
    try:
        header = next(csv.reader([text.lower() if fold_case else text]))
    except csv.Error as error:
        raise InputError(f"{path} has no header that can be read ({error}); fetch it again.") from error
    missing = [name for name in columns if name not in header]
    if missing:
        raise lacks_column(path, repr(missing[0]), [name for name in columns if name in header], len(header))
    return header


def _block(
    path: Path, raw: bytes, line: int, header: list[str], columns: Sequence[str], rejects: Rejects, size: int
) -> Block:
    raw, lines, rows = _screen(path, raw, line, len(header), rejects)
    slipped: list[int] = []

    def skip(row) -> str:
        slipped.append(row.number - 1)
        where = int(lines[row.number - 1])
        rejects.add(path, where, "wrong column count", f"{row.actual_columns} columns, not {len(header)}", row.text)
        return "skip"

    table = (
        arrow_csv.read_csv(
            pa.BufferReader(raw),
            # One thread: rows are numbered, for `skip`, only then. Names by position allow for names given twice.
            read_options=arrow_csv.ReadOptions(
                column_names=[str(i) for i in range(len(header))], use_threads=False, block_size=max(len(raw), 1) + 1
            ),
            parse_options=arrow_csv.ParseOptions(invalid_row_handler=skip, ignore_empty_lines=False),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=[str(header.index(name)) for name in columns],
                column_types={str(i): pa.dictionary(pa.int32(), pa.string()) for i in range(len(header))},
                strings_can_be_null=False,
            ),
        )
        if len(lines)
        else None
    )
    arrays = {}
    for name in columns:
        column = None if table is None else table[str(header.index(name))].combine_chunks()
        arrays[name] = pa.array([], pa.string()).dictionary_encode() if column is None else column
    return Block(arrays, np.delete(lines, slipped), size, rows)


def _screen(path: Path, raw: bytes, line: int, width: int, rejects: Rejects) -> tuple[bytes, np.ndarray, int]:
    """Return the lines of `raw` that have `width` columns, their numbers from `line` on, and the number of all rows."""
    lines = line + np.arange(raw.count(b"\n"))
    raw, lines = _drop(path, raw, lines, _blank(raw), None, rejects)
    rows = len(lines)
    if b"\0" in raw:
        nul = _counts(raw, np.frombuffer(raw, np.uint8) == 0) > 0
        raw, lines = _drop(path, raw, lines, nul, ("NUL byte", "the line holds a NUL byte"), rejects)
    if b"\r" in raw:
        # A parser ends a line at each, so that lines would be counted wrong.
        stray = _counts(raw, _stray_returns(raw)) > 0
        raw, lines = _drop(
            path, raw, lines, stray, ("stray carriage return", "the line holds a carriage return"), rejects
        )
    if b'"' in raw:
        odd = _counts(raw, np.frombuffer(raw, np.uint8) == _QUOTE) % 2 == 1
        raw, lines = _drop(
            path, raw, lines, odd, ("unbalanced quotation mark", "a quotation mark is not closed"), rejects
        )
    separators = np.frombuffer(raw, np.uint8) == _COMMA
    if b'"' in raw:
        # Every line has an even number of quotation marks by now, so their parity tells inside from outside.
        separators &= np.cumsum(np.frombuffer(raw, np.uint8) == _QUOTE, dtype=np.uint8) % 2 == 0
    wrong = _counts(raw, separators) + 1 != width
    raw, lines = _drop(path, raw, lines, wrong, ("wrong column count", f"the header has {width} columns"), rejects)
    return _as_utf8(path, raw, lines, rejects), lines, rows


def _as_utf8(path: Path, raw: bytes, lines: np.ndarray, rejects: Rejects) -> bytes:
    try:
        raw.decode("utf-8")
        return raw
    except UnicodeDecodeError:
        whole = [row + b"\n" for row in raw.split(b"\n")[:-1]]
    for position in np.flatnonzero(_counts(raw, np.frombuffer(raw, np.uint8) >= 0x80)):
        try:
            whole[position].decode("utf-8")
        except UnicodeDecodeError:
            row = whole[position]
            rejects.add(path, int(lines[position]), "bad encoding", "not UTF-8; read as cp1252", row.rstrip(b"\r\n"))
            whole[position] = row.decode("cp1252", errors="replace").encode()
    return b"".join(whole)


def _stray_returns(raw: bytes) -> np.ndarray:
    """Return a mask of the carriage returns that do not end a line: bool [bytes]."""
    found = np.frombuffer(raw, np.uint8)
    return (found == _RETURN) & (np.append(found[1:], _NEWLINE) != _NEWLINE)


def _starts(raw: bytes) -> np.ndarray:
    ends = np.flatnonzero(np.frombuffer(raw, np.uint8) == _NEWLINE)
    return np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)[: len(ends)]


def _counts(raw: bytes, chosen: np.ndarray) -> np.ndarray:
    """Number of chosen bytes on each line of `raw`: int64 [lines]."""
    starts = _starts(raw)
    return np.add.reduceat(chosen, starts, dtype=np.int32) if len(starts) else np.empty(0, np.int32)


def _blank(raw: bytes) -> np.ndarray:
    starts = _starts(raw)
    lengths = np.diff(starts, append=len(raw)) - 1
    following = np.frombuffer(raw, np.uint8)[starts]
    return (lengths == 0) | ((lengths == 1) & (following == _RETURN))


def _drop(
    path: Path, raw: bytes, lines: np.ndarray, bad: np.ndarray, fault: tuple[str, str] | None, rejects: Rejects
) -> tuple[bytes, np.ndarray]:
    """Take the `bad` lines out; blank ones (no `fault`) are no loss and not reported."""
    if not bad.any():
        return raw, lines
    starts = _starts(raw)
    lengths = np.diff(starts, append=len(raw))
    if fault is not None:
        for position in np.flatnonzero(bad):
            text = raw[starts[position] : starts[position] + lengths[position]].rstrip(b"\r\n")
            rejects.add(path, int(lines[position]), *fault, text)
    return np.frombuffer(raw, np.uint8)[np.repeat(~bad, lengths)].tobytes(), lines[~bad]
