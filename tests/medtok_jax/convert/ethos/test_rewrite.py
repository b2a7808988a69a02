"""ICD and ATC tokens of ETHOS become MedTok tokens; everything else stays where it was."""

import importlib.util

import numpy as np
import pytest

from medtok_jax.convert.ehr_models.spelling import TokenLists
from medtok_jax.convert.ethos import check, codes, directory, rewrite
from medtok_jax.convert.ethos import vocabulary as ethos_vocabulary
from medtok_jax.convert.ethos.rewrite import Rewriter
from medtok_jax.records.event_codes import CodeMapper
from preprocessing.common.errors import InputError
from preprocessing.common.ragged import offsets_of
from tests.helpers import small_tokenizer
from tests.helpers.small_ethos import DAY, timelines, write_tokenized

N = small_tokenizer.REGIONS.size
TITLES = {"TYPE_2_DIABETES_MELLITUS": "E11", "FRACTURE_OF_FEMUR": "S72", "TYPE_1_DIABETES_MELLITUS": "E10"}
PROCEDURE = [(f"ICD//PCS//{character}", DAY) for character in "0016070"]
# E11.9, S72.001A, a code not in the tokenizer, twice the same procedure, and A10BA02, B01.
FIRST = [
    ("HOSPITAL_ADMISSION", 0),
    *(("ATC//A10//DRUGS_USED_IN_DIABETES", 5), ("ATC//4//B", 5), ("ATC//SFX//A02", 5), ("ATC//B01//BLOOD", 5)),
    *PROCEDURE,
    *PROCEDURE,
    ("HOSPITAL_DISCHARGE", 2 * DAY),
    *(("ICD//CM//TYPE_2_DIABETES_MELLITUS", 2 * DAY), ("ICD//CM//3-6//9", 2 * DAY)),
    *(("ICD//CM//FRACTURE_OF_FEMUR", 2 * DAY), ("ICD//CM//3-6//001", 2 * DAY), ("ICD//CM//SFX//A", 2 * DAY)),
    *(("ICD//CM//TYPE_1_DIABETES_MELLITUS", 2 * DAY), ("ICD//CM//3-6//8", 2 * DAY)),
    *(("DRG//470", 2 * DAY), ("TIMELINE_END", 2 * DAY)),
]
# A procedure that lacks a character, and codes that ends of time and patients cut.
SECOND = [
    *PROCEDURE[:6],
    *(("ICD//CM//TYPE_2_DIABETES_MELLITUS", 2 * DAY), ("ICD//CM//3-6//9", 3 * DAY)),
    *(("Q3", 3 * DAY), ("TIMELINE_END", 3 * DAY)),
]


@pytest.fixture(scope="module")
def tokenizer():
    tokens = small_tokenizer.make_tokens()
    return tokens.strings["key"].tolist(), tokens.ids


def _lists(ids):
    ranked = [small_tokenizer.ranked(row) for row in ids]
    return TokenLists(np.concatenate(ranked), offsets_of(np.array([len(row) for row in ranked])))


def _rewritten(tokenizer, unmapped, patients=(FIRST, SECOND)):
    keys, ids = tokenizer
    vocabulary = list(dict.fromkeys([t for rows in patients for t, _ in rows] + [f"Q{i}" for i in range(1, 11)]))
    mapper = CodeMapper(keys, unmapped)
    rewriter = Rewriter(vocabulary, mapper, _lists(ids), TITLES, N)
    before = timelines(list(patients), vocabulary)
    return rewriter, before, rewriter(before), mapper


def _expected(tokenizer, unmapped):
    """By hand, code for code."""
    keys, ids = tokenizer

    def of(key):
        return [f"MEDTOK//{number}" for number in small_tokenizer.ranked(ids[keys.index(key)])]

    def missing(*tokens):
        return {"keep": list(tokens), "drop": [], "unk": [ethos_vocabulary.UNK]}[unmapped]

    first = [
        *("HOSPITAL_ADMISSION", *of("ATC/A10BA02"), *missing("ATC//B01//BLOOD")),
        *(*of("ICD10PCS/0016070"), *of("ICD10PCS/0016070"), "HOSPITAL_DISCHARGE"),
        *(*of("ICD10CM/E11.9"), *of("ICD10CM/S72.001A")),
        *missing("ICD//CM//TYPE_1_DIABETES_MELLITUS", "ICD//CM//3-6//8"),
        *("DRG//470", "TIMELINE_END"),
    ]
    second = [token for character in "001607" for token in missing(f"ICD//PCS//{character}")]
    second += [*of("ICD10CM/E11"), *missing("ICD//CM//3-6//9"), "Q3", "TIMELINE_END"]
    return first, second


@pytest.mark.parametrize("unmapped", ["keep", "drop", "unk"])
def test_codes_are_replaced(tokenizer, unmapped):
    rewriter, before, after, _ = _rewritten(tokenizer, unmapped)
    first, second = _expected(tokenizer, unmapped)
    tokens = [rewriter.vocabulary[number] for number in after.tokens]
    start = int(after.patient_offsets[1])
    assert tokens[:start] == first
    assert tokens[start:] == second
    assert after.patient_ids.tolist() == before.patient_ids.tolist()
    # Each token has time and stay of the event that it comes from.
    assert (np.diff(after.times[:start]) >= 0).all()
    assert set(zip(after.times, after.stays["hadm_id"], strict=True)) <= set(
        zip(before.times, before.stays["hadm_id"], strict=True)
    )


def test_the_nearest_code_above_stands_for_a_code_and_the_rest_is_kept(tokenizer):
    below = [("ICD//CM//TYPE_2_DIABETES_MELLITUS", 0), ("ICD//CM//3-6//8", 0), ("TIMELINE_END", 0)]
    rewriter, _, after, mapper = _rewritten(tokenizer, "nearest", (FIRST, SECOND, below))
    first, second = _expected(tokenizer, "keep")
    keys, ids = tokenizer
    of_category = [f"MEDTOK//{number}" for number in small_tokenizer.ranked(ids[keys.index("ICD10CM/E11")])]
    tokens = [rewriter.vocabulary[number] for number in after.tokens]
    assert tokens == [*first, *second, *of_category, "TIMELINE_END"]
    (row,) = [row for row in mapper.report().iter_rows(named=True) if row["name"] == "ICD10CM"]
    assert (row["to_ancestor"], row["to_parent"]) == (1, 0)


def test_lengths_are_those_of_what_is_written(tokenizer, tmp_path):
    keys, ids = tokenizer
    vocabulary = write_tokenized(tmp_path / "old", [FIRST, SECOND], ["RACE//UNKNOWN"])
    found = rewrite.timeline_lengths(tmp_path / "old", Rewriter(vocabulary, CodeMapper(keys), _lists(ids), TITLES, N))
    assert found.tolist() == [len(part) for part in _expected(tokenizer, "keep")]


def test_kept_ids_stay(tokenizer):
    rewriter, before, _, _ = _rewritten(tokenizer, "keep")
    old = [rewriter.vocabulary[number] for number in before.tokens]
    assert old == [t for t, _ in FIRST + SECOND]
    assert {f"MEDTOK//{number}" for number in range(N)} <= set(rewriter.vocabulary)


def test_dropped_tokens_leave_the_vocabulary(tokenizer):
    rewriter, *_ = _rewritten(tokenizer, "drop")
    assert not [t for t in rewriter.vocabulary if t.startswith(("ICD//", "ATC//"))]


def test_losses_are_counted(tokenizer):
    mapper = _rewritten(tokenizer, "drop")[3]
    report = {row["name"]: row for row in mapper.report().iter_rows(named=True)}
    assert (report["ICD10CM"]["events"], report["ICD10CM"]["mapped"]) == (5, 3)
    assert (report["ICD10PCS"]["events"], report["ICD10PCS"]["mapped"]) == (8, 2)
    assert (report["ATC"]["events"], report["ATC"]["unmapped"]) == (2, 1)
    assert {"code": "ICD10CM/E10.8", "events": 1} in report["ICD10CM"]["most_frequent_unmapped"]


def test_twice_is_once(tokenizer):
    rewriter, _, after, mapper = _rewritten(tokenizer, "drop")
    again = Rewriter(rewriter.vocabulary, mapper, _lists(tokenizer[1]), TITLES, N)
    assert again.vocabulary == rewriter.vocabulary
    assert again(after).tokens.tolist() == after.tokens.tolist()


def test_timelines_without_codes(tokenizer):
    _, before, after, _ = _rewritten(tokenizer, "keep", ([("A", 0), ("TIMELINE_END", 0)],))
    assert after.tokens.tolist() == before.tokens.tolist()


def test_no_code_reaches_into_the_next_patient(tokenizer):
    cut = ([("ICD//CM//TYPE_2_DIABETES_MELLITUS", 0)], [("ICD//CM//3-6//9", 0), ("TIMELINE_END", 0)])
    rewriter, _, after, _ = _rewritten(tokenizer, "drop", cut)
    keys, ids = tokenizer
    of_category = [f"MEDTOK//{number}" for number in small_tokenizer.ranked(ids[keys.index("ICD10CM/E11")])]
    assert [rewriter.vocabulary[number] for number in after.tokens] == [*of_category, "TIMELINE_END"]
    assert after.patient_offsets.tolist() == [0, len(of_category)]


def test_titles_are_those_of_the_official_list():
    if importlib.util.find_spec("simple_icd_10_cm") is None:
        pytest.skip("the official list is in the package simple-icd-10-cm")
    titles = codes.category_titles()
    assert titles["ESSENTIAL_(PRIMARY)_HYPERTENSION"] == "I10"
    assert titles["MAJOR_DEPRESSIVE_DISORDER_SINGLE_EPISODE"] == "F32"
    assert len(titles) > 1900


def test_a_directory_is_rewritten(tokenizer, tmp_path):
    keys, ids = tokenizer
    for name in ("train", "test"):
        vocabulary = write_tokenized(tmp_path / "old" / name, [FIRST, SECOND], ["RACE//UNKNOWN"])
    parts = rewrite.find_parts(tmp_path / "old")
    assert sorted(parts) == ["test", "train"]
    rewriter = Rewriter(vocabulary, CodeMapper(keys), _lists(ids), TITLES, N)
    count = rewrite.rewrite(parts["train"], tmp_path / "new", rewriter, progress=False)
    summary = check.check_ethos(tmp_path / "new", N)
    assert (summary.patients, summary.tokens) == (2, count)
    assert directory.read_static(tmp_path / "new") == directory.read_static(parts["train"])


def test_what_is_refused(tmp_path):
    write_tokenized(tmp_path / "train", [FIRST])
    write_tokenized(tmp_path / "test", [SECOND])
    with pytest.raises(InputError, match="another vocabulary"):
        rewrite.find_parts(tmp_path)
    (tmp_path / "train").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="none named train"):
        rewrite.find_parts(tmp_path)
