import csv
import json

import pytest

from preprocessing.codes import SYSTEMS
from preprocessing.common.errors import InputError
from preprocessing.common.rejects import Rejects
from preprocessing.process_codes import process_codes
from tests.helpers import official_files as files
from tests.helpers.forked import run_module


def process(source, output, **options):
    with Rejects(output / "rejects.csv", root=source) as rejects:
        return process_codes(source, output, rejects, progress=False, **options), rejects


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return files.write_files(tmp_path_factory.mktemp("medical_codes"))


def test_all_systems_into_one_table(source, tmp_path):
    report, rejects = process(source, tmp_path)
    header, *rows = rows_of(tmp_path / "codes.csv")
    assert header == ["system", "code", "description", "attributes"]
    assert list(dict.fromkeys(row[0] for row in rows)) == list(SYSTEMS)
    assert rows == sorted(rows, key=lambda row: (SYSTEMS.index(row[0]), row[1]))
    assert ["ICD10CM", "E11.9", "Type 2 diabetes mellitus without complications", ""] in rows
    assert ["RxNorm", "6809", "metformin", '{"tty":"IN"}'] in rows
    assert all(json.loads(row[3]) for row in rows if row[3])
    assert b"\r" not in (tmp_path / "codes.csv").read_bytes()
    assert {system: found.found for system, found in report.systems.items()} == {
        **{"ICD10CM": 2, "ICD10PCS": 1, "ICD9CM": 3, "ICD9Proc": 2, "SNOMED": 4},
        **{"RxNorm": 2, "NDC": 3, "ATC": 4, "CPT4": 2, "HCPCS": 2},
    }
    assert report.skipped == []
    assert not rejects.counts
    assert rejects.notes.total() == 5  # CRLF is the format of NDC, SNOMED CT and HCPCS.
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["systems"]["ICD9CM"]["expected"] == 14_567
    assert content["systems"]["RxNorm"]["counted"] == {"rows of other sources": 4, "suppressed": 1, "synonyms": 2}
    assert content["systems"]["ICD9CM"]["files"] == ["ICD9CM/CMS32_DESC_LONG_DX.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codes.csv", "rejects.csv", "report.json"]


def test_the_same_files_give_the_same_bytes_wherever_they_lie(source, tmp_path):
    process(source, tmp_path / "one")
    process(files.write_files(tmp_path / "elsewhere"), tmp_path / "two")
    for name in ("codes.csv", "rejects.csv", "report.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


FAULTS = (
    b"\xef\xbb\xbf0010  Cholera due to vibrio cholerae\r\n"
    b"0010  Another cholera\n"
    b"00\x0011 NUL\n"
    b"0011\n"
    b"!!! no code\n"
    b"0019  M\xe9n \x81\n"
    b"0020  Typhoid\n"
)


def test_every_fault_is_told_with_file_and_line_and_costs_no_neighbor(tmp_path):
    source = files.write_files(tmp_path / "in", {**files.FILES, "ICD9CM/CMS32_DESC_LONG_DX.txt": FAULTS})
    report, rejects = process(source, tmp_path / "out")
    name = "ICD9CM/CMS32_DESC_LONG_DX.txt"
    assert [row[:3] for row in rows_of(tmp_path / "out" / "rejects.csv") if row[0] == name] == [
        [name, "1", "byte order mark"],
        [name, "1", "Windows line ends"],
        [name, "2", "duplicate code"],
        [name, "3", "NUL byte"],
        [name, "4", "empty description"],
        [name, "5", "malformed code"],
        [name, "6", "bad encoding"],
    ]
    kept = [row[1:3] for row in rows_of(tmp_path / "out" / "codes.csv") if row[0] == "ICD9CM"]
    assert kept == [
        ["001.0", "Cholera due to vibrio cholerae"],
        ["001.1", ""],
        ["001.9", "M\u00e9n \ufffd"],
        ["002.0", "Typhoid"],
    ]
    assert report.systems["ICD9CM"].rejected == {
        "NUL byte": 1,
        "bad encoding": 1,
        "duplicate code": 1,
        "empty description": 1,
        "malformed code": 1,
    }
    assert report.systems["ICD9CM"].empty == 1
    assert report.repaired == {"byte order mark": 1, "Windows line ends": 6}
    assert rejects.counts.total() == 5


def run(*arguments):
    return run_module("preprocessing.process_codes", *arguments)


@pytest.mark.integration
def test_strict_fails_after_everything_was_written(tmp_path):
    source = files.write_files(tmp_path / "in", {"ICD9CM/CMS32_DESC_LONG_DX.txt": FAULTS})
    paths = (f"--input={source}", f"--output={tmp_path / 'out'}")
    lenient = run(*paths)
    assert lenient.returncode == 0, lenient.stderr
    assert "skipped, because their files are absent: ICD10CM, ICD10PCS, ICD9Proc, SNOMED" in lenient.stdout
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    strict = run(*paths, "--strict")
    assert strict.returncode == 1
    assert "5 rows were rejected" in strict.stderr
    assert "Traceback" not in strict.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == written
    assert len(rows_of(tmp_path / "out" / "rejects.csv")) == 1 + 5 + 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("NDC/product.txt", files.PRODUCT.replace("PROPRIETARYNAME\t", "TRADENAME\t", 1), "PROPRIETARYNAME"),
        ("CPT4/cpt.csv", "code,title\n99213,text\n", r"cpt\.csv has no column 'description'"),
        ("ICD9CM/CMS32_DESC_LONG_DX.txt", "", "is empty"),
        ("HCPCS/HCPC2025_ANWEB.txt", "nothing that is a record\n", "holds no code of HCPCS"),
        ("other/file.txt", "", "holds none of the folders"),
    ],
)
def test_what_stops_the_run_is_one_sentence_and_leaves_nothing(tmp_path, name, content, message):
    source = files.write_files(tmp_path / "in", {name: content.encode("cp1252")})
    with pytest.raises(InputError, match=message):
        process(source, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_input_that_is_no_folder(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        process(tmp_path / "none", tmp_path / "out")
