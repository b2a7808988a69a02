"""Damage the CSV files of records in all ways that happen to them, one after another."""

import csv
import gzip
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path


def rows_of(path: Path) -> list[list[str]]:
    """Return the cells of a CSV file, header included."""
    return list(csv.reader(io.StringIO(path.read_text())))


def put(path: Path, rows: list[list[str]], delimiter: str = ",") -> None:
    """Write cells as a CSV file."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    path.write_text(text.getvalue())


def _each_column(change, read):
    """Damage one column at a time of those that `read` returns for a file: `change(header, rows, place)`."""

    def damages(path):
        header, *rows = rows_of(path)
        names = read(path)
        for place in (place for place, name in enumerate(header) if name.lower() in names):
            changed = [header.copy(), *(row.copy() for row in rows)]
            change(changed[0], changed[1:], place)
            put(path, changed)
            yield

    return damages


def _remove(header, rows, place):
    for row in (header, *rows):
        del row[place]


def _fill(text):
    def change(_, rows, place):
        for row in rows:
            row[place] = text or f"{row[0]} {row[1]}"

    return change


def _swap(header, _, place):
    header[place - 1], header[place] = header[place], header[place - 1]


def _rewritten(*changes):
    """Damage the text of a file, once for each of the changes."""

    def damages(path):
        text = path.read_text()
        for change in changes:
            changed = change(text)
            path.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
            yield

    return damages


def _squeezed(path):
    """Damage the file as gzip: cut at several places, a byte changed, and plain text under its name."""
    data = gzip.compress(path.read_bytes(), mtime=0)
    path.unlink()
    packed = path.with_suffix(".csv.gz")
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0xFF
    for damaged in (data[: len(data) // 2], data[:-4], data[:12], bytes(flipped), b"no gzip"):
        packed.write_bytes(damaged)
        yield


def _every_other(character):
    def change(text):
        lines = text.splitlines(keepends=True)
        return "".join(line.replace(",", character) if place % 2 else line for place, line in enumerate(lines))

    return change


def _mixed(text):
    header, *lines = text.splitlines()
    return "\n".join([header, *(",".join(reversed(line.split(","))) for line in lines)]) + "\n"


def _times(style):
    return lambda text: re.sub(r"(\d{4})-(\d\d)-(\d\d)( \d\d:\d\d:\d\d)?", style, text)


def damages(read: Callable[[Path], set[str]]) -> dict[str, Callable[[Path], Iterator[None]]]:
    """Return by name what damages a file: each step leaves it in another state, made of its first one.

    Args:
        read: returns the lower-case names of the columns of a file that a conversion reads.
    """
    return {
        "a header is missing": _rewritten(lambda text: text.partition("\n")[2]),
        "a column is missing": _each_column(_remove, read),
        "two columns are mixed up": _each_column(_swap, read),
        "text in each column": _each_column(_fill(None), read),
        "a number in each column": _each_column(_fill("70000099"), read),
        "nothing in each column": _each_column(_fill(""), read),
        "another separator": _rewritten(*(lambda text, c=c: text.replace(",", c) for c in ";\t|")),
        "another separator in some rows": _rewritten(*map(_every_other, ";\t|")),
        "cells in another order": _rewritten(_mixed),
        "rows repeated": _rewritten(lambda text: text + text.partition("\n")[2], lambda text: text * 2),
        "other forms of time": _rewritten(
            _times(r"\2/\3/\1\4"),
            _times(r"\3.\2.\1"),
            _times(r"\1\2\3"),
            _times(r"\1-\2-\3T00:00Z"),
            _times(r"\1-13-\3\4"),
        ),
        "stray quotation marks": _rewritten(
            lambda text: text.replace(",", ',"', 5), lambda text: text.replace("\n", '"\n'), lambda text: '"' + text
        ),
        "bytes that are no text": _rewritten(
            lambda text: text.replace(",", ",\0"),
            lambda text: text.encode().replace(b"WHITE", b"WH\xcfTE").replace(b"-01", b"\xff\xfe-01"),
            lambda text: text.encode("utf-16"),
            lambda text: text.encode("utf-32"),
            lambda text: b"PK\x03\x04" + text.encode(),
            lambda text: text.replace("\n", "\r"),
        ),
        "nothing": _rewritten(lambda _: "", lambda text: text.partition("\n")[0], lambda _: "\n\n"),
        "a broken archive": _squeezed,
    }
