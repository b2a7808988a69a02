"""Whatever is thrown at it, a tokenizer gives the tokens of the very code that was asked for, or an `InputError`."""

import math
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtok_jax import MedTokTokenizer
from preprocessing.common.errors import InputError
from tests.helpers.small_tokenizer import KEYS, K, make_tokens, write

# Unknown codes are warned of in one line; see `test_unknown_codes`.
pytestmark = pytest.mark.filterwarnings("ignore::medtok_jax.UnknownCodeWarning")

WIDTH = 4 * K
ROW = {key: row for row, key in enumerate(KEYS)}
IDS = make_tokens().ids

separators = st.sampled_from(["/", "//", ":", "|", " ", "", "\0", "\\", "../", "%2F", "\n", "\u2044"])
letters = st.sampled_from("Eeſ｡.119٩９0A-_\u200b\u0301\ud800\x1b\x00\x85\u2028ßİıK")
names = st.sampled_from(
    ["ICD10CM", "icd9", "ICD11", "SNOMED", "DIAGNOSIS//ICD//10", "C:", "file", "", "CPT", "NDC", "\ufeff"]
)
near_codes = st.sampled_from([key.split("/")[1] for key in KEYS]).flatmap(
    lambda code: st.builds(
        lambda place, letter, cut: code[:place] + letter + code[place + cut :],
        st.integers(0, len(code)),
        st.one_of(letters, st.just("")),
        st.integers(0, 1),
    )
)
texts = st.one_of(
    st.text(),
    st.text(string.printable),
    near_codes,
    st.sampled_from(KEYS),
    st.builds(lambda name, separator, code: name + separator + code, names, separators, near_codes),
    st.sampled_from(["../../etc/passwd", "ICD10CM/" + "9" * 1000, "/" * 1000, "E11.9" * 300]),
)
things = st.one_of(
    texts,
    st.none(),
    st.floats(),
    st.integers(),
    st.binary(),
    st.booleans(),
    st.dates(),
    st.dictionaries(texts, texts, max_size=2),
    st.just(np.float32(math.nan)),
    st.just(object()),
)
nested = st.recursive(things, lambda inner: st.lists(inner, max_size=4) | st.tuples(inner), max_leaves=12)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> MedTokTokenizer:
    return MedTokTokenizer.from_pretrained(write(tmp_path_factory.mktemp("tokenizer") / "tok"))


def may_mean(text: str, key: str) -> bool:
    """Return whether the writer of this text can have meant that code: its letters and digits end in the code's."""

    def plain(part):
        return "".join(c for c in part.upper() if c.isascii() and c.isalnum())

    code = key.split("/")[1]
    dots = [c for c in text.strip().rpartition("//")[2] if c == "."]
    spelled = plain(text).endswith(plain(code)) and text.isascii()
    return spelled and (not dots or "." not in code or code.upper() in text.upper())


def one_sentence(error: InputError) -> None:
    assert len(str(error)) < 600
    assert str(error).isprintable()


@given(code=things, system=st.one_of(st.none(), names, things))
def test_one_code(tokenizer, code, system):
    for ask in (tokenizer.look_up, lambda *a: tokenizer.look_up(*a, fallback="ancestors")):
        try:
            found = ask(code, system)
        except InputError as error:
            one_sentence(error)
            continue
        assert isinstance(code, str)
        if found.source == "table":
            assert may_mean(code, found.key)
            np.testing.assert_array_equal(found.ids, IDS[ROW[found.key]])
        else:
            above = found.source.removeprefix("ancestor ")
            assert found.key.startswith(above)
            assert may_mean(code, found.key)
            np.testing.assert_array_equal(found.ids, IDS[ROW[above]])


@given(codes=st.lists(st.one_of(st.none(), texts), max_size=6))
def test_many_codes_equal_one_by_one(tokenizer, codes):
    wanted = []
    for code in codes:
        try:
            wanted.append(tokenizer.encode(code))
        except InputError as error:
            wanted.append(None if "several systems" in str(error) else [tokenizer.unk_token_id] * WIDTH)
    try:
        found = tokenizer(codes)
    except InputError as error:
        one_sentence(error)
        assert any(ids is None for ids in wanted)
    else:
        assert found.input_ids == wanted


@given(
    codes=nested,
    fallback=st.sampled_from([None, "ancestors"]),
    padding=st.booleans(),
    errors=st.sampled_from([None, "raise", "unk", "skip"]),
    method=st.sampled_from(["__call__", "encode_patients", "encode_patient"]),
)
def test_anything_nested(tokenizer, codes, fallback, padding, errors, method):
    try:
        found = getattr(tokenizer, method)(codes, fallback=fallback, padding=padding, errors=errors)
    except InputError as error:
        one_sentence(error)
    else:
        rows = found.input_ids
        for ids in rows if rows and isinstance(rows[0], list) else [rows]:
            assert all(type(number) is int and 0 <= number < tokenizer.vocab_size for number in ids)


@given(codes=st.lists(texts, max_size=4), system=st.one_of(st.none(), things, st.lists(st.one_of(names, things))))
def test_anything_as_systems(tokenizer, codes, system):
    try:
        found = tokenizer(codes, system=system)
    except InputError as error:
        one_sentence(error)
    else:
        assert len(found.input_ids) == len(codes)


@pytest.mark.parametrize(
    "text",
    ["E11.9" * 200_000, "\0" * 1_000_000, "/" * 1_000_000, "ICD10CM/" + "9" * 1_000_000, "." * 1_000_000 + "E11"],
)
def test_a_megabyte(tokenizer, text):
    with pytest.raises(InputError) as told:
        tokenizer.look_up(text, fallback="ancestors")
    one_sentence(told.value)
    assert tokenizer([text, "E11.9"]).input_ids[0] == [tokenizer.unk_token_id] * WIDTH
    with pytest.raises(InputError):
        tokenizer.look_up("E11.9", text)


@given(
    name=st.sampled_from(
        [
            *("encode_many", "decode", "batch_decode", "nearest", "nearest_codes", "embed", "neighbors", "tokenize"),
            *("encode", "look_up", "describe", "__contains__"),
        ]
    ),
    value=st.one_of(nested, st.lists(st.integers(-2, 50), max_size=20)),
)
def test_every_method(tokenizer, name, value):
    try:
        getattr(tokenizer, name)(value)
    except InputError as error:
        one_sentence(error)
