import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.codes import CodeRecord, category_of, compact_code, display_code, is_wellformed
from preprocessing.errors import InputError


@pytest.mark.parametrize(
    ("system", "compact", "display"),
    [
        ("ICD10CM", "E119", "E11.9"),
        ("ICD10CM", "I10", "I10"),
        ("ICD10CM", "QA00101", "QA0.0101"),
        ("ICD10CM", "S52501A", "S52.501A"),
        ("ICD10CM", "C7A00", "C7A.00"),
        ("ICD10PCS", "0016070", "0016070"),
        ("ICD9CM", "25000", "250.00"),
        ("ICD9CM", "042", "042"),
        ("ICD9CM", "E8490", "E849.0"),
        ("ICD9CM", "E030", "E030"),
        ("ICD9CM", "V5889", "V58.89"),
        ("ICD9Proc", "0001", "00.01"),
        ("ICD9Proc", "640", "64.0"),
    ],
)
def test_display_code_adds_the_dot_and_accepts_it(system, compact, display):
    assert display_code(system, compact) == display
    assert display_code(system, display) == display
    assert display_code(system, f" {display.lower()} ") == display
    assert compact_code(display) == compact


@pytest.mark.parametrize(
    ("system", "code"),
    [("ICD10CM", "250.00"), ("ICD10PCS", "00I6070"), ("ICD9CM", "E11.9A"), ("ICD9Proc", "00.011"), ("ICD10CM", "")],
)
def test_malformed_codes_are_refused(system, code):
    assert not is_wellformed(system, code)
    with pytest.raises(InputError, match=system):
        display_code(system, code)


def test_unknown_system_is_named():
    with pytest.raises(InputError, match="ICD11"):
        display_code("ICD11", "1A00")


@given(st.from_regex(r"[A-Z][0-9][0-9A-Z][0-9A-Z]{0,4}", fullmatch=True))
def test_icd10cm_round_trip(compact):
    display = display_code("ICD10CM", compact)
    assert compact_code(display) == compact
    assert display.count(".") == (len(compact) > 3)


@pytest.mark.parametrize(
    ("system", "code", "category"),
    [
        ("ICD10CM", "S52.501A", "ICD10CM/S52"),
        ("ICD10PCS", "0016070", "ICD10PCS/001"),
        ("ICD9CM", "E849.0", "ICD9CM/E849"),
        ("ICD9Proc", "00.01", "ICD9Proc/00"),
    ],
)
def test_key_and_category(system, code, category):
    record = CodeRecord(system, code, "text")
    assert record.key == f"{system}/{code}"
    assert category_of(record) == category


def test_all_codes_of_the_vocabulary_survive_a_round_trip(vocabulary):
    for record in vocabulary:
        assert display_code(record.system, compact_code(record.code)) == record.code
