"""Codes that were written as numbers: digits where nothing else can be meant, and never another code in silence."""

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtok_jax import MedTokTokenizer
from medtok_jax.tokenize.numbers import WrittenNumbers, digits_of, edition_of, is_absent, lacks_ndc_zeros
from preprocessing.common.errors import InputError
from tests.helpers.small_tokenizer import make_tokens, write
from tests.helpers.tokenized_files import tokenize

KEYS = (
    *("ICD9CM/034.0", "ICD9CM/250.00", "ICD9CM/340", "ICD9CM/401.0", "ICD9CM/428.0", "ICD9CM/428.1", "ICD9CM/E849.0"),
    *("ICD9Proc/34.01", "ICD10CM/E11.9", "NDC/00002143380", "NDC/000021433", "NDC/123456789", "NDC/12345678901"),
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> MedTokTokenizer:
    return MedTokTokenizer.from_pretrained(write(tmp_path_factory.mktemp("tokenizer") / "tok", make_tokens(KEYS)))


def write_values(path, values: list, system: str | None = None):
    """Write values of one column named code, with a system, and return the path."""
    if path.suffix == ".csv":
        cells = ("" if value is None else str(value) for value in values)
        path.write_text("code,system\n" + "".join(f"{cell},{system or ''}\n" for cell in cells))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"code": value, "system": system}) + "\n" for value in values))
    elif path.suffix == ".json":
        path.write_text(json.dumps([{"code": value, "system": system} for value in values]))
    else:
        pq.write_table(pa.table({"code": values, "system": pa.array([system] * len(values), pa.string())}), path)
    return path


KINDS = ("csv", "json", "jsonl", "parquet")


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_of_floats_is_read_as_digits(tokenizer, tmp_path, kind):
    path = write_values(tmp_path / f"codes.{kind}", [4280.0, math.nan, 340.0, 0.0, 25000.0], "ICD9CM")
    keys, reasons, told = tokenize(tokenizer, path)
    assert keys == {1: "ICD9CM/428.0", 3: "ICD9CM/340", 5: "ICD9CM/250.00"}
    assert set(reasons) == {2, 4}
    assert all("it has no code" in reason for reason in reasons.values())
    assert "All codes were written as numbers, such as 4280.0; they were read as digits." in told
    # 340 may be 034.0, which is looked up as 340 all the same; the user is told.
    assert any("may have lost leading zeros, and be other codes with them: 1;" in sentence for sentence in told)
    assert "Rejected rows by reason: no code (0, NaN, null or empty): 2." in told


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet"])
def test_a_column_of_integers_is_read_as_digits(tokenizer, tmp_path, kind):
    path = write_values(tmp_path / f"codes.{kind}", [4280, 0, 340], "ICD9CM")
    assert tokenize(tokenizer, path)[0] == {1: "ICD9CM/428.0", 3: "ICD9CM/340"}


@pytest.mark.parametrize("kind", KINDS)
def test_three_digits_before_the_dot_may_be_a_code_with_its_dot(tokenizer, tmp_path, kind):
    values = [401.0, 428.0, 34.0]
    path = write_values(tmp_path / f"codes.{kind}", values if kind != "csv" else ["401.0", "428.0", "34.0"], "ICD9CM")
    if kind == "csv":
        keys, reasons, _ = tokenize(tokenizer, path)
        assert keys == {1: "ICD9CM/401.0", 2: "ICD9CM/428.0"}
        assert list(reasons) == [3]
    elif kind == "parquet":
        with pytest.raises(InputError, match="holds double, but a code must be text"):
            tokenize(tokenizer, path)
    else:
        keys, reasons, _ = tokenize(tokenizer, path)
        assert not keys
        assert "its code is 401.0, not text" in reasons[1]


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet"])
def test_a_large_number_among_texts_is_its_digits(tokenizer, tmp_path, kind):
    path = write_values(tmp_path / f"codes.{kind}", ["E11.9", "4280.0", "401.0", "3400.0", "428.1", "4280"])
    keys, reasons, told = tokenize(tokenizer, path)
    assert keys == {1: "ICD10CM/E11.9", 2: "ICD9CM/428.0", 3: "ICD9CM/401.0", 5: "ICD9CM/428.1", 6: "ICD9CM/428.0"}
    assert "'3400' is not among" in reasons[4]
    assert not any("written as numbers" in sentence for sentence in told)


def test_a_large_number_among_texts_may_have_lost_its_zeros(tmp_path):
    tokens = make_tokens(("ICD9CM/038.49", "ICD9CM/384.9", "ICD10CM/E11.9"))
    tokenizer = MedTokTokenizer.from_pretrained(write(tmp_path / "tok", tokens))
    for text, sentences in (("3849.0", 1), ("3849", 1), ("384.9", 0)):
        keys, _, told = tokenize(tokenizer, write_values(tmp_path / "codes.csv", ["E11.9", text]))
        assert keys[2] == "ICD9CM/384.9"
        assert sum("may have lost leading zeros" in sentence for sentence in told) == sentences


def suspects(told: list[str]) -> int:
    return sum(int(text.rsplit(": ", 1)[1].split(";")[0]) for text in told if "may have lost leading zeros" in text)


def test_zeros_that_a_spreadsheet_took_beside_letters(tmp_path):
    tokens = make_tokens(("ICD9CM/041.4", "ICD9CM/414", "ICD9CM/V30.01", "ICD9CM/428.0", "ICD9CM/401.0"))
    tokenizer = MedTokTokenizer.from_pretrained(write(tmp_path / "tok", tokens))
    keys, _, told = tokenize(tokenizer, write_values(tmp_path / "codes.csv", ["414", "V3001", "4280"]))
    assert keys[1] == "ICD9CM/414"
    assert suspects(told) == 1
    # With zeros, nothing was lost; with dots, a lost zero makes a code malformed.
    for texts in (["0414", "414", "V3001"], ["414", "V30.01", "428.0"]):
        assert suspects(tokenize(tokenizer, write_values(tmp_path / "codes.csv", texts))[2]) == 0


@pytest.mark.parametrize(
    "texts", [["3843", "V3001"], ["3843", "4280", "E11.9"], ["3843.0", "V3001"], ["3843.0", "4280.0"]]
)
def test_a_procedure_of_digits_may_be_a_diagnosis_that_lost_its_zero(tmp_path, texts):
    tokens = make_tokens(("ICD9CM/038.43", "ICD9Proc/38.43", "ICD9CM/V30.01", "ICD9CM/428.0", "ICD10CM/E11.9"))
    tokenizer = MedTokTokenizer.from_pretrained(write(tmp_path / "tok", tokens))
    keys, _, told = tokenize(tokenizer, write_values(tmp_path / "codes.csv", texts))
    assert keys[1] == "ICD9Proc/38.43"
    assert suspects(told) == 1
    assert suspects(tokenize(tokenizer, write_values(tmp_path / "codes.csv", texts[:1], "ICD9Proc"))[2]) == 0


def test_beside_a_float_a_dot_may_be_that_of_a_float(tokenizer, tmp_path):
    keys, _, told = tokenize(tokenizer, write_values(tmp_path / "codes.csv", ["4280.0", "E11.9", "401.0", "250.00"]))
    assert keys[3] == "ICD9CM/401.0"
    assert suspects(told) == 1
    assert suspects(tokenize(tokenizer, write_values(tmp_path / "codes.csv", ["428.0", "E11.9", "401.0"]))[2]) == 0


def test_beside_a_float_two_digits_may_be_a_number_too(tmp_path):
    keys = ("ICD9Proc/00.66", "ICD9Proc/66.0", "ICD9Proc/38.93")
    tokenizer = MedTokTokenizer.from_pretrained(write(tmp_path / "tok", make_tokens(keys)))
    found, _, told = tokenize(tokenizer, write_values(tmp_path / "codes.csv", ["3893.0", "66.0", "x99"], "ICD9Proc"))
    assert found == {1: "ICD9Proc/38.93", 2: "ICD9Proc/66.0"}
    assert suspects(told) == 1


def test_a_procedure_may_be_a_diagnosis_that_lost_its_zero(tmp_path):
    tokens = make_tokens(("ICD9CM/004.0", "ICD9Proc/04.0", "ICD9Proc/34.01", "ICD9CM/250.00"))
    tokenizer = MedTokTokenizer.from_pretrained(write(tmp_path / "tok", tokens))
    texts = ["250.00", "04.0", "34.01"]
    keys, _, told = tokenize(tokenizer, write_values(tmp_path / "codes.csv", texts))
    assert keys[2] == "ICD9Proc/04.0"
    assert suspects(told) == 1
    assert suspects(tokenize(tokenizer, write_values(tmp_path / "codes.csv", ["04.0"], "ICD9Proc"))[2]) == 0


def test_ndcs_that_lost_zeros_are_no_rxnorm(tmp_path):
    keys = ("NDC/00002143380", "RxNorm/2143380", "RxNorm/6809")
    tokenizer = MedTokTokenizer.from_pretrained(write(tmp_path / "tok", make_tokens(keys)))
    (tmp_path / "drugs.csv").write_text("ndc\n00002143380\n2143380\n6494300\n536338101\n6809\n")
    found, reasons, _ = tokenize(tokenizer, tmp_path / "drugs.csv")
    assert found == {1: "NDC/00002143380"}
    assert all("lost leading zeros" in reason for reason in reasons.values())


@pytest.mark.parametrize("texts", [["34.0"], ["34.0", "4280.0"], ["34.0", "E11.9"], ["34.0", "428.1"]])
def test_strep_throat_never_becomes_multiple_sclerosis(tokenizer, tmp_path, texts):
    keys, reasons, _ = tokenize(tokenizer, write_values(tmp_path / "codes.csv", texts))
    assert 1 in reasons
    assert not {"ICD9CM/340", "ICD9CM/034.0"} & set(keys.values())


def test_fractions_and_long_numbers_are_no_codes(tokenizer, tmp_path):
    for values in ([250.13, 4280.0], [4280.0, 1e18]):
        path = write_values(tmp_path / "codes.jsonl", values, "ICD9CM")
        keys, reasons, _ = tokenize(tokenizer, path)
        assert (keys, list(reasons)) == ({}, [1, 2])
        with pytest.raises(InputError, match="holds double, but a code must be text"):
            tokenize(tokenizer, write_values(tmp_path / "codes.parquet", values, "ICD9CM"))


@pytest.mark.parametrize("kind", KINDS)
def test_an_ndc_without_its_zeros_is_rejected(tokenizer, tmp_path, kind):
    values = ["00002143380", "2143380", "123456789", "12345678901", "0", None, "0002-1433-80", "000021433"]
    keys, reasons, told = tokenize(tokenizer, write_values(tmp_path / f"codes.{kind}", values, "NDC"))
    assert keys == {1: "NDC/00002143380", 4: "NDC/12345678901", 7: "NDC/00002143380", 8: "NDC/000021433"}
    assert "'123456789' is probably an NDC that lost leading zeros" in reasons[3]
    told_of = "Rejected rows by reason: no code (0, NaN, null or empty): 2; a code that probably lost leading zeros: 2."
    assert told_of in told
    assert set(reasons) == {2, 3, 5, 6}


def test_products_have_nine_digits_and_numbers_never(tokenizer, tmp_path):
    path = write_values(tmp_path / "codes.csv", ["000021433", "123456789"], "NDC")
    assert tokenize(tokenizer, path)[0] == {1: "NDC/000021433", 2: "NDC/123456789"}
    for kind in ("jsonl", "parquet"):
        path = write_values(tmp_path / f"codes.{kind}", [123456789, 12345678901], "NDC")
        keys, reasons, _ = tokenize(tokenizer, path)
        assert keys == {2: "NDC/12345678901"}
        assert "lost leading zeros" in reasons[1]


def test_an_ndc_that_names_no_system_is_rejected_too(tokenizer, tmp_path):
    keys, reasons, _ = tokenize(tokenizer, write_values(tmp_path / "codes.csv", ["123456789", "12345678901", "E119"]))
    assert keys == {2: "NDC/12345678901", 3: "ICD10CM/E11.9"}
    assert "lost leading zeros" in reasons[1]


@pytest.mark.parametrize("value", [9, 9.0, "9", "9.0", " 9 ", "ICD9", "ICD-9", "icd-9-cm", "09"])
def test_ways_to_write_the_ninth_edition(value):
    assert edition_of(value) == "ICD9"
    assert edition_of(10.0) == edition_of("ICD10PCS") == "ICD10"


@pytest.mark.parametrize("value", [7, "x", "", True, None, [9], 9.5, "1", "90"])
def test_what_is_no_edition(value):
    assert edition_of(value) is None


@pytest.mark.parametrize("value", [None, math.nan, "", " ", "nan", "NaN", "NULL", "None", "NA", "<NA>", "?"])
def test_what_is_missing(value):
    assert is_absent(value)
    assert is_absent(value, zero=True)


@pytest.mark.parametrize("value", [0, 0.0, "0", "0.0", "0.00"])
def test_zero_is_no_code(value):
    assert is_absent(value, zero=True)
    assert not is_absent(value)


@pytest.mark.parametrize("value", ["00", "000", "0.1", "00000000000", "E11", False, 1])
def test_what_is_not_missing(value):
    assert not is_absent(value, zero=True)


@given(st.integers(0, 2**53 - 1))
def test_digits_survive_every_way_of_writing(number):
    assert digits_of(number) == digits_of(float(number)) == digits_of(f"{number}.0") == str(number)


@given(st.one_of(st.floats(), st.text(), st.booleans()))
def test_digits_are_only_taken_from_whole_numbers(value):
    digits = digits_of(value)
    assert digits is None or float(digits) == float(value)


@given(st.lists(st.from_regex(r"[0-9]{3}\.[0-9]{1,2}", fullmatch=True), min_size=1))
def test_dotted_codes_are_never_numbers(codes):
    numbers = WrittenNumbers()
    for code in codes:
        numbers.add(code)
        numbers.add(float(code))
    assert not numbers.are_whole or all(is_absent(code, zero=True) for code in codes)


@given(st.integers(4, 10), st.booleans())
def test_short_ndcs_are_suspect(length, products):
    assert lacks_ndc_zeros("1" * length, products=products) is not (products and length == 9)
    assert not lacks_ndc_zeros("1" * 11, products=products)
    assert not lacks_ndc_zeros("0002-1433", products=products)
