"""Each code system knows what it should: a small world by hand, the embedded vocabulary against its sources."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing import medtok_codes
from preprocessing.codes import ICD_SYSTEMS, CodeRecord, display_code
from preprocessing.common.errors import InputError
from preprocessing.dataset.known_codes import (
    CATEGORY,
    CODE,
    FILE,
    KINDS,
    RETIRED,
    SCHEMA,
    count_ambiguous,
    count_kinds,
    graph_categories,
    known_codes,
    read_known_codes,
    write_known_codes,
)
from preprocessing.graph.categories import spelled_categories
from preprocessing.graph.knowledge_graph import node_table
from preprocessing.sources import icd
from preprocessing.sources.icd_editions import read_editions
from tests.helpers.small_run import DATA_SET

# A world of three systems: fever was split (780.6), a bone graft is spelled alike (78.06), and cholera is 001.0.
RECORDS = [
    CodeRecord("ICD9CM", "780.60", "Fever, unspecified"),
    CodeRecord("ICD9CM", "001.0", "Cholera"),
    CodeRecord("ICD9Proc", "78.06", "Bone graft, patella"),
    CodeRecord("ICD9Proc", "00.10", "Implantation of chemotherapeutic agent"),
    CodeRecord("ICD9Proc", "99.21", "Injection of antibiotic"),
    CodeRecord("ICD10CM", "T81.40XA", "Infection following a procedure, unspecified"),
    CodeRecord("ICD10CM", "B20", "HIV disease"),
    CodeRecord("NDC", "00002143380", "Trulicity"),
]
CATEGORIES = {
    "ICD9CM/780.6": "Fever",
    "ICD9CM/780": "General symptoms",
    "ICD9CM/780.60": "never used, since it is a code",
    "ICD10CM/T81.4": "Infection following a procedure",
    "ICD10CM/T81": "Complications of procedures",
}
EDITIONS = {
    "ICD9CM/001.0": "CHOLERA",
    "ICD9CM/780.6": "FEVER",
    "ICD9CM/780.69": "",
    "ICD9CM/992.1": "HEAT SYNCOPE",
    "ICD9CM/043": "",
    "ICD9CM/042": "HIV",
    "ICD10CM/T81.4XXA": "Infection following a procedure, initial encounter",
}
CROSSWALK = [("042", "B20", True), ("043", "B20", False), ("042.0", "B20", True), ("780.60", "R50.9", True)]


@pytest.fixture(scope="module")
def world() -> pa.Table:
    return known_codes(RECORDS, CATEGORIES, EDITIONS, [("042", "T81", False), *CROSSWALK])


@pytest.fixture(scope="module")
def known(graph, vocabulary) -> pa.Table:
    return known_codes(vocabulary, graph_categories(graph.nodes), read_editions(), icd.read_gem().pairs)


@pytest.fixture(scope="module")
def rows(known) -> dict[str, dict]:
    return {row["key"]: row for row in known.to_pylist()}


def test_a_small_world(world):
    assert world.schema == SCHEMA
    found = {row["key"]: (row["kind"], row["description"], row["stands"]) for row in world.to_pylist()}
    assert list(found) == sorted(found)
    assert {key for key, (kind, _, _) in found.items() if kind == CODE} == {record.key for record in RECORDS}
    assert found["ICD9CM/780.60"] == (CODE, "Fever, unspecified", None)
    assert found["ICD9CM/780.6"] == (CATEGORY, "Fever", None)
    assert found["ICD10CM/T81.4XXA"] == (
        RETIRED,
        "Infection following a procedure, initial encounter",
        "ICD10CM/T81.4",
    )
    # A retired code without a title has that of what stands for it; without either, its own spelling.
    assert found["ICD9CM/780.69"] == (RETIRED, "Fever", "ICD9CM/780.6")
    assert found["ICD9CM/043"] == (RETIRED, "ICD9CM 043", None)
    assert found["ICD9CM/992.1"] == (RETIRED, "HEAT SYNCOPE", None)
    # The category of a retired code is retired with it.
    assert found["ICD9CM/992"] == (RETIRED, "ICD9CM 992", None)
    # Nothing is above 042, and the crosswalk knows one exact equivalent.
    assert found["ICD9CM/042"] == (RETIRED, "HIV", "ICD10CM/B20")
    assert len(found) == len(RECORDS) + len(CATEGORIES) - 1 + 6


def test_counts_of_a_small_world(world):
    counts = count_kinds(world)
    assert list(counts) == ["ICD10CM", "ICD9CM", "ICD9Proc", "NDC"]
    assert counts["ICD9CM"] == {CODE: 2, CATEGORY: 2, RETIRED: 5}
    assert counts["NDC"] == {CODE: 1, CATEGORY: 0, RETIRED: 0}


def test_ambiguous_spellings_of_a_small_world(world):
    """7806 reads as a bone graft, 9921 as an injection; 0010 does not count, since two systems have it as a code."""
    assert count_ambiguous(world) == {
        "ICD10CM": {CODE: 0, CATEGORY: 0, RETIRED: 0},
        "ICD9CM": {CODE: 0, CATEGORY: 1, RETIRED: 1},
        "ICD9Proc": {CODE: 2, CATEGORY: 0, RETIRED: 0},
        "NDC": {CODE: 0, CATEGORY: 0, RETIRED: 0},
    }


def test_chapters_and_sections_are_no_categories():
    nodes = [
        ("diagnosis_chapter", "Infections", "ICD10CM", "A00-B99"),
        ("diagnosis_section", "HIV", "ICD10CM", "B20-B20"),
        ("diagnosis_category", "Cholera", "ICD10CM", "A00"),
        ("diagnosis_chapter", "Injury", "ICD9CM", "800-999"),
        ("diagnosis_category", "Fall", "ICD9CM", "E880"),
        ("procedure_category", "Bypass, heart", "ICD10PCS", "021"),
        ("procedure_category", "Heart", "ICD10PCS", "02"),
        ("procedure_category", "Bypass, coronary artery, one artery", "ICD10PCS", "0210"),
        ("phenotype", "Fever", "HPO", "HP:0001945"),
        ("code_group", "CCS 1", "CCS", "1"),
    ]
    assert graph_categories(node_table(nodes)) == {
        "ICD10CM/A00": "Cholera",
        "ICD9CM/E880": "Fall",
        "ICD10PCS/021": "Bypass, heart",
    }


def test_categories_by_spelling(vocabulary, rows):
    """They are those of the hierarchy, as far as that is spelled in the codes."""
    found = spelled_categories(vocabulary)
    kinds = {key: row["kind"] for key, row in rows.items()}
    for system in ("ICD9CM", "ICD9Proc"):
        spelled = {key for key in found if key.startswith(f"{system}/") and kinds.get(key) != CODE}
        assert spelled == {key for key, kind in kinds.items() if key.startswith(f"{system}/") and kind == CATEGORY}
        assert all(found[key] == rows[key]["description"] for key in spelled)
    assert found.keys() >= {"ICD10CM/E11", "ICD10CM/N18.3", "ICD10PCS/021", "ICD9CM/780.6"}
    assert not any("-" in key or key.endswith("X") for key in found if key.startswith("ICD10CM/"))


def test_categories_by_spelling_of_other_systems():
    records = [CodeRecord("SNOMED", "73211009", "Diabetes"), CodeRecord("Unknown", "E11.9", "?"), RECORDS[-1]]
    assert spelled_categories(records) == {}


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        (CATEGORY, ["ICD10CM/N18.3", "ICD10CM/I48.1", "ICD9CM/250.0", "ICD9CM/276.5", "ICD10CM/I63.8"]),
        (CATEGORY, ["ICD10CM/K56.60", "ICD10CM/E11", "ICD10CM/I50", "ICD9CM/428", "ICD9CM/410", "ICD9CM/780.6"]),
        (CATEGORY, ["ICD9CM/789.5", "ICD9Proc/45.1", "ICD10PCS/021"]),
        (RETIRED, ["ICD10CM/T81.4XXA", "ICD10CM/H40.11X0", "ICD10CM/Z22.51", "ICD9CM/305.10"]),
        (CODE, ["ICD10CM/E11.9", "ICD9CM/250.00", "ICD9Proc/78.06", "ICD10CM/I10", "ICD10PCS/0016070"]),
    ],
)
def test_codes_as_people_write_them_are_known(rows, kind, keys):
    assert {key: rows.get(key, {}).get("kind") for key in keys} == dict.fromkeys(keys, kind)


def test_what_stands_for_codes_as_people_write_them(rows):
    stands = {
        "ICD10CM/T81.4XXA": "ICD10CM/T81.4",
        "ICD10CM/H40.11X0": "ICD10CM/H40.11",
        "ICD9CM/305.10": "ICD9CM/305.1",
        # Above it is only Z22, a carrier of any disease; the crosswalk knows the hepatitis.
        "ICD10CM/Z22.51": "ICD9CM/V02.61",
    }
    assert {key: rows[key]["stands"] for key in stands} == stands


def test_what_is_known_of_the_embedded_vocabulary(known, rows, vocabulary, graph):
    assert known["key"].to_pylist() == sorted(rows)
    kinds = {kind: {key for key, row in rows.items() if row["kind"] == kind} for kind in KINDS}
    assert kinds[CODE] == {record.key for record in vocabulary}
    nodes = set(graph.node_keys())
    assert kinds[CATEGORY] <= nodes
    assert not kinds[RETIRED] & nodes
    # Beside the codes of earlier editions their categories are retired: those of HIV, which no later code has.
    retired_stems = {"ICD9CM/043", "ICD9CM/044"}
    assert kinds[RETIRED] == (read_editions().keys() | retired_stems) - kinds[CODE] - kinds[CATEGORY]
    for key, row in rows.items():
        assert row["description"], key
        system, _, code = key.partition("/")
        if system != "ICD10PCS" or row["kind"] != CATEGORY:
            assert display_code(system, code) == code
        assert row["stands"] is None or (row["kind"] == RETIRED and rows[row["stands"]]["kind"] != RETIRED), key
    assert {key.partition("/")[0] for key in rows} == set(ICD_SYSTEMS)


@given(st.dictionaries(st.sampled_from(["ICD9CM", "ICD9Proc", "ICD10CM"]), st.sets(st.integers(100, 130)), min_size=1))
def test_what_stands_is_known_and_as_near_as_can_be(codes):
    records = [CodeRecord(s, display_code(s, _spelling(s, n)), f"{s} {n}") for s, ns in codes.items() for n in ns]
    every = {
        f"{system}/{display_code(system, _spelling(system, number))}": ""
        for system in ("ICD9CM", "ICD9Proc", "ICD10CM")
        for number in range(100, 131)
    }
    table = known_codes(records, spelled_categories(records), every)
    kinds = dict(zip(table["key"].to_pylist(), table["kind"].to_pylist(), strict=True))
    assert kinds.keys() >= every.keys()
    for row in table.to_pylist():
        assert (row["stands"] is not None) <= (row["kind"] == RETIRED)
        if row["kind"] == RETIRED:
            above = [key for key in kinds if row["key"] != key and row["key"].startswith(key) and kinds[key] != RETIRED]
            assert row["stands"] == max(above, key=len, default=None)


def _spelling(system: str, number: int) -> str:
    return f"E{number}" if system == "ICD10CM" else f"{number}1" if system == "ICD9CM" else str(number)


def test_written_and_read(world, tmp_path):
    told = write_known_codes(tmp_path, world)
    assert told == {"known_codes": count_kinds(world), "ambiguous_without_system": count_ambiguous(world)}
    assert read_known_codes(tmp_path).equals(world)
    assert read_known_codes(str(tmp_path)).equals(world)
    (tmp_path / FILE).write_bytes(b"PAR1 broken")
    with pytest.raises(InputError, match=r"known_codes\.parquet cannot be read as known codes .*; delete the data set"):
        read_known_codes(tmp_path)
    (tmp_path / FILE).unlink()
    with pytest.raises(InputError, match=r"known_codes\.parquet is missing; delete the data set"):
        read_known_codes(tmp_path)
    pq.write_table(pa.table({"other": [1]}), tmp_path / FILE)
    with pytest.raises(InputError, match="cannot be read"):
        read_known_codes(tmp_path)


def test_a_sample_knows_the_whole_vocabulary(small, known):
    assert read_known_codes(small).equals(known)
    report = medtok_codes.report_of(small)
    assert report["known_codes"] == count_kinds(known)
    assert report["ambiguous_without_system"] == count_ambiguous(known)


def test_the_fingerprint_does_not_depend_on_it(small, data_dir, tmp_path):
    path = shutil.copytree(small.data_path, medtok_codes.dataset_path(DATA_SET, tmp_path))
    whole = medtok_codes.open_prepared(DATA_SET, tmp_path)
    before = medtok_codes.fingerprint(whole)
    assert before == medtok_codes.fingerprint(small)
    (Path(path) / "graph" / FILE).unlink()
    assert medtok_codes.fingerprint(whole) == before
