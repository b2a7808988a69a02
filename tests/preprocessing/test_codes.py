import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.codes import SYSTEMS, CodeRecord, category_of, compact_code, display_code, is_wellformed
from preprocessing.common.errors import InputError


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


@pytest.mark.parametrize(
    ("system", "code"),
    [
        # A number that lost its zeros: 034.0 (strep throat) is not 340 (multiple sclerosis), 008.45 not 845.
        ("ICD9CM", "34.0"),
        ("ICD9CM", "8.45"),
        ("ICD9Proc", "8.45"),
        ("ICD9Proc", ".45"),
        ("ICD9CM", "E84.90"),
        ("ICD10CM", "E1.19"),
        ("ICD10CM", "E11.9."),
        ("ICD10PCS", "0DT.J4ZZ"),
    ],
)
def test_a_dot_elsewhere_makes_no_code(system, code):
    assert is_wellformed(system, compact_code(code))
    assert not is_wellformed(system, code)
    with pytest.raises(InputError, match="does not have the shape"):
        display_code(system, code)


def test_a_dot_behind_a_category_is_one():
    assert display_code("ICD9CM", "250.") == "250"
    assert display_code("ICD10CM", "e11.") == "E11"


def test_no_code_of_the_vocabulary_may_have_its_dot_elsewhere(vocabulary):
    for record in vocabulary[::50]:
        compact = compact_code(record.code)
        for place in range(len(compact) + 1):
            moved = f"{compact[:place]}.{compact[place:]}"
            if moved not in (record.code, f"{record.code}."):
                assert not is_wellformed(record.system, moved), moved


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
        ("SNOMED", "73211009", "SNOMED/73211009"),
        ("RxNorm", "860975", "RxNorm/860975"),
        ("NDC", "00002143380", "NDC/000021433"),
        ("NDC", "000021433", "NDC/000021433"),
        ("ATC", "A10BA02", "ATC/A10B"),
        ("ATC", "A", "ATC/A"),
        ("CPT4", "0042T", "CPT4/004"),
        ("HCPCS", "J1100", "HCPCS/J11"),
    ],
)
def test_key_and_category(system, code, category):
    record = CodeRecord(system, code, "text")
    assert record.key == f"{system}/{code}"
    assert category_of(record) == category


def test_all_codes_of_the_vocabulary_survive_a_round_trip(vocabulary):
    for record in vocabulary:
        assert display_code(record.system, compact_code(record.code)) == record.code


@pytest.mark.parametrize(
    ("system", "written", "normal"),
    [
        ("NDC", "0002-1433-80", "00002143380"),
        ("NDC", "50242-040-62", "50242004062"),
        ("NDC", "60575-4112-1", "60575411201"),
        ("NDC", "00002-1433-80", "00002143380"),
        ("NDC", "00002143380", "00002143380"),
        ("NDC", "0002-1433", "000021433"),
        ("NDC", "50242-040", "502420040"),
        ("NDC", "60575-4112", "605754112"),
        ("NDC", "000021433", "000021433"),
        ("SNOMED", " 73211009\n", "73211009"),
        ("SNOMED", "900000000000000", None),
        ("RxNorm", "860975 ", "860975"),
        ("ATC", "a10 ba02", "A10BA02"),
        ("ATC", "A10", "A10"),
        ("CPT4", "99213", "99213"),
        ("CPT4", "1234f", "1234F"),
        ("CPT4", "0042T", "0042T"),
        ("CPT4", "0001U", "0001U"),
        ("CPT4", "0002m", "0002M"),
        ("HCPCS", "j1100", "J1100"),
    ],
)
def test_normal_form_of_the_other_systems(system, written, normal):
    assert is_wellformed(system, written) == (normal is not None)
    if normal is not None:
        assert display_code(system, written) == normal


@pytest.mark.parametrize(
    ("system", "code", "reason"),
    [
        ("NDC", "0002143380", "10 digits without hyphens may be"),
        ("NDC", "0", "1 digits without hyphens"),
        ("NDC", "00021433", "8 digits without hyphens"),
        ("NDC", "0002-143-80", "4-4-2, 5-3-2, 5-4-1"),
        ("NDC", "0002-1433-8O", "shape"),
        ("NDC", "٠٠٠٠٠٠٠٠٠", "shape"),
        ("SNOMED", "73211008", "check digit"),
        ("SNOMED", "1234", "6 to 18 digits"),
        ("SNOMED", "751689013", "concept identifier"),  # That of a description.
        ("RxNorm", "0860975", "shape"),
        ("RxNorm", "12 34", "shape"),
        ("ATC", "A10BA0", "shape"),
        ("ATC", "E10BA02", "shape"),
        ("CPT4", "9921", "shape"),
        ("CPT4", "J1100", "shape"),
        ("HCPCS", "99213", "shape"),
    ],
)
def test_malformed_codes_of_the_other_systems_are_refused(system, code, reason):
    assert not is_wellformed(system, code)
    with pytest.raises(InputError, match=reason):
        display_code(system, code)


_WRITTEN = st.one_of(
    st.text(max_size=12),
    st.from_regex(r"[0-9]{4,6}(-[0-9]{3,4}(-[0-9]{1,2})?)?", fullmatch=True),
    st.from_regex(r"[0-9]{1,18}", fullmatch=True),
    st.from_regex(r" ?[A-Za-z][0-9]{2} ?[A-Z]{0,2}[0-9]{0,2}", fullmatch=True),
    st.from_regex(r"[0-9a-z]{4}[0-9a-zA-Z]", fullmatch=True),
)


@given(st.sampled_from(SYSTEMS), _WRITTEN)
def test_the_normal_form_is_its_own_normal_form(system, written):
    if not is_wellformed(system, written):
        with pytest.raises(InputError, match=system):
            display_code(system, written)
        return
    normal = display_code(system, written)
    assert display_code(system, normal) == normal
    assert display_code(system, f" {written}\t") == normal
    assert normal.isascii()
    assert normal == "".join(normal.split())


@given(
    labeler=st.integers(0, 99999),
    product=st.integers(0, 9999),
    package=st.integers(0, 99),
    shape=st.sampled_from([(4, 4, 2), (5, 3, 2), (5, 4, 1), (5, 4, 2)]),
)
def test_every_spelling_of_an_ndc_has_one_normal_form(labeler, product, package, shape):
    numbers = [number % 10**width for number, width in zip((labeler, product, package), shape, strict=True)]
    written = "-".join(f"{number:0{width}}" for number, width in zip(numbers, shape, strict=True))
    normal = f"{numbers[0]:05}{numbers[1]:04}{numbers[2]:02}"
    assert display_code("NDC", written) == display_code("NDC", normal) == normal
    assert display_code("NDC", written.rpartition("-")[0]) == normal[:9]


@given(st.integers(100, 10**14 - 1), st.sampled_from(["00", "10"]), st.data())
def test_one_check_digit_is_right_and_slips_are_noticed(item, partition, data):
    stem = f"{item}{partition}"
    (code,) = [f"{stem}{digit}" for digit in range(10) if is_wellformed("SNOMED", f"{stem}{digit}")]
    position = data.draw(st.integers(0, len(code) - 2))
    swapped = code[:position] + code[position + 1] + code[position] + code[position + 2 :]
    assert swapped == code or not is_wellformed("SNOMED", swapped)
    other = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != code[position]]))
    assert not is_wellformed("SNOMED", code[:position] + other + code[position + 1 :])
