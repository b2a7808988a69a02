"""One policy for unknown codes: an error where one code is asked for, else `[UNK]` with one warning, or left out."""

import dataclasses
import warnings

import numpy as np
import pytest

from medtok_jax import AmbiguousCodeError, MedTokTokenizer, UnknownCodeError, UnknownCodeWarning
from medtok_jax.lookup.directory import KnownCode
from tests.helpers.small_tokenizer import KEYS, K, make_tokens, write

WIDTH = 4 * K
MIXED = ["E11.9", "nonsense", None, "E10.9", "E11.8"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> MedTokTokenizer:
    return MedTokTokenizer.from_pretrained(write(tmp_path_factory.mktemp("tokenizer") / "tok"))


def warned(call) -> tuple[object, list[str]]:
    """Return the result of a call, and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    assert all(one.category is UnknownCodeWarning for one in caught)
    assert all(one.filename == __file__ for one in caught), "a warning names the line that called"
    return result, [str(one.message) for one in caught]


def test_one_code_is_an_error(tokenizer):
    for call in (tokenizer, tokenizer.encode, tokenizer.tokenize, tokenizer.look_up, tokenizer.embed):
        with pytest.raises(UnknownCodeError, match=r"'E11\.8' is not among the 19 codes of this tokenizer"):
            call("E11.8")
    found, told = warned(lambda: tokenizer("E11.8", errors="unk"))
    assert found.input_ids == [tokenizer.unk_token_id] * WIDTH
    assert len(told) == 1
    assert warned(lambda: tokenizer("E11.8", errors="skip"))[0].input_ids == []


def test_a_batch_warns_once(tokenizer):
    found, told = warned(lambda: tokenizer(MIXED, return_weights=True))
    unknown = [tokenizer.unk_token_id] * WIDTH
    assert found.input_ids == [tokenizer.encode("E11.9"), unknown, unknown, tokenizer.encode("E10.9"), unknown]
    np.testing.assert_allclose(np.reshape(found.weights, (5, 4, K)).sum(-1), 1.0, rtol=1e-3)
    assert np.reshape(found.attention_mask, -1).tolist() == [1] * 5 * WIDTH
    assert told == [
        "2 of 5 codes are unknown and encoded as [UNK]: 'nonsense', 'E11.8' (1 more are missing); this tokenizer has"
        " tokens for 19 of the 19 codes of its systems."
    ]
    many = [f"X{number}" for number in range(1000)]
    for call in (
        lambda: tokenizer(many),
        lambda: tokenizer([many]),
        lambda: tokenizer.encode(many),
        lambda: tokenizer.encode_many(many, errors="unk"),
        lambda: tokenizer.encode_patient([many]),
        lambda: tokenizer.encode_patients([[many]]),
    ):
        (sentence,) = warned(call)[1]
        assert sentence.startswith(
            "1,000 of 1,000 codes are unknown and encoded as [UNK]: 'X0', 'X1', 'X2', 'X3', 'X4'"
        )
        assert "and 995 more;" in sentence
        assert len(sentence) < 300


def test_the_warning_says_how_many_codes_there_are(tmp_path):
    others = [KnownCode("ICD10CM/E11.8", "code"), KnownCode("ICD10CM/N18", "category")]
    sampled = MedTokTokenizer.from_pretrained(
        write(tmp_path / "tok", dataclasses.replace(make_tokens(), others=others))
    )
    assert (sampled.config.codes, sampled.config.known_codes) == (len(KEYS), len(KEYS) + 1)
    _, (sentence,) = warned(lambda: sampled(["E11.8", "N18"]))
    assert sentence.endswith("'E11.8', 'N18'; this tokenizer has tokens for 19 of the 20 codes of its systems.")
    with pytest.raises(UnknownCodeError, match=r"ICD10CM/E11\.8 has no tokens: .* holds 19 of the 20 codes"):
        sampled.encode("E11.8")


def test_known_codes_do_not_warn(tokenizer):
    for call in (
        lambda: tokenizer(list(KEYS)),
        lambda: tokenizer.encode_patients([[["E11.9"]], [[]]]),
        lambda: tokenizer(["E11.9XYZ"], fallback="ancestors"),
    ):
        assert warned(call)[1] == []


def test_missing_codes_warn_too(tokenizer):
    """Wherever [UNK] is made, it is said."""
    assert warned(lambda: tokenizer([None, float("nan")]))[1] == ["2 of 2 codes are missing and encoded as [UNK]."]
    told = warned(lambda: tokenizer.encode_patients([[[None]], [["E11.9"]]], errors="skip"))[1]
    assert told == ["1 of 2 codes are missing and left out."]


def test_codes_left_out(tokenizer):
    found, told = warned(lambda: tokenizer([MIXED, ["nonsense"]], errors="skip", add_special_tokens=True))
    known = [*tokenizer.encode("E11.9"), *tokenizer.encode("E10.9")]
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert found.input_ids[0] == [cls, *known, sep]
    assert told == [
        "3 of 6 codes are unknown and left out: 'nonsense', 'E11.8' (1 more are missing); this tokenizer has tokens"
        " for 19 of the 19 codes of its systems."
    ]
    # A visit of nothing but such codes is left out as an empty one is.
    visits = [["E11.9"], ["nonsense"], ["E10.9", "E11.8"]]
    patient, _ = warned(lambda: tokenizer.encode_patient(visits, errors="skip"))
    assert patient.input_ids == [cls, *known[:WIDTH], sep, *known[WIDTH:], sep]
    assert patient.visit_ids == [0] + [1] * (WIDTH + 1) + [2] * (WIDTH + 1)
    rows, _ = warned(lambda: tokenizer.encode_many(MIXED, errors="skip"))
    np.testing.assert_array_equal(rows.reshape(-1), known)
    assert warned(lambda: tokenizer(MIXED, errors="skip"))[0].input_ids == [known[:WIDTH], [], [], known[WIDTH:], []]


def test_an_error_names_the_first_unknown_code(tokenizer):
    patients = [[["E11.9", "E11.8"], ["nonsense"]]]
    with pytest.raises(UnknownCodeError, match=r"'E11\.8'"):
        tokenizer.encode_patients(patients, errors="raise")
    with pytest.raises(UnknownCodeError, match="'nonsense'"):
        tokenizer.encode_patients(patients, errors="raise", fallback="ancestors")
    with pytest.raises(UnknownCodeError, match=r"'E11\.8'"):
        tokenizer.encode_many(["E11.9", "E11.8"])
    found, told = warned(
        lambda: tokenizer.encode_patients(patients, fallback="ancestors", add_special_tokens=False).input_ids[0]
    )
    assert found[WIDTH : 2 * WIDTH] == tokenizer.encode("E11")
    assert found[2 * WIDTH :] == [tokenizer.unk_token_id] * WIDTH
    assert len(told) == 1


@pytest.mark.parametrize("errors", [None, "raise", "unk", "skip"])
def test_a_code_of_several_systems_is_always_an_error(tokenizer, errors):
    """Never silently: it is no unknown code."""
    for call in (
        lambda: tokenizer("0010", errors=errors),
        lambda: tokenizer(["E11.9", "0010"], errors=errors),
        lambda: tokenizer([["E11.9"], ["0010"]], errors=errors),
        lambda: tokenizer.encode_patients([[["E11.9"], ["0010"]]], errors=errors),
    ):
        with pytest.raises(AmbiguousCodeError, match=r"ICD9CM/001\.0, ICD9Proc/00\.10"):
            call()
