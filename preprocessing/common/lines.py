"""Append lines to a file, such as metrics.jsonl, so that a kill or a full disk costs no line that was written."""

import os
from pathlib import Path

from preprocessing.common.atomic import ADVICE, flush, writing


def append_line(path: str | os.PathLike, line: str, *, advice: str = ADVICE) -> None:
    """Append a line to a file that `read_lines` reads, and wait until it is on disk.

    Half a line at the end, which a killed process or a full disk left, is removed first.

    Args:
        path: the file; made where it is absent.
        line: without line end.
        advice: what the user can do when the disk refuses, without a full stop.

    Raises:
        InputError: the file cannot be written; it holds the lines that it held before.
    """
    path = Path(path)
    with writing(path, advice):
        is_new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            size, end = os.fstat(descriptor).st_size, _end_of_lines(descriptor)
            if size != end:
                os.ftruncate(descriptor, end)
            try:
                _write_at(descriptor, f"{line}\n".encode(), end)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, end)
                raise
        finally:
            os.close(descriptor)
        if is_new:
            flush(path.parent)


def read_lines(path: str | os.PathLike) -> list[str]:
    """Return the complete lines of a file, without line ends; none where it is absent.

    Half a line at the end, which a killed process or a full disk left, is passed over. Bytes that are no text become
    U+FFFD.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return []
    # Not `splitlines`, which also splits at characters such as U+2028 that a line may hold.
    return content[: content.rfind(b"\n") + 1].decode("utf-8", "replace").split("\n")[:-1]


def _end_of_lines(descriptor: int) -> int:
    """Return the number of bytes up to the end of the last complete line."""
    size = os.fstat(descriptor).st_size
    if not size or os.pread(descriptor, 1, size - 1) == b"\n":
        return size
    return os.pread(descriptor, size, 0).rfind(b"\n") + 1


def _write_at(descriptor: int, content: bytes, start: int) -> None:
    while content:
        written = os.pwrite(descriptor, content, start)
        content, start = content[written:], start + written
