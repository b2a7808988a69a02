"""Codes of events onto a tokenizer's table: every spelling of a source, nothing by guess, everything counted."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtok_jax.lookup.directory import KnownCode, TokenizerDirectory
from medtok_jax.records.event_codes import MISSING, CodeMapper
from medtok_jax.records.token_rows import EncodedCodes
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing import codes
from preprocessing.common.errors import InputError
from tests.helpers import small_tokenizer

KEYS = small_tokenizer.KEYS


@pytest.fixture
def mapper():
    return CodeMapper(KEYS)


def mapped(mapper, *events):
    return [KEYS[row] if row >= 0 else None for row in mapper.rows(pl.Series(events, dtype=pl.String))]


@pytest.mark.parametrize(
    ("spelling", "key"),
    [
        ("ICD10CM/E11.9", "ICD10CM/E11.9"),
        ("ICD10CM/E119", "ICD10CM/E11.9"),
        ("icd10cm:e11.9", "ICD10CM/E11.9"),
        ("ICD-10-CM/E11.9", "ICD10CM/E11.9"),
        ("ICD10/E11.9", "ICD10CM/E11.9"),
        ("DIAGNOSIS//ICD//10//E119", "ICD10CM/E11.9"),
        ("DIAGNOSIS//ICD//10//S72001A", "ICD10CM/S72.001A"),
        ("DIAGNOSIS//ICD//9//25000", "ICD9CM/250.00"),
        ("DIAGNOSIS//ICD//9//0010", "ICD9CM/001.0"),
        ("PROCEDURE//ICD//9//0010", "ICD9Proc/00.10"),
        ("PROCEDURE//ICD//10//0016070", "ICD10PCS/0016070"),
        ("ICD9CM/E8490", "ICD9CM/E849.0"),
        ("NDC/00002143380", "NDC/00002143380"),
        ("NDC/0002-1433-80", "NDC/00002143380"),
        ("MEDICATION//NDC//00002143380", "NDC/00002143380"),
        ("MEDICATION//00002143380//Administered", "NDC/00002143380"),
        ("SNOMED/44054006", "SNOMED/44054006"),
        ("SNOMEDCT//44054006", "SNOMED/44054006"),
        ("RxNorm/860975", "RxNorm/860975"),
        ("RXNORM//860975", "RxNorm/860975"),
        ("ATC/A10BA02", "ATC/A10BA02"),
        ("CPT4/99213", "CPT4/99213"),
        ("CPT//99213", "CPT4/99213"),
        ("HCPCS/J1815", "HCPCS/J1815"),
        # The same digits in two systems.
        ("CPT4/10021", "CPT4/10021"),
        ("SNOMED/10021", "SNOMED/10021"),
    ],
)
def test_spellings_of_sources(mapper, spelling, key):
    assert mapped(mapper, spelling) == [key]
    assert mapper.is_medical(np.array([spelling], object)).tolist() == [True]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("ICD10CM/E11.659", "not in the vocabulary"),
        ("ICD10CM/E1.19", "not the shape of a code of this system"),
        ("NDC/00002143381", "not in the vocabulary"),
        ("ICD9CM/10", "not the shape of a code of this system"),
        ("DIAGNOSIS//ICD//9//2500X", "not the shape of a code of this system"),
        ("MEDICATION//NDC//2143380", "not the shape of a code of this system"),
        ("HCPCS//Hospital observation", "not the shape of a code of this system"),
        ("ICD9/0010", "a code of several systems"),
    ],
)
def test_a_code_that_the_tokenizer_lacks_is_told_and_not_guessed(mapper, code, reason, tmp_path):
    assert mapped(mapper, code, code) == [None, None]
    assert mapper.is_medical(np.array([code], object)).tolist() == [True]
    mapper.write(tmp_path / "report.json")
    (system,) = json.loads((tmp_path / "report.json").read_text())["systems"]
    (listed,) = system["unmapped_codes"]
    assert (listed["code"], listed["events"]) == (code, 2)
    assert listed["reason"] == reason


@pytest.mark.parametrize(
    "code",
    [
        *("MEDS_BIRTH", "GENDER//F", "HOSPITAL_ADMISSION//EMERGENCY//HOME", "LAB//50912//mg/dL", "Blood Pressure"),
        *(
            "MEDICATION//START//Insulin",
            "DRG//HCFA//442//LIVER",
            "LOINC/2160-0",
            "Visit/IP",
            "E11.9",
            "10021",
            "250.00",
        ),
    ],
)
def test_other_events_are_no_codes_and_listed_apart(mapper, code):
    assert mapped(mapper, code) == [None]
    assert mapper.is_medical(pl.Series([code])).tolist() == [False]
    assert mapper.report()["kind"].to_list() == ["other"]


def test_rows_are_those_of_the_tokenizer(tmp_path):
    """Against the tokenizer's own look-up, for every key in the spelling of MIMIC-IV's MEDS release."""
    tokenizer = MedTokTokenizer.from_pretrained(small_tokenizer.write(tmp_path / "tok"))
    keys = tokenizer.index.key.to_list()
    mapper = CodeMapper(tokenizer.directory.table["key"])
    kinds = {
        "ICD10CM": ("DIAGNOSIS", 10),
        "ICD9CM": ("DIAGNOSIS", 9),
        "ICD10PCS": ("PROCEDURE", 10),
        "ICD9Proc": ("PROCEDURE", 9),
    }
    spelled = []
    for key in keys:
        system, code = key.split("/")
        kind, version = kinds.get(system, (None, None))
        spelled.append(f"{kind}//ICD//{version}//{codes.compact_code(code)}" if kind else key)
    assert mapper.rows(np.array(spelled, object)).tolist() == list(range(len(keys)))
    assert [tokenizer.index.find(key) for key in keys] == list(range(len(keys)))


def test_keys_may_come_in_any_order():
    shuffled = np.random.default_rng(0).permutation(KEYS)
    rows = CodeMapper(shuffled).rows(pl.Series(["DIAGNOSIS//ICD//10//E119", "NDC/00002143380", "none"]))
    assert [shuffled[row] for row in rows[:2]] == ["ICD10CM/E11.9", "NDC/00002143380"]
    assert rows[2] == MISSING
    assert rows.dtype == np.int64


def test_everything_is_counted(mapper, tmp_path):
    events = ["ICD10CM/E11.9", "DIAGNOSIS//ICD//10//E119", "ICD10CM/Z99.9", "ICD10CM/Z99.9", "ICD10CM/E11.651"]
    mapper.rows(pl.Series([*events, None, "LAB//1//mg"]))
    mapper.rows(pl.Series(["ICD10CM/Z99.9", "LAB//1//mg", "LAB//2//mg"]))
    codes_row, labs = mapper.report().to_dicts()
    assert codes_row == {
        **{"kind": "code", "name": "ICD10CM", "events": 6, "mapped": 2, "unmapped": 4, "codes": 4, "codes_unmapped": 2},
        **{"to_category": 0, "to_retired": 0, "to_ancestor": 0, "to_parent": 0, "to_model": 0},
        "most_frequent_unmapped": [{"code": "ICD10CM/Z99.9", "events": 3}, {"code": "ICD10CM/E11.651", "events": 1}],
    }
    assert (labs["kind"], labs["name"], labs["events"], labs["unmapped"]) == ("other", "LAB", 3, 0)
    assert mapper.summary() == (
        "ICD10CM: 2 of 6 events are mapped (33.3%), 2 of 4 codes are not, most often ICD10CM/Z99.9 (3 events)"
    )
    mapper.write(tmp_path / "report.json")
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["unmapped"] == "keep"
    assert [code.get("nearest_above") for code in told["systems"][0]["unmapped_codes"]] == [None, "ICD10CM/E11.65"]
    assert told["other_events"][0]["most_frequent"][0] == {"code": "LAB//1//mg", "events": 2}


def test_categories_and_codes_of_earlier_editions_are_told_apart(tmp_path):
    kinds = ("code", "category", "retired")
    mapper = CodeMapper(["ICD10CM/E11.9", "ICD10CM/E11", "ICD10CM/T81.4XXA"], kinds=kinds)
    mapper.rows(pl.Series(["ICD10CM/E119", "ICD10CM/E11", "ICD10CM/E11", "ICD10CM/T814XXA", "ICD10CM/I10"]))
    (row,) = mapper.report().to_dicts()
    assert (row["events"], row["mapped"], row["to_category"], row["to_retired"]) == (5, 4, 2, 1)
    assert "4 of 5 events are mapped (80.0%), 2 of them to categories, 1 of them to codes of earlier editions" in (
        mapper.summary()
    )


def test_the_nearest_code_above_comes_before_parents_and_codes_of_their_own_before_both(tmp_path):
    events = [
        "ICD10CM/E11.9",
        "DIAGNOSIS//ICD//10//E11651",
        "ICD10CM/E11.651",
        "ICD10CM/Z99.9",
        "LAB//1",
        "ICD10CM/I10",
    ]
    parents = {"ICD10CM/E11.651": ["ICD10CM/E11.9"], "ICD10CM/Z99.9": ["SNOMED/0", "ICD10CM/E11.9"]}
    assert mapped(CodeMapper(KEYS), *events) == ["ICD10CM/E11.9", *[None] * 5]
    mapper = CodeMapper(KEYS, "nearest", parents=parents)
    assert mapped(mapper, *events) == [
        *("ICD10CM/E11.9", "ICD10CM/E11.65", "ICD10CM/E11.65", "ICD10CM/E11.9", None, None)
    ]
    assert mapper.keeps
    row = mapper.report().to_dicts()[0]
    numbers = [row[name] for name in ("events", "mapped", "to_ancestor", "to_parent", "unmapped", "codes_unmapped")]
    assert numbers == [5, 4, 2, 1, 1, 1]
    assert mapper.summary() == (
        "ICD10CM: 4 of 5 events are mapped (80.0%), 2 of them to the nearest code above, 1 of them to their parent"
        " codes, 1 of 5 codes are not, most often ICD10CM/I10 (1 events)"
    )
    mapper.write(tmp_path / "report.json")
    (system,) = json.loads((tmp_path / "report.json").read_text())["systems"]
    assert [(code["code"], code["nearest"], code["source"]) for code in system["replaced_codes"]] == [
        ("DIAGNOSIS//ICD//10//E11651", "ICD10CM/E11.65", "ancestor"),
        ("ICD10CM/E11.651", "ICD10CM/E11.65", "ancestor"),
        ("ICD10CM/Z99.9", "ICD10CM/E11.9", "parent"),
    ]


def test_the_model_stands_where_neither_a_code_above_nor_a_parent_does(tmp_path):
    events = ["ICD10CM/E11.9", "ICD10CM/E11.651", "ICD10CM/Z99.9", "NDC/99999999999", "MEDICATION//99999999999//x"]
    parents = {"ICD10CM/Z99.9": ["ICD10CM/E11.9"]}
    position = {text: 0 for text in events[3:]} | {"ICD10CM/E11.651": 1, "ICD10CM/Z99.9": 1, "ICD10CM/E11.9": 1}
    encoded = EncodedCodes(["NDC/99999999999", "ICD10CM/none"], position, np.zeros((2, 8), int), np.ones((2, 8)))
    mapper = CodeMapper(KEYS, "nearest", parents=parents, encoded=encoded)
    assert [mapper.keys[row] for row in mapper.rows(pl.Series(events))] == [
        *("ICD10CM/E11.9", "ICD10CM/E11.65", "ICD10CM/E11.9", "NDC/99999999999", "NDC/99999999999")
    ]
    assert mapper.rows(pl.Series(events[3:])).tolist() == [len(KEYS)] * 2
    assert mapper.stand_ins() == {events[2]: KEYS.index("ICD10CM/E11.9"), events[3]: len(KEYS), events[4]: len(KEYS)}
    row = next(row for row in mapper.report().to_dicts() if row["name"] == "NDC")
    assert [row[name] for name in ("events", "mapped", "to_model", "to_parent", "unmapped")] == [4, 4, 4, 0, 0]
    assert "NDC: 4 of 4 events are mapped (100.0%), 4 of them to tokens by the model" in mapper.summary()
    mapper.write(tmp_path / "report.json")
    systems = {system["name"]: system for system in json.loads((tmp_path / "report.json").read_text())["systems"]}
    assert {(code["nearest"], code["source"]) for code in systems["NDC"]["replaced_codes"]} == {
        ("NDC/99999999999", "model")
    }
    with pytest.raises(InputError, match="uses no parent codes"):
        CodeMapper(KEYS, "keep", encoded=encoded)


def test_absent_codes_have_the_shape_of_one_system_and_no_row():
    texts = [*("ICD10CM/E11.9", "DIAGNOSIS//ICD//10//Z999", "ICD10CM/Z99.9", "NDC/0002-1433-81", "NDC/Jane", "LAB//1")]
    mapper = CodeMapper(KEYS, "nearest", parents={"ICD10CM/Z99.9": ["ICD10CM/E11.9"]})
    assert mapper.absent(texts) == {texts[1]: "ICD10CM/Z99.9", texts[3]: "NDC/00002143381"}
    assert mapper.report().is_empty(), "asking counts nothing"


def test_a_warning_below_half(mapper):
    mapper.rows(pl.Series(["ICD10CM/E11.9", "ICD10CM/Z99.9", *["LAB//1"] * 5]))
    assert mapper.warning() == "", "exactly half, and events without a code do not count"
    mapper.rows(pl.Series(["ICD10CM/Z99.9"]))
    assert "only 1 of 3 events with a code are mapped (33.3%)" in mapper.warning()
    assert "--unmapped=nearest" in mapper.warning()
    nearest = CodeMapper(KEYS, "nearest")
    nearest.rows(pl.Series(["ICD10CM/Z99.9"]))
    assert "only 0 of 1" in nearest.warning()
    assert "--unmapped" not in nearest.warning()
    other = CodeMapper(KEYS)
    assert other.warning() == ""
    other.rows(pl.Series(["LAB//1", "250.00"]))
    assert "no event names a code with its system" in other.warning()


def test_parents_are_refused_where_they_would_not_be_used():
    with pytest.raises(InputError, match="uses no parent codes"):
        CodeMapper(KEYS, "unk", parents={"A": ["B"]})


def test_parents_stand_for_codes_without_a_row_alone(tmp_path):
    parents = {
        "ICD10CM/E11.9": ["ICD10CM/E11.65"],
        "NDC/00002143381": ["RxNorm/1", "RxNorm/860975", "ATC/A10BA02"],
        "MEDICATION//START//Metformin": ["RXNORM//860975"],
        "LAB//50912//mg/dL": ["LOINC/2160-0"],
        "ICD9/0010": ["ICD9Proc/00.10"],
        "NDC/00002143382": None,
    }
    mapper = CodeMapper(KEYS, "nearest", parents=parents)
    given_codes = ["ICD10CM/E11.9", *list(parents)[1:]]
    assert mapped(mapper, *given_codes) == [
        *("ICD10CM/E11.9", "RxNorm/860975", "RxNorm/860975", None, "ICD9Proc/00.10", None)
    ]
    assert mapper.is_medical(pl.Series(given_codes)).tolist() == [True, True, True, False, True, True]
    report = {row["name"]: row for row in mapper.report().to_dicts()}
    assert (report["NDC"]["mapped"], report["NDC"]["to_parent"], report["NDC"]["unmapped"]) == (1, 1, 1)
    assert (report["ICD10CM"]["mapped"], report["ICD10CM"]["to_parent"]) == (1, 0)
    assert (report["MEDICATION"]["kind"], report["MEDICATION"]["to_parent"]) == ("code", 1)
    assert "NDC: 1 of 2 events are mapped (50.0%), 1 of them to their parent codes" in mapper.summary()
    mapper.write(tmp_path / "report.json")
    systems = {system["name"]: system for system in json.loads((tmp_path / "report.json").read_text())["systems"]}
    assert systems["NDC"]["replaced_codes"] == [
        {"code": "NDC/00002143381", "events": 1, "nearest": "RxNorm/860975", "source": "parent"}
    ]
    # No one is asked for: nothing is mapped to another code.
    assert mapped(CodeMapper(KEYS), *given_codes[1:]) == [None] * 5


def test_what_is_known_without_a_row_makes_a_code_ambiguous(tmp_path):
    tokens = small_tokenizer.make_tokens(["ICD9Proc/78.06", "ICD9CM/250.00"])
    tokens = dataclasses.replace(tokens, others=(KnownCode("ICD9CM/780.6", "retired"),))
    directory = TokenizerDirectory.read(small_tokenizer.write(tmp_path / "tok", tokens))
    mapper = CodeMapper.of(directory)
    events = ["ICD9//7806", "CONDITION//ICD//9//7806", "PROCEDURE//ICD//9//7806", "ICD9//25000"]
    rows = mapper.rows(pl.Series(events)).tolist()
    assert rows[:2] == [MISSING, MISSING]
    assert [mapper.keys[row] for row in rows[2:]] == ["ICD9Proc/78.06", "ICD9CM/250.00"]
    mapper.write(tmp_path / "report.json")
    listed = json.loads((tmp_path / "report.json").read_text())["systems"]
    reasons = {code["code"]: code["reason"] for system in listed for code in system["unmapped_codes"]}
    assert reasons == dict.fromkeys(events[:2], "a code of several systems")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("MEDICATION//SNOMED//44054006", "SNOMED/44054006"),
        ("MEDICATION//RxNorm//860975", "RxNorm/860975"),
        ("MEDICATION//RxNorm//860975//Administered", "RxNorm/860975"),
        ("MEDICATION//RxNorm//00002143380//x", None),
        *((f"MEDICATION//{name}//00002143380", None) for name in ("SNOMEDCT", "SCT", "RXCUI", "ATC")),
        ("MEDICATION//NDC//00002143380//x", "NDC/00002143380"),
        ("MEDICATION//START//00002143380", "NDC/00002143380"),
    ],
)
def test_a_drug_keeps_the_system_that_it_names(mapper, text, key):
    assert mapped(mapper, text) == [key]


def test_asking_whether_counts_nothing(mapper):
    mapper.is_medical(pl.Series(["ICD10CM/E11.9"]))
    assert mapper.report().is_empty()


def test_an_unknown_way_with_unmapped_codes_is_refused():
    with pytest.raises(InputError, match="must be one of keep, drop, unk, nearest"):
        CodeMapper(KEYS, unmapped="guess")


_PREFIX = st.sampled_from(
    [f"{system}{separator}" for system in (*codes.SYSTEMS, "ICD10", "ICD9") for separator in ("/", ":", "//")]
    + ["DIAGNOSIS//ICD//10//", "DIAGNOSIS//ICD//9//", "PROCEDURE//ICD//9//", "MEDICATION//", "LAB//", ""]
)
_CODE = st.one_of(
    st.text(max_size=12), st.sampled_from([key.split("/")[1] for key in KEYS]), st.from_regex(r"[A-Z0-9.]+")
)


@given(st.lists(st.tuples(_PREFIX, _CODE), max_size=8))
def test_whatever_stands_there_is_mapped_to_the_same_code_or_not_at_all(events):
    mapper = CodeMapper(KEYS)
    texts = [prefix + code for prefix, code in events]
    rows = mapper.rows(pl.Series(texts, dtype=pl.String))
    for (_, code), row in zip(events, rows, strict=True):
        if row != MISSING:
            given_code = codes.compact_code(code.rpartition("/")[2]).replace("-", "")
            assert codes.compact_code(KEYS[row].split("/")[1]).endswith(given_code.strip())
    report = mapper.report()
    assert report["events"].sum() == len(texts)
    assert report["mapped"].sum() == (rows != MISSING).sum()
