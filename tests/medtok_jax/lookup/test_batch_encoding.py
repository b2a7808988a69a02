"""The input of a sequence model equals that of loops which put codes one behind the other."""

import random
import warnings

import jax
import numpy as np
import pytest
import torch

from medtok_jax import MedTokTokenizer
from preprocessing.common.errors import InputError
from tests.helpers.small_tokenizer import KEYS, K, write

WIDTH = 4 * K


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> MedTokTokenizer:
    return MedTokTokenizer.from_pretrained(write(tmp_path_factory.mktemp("tokenizer") / "tok"))


@pytest.fixture(autouse=True)
def _quiet():
    """Unknown codes are drawn on purpose here; `test_unknown_codes` is about the warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def sequence(tokenizer, visits, max_length=None, side="right", marked=True) -> tuple[list, list, list]:
    """Ids, weights and visit ids of one history, a code at a time."""
    codes = [(number, code) for number, visit in enumerate(visits) for code in visit]
    while True:
        ids, weights, visit_ids = ([tokenizer.cls_token_id], [1.0], [0]) if marked else ([], [], [])
        count, last = 0, None
        for place, (number, code) in enumerate(codes):
            count += number != last
            known = code in tokenizer
            ids += tokenizer.encode(code) if known else [tokenizer.unk_token_id] * WIDTH
            weights += tokenizer.look_up(code).weights.tolist() if known else [1 / K] * WIDTH
            visit_ids += [count] * WIDTH
            if marked and (place + 1 == len(codes) or codes[place + 1][0] != number):
                ids, weights, visit_ids = [*ids, tokenizer.sep_token_id], [*weights, 1.0], [*visit_ids, count]
            last = number
        if max_length is None or len(ids) <= max_length or not codes:
            return ids, weights, visit_ids
        codes = codes[:-1] if side == "right" else codes[1:]


def check_padded(tokenizer, padded, wanted, padding_side) -> None:
    """Compare arrays, padded on a side, with ids, weights and (for patients) visit ids of each row."""
    longest = max(len(row[0]) for row in wanted)
    assert padded.input_ids.shape == (len(wanted), longest)
    for row, (ids, weights, visits) in enumerate(wanted):
        here = slice(None, len(ids)) if padding_side == "right" else slice(longest - len(ids), None)
        mask = np.zeros(longest, bool)
        mask[here] = True
        assert padded.attention_mask[row].tolist() == mask.astype(int).tolist()
        assert padded.input_ids[row][mask].tolist() == ids
        np.testing.assert_allclose(padded.weights[row][mask], weights, rtol=1e-6)
        assert (padded.input_ids[row][~mask] == tokenizer.pad_token_id).all()
        assert (padded.weights[row][~mask] == 0).all()
        if "visit_ids" in padded:
            assert padded.visit_ids[row][mask].tolist() == visits
            assert (padded.visit_ids[row][~mask] == 0).all()


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("max_length", [None, WIDTH + 2, 3 * WIDTH + 3, 50])
def test_patients(tokenizer, marked, side, max_length):
    rng = random.Random(0)
    codes = [*KEYS, "nonsense", None]

    def draw():
        return [rng.choices(codes, k=rng.randint(0, 4)) for _ in range(rng.randint(0, 5))]

    patients = [[], [[]], [[], ["E11.9"]], *(draw() for _ in range(60))]
    options = {"add_special_tokens": marked, "truncation": max_length is not None, "max_length": max_length}
    options |= {"truncation_side": side, "return_weights": True}
    ragged = tokenizer.encode_patients(patients, **options)
    wanted = [sequence(tokenizer, patient, max_length, side, marked) for patient in patients]
    for row, (ids, weights, visits) in enumerate(wanted):
        assert ragged.input_ids[row] == ids
        assert ragged["visit_ids"][row] == visits
        np.testing.assert_allclose(ragged.weights[row], weights, rtol=1e-6)
        assert ragged.attention_mask[row] == [1] * len(ids)
    for padding_side in ("right", "left"):
        padded = tokenizer.encode_patients(
            patients, padding=True, padding_side=padding_side, return_tensors="np", **options
        )
        check_padded(tokenizer, padded, wanted, padding_side)


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("max_length", [None, WIDTH + 2, 3 * WIDTH + 3, 50])
def test_sequences(tokenizer, marked, side, max_length):
    """A sequence of codes is that of a patient with a single visit, but for one that is empty."""
    rng = random.Random(1)
    sequences = [rng.choices([*KEYS, "nonsense", None], k=rng.randint(1, 9)) for _ in range(60)]
    options = {"add_special_tokens": marked, "truncation": max_length is not None, "max_length": max_length}
    options |= {"truncation_side": side, "return_weights": True}
    wanted = [sequence(tokenizer, [codes], max_length, side, marked) for codes in sequences]
    ragged = tokenizer(sequences, **options)
    assert set(ragged) == {"input_ids", "attention_mask", "weights"}
    assert ragged.input_ids == [ids for ids, _, _ in wanted]
    for padding_side in ("right", "left"):
        padded = tokenizer(sequences, padding=True, padding_side=padding_side, return_tensors="np", **options)
        check_padded(tokenizer, padded, wanted, padding_side)


def test_one_patient_is_a_row_of_many(tokenizer):
    visits = [["E11.9", "250.00"], ["S72.001A"]]
    one, many = tokenizer.encode_patient(visits), tokenizer.encode_patients([visits])
    assert set(one) == {"input_ids", "attention_mask", "visit_ids"}
    for name, row in one.items():
        assert row == many[name][0]
    assert tokenizer.encode_patient(visits, return_tensors="np").input_ids.shape == (1, 3 * WIDTH + 3)
    assert len(tokenizer.encode_patient(visits, padding="max_length", max_length=40).input_ids) == 40


def test_writing_into_a_batch_does_not_change_the_tokenizer(tokenizer):
    before = tokenizer.encode("E11.9")
    options = {"return_tensors": "np", "return_weights": True}
    for batch in (
        tokenizer("E11.9", **options),
        tokenizer(["E11.9"], **options),
        tokenizer.encode_patients([[["E11.9"]]], **options),
    ):
        batch.input_ids[...] = 0
        batch.weights[...] = 0
    tokenizer.look_up("E11.9").ids[...] = 0
    tokenizer.encode_many(["E11.9"])[...] = 0
    tokenizer.encode("E11.9")[0] = 0
    assert tokenizer.encode("E11.9") == before
    with pytest.raises(ValueError, match="read-only"):
        tokenizer.codebook[0] = 0


def test_tensors(tokenizer):
    patients = [[["E11.9"], ["nonsense"]], [["250.00"]]]
    options = {"padding": True, "return_weights": True}
    plain = tokenizer.encode_patients(patients, **options, return_tensors="np")
    lists = tokenizer.encode_patients(patients, **options)
    in_torch = tokenizer.encode_patients(patients, **options, return_tensors="pt")
    for name, array in plain.items():
        assert array.dtype == (np.float32 if name == "weights" else np.int32)
        assert lists[name] == array.tolist()
        assert in_torch[name].dtype == (torch.float32 if name == "weights" else torch.int64)
        np.testing.assert_array_equal(in_torch[name].numpy(), array)
        assert jax.numpy.asarray(array).dtype == array.dtype, "JAX takes NumPy arrays as they are"
    assert tokenizer("E11.9", return_tensors="pt").input_ids.shape == (1, WIDTH)
    with pytest.raises(InputError, match="set padding=True"):
        tokenizer.encode_patients(patients, return_tensors="np")


def test_lengths(tokenizer):
    """`max_length`, `pad_to_multiple_of` and the length of the model."""
    padded = tokenizer(["E11.9"], padding="max_length", max_length=WIDTH + 3, return_tensors="np")
    assert padded.input_ids.shape == (1, WIDTH + 3)
    codes = [["E11.9"], ["E11.9", "E10.9"]]
    rounded = tokenizer(codes, padding=True, pad_to_multiple_of=10, return_tensors="np")
    assert rounded.input_ids.shape == rounded.attention_mask.shape == (2, 20)
    assert rounded.attention_mask.sum(1).tolist() == [WIDTH, 2 * WIDTH]
    assert [len(row) for row in tokenizer(codes, pad_to_multiple_of=10).input_ids] == [WIDTH, 2 * WIDTH]
    limited = MedTokTokenizer.from_pretrained(tokenizer.directory.path, model_max_length=WIDTH)
    assert [len(row) for row in limited(codes, truncation=True).input_ids] == [WIDTH, WIDTH]
    assert "attention_mask" not in tokenizer(codes, return_attention_mask=False)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"padding": "longst"}, "padding is 'longst'; it must be one of False, True, 'longest', 'max_length'"),
        ({"padding": 1}, "padding is 1"),
        ({"truncation": True}, "need max_length"),
        ({"truncation": "only_second", "max_length": 99}, "truncation is 'only_second'"),
        ({"padding": "max_length"}, "need max_length"),
        ({"truncation": True, "max_length": WIDTH + 1}, f"must be at least {WIDTH + 2}, the tokens of one code"),
        ({"max_length": "512"}, "it must be a number of tokens"),
        ({"max_length": True}, "it must be a number of tokens"),
        ({"max_length": 0}, "it must be a number of tokens"),
        ({"padding": True, "pad_to_multiple_of": -8}, "pad_to_multiple_of is -8; it must be a number of tokens"),
        ({"return_tensors": "tf"}, "return_tensors is 'tf'"),
        ({"return_tensors": "jax"}, "return_tensors is 'jax'; it must be one of None, 'np', 'pt'"),
        ({"padding_side": "up"}, "padding_side is 'up'"),
        ({"errors": "ignore"}, "errors is 'ignore'; it must be one of 'raise', 'unk', 'skip'"),
        ({"fallback": "parents"}, "fallback is 'parents'; it must be None or 'ancestors'"),
    ],
)
def test_options_that_are_none(tokenizer, options, sentence):
    with pytest.raises(InputError, match=sentence):
        tokenizer.encode_patients([[["E11.9"]]], **options)
    with pytest.raises(InputError, match=sentence):
        tokenizer([["E11.9"]], **({"add_special_tokens": True} | options))


def test_an_option_that_is_unheard_of(tokenizer):
    for call in (tokenizer, tokenizer.encode, tokenizer.encode_patient, tokenizer.encode_patients):
        with pytest.raises(TypeError, match="unexpected keyword argument 'max_len'"):
            call([["E11.9"]], max_len=3)
