"""Surround the reading of a file that comes from elsewhere, so that whatever is wrong with it becomes one sentence.

Parsers raise what they like on bytes that nobody foresaw: `IndexError`, errors of zlib, panics of polars. `reading`
turns all of it into an `InputError` of the file, the place and the kind of the fault, and what to do. It shows no value
of the file, which may be one of a patient.
"""

import codecs
import contextlib
import gzip
import traceback
import zlib
from collections.abc import Iterator
from pathlib import Path

from preprocessing.common.atomic import FULL
from preprocessing.common.errors import InputError, UserError, fault_of

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
# What a publisher never ships: an official file in this state was changed, and is fetched again or put right.
FOREIGN = {
    codecs.BOM_UTF16_LE: "is UTF-16; save it as UTF-8",
    codecs.BOM_UTF16_BE: "is UTF-16; save it as UTF-8",
    GZIP: "is compressed; unpack it",
    **NO_TEXT,
}
_HEAD_BYTES = 4096
# Files that are not expected to be text.
_BINARY = (".gz", ".npy", ".npz", ".parquet", ".pickle", ".pkl", ".pt", ".safetensors", ".zip")
# Share of zero bytes at even or odd positions from which a file without a mark is UTF-16; in UTF-8 they do not occur.
_ZERO_SHARE = 0.4


@contextlib.contextmanager
def reading(path: Path | str, what: str = "", advice: str = "fetch it again") -> Iterator[None]:
    """Turn any error of the body into one sentence that holds no value of the file.

    Errors for users pass, as do those of imports, requests to stop, and a full disk, which speaks of another file.

    Args:
        path: the file, or the folder if the body reads several files.
        what: what the file should be, such as `parquet` or `a table with the columns a, b`.
        advice: what the user can do, without a full stop.

    Raises:
        InputError: the body raised anything else.
    """
    try:
        yield
    except (UserError, ImportError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # A panic of polars is no `Exception`.
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        raise _sentence(Path(path), what, advice, error) from None


def _sentence(path: Path, what: str, advice: str, error: BaseException) -> InputError:
    if isinstance(error, OSError) and error.errno is not None:
        return InputError(f"{path} cannot be read ({fault_of(error)}); check the path.")
    # Arrow gives no number of the system's error.
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path} is missing; {advice}.")
    if not isinstance(error, (gzip.BadGzipFile, zlib.error, EOFError)) and (state := _state_of(path, advice)):
        return InputError(f"{path} {state}.")
    fault = fault_of(error)
    if fault == type(error).__name__:
        # The first frame is that of `reading`, and the next one that of its body.
        frame = traceback.extract_tb(error.__traceback__, 2)[-1]
        fault += f" in {Path(frame.filename).name}:{frame.lineno}"
    kind = f"cannot be read as {what}" if what else "is damaged or not complete"
    return InputError(f"{path} {kind} ({fault}); {advice}.")


def _state_of(path: Path, advice: str) -> str:
    """Return what a file is by its first bytes, and what to do, if that is why it could not be read; else nothing."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return ""
    if not head:
        return f"is empty; {advice}"
    if path.suffix.lower() in _BINARY:
        return ""
    found = next((state for start, state in FOREIGN.items() if head.startswith(start)), "")
    return found or ("is UTF-16; save it as UTF-8" if wide_encoding(head) else "")


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
