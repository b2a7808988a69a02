"""Change files as disks, editors, spreadsheets and strangers do, and judge what a reader says of them."""

import gzip
import random
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from preprocessing.common.errors import UserError

LONGEST_SENTENCE = 2000
# Seconds of the processor for one small file.
SLOWEST = 5.0
_TOKENS = (
    *(b"\0", b"\r", b"\n", b"\r\n", b'"', b"'", b",", b"\t", b";", b"|", b"/", b"\\", b"#", b"[", b"]", b"{", b"}"),
    *(
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xe9",
        b"\x1a",
        b"\xf0\x9f\x92\x8a",
        "\u2028\u202e\u0660\u00b2".encode(),
    ),
    *(b"NaN", b"null", b"-1", b"1e999", b"9" * 40, b"0x10", b"[" * 20_000, b'{"a":' * 20_000, b"A" * 200_000),
    *(b"=1+1", b"@x", b"..", b"../../x", b"<!DOCTYPE", b"!!python/object:os.system", b"*a", b"&a"),
)
_VALUES = re.compile(rb'"[^"\n]*"|-?[0-9]+(?:\.[0-9]+)?|true|false|null')
_REPLACEMENTS = (b"null", b"-1", b"1e400", b"true", b'""', b'"x"', b"[]", b"{}", b"[[1]]", b"9" * 30, b"0", b"0.5")


class ForeignReader(NamedTuple):
    """Hold one reader of files that come from elsewhere.

    Attributes:
        write: writes files in their true format into an empty folder.
        read: reads the files of the folder, and uses all that it returns.
        weight: share of the mutations that it gets: less than 1 for slow ones.
    """

    write: Callable[[Path], object]
    read: Callable[[Path], object]
    weight: float = 1.0


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the contents of the files below a folder by their relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def mutated(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Return the name of a change that was drawn, and the content with it."""
    name = rng.choice(list(_CHANGES))
    changed = _CHANGES[name](content, rng)
    while rng.random() < 0.2:
        changed = _CHANGES[rng.choice(list(_SMALL))](changed, rng)
    return name, changed


def fault_of_reading(reader: ForeignReader, folder: Path) -> str | None:
    """Return what is wrong with how a reader behaves on the files of a folder; None if nothing is.

    It may return, or raise an error for users of one printable line, within `SLOWEST`.
    """
    begin = time.process_time()
    fault = _fault_of_outcome(reader, folder)
    seconds = time.process_time() - begin
    return f"{seconds:.1f} s of the processor" if fault is None and seconds > SLOWEST else fault


def _fault_of_outcome(reader: ForeignReader, folder: Path) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(folder)
    except UserError as error:
        return fault_of_sentence(str(error))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # A panic of polars is no `Exception`.
        frame = error.__traceback__
        places = []
        while frame is not None:
            places.append(f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}")
            frame = frame.tb_next
        return f"{type(error).__name__} in {' > '.join(places[-4:])}"
    return None


def fault_of_sentence(sentence: str) -> str | None:
    """Return what is wrong with a sentence for users; None if nothing is."""
    if "\n" in sentence:
        return "a sentence of several lines"
    if not sentence.isprintable():
        return "a sentence that is not printable"
    if len(sentence) > LONGEST_SENTENCE:
        return "a sentence of thousands of characters"
    return None


def _span(content: bytes, rng: random.Random, most: int = 64) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.randrange(1, most))


def _flip(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return b"x"
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def _byte(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + bytes([rng.randrange(256)]) + content[start + 1 :]


def _flip_early(content: bytes, rng: random.Random) -> bytes:
    """Flip a bit of the first bytes, where binary formats have their headers."""
    return _flip(content[:128], rng) + content[128:]


def _flip_late(content: bytes, rng: random.Random) -> bytes:
    """Flip a bit of the last bytes, where Parquet has its footer."""
    return content[:-600] + _flip(content[-600:], rng)


def _remove(content: bytes, rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return content[:start] + content[end:]


def _repeat(content: bytes, rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return content[:end] + content[start:end] * rng.choice((1, 2, 50)) + content[end:]


def _insert(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.choice(_TOKENS) + content[place:]


def _noise(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.randbytes(rng.randrange(1, 200)) + content[place:]


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _lines(change: Callable[[list[bytes], random.Random], object]) -> Callable[[bytes, random.Random], bytes]:
    def changed(content: bytes, rng: random.Random) -> bytes:
        lines = content.split(b"\n")
        change(lines, rng)
        return b"\n".join(lines)

    return changed


def _cells(content: bytes, rng: random.Random) -> bytes:
    """Replace a value between separators."""
    parts = re.split(rb"([,;\t|\n /]+)", content)
    place = rng.randrange(0, len(parts), 2)
    parts[place] = rng.choice((*_TOKENS[:24], b"", b"x y", parts[rng.randrange(0, len(parts), 2)]))
    return b"".join(parts)


def _values(content: bytes, rng: random.Random) -> bytes:
    """Replace a value of JSON or YAML by one of another type."""
    found = list(_VALUES.finditer(content))
    if not found:
        return _byte(content, rng)
    match = rng.choice(found)
    return content[: match.start()] + rng.choice(_REPLACEMENTS) + content[match.end() :]


def _wide(encoding: str) -> Callable[[bytes, random.Random], bytes]:
    return lambda content, _: content.decode("utf-8", "replace").encode(encoding)


_SMALL = {
    "bit": _flip,
    "byte": _byte,
    "bit in the head": _flip_early,
    "bit in the tail": _flip_late,
    "bytes removed": _remove,
    "bytes repeated": _repeat,
    "inserted": _insert,
    "noise": _noise,
    "cell": _cells,
    "value": _values,
    "line removed": _lines(lambda lines, rng: lines.pop(rng.randrange(len(lines)))),
    "line repeated": _lines(lambda lines, rng: lines.insert(rng.randrange(len(lines)), rng.choice(lines))),
    "lines shuffled": _lines(lambda lines, rng: rng.shuffle(lines)),
}
_CHANGES = _SMALL | {
    "cut": _cut,
    "nothing": lambda *_: b"",
    "blank": lambda *_: b"\n \n\r\n",
    "no header": lambda content, _: content.partition(b"\n")[2],
    "carriage returns": lambda content, _: content.replace(b"\n", b"\r"),
    "gzip": lambda content, _: gzip.compress(content, mtime=0),
    "half gzip": lambda content, rng: _cut(gzip.compress(content, mtime=0), rng),
    "UTF-16": _wide("utf-16"),
    "UTF-16 without mark": _wide("utf-16-le"),
    "UTF-32": _wide("utf-32"),
    "workbook": lambda content, _: b"PK\x03\x04" + content,
    "random": lambda content, rng: rng.randbytes(rng.randrange(2000)),
}
