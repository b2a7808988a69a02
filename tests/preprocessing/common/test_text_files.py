"""A text file in any encoding is the same UTF-8 bytes, compressed or not."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import wide_encoding
from preprocessing.common.rejects import Rejects
from preprocessing.common.text_files import opened
from preprocessing.common.text_tables import SEPARATORS, lines, table

TEXT = "code;title\nE11.9;Ménière\u2028 \U0001d11e\n" * 3000


def content_of(path) -> bytes:
    with opened(path) as (file, position):
        content = file.read()
        assert position() == path.stat().st_size
        return content


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_encoding_is_read_as_utf8(tmp_path, encoding, packed):
    content = TEXT.encode(encoding)
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(content) if packed else content)
    assert content_of(path) == TEXT.encode()


def test_a_big_endian_mark_and_a_compressed_file_without_the_suffix(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(gzip.compress(b"\xfe\xff" + TEXT.encode("utf-16-be")))
    assert content_of(path) == TEXT.encode()


def test_other_bytes_stay_as_they_are(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbfM\xe9n\0\r\n")
    assert content_of(path) == b"\xef\xbb\xbfM\xe9n\0\r\n"
    path.write_bytes(b"")
    assert content_of(path) == b""


def test_half_a_character_costs_no_other(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("ab".encode("utf-16")[:-1])
    assert content_of(path) == "a\ufffd".encode()


@given(st.text(st.characters(min_codepoint=1, max_codepoint=0x2FFF, exclude_categories=["Cs"])))
def test_utf8_text_is_never_taken_for_another_encoding(text):
    assert wide_encoding(text.encode()) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04...", "Excel workbook"),
        (b"\xd0\xcf\x11\xe0....", "old Excel workbook; save it as CSV"),
        (gzip.compress(TEXT.encode(), mtime=0)[:-20], "is damaged or not complete"),
        (b"\x1f\x8b...", "is damaged or not complete"),
    ],
)
def test_what_is_no_text_is_one_sentence(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"t\.csv .*{message}"):
        content_of(path)
    with pytest.raises(InputError, match=r"gone\.csv cannot be read"):
        content_of(tmp_path / "gone.csv")


@pytest.mark.parametrize("packed", [False, True])
def test_a_users_table_may_be_saved_by_a_spreadsheet(tmp_path, packed):
    path = tmp_path / "own.csv"
    content = "code;title\r\nE11.9;Ménière\r\n".encode("utf-16")
    path.write_bytes(gzip.compress(content) if packed else content)
    wanted = {"code": (), "title": ()}
    rows = list(table(path, Rejects(None), columns=wanted, separators=SEPARATORS, quoted=True, users=True))
    assert [(row.line, row.values) for row in rows] == [(2, ("E11.9", "Ménière"))]
    with pytest.raises(InputError, match="compressed" if packed else "UTF-16"):
        list(lines(path, Rejects(None)))
