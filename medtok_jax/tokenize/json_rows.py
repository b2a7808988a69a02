"""Read files of JSON values, a list or one value a line, as rows of codes. NaN is a missing value."""

import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from medtok_jax.tokenize.columns import pick_columns
from medtok_jax.tokenize.rows import RawRow
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import BOM
from preprocessing.common.progress import Bar
from preprocessing.common.text_files import opened

_CHUNK = 1 << 16
# Strings are matched only to pass over what they hold. The group is there if the end of the block cuts a string.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|(\\?\Z))'
_STRINGS = re.compile(_STRING, re.DOTALL)
_NUMBERS_OF_PYTHON = re.compile(_STRING + rb"|-?\bInfinity\b|\bNaN\b", re.DOTALL)
# A block may end behind any of these bytes outside a string without cutting a value into pieces.
_ENDS = b",[]{}: \n\r\t"


def read_lines(path: Path, columns: Mapping[str, str | None], bar: Bar, *, keep: bool) -> Iterator[RawRow]:
    """Yield the rows of a file with a JSON value a line; see `read_list`."""
    with opened(path) as (file, position):
        number = 0
        for line in file:
            line = line.removeprefix(BOM) if not number else line
            if not line.strip():
                continue
            number += 1
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield RawRow(number, problem=f"the line is not JSON ({error})")
                continue
            yield _row(number, value, columns, path, keep)
            if number % 1024 == 0:
                bar.update(position() - bar.n)
        bar.update(position() - bar.n)


def read_list(path: Path, columns: Mapping[str, str | None], bar: Bar, *, keep: bool) -> Iterator[RawRow]:
    """Yield the rows of a file with a list of codes or objects; objects that are not in a list are read line by line.

    Args:
        path: the file, see `text_files.opened`.
        columns: see `pick_columns`.
        bar: counts the bytes that are read.
        keep: whether rows hold all other columns too.

    Raises:
        InputError: the file cannot be read, is broken, or its first object has no column of codes.
    """
    import ijson

    with opened(path) as (file, position):
        head = file.peek(_CHUNK).removeprefix(BOM).lstrip()
        if head.startswith(b"{"):
            yield from read_lines(path, columns, bar, keep=keep)
            return
        if not head.startswith(b"["):
            raise InputError(
                f"{path} is not a list of codes: a .json file must begin with [, a .jsonl file must hold a code a line."
            )
        if file.peek(len(BOM)).startswith(BOM):
            file.read(len(BOM))
        standard = io.BufferedReader(_StandardJson(file), _CHUNK)
        try:
            for number, value in enumerate(ijson.items(standard, "item", use_float=True), 1):
                yield _row(number, value, columns, path, keep)
                if number % 1024 == 0:
                    bar.update(position() - bar.n)
        except ijson.JSONError as error:
            raise InputError(f"{path} is broken JSON ({' '.join(str(error).split())[:200]}).") from error
        bar.update(position() - bar.n)


class _StandardJson(io.RawIOBase):
    """Read JSON in which `NaN` and `Infinity`, which Python writes but the standard lacks, are null."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._rest = self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self._ready:
            # More for a string of several chunks, which is searched from its beginning each time.
            chunk = self._file.read(max(_CHUNK, len(self._rest)))
            block = self._rest + chunk
            end = _safe_end(block) if chunk else len(block)
            self._rest = block[end:]
            self._ready = _NUMBERS_OF_PYTHON.sub(_standard, block[:end])
            if not chunk:
                break
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


def _standard(match: re.Match[bytes]) -> bytes:
    return match[0] if match[0].startswith(b'"') else b"null"


def _safe_end(block: bytes) -> int:
    """Return the length of the part of a block that ends outside of strings and numbers."""
    end, opening = 0, len(block)
    for match in _STRINGS.finditer(block):
        if match[1] is None:
            end = match.end()
        else:
            opening = match.start()
    tail = block[end:opening]
    return end + max(tail.rfind(byte) + 1 for byte in (bytes([number]) for number in _ENDS))


def _row(number: int, value: object, columns: Mapping[str, str | None], path: Path, keep: bool) -> RawRow:
    """Return the row of a JSON value, which is a code or an object."""
    if not isinstance(value, dict):
        return RawRow(number, {"code": value})
    try:
        found = pick_columns(list(value), columns, path)
    except InputError as error:
        if number == 1:
            raise
        return RawRow(number, others=value if keep else {}, problem=str(error))
    header = found["code"]
    others = {name: cell for name, cell in value.items() if name != header} if keep else {}
    cells = {kind: value[name] for kind, name in found.items()}
    return RawRow(number, cells, header, others, value.get("graph"))
