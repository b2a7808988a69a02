"""Open a text file as UTF-8 bytes, whatever it is written in: compressed by gzip or not, UTF-8 or UTF-16.

The first bytes decide: a byte order mark, the magic number of gzip, or the zero bytes that UTF-16 has beside every
letter. A UTF-8 byte order mark stays in place, and bytes that are not UTF-8 stay as they are, so that a reader can say
on which line they are.
"""

import codecs
import contextlib
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from preprocessing.common.errors import InputError

BOM = codecs.BOM_UTF8
GZIP = b"\x1f\x8b"
# First bytes of files that are no text, and what to do about them.
NO_TEXT = {
    b"PK\x03\x04": "is a zip archive or an Excel workbook; unpack it or save it as CSV",
    b"\xd0\xcf\x11\xe0": "is an old Excel workbook; save it as CSV",
}
# UTF-32 first, since its mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_HEAD_BYTES = 4096
# Share of zero bytes at even or odd positions from which a file without a mark is UTF-16; in UTF-8 they do not occur.
_ZERO_SHARE = 0.4


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, Callable[[], int]]]:
    """Yield a file of UTF-8 bytes, and a function that returns the number of bytes read from the disk so far.

    Args:
        path: the file; it is decompressed if its name ends in .gz or it begins as a file of gzip does.

    Raises:
        InputError: the file cannot be read, is damaged, or is no text (an Excel workbook, for example).
    """
    try:
        with path.open("rb") as raw, contextlib.ExitStack() as stack:
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
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged or not complete ({error}); fetch it again.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path.") from error


def wide_encoding(head: bytes) -> str | None:
    """Return `utf-16`, `utf-16-le`, `utf-16-be` or `utf-32` if a file that begins with `head` is so, and else None."""
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    head = head[: len(head) // 2 * 2]
    zeros = [head[start::2].count(0) / max(len(head) // 2, 1) for start in (0, 1)]
    if zeros[1] >= _ZERO_SHARE and not zeros[0]:
        return "utf-16-le"
    if zeros[0] >= _ZERO_SHARE and not zeros[1]:
        return "utf-16-be"
    return None


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
