"""The input of a sequence model equals that of loops which put codes one behind the other."""

import random

import jax
import numpy as np
import pytest
import torch

from medtok_jax import AmbiguousCodeError, MedTokTokenizer, UnknownCodeError
from preprocessing.common.errors import InputError
from tests.helpers.small_tokenizer import KEYS, K, write

WIDTH = 4 * K


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> MedTokTokenizer:
    return MedTokTokenizer.from_pretrained(write(tmp_path_factory.mktemp("tokenizer") / "tok"))


def sequence(tokenizer, visits, max_length=None, side="right", marked=True) -> tuple[list, list, list]:
    """Ids, weights and visit ids of one history, a code at a time."""
    codes = [(number, code) for number, visit in enumerate(visits) for code in visit]
    while True:
        ids, weights, visit_ids = ([tokenizer.cls_token_id], [1.0], [0]) if marked else ([], [], [])
        count, last = 0, None
        for place, (number, code) in enumerate(codes):
            count += number != last
            known = code in tokenizer
            ids += tokenizer.encode(code).tolist() if known else [tokenizer.unk_token_id] * WIDTH
            weights += tokenizer.look_up(code).weights.tolist() if known else [1 / K] * WIDTH
            visit_ids += [count] * WIDTH
            if marked and (place + 1 == len(codes) or codes[place + 1][0] != number):
                ids, weights, visit_ids = [*ids, tokenizer.sep_token_id], [*weights, 1.0], [*visit_ids, count]
            last = number
        if max_length is None or len(ids) <= max_length or not codes:
            return ids, weights, visit_ids
        codes = codes[:-1] if side == "right" else codes[1:]


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("max_length", [None, WIDTH + 2, 3 * WIDTH + 3, 50])
def test_histories(tokenizer, marked, side, max_length):
    rng = random.Random(0)
    codes = [*KEYS, "nonsense", None]

    def draw():
        return [rng.choices(codes, k=rng.randint(0, 4)) for _ in range(rng.randint(0, 5))]

    patients = [[], [[]], [[], ["E11.9"]], *(draw() for _ in range(60))]
    options = {"add_special_tokens": marked, "truncation": max_length is not None, "max_length": max_length}
    options["truncation_side"] = side
    ragged = tokenizer(patients, **options)
    wanted = [sequence(tokenizer, patient, max_length, side, marked) for patient in patients]
    longest = max(len(ids) for ids, _, _ in wanted)
    for padding_side in ("right", "left"):
        padded = tokenizer(patients, padding=True, padding_side=padding_side, **options)
        assert padded.input_ids.shape == (len(patients), longest)
        for row, (ids, weights, visits) in enumerate(wanted):
            assert ragged.input_ids[row].tolist() == ids
            assert ragged["visit_ids"][row].tolist() == visits
            np.testing.assert_allclose(ragged.weights[row], weights, rtol=1e-6)
            assert ragged.attention_mask[row].tolist() == [1] * len(ids)
            here = slice(None, len(ids)) if padding_side == "right" else slice(longest - len(ids), None)
            mask = np.zeros(longest, bool)
            mask[here] = True
            assert padded.attention_mask[row].tolist() == mask.astype(int).tolist()
            assert padded.input_ids[row][mask].tolist() == ids
            assert (padded.input_ids[row][~mask] == tokenizer.pad_token_id).all()
            assert (padded.weights[row][~mask] == 0).all()
            assert (padded.visit_ids[row][~mask] == 0).all()


def test_one_history_is_a_row_of_many(tokenizer):
    history = [["E11.9", "250.00"], ["S72.001A"]]
    one, many = tokenizer(history), tokenizer([history])
    assert set(one) == {"input_ids", "attention_mask", "weights", "visit_ids"}
    for name, array in one.items():
        np.testing.assert_array_equal(array, many[name][0])
    assert tokenizer(history, return_tensors="np").input_ids.shape == (1, 3 * WIDTH + 3)
    assert tokenizer(history, padding="max_length", max_length=40).input_ids.shape == (40,)


def test_codes_alone(tokenizer):
    one, many = tokenizer("E11.9"), tokenizer(["E11.9", "nonsense", None])
    assert set(one) == {"input_ids", "attention_mask", "weights"}
    np.testing.assert_array_equal(one.input_ids, tokenizer.encode("E11.9"))
    assert many.input_ids.shape == many.weights.shape == many.attention_mask.shape == (3, WIDTH)
    np.testing.assert_array_equal(many.input_ids[0], tokenizer.encode("E11.9"))
    assert (many.input_ids[1:] == tokenizer.unk_token_id).all()
    np.testing.assert_allclose(many.weights.reshape(3, 4, K).sum(-1), 1.0, rtol=1e-6)
    assert (many.attention_mask == 1).all()
    marked = tokenizer("E11.9", add_special_tokens=True).input_ids
    assert marked.tolist() == [tokenizer.cls_token_id, *one.input_ids, tokenizer.sep_token_id]
    assert tokenizer([]).input_ids.shape == (0, WIDTH)
    assert tokenizer(np.array(["E11.9"])).input_ids.shape == (1, WIDTH)
    assert tokenizer(["E11.9"], padding="max_length", max_length=WIDTH + 3).input_ids.shape == (1, WIDTH + 3)
    assert tokenizer("0010", "ICD9CM").input_ids.tolist() == tokenizer.encode("ICD9CM/001.0").tolist()


def test_writing_into_a_batch_does_not_change_the_tokenizer(tokenizer):
    before = tokenizer.encode("E11.9").copy()
    for batch in (tokenizer("E11.9"), tokenizer(["E11.9"]), tokenizer([["E11.9"]])):
        np.asarray(batch.input_ids)[...] = 0
    np.testing.assert_array_equal(tokenizer.encode("E11.9"), before)
    with pytest.raises(ValueError, match="read-only"):
        tokenizer.encode("E11.9")[0] = 0


def test_tensors(tokenizer):
    history = [[["E11.9"], ["nonsense"]], [["250.00"]]]
    plain = tokenizer(history, padding=True)
    in_jax, in_torch = (tokenizer(history, padding=True, return_tensors=kind) for kind in ("jax", "pt"))
    for name, array in plain.items():
        assert isinstance(in_jax[name], jax.Array)
        assert in_jax[name].dtype == array.dtype
        np.testing.assert_array_equal(in_jax[name], array)
        assert in_torch[name].dtype == (torch.float32 if name == "weights" else torch.int64)
        np.testing.assert_array_equal(in_torch[name].numpy(), array)
    assert tokenizer("E11.9", return_tensors="pt").input_ids.shape == (1, WIDTH)
    with pytest.raises(InputError, match="set padding=True"):
        tokenizer(history, return_tensors="np")


def test_errors_and_fallback(tokenizer):
    history = [["E11.9", "E11.8"], ["nonsense"]]
    with pytest.raises(UnknownCodeError, match=r"'E11\.8'"):
        tokenizer(history, errors="raise")
    with pytest.raises(UnknownCodeError, match="'nonsense'"):
        tokenizer(history, errors="raise", fallback="ancestors")
    found = tokenizer(history, fallback="ancestors", add_special_tokens=False).input_ids
    assert found[WIDTH : 2 * WIDTH].tolist() == tokenizer.encode("E11").tolist()
    assert (found[2 * WIDTH :] == tokenizer.unk_token_id).all()
    # Never silently: a bare code of several systems is no unknown code.
    with pytest.raises(AmbiguousCodeError):
        tokenizer([["E11.9"], ["0010"]])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"padding": "longst"}, "padding is 'longst'; it must be one of False, True, 'longest', 'max_length'"),
        ({"padding": 1}, "padding is 1"),
        ({"truncation": True}, "need max_length"),
        ({"padding": "max_length"}, "need max_length"),
        ({"truncation": True, "max_length": WIDTH + 1}, f"must be at least {WIDTH + 2}, the tokens of one code"),
        ({"max_length": "512"}, "it must be a number of tokens"),
        ({"max_length": True}, "it must be a number of tokens"),
        ({"return_tensors": "tf"}, "return_tensors is 'tf'"),
        ({"padding_side": "up"}, "padding_side is 'up'"),
        ({"errors": "ignore"}, "errors must be"),
        ({"fallback": "parents"}, "fallback None or 'ancestors'"),
        ({"max_len": 3}, "unexpected keyword argument 'max_len'"),
    ],
)
def test_options_that_are_none(tokenizer, options, sentence):
    with pytest.raises(InputError, match=sentence):
        tokenizer([["E11.9"]], **options)


@pytest.mark.parametrize(
    "codes",
    [
        [[[["E11.9"]]]],
        ["E11.9", ["E11.9"]],
        [["E11.9"], "E11.9"],
        [["E11.9"], [3]],
        3,
        {"E11.9"},
        {"a": 1},
        [b"E11.9"],
        [[], 3],
    ],
)
def test_nesting_that_is_none(tokenizer, codes):
    with pytest.raises(InputError):
        tokenizer(codes)
