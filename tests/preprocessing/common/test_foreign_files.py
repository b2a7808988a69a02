"""Whatever a body of reading raises becomes one sentence without values; what speaks of other things passes."""

import errno
import gzip
import json
import traceback

import pytest

from preprocessing.common.errors import InputError, one_line
from preprocessing.common.foreign_files import reading


def told(path, body) -> str:
    with pytest.raises(InputError) as caught, reading(path, "JSON", "make it again"):
        body()
    assert "4711" not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


def raising(error):
    def body():
        raise error

    return body


def test_the_place_and_no_value_are_told(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a":\n 4711 4711}')
    sentence = told(path, lambda: json.loads(path.read_text()))
    assert sentence == f"{path} cannot be read as JSON (JSONDecodeError at line 2, column 7); make it again."
    assert "(KeyError in test_foreign_files.py:" in told(path, raising(KeyError("4711")))
    assert "No such file or directory); check the path" in told(path, (tmp_path / "b").read_text)


@pytest.mark.parametrize(
    ("content", "state"),
    [
        (gzip.compress(b"4711", mtime=0), "is compressed; unpack it."),
        ("4711 ".encode("utf-16"), "is UTF-16; save it as UTF-8."),
        (("4711 " * 9).encode("utf-16-le"), "is UTF-16; save it as UTF-8."),
        (b"PK\x03\x04", "is a zip archive or an Excel workbook; unpack it or save it as CSV."),
        (b"", "is empty; make it again."),
    ],
)
def test_what_a_file_is_instead(tmp_path, content, state):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    assert told(path, raising(ValueError("4711"))) == f"{path} {state}"


def test_a_panic_is_told(tmp_path):
    class Panic(BaseException):
        pass

    assert "Panic in" in told(tmp_path / "a.parquet", raising(Panic("4711")))


@pytest.mark.parametrize(
    "error", [InputError("told"), KeyboardInterrupt(), ModuleNotFoundError("x"), OSError(errno.ENOSPC, "full")]
)
def test_what_speaks_of_other_things_passes(tmp_path, error):
    with pytest.raises(type(error)) as caught, reading(tmp_path / "a"):
        raise error
    assert caught.value is error


def test_a_sentence_is_one_printable_line():
    assert str(InputError("a\n  b\x00\x1b[31m \ud800 é\r\n")) == "a b\\x00\\x1b[31m \\ud800 é"
    long = one_line(f"begin {'x' * 10_000} end")
    assert long.startswith("begin xx")
    assert long.endswith("xx end")
    assert len(long) < 2000
