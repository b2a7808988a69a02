"""A call takes a code, codes or sequences; columns of data frames; a system for each row; added tokens."""

import warnings

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from medtok_jax import AmbiguousCodeError, MedTokTokenizer, UnknownCodeError, UnknownCodeWarning
from preprocessing.common.errors import InputError
from tests.helpers.small_tokenizer import K, write

WIDTH = 4 * K
CODES = ["E11.9", "250.00", "E11.9", "S72.001A"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> MedTokTokenizer:
    return MedTokTokenizer.from_pretrained(write(tmp_path_factory.mktemp("tokenizer") / "tok"))


def joined(tokenizer, *codes) -> list[int]:
    return [number for code in codes for number in tokenizer.encode(code)]


def test_a_code_is_one_sequence(tokenizer):
    one = tokenizer("E11.9")
    assert dict(one) == {"input_ids": tokenizer.encode("E11.9"), "attention_mask": [1] * WIDTH}
    assert tokenizer.encode("E11.9") == tokenizer.look_up("E11.9").ids.tolist()
    marked = tokenizer("E11.9", add_special_tokens=True).input_ids
    assert marked == [tokenizer.cls_token_id, *one.input_ids, tokenizer.sep_token_id]
    assert tokenizer.encode("E11.9", add_special_tokens=True) == marked
    assert tokenizer("E11.9", return_tensors="np").input_ids.shape == (1, WIDTH)
    assert tokenizer("0010", system="ICD9CM").input_ids == tokenizer.encode("ICD9CM/001.0")


def test_a_list_of_codes_is_a_batch_of_sequences_of_one_code(tokenizer):
    batch = tokenizer(CODES, return_weights=True)
    assert batch.input_ids == [tokenizer.encode(code) for code in CODES]
    assert batch.attention_mask == [[1] * WIDTH] * 4
    np.testing.assert_array_equal(batch.weights, [tokenizer.look_up(code).weights for code in CODES])
    assert tokenizer(CODES, return_tensors="np").input_ids.shape == (4, WIDTH)
    assert tokenizer([]).input_ids == []
    np.testing.assert_array_equal(tokenizer.encode_many(CODES), batch.input_ids)
    assert tokenizer.encode_many([]).shape == (0, WIDTH)


def test_a_list_of_lists_is_a_batch_of_sequences(tokenizer):
    """Not one patient of two visits, whose shape without padding would be (99,)."""
    batch = tokenizer([["E11.9", "E10.9"], ["S72.001A"]])
    assert batch.input_ids == [joined(tokenizer, "E11.9", "E10.9"), tokenizer.encode("S72.001A")]
    assert set(batch) == {"input_ids", "attention_mask"}
    marked = tokenizer([["E11.9", "E10.9"], []], add_special_tokens=True).input_ids
    assert marked[0] == [tokenizer.cls_token_id, *batch.input_ids[0], tokenizer.sep_token_id]
    assert tokenizer([["E11.9"], []]).input_ids == [tokenizer.encode("E11.9"), []]
    padded = tokenizer([["E11.9", "E10.9"], ["S72.001A"]], padding=True, return_tensors="np")
    assert padded.input_ids.shape == (2, 2 * WIDTH)


def test_words_that_are_split_are_one_sequence(tokenizer):
    wanted = joined(tokenizer, "E11.9", "E10.9")
    assert tokenizer(["E11.9", "E10.9"], is_split_into_words=True).input_ids == wanted
    assert tokenizer([["E11.9", "E10.9"], ["E11"]], is_split_into_words=True).input_ids == [
        wanted,
        tokenizer.encode("E11"),
    ]
    assert tokenizer(["E11.9", "E10.9"], is_split_into_words=True, system=["ICD10CM", "ICD10CM"]).input_ids == wanted


def test_three_levels_have_a_name_of_their_own(tokenizer):
    patients = [[["E11.9", "E10.9"], ["S72.001A"]], [["250.00"]]]
    with pytest.raises(InputError, match=r"three levels deep.*encode_patients, a single patient to encode_patient"):
        tokenizer(patients)
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    one = [cls, *joined(tokenizer, "E11.9", "E10.9"), sep, *tokenizer.encode("S72.001A"), sep]
    assert tokenizer.encode_patient(patients[0]).input_ids == one
    assert tokenizer.encode_patient(patients[0]).visit_ids == [0] + [1] * (2 * WIDTH + 1) + [2] * (WIDTH + 1)
    assert tokenizer.encode_patients(patients).input_ids == [one, [cls, *tokenizer.encode("250.00"), sep]]
    for given in (["E11.9"], [["E11.9"]], "E11.9", None):
        with pytest.raises(InputError, match="A list is missing around"):
            tokenizer.encode_patients(given)
    with pytest.raises(InputError, match="more than three levels deep"):
        tokenizer.encode_patients([patients])


@pytest.mark.parametrize(
    "codes",
    [
        *([[[["E11.9"]]]], ["E11.9", ["E11.9"]], [["E11.9"], "E11.9"], [["E11.9"], [3]], 3, {"E11.9"}, {"a": 1}),
        *([b"E11.9"], [[], 3], b"E11.9", None, float("nan"), np.array("E11.9")),
    ],
    ids=repr,
)
def test_nesting_that_is_none(tokenizer, codes):
    for call in (tokenizer, tokenizer.encode_patients, tokenizer.encode_many, tokenizer.encode_patient):
        with pytest.raises(InputError) as told:
            call(codes)
        assert str(told.value).isprintable()


def test_pairs_are_refused(tokenizer):
    for call in (tokenizer, tokenizer.encode, tokenizer.tokenize):
        with pytest.raises(InputError, match="not supported; give a list of codes"):
            call("E11.9", "E10.9")


FRAME = pl.DataFrame(
    {
        "pid": [1, 1, 2, 2, 2, 3],
        "code": ["E11.9", "E10.9", "0010", "250.00", None, "0010"],
        "system": ["ICD10CM", None, "ICD9CM", None, None, "ICD9Proc"],
    }
)


def test_the_codes_of_each_patient_of_a_frame(tokenizer):
    """Grouped by patient, each has a row of its own."""
    grouped = FRAME.group_by("pid", maintain_order=True).agg(pl.col("code"), pl.col("system"))
    wanted = [
        joined(tokenizer, "E11.9", "E10.9"),
        [*joined(tokenizer, "ICD9CM/001.0", "250.00"), *[tokenizer.unk_token_id] * WIDTH],
        joined(tokenizer, "ICD9Proc/00.10"),
    ]
    for codes, system in (
        (grouped["code"].to_list(), grouped["system"].to_list()),
        (grouped["code"], grouped["system"]),
        ([list(part) for part in grouped["code"]], grouped["system"].to_arrow()),
    ):
        assert tokenizer(codes, system=system).input_ids == wanted
    with pytest.raises(AmbiguousCodeError):
        tokenizer(grouped["code"])


class PandasSeries:
    """Behave as a column of pandas does where a tokenizer looks."""

    ndim = 1

    def __init__(self, values):
        self.values = values

    def tolist(self):
        return list(self.values)


@pytest.mark.parametrize(
    "column",
    [
        lambda values: values,
        tuple,
        lambda values: np.array(values, object),
        pl.Series,
        lambda values: pl.Series(values, dtype=pl.Categorical),
        pa.array,
        lambda values: pa.array(values).dictionary_encode(),
        lambda values: pa.chunked_array([values[:2], values[2:]]),
        PandasSeries,
    ],
    ids=("list", "tuple", "array", "polars", "categorical", "arrow", "dictionary", "chunked", "pandas"),
)
def test_columns_and_the_system_of_each_row(tokenizer, column):
    codes, systems = FRAME["code"].to_list(), FRAME["system"].to_list()
    wanted = [
        *(tokenizer.encode(code) for code in ("E11.9", "E10.9", "ICD9CM/001.0", "250.00")),
        [tokenizer.unk_token_id] * WIDTH,
        tokenizer.encode("ICD9Proc/00.10"),
    ]
    assert tokenizer(column(codes), system=column(systems)).input_ids == wanted
    np.testing.assert_array_equal(tokenizer.encode_many(column(codes), column(systems), errors="unk"), wanted)
    assert tokenizer.embed(column(codes[:3]), column(systems[:3])).shape == (3, 4, 4)


def test_a_system_for_each_row_may_be_an_edition(tokenizer):
    codes, systems = ["250.00", "E119", "0010"], [9, 10, "ICD9Proc"]
    wanted = [tokenizer.encode(key) for key in ("ICD9CM/250.00", "ICD10CM/E11.9", "ICD9Proc/00.10")]
    for given in (systems, [9.0, "10.0", "icd-9-procedure"], ["http://hl7.org/fhir/sid/icd-9-cm", "10", "ICD9PCS"]):
        assert tokenizer(codes, system=given).input_ids == wanted
    assert tokenizer(["E119", "250.00"], system=np.array([10.0, float("nan")])).input_ids == [wanted[1], wanted[0]]
    with pytest.raises(InputError, match="'ICD11' is not a code system"):
        tokenizer(codes, system=["ICD9CM", "ICD11", None])
    with pytest.raises(InputError, match="2 systems for 3 codes"):
        tokenizer(codes, system=["ICD9CM", None])
    visits = [["0010", "E11.9"], ["0010"]]
    by_patient = tokenizer.encode_patient(visits, system=[["ICD9CM", None], ["ICD9Proc"]], add_special_tokens=False)
    assert by_patient.input_ids == joined(tokenizer, "ICD9CM/001.0", "E11.9", "ICD9Proc/00.10")
    of_many = tokenizer.encode_patients([visits], system=[[["ICD9CM", None], ["ICD9Proc"]]], add_special_tokens=False)
    assert of_many.input_ids == [by_patient.input_ids]
    for nested in ([["ICD9CM"], [None, "ICD9Proc"]], [["ICD9CM", None, "ICD9Proc"]]):
        with pytest.raises(InputError, match="The systems are nested otherwise than the codes"):
            tokenizer(visits, system=nested)
        with pytest.raises(InputError, match="The systems are nested otherwise than the codes"):
            tokenizer.encode_patient(visits, system=nested)


def test_special_tokens_pass_through_as_one_id(tokenizer):
    sequence = ["[CLS]", "E11.9", "[SEP]", "E10.9", "[MASK]", "[PAD]"]
    ids = [tokenizer.convert_tokens_to_ids(token) for token in sequence]
    wanted = [ids[0], *tokenizer.encode("E11.9"), ids[2], *tokenizer.encode("E10.9"), *ids[4:]]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnknownCodeWarning)
        assert tokenizer([sequence]).input_ids == [wanted]
    assert tokenizer.encode("[SEP]") == [tokenizer.sep_token_id]
    with pytest.raises(UnknownCodeError, match=r"'\[SEP\]' is not among"):
        tokenizer.encode_many(["[SEP]"])


def test_a_code_is_no_added_token(tmp_path):
    tokenizer = MedTokTokenizer.from_pretrained(write(tmp_path / "tok"))
    before = tokenizer.encode("E11.9")
    for code in ("E11.9", "e119", "ICD10CM/E11.9"):
        with pytest.raises(InputError, match=f"'{code}' is a code; give the added token another name"):
            tokenizer.add_tokens(["[TIME]", code])
    assert tokenizer(["E11.9"]).input_ids == [before]


def test_added_tokens_pass_through_as_one_id(tmp_path):
    tokenizer = MedTokTokenizer.from_pretrained(write(tmp_path / "tok"))
    before = len(tokenizer)
    assert tokenizer.add_tokens(["[TIME]", "<1d>"]) == 2
    time, day = before, before + 1
    assert tokenizer.encode("[TIME]") == [time]
    assert tokenizer.tokenize("[TIME]") == ["[TIME]"]
    assert tokenizer(["E11.9", "[TIME]"]).input_ids == [tokenizer.encode("E11.9"), [time]]
    sequence = tokenizer([["E11.9", "[TIME]", "E10.9", "<1d>"]], return_weights=True)
    wanted = [*tokenizer.encode("E11.9"), time, *tokenizer.encode("E10.9"), day]
    assert sequence.input_ids == [wanted]
    assert sequence.weights[0][WIDTH] == sequence.weights[0][-1] == 1.0
    visit = tokenizer.encode_patients([[["E11.9", "[TIME]"], ["<1d>"]]])
    assert visit.input_ids[0][-4:] == [time, tokenizer.sep_token_id, day, tokenizer.sep_token_id]
    # A length that cuts keeps complete codes: an added token is one of one id.
    cut = tokenizer([["E11.9", "[TIME]", "E10.9"]], truncation=True, max_length=2 * WIDTH)
    assert cut.input_ids == [wanted[: WIDTH + 1]]
    assert tokenizer.decode(wanted) == "ICD10CM/E11.9 [TIME] ICD10CM/E10.9 <1d>"
    assert tokenizer.decode(wanted, skip_special_tokens=True) == "ICD10CM/E11.9 [TIME] ICD10CM/E10.9 <1d>"
    assert [[n.key for n in near] for near in tokenizer.nearest_codes(wanted)] == [["ICD10CM/E11.9"], ["ICD10CM/E10.9"]]
    # Columns in which a system stands at each row, and no warning.
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnknownCodeWarning)
        assert tokenizer(["E119", "[TIME]"], system=["ICD10CM", None]).input_ids[1] == [time]
    # They have no tokens, no embedding and no neighbors of their own, and never those of another code.
    for call in (tokenizer.encode_many, tokenizer.embed, tokenizer.look_up, tokenizer.neighbors):
        with pytest.raises(UnknownCodeError, match=r"'\[TIME\]' is not among"):
            call("[TIME]" if call in (tokenizer.look_up, tokenizer.neighbors) else ["E11.9", "[TIME]"])
    with pytest.warns(UnknownCodeWarning, match=r"left out: '\[TIME\]'"):
        assert tokenizer.encode_many(["[TIME]"], errors="skip").shape == (0, WIDTH)
    tokenizer.save_pretrained(tmp_path / "copy")
    again = MedTokTokenizer.from_pretrained(tmp_path / "copy", verify=True)
    assert again(["[TIME]", "<1d>"]).input_ids == [[time], [day]]
