"""Tables of delimited text: any separator and encoding, and a stray quotation mark that costs its own line only."""

import csv
import gzip
import io
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtok_jax import MedTokTokenizer
from medtok_jax.tokenize import files
from medtok_jax.tokenize.readers import read_codes, read_raw
from preprocessing.common.errors import InputError
from tests.helpers.small_tokenizer import write


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> MedTokTokenizer:
    return MedTokTokenizer.from_pretrained(write(tmp_path_factory.mktemp("tokenizer") / "tok"))


def rows_of(path, text: str | bytes, **columns) -> list:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(read_codes(path, columns, progress=False))


def tokenize(tokenizer, path, **options):
    """Return the counts, and the number and code of each row with tokens and of each rejected row."""
    output = path.with_name("tokens.csv")
    counts = files.tokenize_file(tokenizer, path, output, columns={}, progress=False, **options)
    with open(output, newline="") as file:
        done = {int(row["row"]): row for row in csv.DictReader(file)}
    refused = {}
    if counts["rejected"]:
        with open(f"{output}.rejects.csv", newline="") as file:
            refused = {int(row["row"]): row["reason"] for row in csv.DictReader(file)}
    return counts, done, refused


def test_two_stray_quotation_marks_cost_two_lines(tokenizer, tmp_path):
    path = tmp_path / "codes.csv"
    path.write_text('code,drug\nE11,x\nE11.9,"edoxaban\nE10.9,x\nE11.65,x\nE10.9,"y\nE11,z\n')
    counts, done, refused = tokenize(tokenizer, path)
    assert counts == {"table": 4, "rejected": 2}
    assert {number: row["code"] for number, row in done.items()} == {1: "E11", 3: "E10.9", 4: "E11.65", 6: "E11"}
    assert refused == {
        2: "a quotation mark is not closed in line 3 of the file",
        5: "a quotation mark is not closed in line 6 of the file",
    }


@pytest.mark.parametrize("stray", [1, 7_000, 19_999])
def test_one_stray_quotation_mark_in_20000_rows(tokenizer, tmp_path, stray):
    codes = itertools.islice(itertools.cycle(["E11.9", "E10.9", "E11.65"]), 20_000)
    lines = [f'{code},"a drug, {number}"' for number, code in enumerate(codes, 1)]
    lines[stray - 1] = 'E11,"a drug'
    path = tmp_path / "codes.csv"
    path.write_text("\n".join(["code,drug", *lines, ""]))
    counts, done, refused = tokenize(tokenizer, path)
    assert counts == {"table": 19_999, "rejected": 1}
    assert list(refused) == [stray]
    assert [done[number]["drug"] for number in done] == [f"a drug, {n}" for n in range(1, 20_001) if n != stray]


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.lists(st.text("ab, \t", max_size=4), min_size=3, max_size=3), min_size=2, max_size=12),
    strays=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 30)), max_size=5),
    packed=st.booleans(),
)
def test_a_stray_quotation_mark_costs_its_own_line_only(tmp_path_factory, rows, strays, packed):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_MINIMAL).writerows(
        [f"E{n:02}", *row] for n, row in enumerate(rows)
    )
    lines = text.getvalue().split("\n")[:-1]
    touched = set()
    for line, place in strays:
        if line < len(lines):
            place = min(place, len(lines[line]))
            lines[line] = f'{lines[line][:place]}"{lines[line][place:]}'
            touched.add(line)
    content = "\n".join(["code,a,b,c", *lines, "I10,x,y,z"]).encode()
    path = tmp_path_factory.mktemp("stray") / "codes.csv"
    path.write_bytes(gzip.compress(content) if packed else content)
    found = list(read_raw(path, {}, keep=True, progress=False))
    assert [row.number for row in found] == list(range(1, len(lines) + 2))
    for position, row in enumerate(rows):
        if position not in touched:
            assert found[position].cells["code"] == f"E{position:02}"
            assert list(found[position].others.values()) == row
    assert found[-1].cells["code"] == "I10"


def test_a_quoted_value_may_span_lines(tmp_path):
    text = 'id,code,note\n1,E11.9,"one\n\ntwo, ""2""\nthree"\n2,I10,\n'
    path = tmp_path / "codes.csv"
    path.write_text(text)
    found = list(read_raw(path, {}, keep=True, progress=False))
    assert [(row.number, row.cells["code"], row.others) for row in found] == [
        (1, "E11.9", {"id": "1", "note": 'one\n\ntwo, "2"\nthree'}),
        (2, "I10", {"id": "2", "note": ""}),
    ]


@pytest.mark.parametrize("separator", list(",;\t|"))
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["codes.csv", "codes.tsv", "codes.txt", "codes.csv.gz", "CODES.CSV.GZ"])
def test_the_header_decides_the_separator(tmp_path, separator, encoding, name):
    text = 'id|ICD code|note\r\n1|E11.9|"Ménière; a, b"\r\n2|"I10"|\r\n'
    text = text.replace("|", separator) if separator != "|" else text
    content = text.encode(encoding)
    found = rows_of(tmp_path / name, gzip.compress(content) if name.lower().endswith("gz") else content)
    assert [(row.number, row.code, row.problem) for row in found] == [(1, "E11.9", None), (2, "I10", None)]


def test_a_file_of_one_column_needs_no_header(tmp_path):
    path = tmp_path / "codes.csv"
    assert [row.code for row in rows_of(path, "E11.9\n\nI10\n")] == ["E11.9", "I10"]
    assert [row.code for row in rows_of(path, "code\nE11.9\n")] == ["E11.9"]
    assert [row.code for row in rows_of(path, "ICD10CM|E11.9\nICD10CM|I10\n")] == ["ICD10CM|E11.9", "ICD10CM|I10"]
    assert [row.code for row in rows_of(path, "icd9_code\n0010\n")] == ["0010"]
    with pytest.raises(InputError, match=r"has no column 'code' \(it has diagnosis\); name it by --code_column"):
        rows_of(path, "diagnosis\nE11.9\n")
    assert [row.code for row in rows_of(path, "diagnosis\nE11.9\n", code="diagnosis")] == ["E11.9"]
    with pytest.raises(InputError, match="looks like a row"):
        rows_of(path, "E11.9,Diabetes\n")


def test_files_of_old_spreadsheets(tmp_path):
    path = tmp_path / "codes.csv"
    assert [row.code for row in rows_of(path, "id,code\r1,E11.9\r2,I10")] == ["E11.9", "I10"]
    assert [row.code for row in rows_of(path, "sep=;\nid;code\n1;E11.9\n\x1a")] == ["E11.9"]


def test_lines_that_cannot_be_read(tmp_path):
    text = b'id,code\n1,E1\0\n2,E1\rx\n3,"E11"x\n4,I10\n'
    found = rows_of(tmp_path / "codes.csv", text)
    assert [row.code for row in found] == [None, None, None, "I10"]
    assert found[0].problem == "line 2 of the file holds a NUL byte"
    assert "line 3 of the file cannot be read" in found[1].problem
    assert "line 4 of the file cannot be read" in found[2].problem
    with pytest.raises(InputError, match="has no readable header"):
        rows_of(tmp_path / "codes.csv", '"code\nE11\n')


def test_other_columns_that_are_not_utf8_are_read_as_cp1252(tmp_path):
    path = tmp_path / "codes.csv"
    path.write_bytes(b"code,name,note\nE11.9,M\xe9n,\x80\nE11,M\xc3\xa9n,\n")
    found = list(read_raw(path, {}, keep=True, progress=False))
    assert [(row.cells["description"], row.others) for row in found] == [
        ("Mén", {"name": "Mén", "note": "€"}),
        ("Mén", {"name": "Mén", "note": ""}),
    ]


def test_a_name_that_occurs_twice_has_a_number(tmp_path):
    path = tmp_path / "codes.csv"
    path.write_text("note,code,note,note_2,code\na,E11.9,b,c,d\n")
    (row,) = read_raw(path, {}, keep=True, progress=False)
    assert row.cells["code"] == "E11.9"
    assert row.others == {"note": "a", "note_3": "b", "note_2": "c", "code_2": "d"}
