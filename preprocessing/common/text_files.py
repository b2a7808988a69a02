"""Open a text file as UTF-8 bytes, whatever it is written in: compressed by gzip or not, UTF-8 or UTF-16.

The first bytes decide: a byte order mark, the magic number of gzip, or the zero bytes that UTF-16 has beside every
letter. A UTF-8 byte order mark stays in place, and bytes that are not UTF-8 stay as they are, so that a reader can say
on which line they are.
"""

import codecs
import contextlib
import gzip
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import GZIP, NO_TEXT, reading, wide_encoding

_HEAD_BYTES = 4096


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, Callable[[], int]]]:
    """Yield a file of UTF-8 bytes, and a function that returns the number of bytes read from the disk so far.

    Args:
        path: the file; it is decompressed if its name ends in .gz or it begins as a file of gzip does.

    Raises:
        InputError: the file cannot be read, is damaged, or is no text (an Excel workbook, for example).
    """
    with reading(path), path.open("rb") as raw, contextlib.ExitStack() as stack:
        file = raw
        if path.suffix.lower() == ".gz" or raw.peek(2).startswith(GZIP):
            file = io.BufferedReader(stack.enter_context(gzip.GzipFile(fileobj=raw)), 1 << 16)
        head = file.peek(_HEAD_BYTES)
        for start, advice in NO_TEXT.items():
            if head.startswith(start):
                raise InputError(f"{path} {advice}.")
        encoding = wide_encoding(head)
        if encoding is not None:
            file = io.BufferedReader(_AsUtf8(file, encoding), 1 << 16)
        yield file, raw.tell


class _AsUtf8(io.RawIOBase):
    """Read a file of another encoding as UTF-8; what cannot be decoded becomes the replacement character."""

    def __init__(self, file: BinaryIO, encoding: str):
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self._rest:
            chunk = self._file.read(1 << 16)
            self._rest = self._decoder.decode(chunk, final=not chunk).encode("utf-8", "replace")
            if not chunk:
                break
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
