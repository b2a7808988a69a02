"""Events in the words of ETHOS: what its tasks count on, and codes in any spelling."""

import ast
import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from medtok_jax.convert.ethos import files
from medtok_jax.convert.ethos.directory import Timelines
from medtok_jax.convert.ethos.files import code_tokens, events
from medtok_jax.convert.ethos.files.code_tokens import Codes
from medtok_jax.convert.ethos.intervals import IntervalEstimates, interval_counts, with_intervals
from medtok_jax.lookup.code_names import ALIASES
from medtok_jax.records.event_codes import CodeMapper
from medtok_jax.records.token_rows import EncodedCodes
from preprocessing import codes
from tests.helpers import small_tokenizer
from tests.helpers.small_ethos import HOUR, MINUTE, at, frame

TOKENS = Codes({"ICD10CM/E119": ["MEDTOK//1", "MEDTOK//2"], "NDC/00002143380": ["MEDTOK//3"]}, {})


def _words(*rows: tuple) -> list[str]:
    stay = [{"subject_id": 1, "time": time, "code": code} for time, code in rows]
    return events.with_words(frame(stay))["code"].to_list()


def test_admission_is_three_tokens_and_discharge_ends_with_one_group():
    words = _words(
        (at(0), "HOSPITAL_ADMISSION//EW EMER.//EMERGENCY ROOM"),
        (at(1), "HOSPITAL_DISCHARGE//HOME"),
        (at(1), "ICD10CM/E11.9"),
        (at(1), "DRG//APR//12//no"),
        (at(2), "HOSPITAL_ADMISSION//ELECTIVE//UNK"),
        (at(3), "DRG//HCFA//0470//JOINT"),
        (at(3), "DRG//HCFA//471//ANOTHER"),
        (at(3), "HOSPITAL_DISCHARGE//UNK"),
        (at(3), "MEDS_DEATH"),
    )
    assert words == [
        *("HOSPITAL_ADMISSION", "ADMISSION_TYPE//EMERGENCY", "INSURANCE//UNKNOWN"),
        *("HOSPITAL_DISCHARGE", "DISCHARGE_LOCATION//HOME", "ICD10CM/E11.9", "DRG//UNKNOWN"),
        *("HOSPITAL_ADMISSION", "ADMISSION_TYPE//SCHEDULED", "INSURANCE//UNKNOWN"),
        *("MEDS_DEATH", "HOSPITAL_DISCHARGE", "DISCHARGE_LOCATION//UNKNOWN", "DRG//470"),
    ]


def test_stays_and_transfers():
    assert _words(
        (at(0), "ICU_ADMISSION//MICU"),
        (at(0), "TRANSFER_TO//transfer//Medicine"),
        (at(0), "TRANSFER_TO//discharge//UNK"),
        (at(1), "ICU_DISCHARGE//MICU"),
    ) == ["ICU_ADMISSION", "ICU_TYPE//MICU", "TRANSFER//Medicine", "ICU_DISCHARGE"]


@pytest.mark.parametrize(
    ("unmapped", "left"),
    [("keep", ["ICD9CM/999.99"]), ("drop", []), ("unk", [code_tokens.UNK])],
)
def test_codes_become_their_tokens_in_place(unmapped, left):
    df = frame(
        [
            {"subject_id": 1, "code": code, "hadm_id": number}
            for number, code in enumerate(["A", "DIAGNOSIS//ICD//10//E119", "ICD9CM/999.99", "LAB//1"])
        ]
    )
    found = code_tokens.look_up(df["code"], TOKENS)
    out = code_tokens.replace_codes(df, found, unmapped)
    assert out["code"].to_list() == ["A", "MEDTOK//1", "MEDTOK//2", *left, "LAB//1"]
    assert out["hadm_id"].to_list() == [0, 1, 1, *[2] * len(left), 3]
    assert out.columns == df.columns


def test_drugs_by_name():
    tokens = {"ATC/A10BA02": ["MEDTOK//7"], "ATC/B01AB01": ["MEDTOK//8"]}
    drugs = {"metformin": ["A10BA02", "X99"], "water": ["V07AB"]}
    names = ["MEDICATION//Metformin //Administered", "MEDICATION//Water//Administered", "MEDICATION//Metformin//Held"]
    found = {
        row["code"]: row
        for row in code_tokens.look_up(pl.Series(names), Codes(tokens, {}), drugs).iter_rows(named=True)
    }
    assert found[names[0]]["tokens"] == ["MEDTOK//7"]
    assert found[names[1]] == {"code": names[1], "medical": True, "tokens": None}
    assert not found[names[2]]["medical"]


def test_keys_are_those_of_the_mapper():
    """The stage, which cannot use the mapper, finds the same codes in every spelling."""
    mapper = CodeMapper(small_tokenizer.KEYS)
    spellings = [
        *small_tokenizer.KEYS,
        *(key.replace(".", "") for key in small_tokenizer.KEYS),
        *(key.replace("/", "//") for key in small_tokenizer.KEYS),
        *("DIAGNOSIS//ICD//10//E119", "DIAGNOSIS//ICD//9//25000", "PROCEDURE//ICD//9//0010", "icd10cm/e11.9"),
        *("PROCEDURE//ICD//10//0016070", "MEDICATION//00002143380//Administered", "MEDICATION//NDC//00002143380"),
        *("GENDER//F", "HOSPITAL_ADMISSION//X//Y", "LAB//50912//mg/dL", "ICD9CM/888.88", "MEDS_BIRTH"),
    ]
    rows = mapper.rows(pl.Series(spellings))
    of_key = {code_tokens.key_of(key): row for row, key in enumerate(small_tokenizer.KEYS)}
    assert len(of_key) == len(small_tokenizer.KEYS)
    assert [of_key.get(code_tokens.key_of(text), -1) for text in spellings] == rows.tolist()
    assert [code_tokens.key_of(t) is not None for t in spellings] == mapper.is_medical(pl.Series(spellings)).tolist()


def test_names_behind_hcpcs_are_no_codes():
    assert code_tokens.key_of("HCPCS//Hospital observation per hr") is None
    assert code_tokens.key_of("HCPCS/J1815") == "HCPCS/J1815"


def test_codes_are_read_with_those_that_stand_for_others(tmp_path):
    table = pl.DataFrame(
        {
            "code": ["ICD10CM/E11.9", "NDC/00002143380", "DIAGNOSIS//ICD//10//Z999", "LAB//1"],
            "tokens": [[1, 2], [3], [4], [5]],
            "in_table": [True, True, False, False],
        }
    )
    table.write_parquet(tmp_path / "codes.parquet")
    found = code_tokens.read_codes(tmp_path / "codes.parquet")
    assert found == (TOKENS.table, {"ICD10CM/Z999": ["MEDTOK//4"], "LAB//1": ["MEDTOK//5"]})


def test_static_data():
    rows = [
        {"subject_id": 1, "code": "GENDER//F"},
        {"subject_id": 1, "time": at(-9000), "code": "MEDS_BIRTH"},
        {"subject_id": 1, "time": at(0), "code": "HOSPITAL_ADMISSION//A//B", "marital_status": "SINGLE"},
        {"subject_id": 1, "time": at(9), "code": "HOSPITAL_ADMISSION//A//B", "marital_status": "MARRIED"},
        {"subject_id": 2, "code": "GENDER//M"},
        {"subject_id": 3, "time": at(-9000), "code": "MEDS_BIRTH"},
        {"subject_id": 3, "code": "RACE//PATIENT DECLINED TO ANSWER"},
        {"subject_id": 3, "code": "ETHNICITY", "text_value": "WHITE - RUSSIAN"},
    ]
    static = events.static_data(events.with_demographics(frame(rows)))
    assert sorted(static) == [1, 3], "nobody knows the age of patient 2"
    assert list(static[1]) == list(static[3]) == ["GENDER", "MARITAL", "MEDS_BIRTH", "RACE"]
    assert static[1]["MARITAL"]["code"] == ["MARITAL//SINGLE", "MARITAL//MARRIED"]
    assert static[1]["MARITAL"]["time"][1] - static[1]["MARITAL"]["time"][0] == 9 * 24 * HOUR
    assert static[1]["RACE"] == {"code": ["RACE//UNKNOWN"], "time": None}
    assert static[3]["RACE"] == {"code": ["RACE//WHITE"], "time": [None]}


@pytest.mark.parametrize(
    ("code", "token"), [("Foo, bar 1.5", "FOO_BAR_15"), ("Q12", "CODE//Q12"), ("123.4", "CODE//1234"), ("a\nb", "A_B")]
)
def test_spelling(code, token):
    assert pl.DataFrame({"code": [code]}).select(events.spelled(pl.col("code"))).item() == token


def _expected_intervals(gap: int) -> list[str]:
    found = [name for name, minutes in events.INTERVALS.items() if gap >= minutes * MINUTE]
    if not found:
        return []
    return [found[-1]] * (int(gap / (180 * 24 * HOUR) + 0.5) if found[-1] == "=6mt" else 1)


# Names of drugs in MIMIC that hold one slash or two, blanks, dots and digits.
_NAMES = ("Amox/Clav", "Sulfameth/Trimethoprim DS", "A // B", "0.9% Sodium Chloride", "1/2", "ICD10CM/E11.9", "NDC")
_SPELLINGS = [
    *("NDC/00002143380", "NDC/0002-1433-80", "NDC//00002-1433-80", "NDC/99999999999", "NDC/99999-9999-99"),
    *("MEDICATION//00002143380", "MEDICATION//NDC//00002143380", "MEDICATION//NDC//00002143380//Administered"),
    *("MEDICATION//SNOMED//44054006", "MEDICATION//SNOMED//12345678901", "MEDICATION//rxnorm//860975//x"),
    *("medication//x// 00002143380 //y", "MEDICATION//RxNorm//860975", "MEDICATION//NDC//unreadable"),
    *(f"MEDICATION//{name}//{end}" for name in _NAMES for end in ("00002143380", "0002-1433-80//Held", "99999999999")),
    *(f"MEDICATION//START//{name}//00002143380" for name in _NAMES),
    *("diagnosis//icd//10//e119", "DIAGNOSIS//ICD//10//E11.9", "DIAGNOSIS//ICD//9//25000", "PROCEDURE//ICD//9//0010"),
    *("icd10cm//E119", "ICD10CM/E11.9 ", "ICD9Proc/0010", "RXNORM//860975", "ATC/a10ba02", "CPT/99213", "HCPCS//J1815"),
    *("SNOMED//44054006", "LOINC/1-1", "LAB//1", "ICD10CM/Z99.9", "PROCEDURE//ICD//10//0016070"),
]


@pytest.mark.parametrize("code", _SPELLINGS)
def test_the_stage_and_the_conversion_map_the_same_records_alike(code):
    """The stage runs in ETHOS without the index of the tokenizer, so it reads spellings by rules of its own."""
    keys = small_tokenizer.KEYS
    tokens = {code_tokens.key_of(key): [key] for key in keys}
    mapper = CodeMapper(keys)
    row = mapper.rows(pl.Series([code]))[0]
    (found,) = code_tokens.look_up(pl.Series([code]), Codes(tokens, {})).iter_rows(named=True)
    assert found["tokens"] == (None if row < 0 else [keys[row]])
    assert found["medical"] == mapper.is_medical(pl.Series([code]))[0]
    if "00002143380" in code or "1433-80" in code:
        assert keys[row] == "NDC/00002143380"


# Codes with others above them in the tokenizer, or in none; malformed ones; codes of the records with parents.
_ABOVE = [
    *("ICD10CM/E11.651", "DIAGNOSIS//ICD//10//E11651", "ICD10CM/E11.9XXA", "ICD10CM/E11.9XXAB", "ICD10CM/E1.19"),
    *("ICD10CM/S72.001", "ICD10CM/Z99.9", "ICD9CM/250.001", "ICD9CM/001.09", "ICD9CM/E849.09", "ICD9CM/25.000"),
    *("ICD9CM/2500X", "ICD9Proc/00.1", "ICD9Proc/25.01", "PROCEDURE//ICD//9//2501", "ICD10PCS/0016071", "ICD10PCS/001"),
    *("ATC/A10BA02", "ATC/A10BA03", "ATC/a10b", "ATC/A10BA0", "NDC/00002143381", "NDC/0002-1433-81", "NDC/000021433"),
    *("SNOMED/73211009", "RxNorm/860976", "CPT4/99214", "HCPCS/J1816", "LAB//1", "MEDICATION//START//Metformin"),
    *("ICD9CM/34.01", "ICD9CM/25.000", "ICD10CM/E11.", "ICD10CM/ E11.65Z ", "icd10cm//e1165x"),
]
_PARENTS = {
    "LAB//1": ["RxNorm/860975"],
    "ICD10CM/Z99.9": ["ICD9CM/250.00"],
    "ICD10CM/E11.651": ["ICD9CM/250.00"],
    "SNOMED/73211009": ["LOINC/1", "SNOMED/44054006"],
    "ICD9CM/2500X": ["ICD10CM/E11"],
}


@pytest.mark.parametrize("code", [*_ABOVE, *_SPELLINGS])
def test_the_stage_and_the_conversion_take_the_same_nearest_code(code):
    keys = (*small_tokenizer.KEYS, "ICD10PCS/001", "ATC/A10B", "NDC/000021433", "ICD9CM/E849")
    encoded = EncodedCodes(["HCPCS/J1816"], {"HCPCS/J1816": 0}, np.zeros((1, 8), int), np.zeros((1, 8)))
    mapper = CodeMapper(keys, "nearest", parents=_PARENTS, encoded=encoded)
    row = mapper.rows(pl.Series([code]))[0]
    stand_ins = {code_tokens.key_of(text) or text: [mapper.keys[row]] for text, row in mapper.stand_ins().items()}
    assert stand_ins.keys() == {"LAB//1", "ICD10CM/Z999", "SNOMED/73211009", "ICD9CM/2500X", "HCPCS/J1816"}
    known = Codes({code_tokens.key_of(key): [key] for key in keys}, stand_ins)
    (found,) = code_tokens.look_up(pl.Series([code]), known, unmapped="nearest").iter_rows(named=True)
    assert found["tokens"] == (None if row < 0 else [mapper.keys[row]])
    assert found["medical"] == mapper.is_medical(pl.Series([code]))[0]


def test_what_is_missing_is_counted_by_system_and_never_named():
    codes = ["ICD10CM/E11.9"] * 3 + ["ICD10CM/Jane Doe", "ICD10CM/Z99.9", "ICD10CM/Z99.9", "NDC/00002143380", "LAB//1"]
    lines = code_tokens.count_missing(pl.Series(codes), code_tokens.look_up(pl.Series(codes), TOKENS))
    assert lines == [
        "6 events have codes of ICD10CM, 3 of them 2 codes without tokens",
        "1 events have codes of NDC, 0 of them 0 codes without tokens",
    ]


def test_intervals():
    rng = np.random.default_rng(0)
    gaps = np.exp(rng.uniform(np.log(MINUTE), np.log(2000 * 24 * HOUR), 300)).astype(np.int64)
    gaps = np.concatenate([gaps, [minutes * MINUTE for minutes in events.INTERVALS.values()]])
    # The second patient begins long after the first ends: that is no interval.
    times, half = np.cumsum(gaps), len(gaps) // 2
    times[half:] += 900 * 24 * HOUR
    events_only = Timelines(
        np.full(len(times), 100), times, np.array([7, 8]), np.array([0, half]), {"hadm_id": times.astype(float)}
    )
    out = with_intervals(events_only, range(len(events.INTERVALS)), 99)
    names = list(events.INTERVALS)
    expected, offsets = [], []
    for start, stop in ((0, half), (half, len(times))):
        offsets.append(len(expected))
        for number in range(start, stop):
            if number > start:
                expected += [names.index(n) for n in _expected_intervals(int(times[number] - times[number - 1]))]
            expected.append(100)
        expected.append(99)
    assert out.tokens.tolist() == expected
    assert out.patient_offsets.tolist() == offsets
    assert all((np.diff(times) >= 0).all() for times in np.split(out.times, out.patient_offsets[1:]))
    np.testing.assert_array_equal(out.stays["hadm_id"], out.times)


def test_interval_estimates():
    estimates = IntervalEstimates()
    times = np.array([0, 36 * HOUR, 64 * HOUR, 64 * HOUR + 400 * 24 * HOUR])
    estimates.add(Timelines(np.zeros(4, int), times, np.array([1]), np.array([0]), {}))
    kind, counts = interval_counts(times, np.array([True, False, False, False]))
    assert list(zip(kind[1:].tolist(), counts[1:].tolist(), strict=True)) == [(10, 1), (10, 1), (18, 2)]
    found = estimates.statistics()
    assert found["mean"]["1d-2d"] == 32 * HOUR
    assert (found["min"]["1d-2d"], found["max"]["1d-2d"]) == pytest.approx((28 * HOUR, 36 * HOUR))
    assert found["mean"]["=6mt"] == pytest.approx(200 * 24 * HOUR)
    assert found["mean"]["2h-3h"] == 2.5 * HOUR, "never seen: the middle of its range"


def test_what_ethos_gets_needs_nothing_of_ours():
    allowed = {"polars", "ethos", "loguru", "functools", "json", "pickle", "pathlib", "re", "collections", "typing"}
    allowed |= {"code_tokens", "torch", None}
    for name in ("code_tokens", "events", "stages", "infer_samples"):
        tree = ast.parse(Path(files.__file__).with_name(f"{name}.py").read_text())
        nodes = [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
        names = [[a.name for a in n.names] if isinstance(n, ast.Import) else [n.module] for n in nodes]
        roots = {module and module.split(".")[0] for module in itertools.chain.from_iterable(names)}
        assert roots <= allowed


@pytest.mark.parametrize("unmapped", ["keep", "nearest"])
def test_every_name_of_a_system_is_known_to_the_stage_as_to_the_conversion(unmapped):
    """All everyday names, with blanks and hyphens; those of an edition alone need an index of all codes."""
    keys = [*small_tokenizer.KEYS, "NDC/000021433"]
    tokens = {code_tokens.key_of(key): [str(row)] for row, key in enumerate(keys)}
    names = [*codes.SYSTEMS, *ALIASES, "ICD-10-CM", "icd 9 cm", "SNOMED CT", "Rx-Norm", "LOINC", "XYZ"]
    names = [name for name in names if name not in ("ICD9", "ICD10")]
    bare = [key.partition("/")[2] for key in keys] + ["0002-1433", "0002-1433-80", "E11.99", "25000", "34.0", "no code"]
    spellings = [
        text
        for name in names
        for code in bare
        for text in (f"{name}/{code}", f"{name}//{code}", f"{name} / {code} ", f"MEDICATION//A/B//{name}//{code}//Held")
    ]
    editions = ("ICD//9", "ICD//10", "ICD//10.0", "ICD//09", "ICD9", "ICD-10", "ICD//11")
    systems = ("ICD10CM", "CPT", "NDC", "ICD")
    kinds = {"DIAGNOSIS": (*editions, *systems), "Procedure": (*editions, *systems), "OBSERVATION": systems}
    spellings += [
        text
        for code in bare
        for kind, behind in kinds.items()
        for name in behind
        for text in (f"{kind}//{name}//{code}", f"{kind}//{name}//{code}//more")
    ]
    spellings += [f"{name}{mark}{code}" for name in names for code in bare for mark in (":", " | ", "-", "")]
    rows = CodeMapper(keys, unmapped).rows(pl.Series(spellings))
    found = code_tokens.look_up(pl.Series("code", spellings), Codes(tokens, {}), unmapped=unmapped)
    by_code = dict(found.select("code", "tokens").iter_rows())
    assert [by_code[text] for text in spellings] == [[str(row)] if row >= 0 else None for row in rows]
    assert (rows >= 0).sum() > 200
