"""From token ids back to codes: as text, as neighbors, and for any id that a model may bring."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medtok_jax import MedTokTokenizer, UnknownCodeWarning
from preprocessing.common.errors import InputError
from tests.helpers.small_tokenizer import KEYS, REGIONS, K, write

WIDTH = 4 * K
ANY_ID = st.one_of(st.integers(-200, 80), st.integers(-(2**63), 2**63))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> MedTokTokenizer:
    return MedTokTokenizer.from_pretrained(write(tmp_path_factory.mktemp("tokenizer") / "tok"))


def test_nearest_gives_the_code_back(tokenizer):
    for key in KEYS:
        found = tokenizer.nearest(tokenizer.encode(key))
        assert [(n.key, n.score, n.description) for n in found] == [(key, pytest.approx(1.0), f"what {key} means")]
        assert tokenizer.decode(tokenizer.encode(key)) == key
        shares = tokenizer.similarity.shares(tokenizer.look_up(key).weights[None])[0]
        weighted = tokenizer.nearest(tokenizer.encode(key), 2, weights=shares)
        assert (weighted[0].key, weighted[0].score) == (key, pytest.approx(1.0))
    one = tokenizer.encode("E11.9")[:1]
    holders = {key for key in KEYS if one[0] in tokenizer.encode(key)}
    assert {n.key for n in tokenizer.nearest(one, 99)} == holders
    assert tokenizer.nearest([tokenizer.cls_token_id, tokenizer.pad_token_id]) == []
    assert tokenizer.nearest([]) == []
    with pytest.raises(InputError, match="3 weights for 1 tokens"):
        tokenizer.nearest(one, weights=[1, 1, 1])


def test_the_codes_of_a_history(tokenizer):
    with pytest.warns(UnknownCodeWarning):
        history = tokenizer.encode_patient([["E11.9", "nonsense"], ["250.00"]]).input_ids
    found = tokenizer.nearest_codes(history)
    assert [[n.key for n in code] for code in found] == [["ICD10CM/E11.9"], [], ["ICD9CM/250.00"]]
    assert [len(code) for code in tokenizer.nearest_codes(history, 3)] == [3, 0, 3]
    assert tokenizer.decode(history) == "[CLS] ICD10CM/E11.9 [UNK] [SEP] ICD9CM/250.00 [SEP]"
    assert tokenizer.decode(history, skip_special_tokens=True) == "ICD10CM/E11.9 ICD9CM/250.00"
    assert tokenizer.nearest_codes([]) == []
    assert tokenizer.decode([]) == ""


def test_a_batch_with_padding_and_labels(tokenizer):
    """Labels are -100 where nothing is to be predicted, and an embedding matrix may have more rows than tokens."""
    batch = tokenizer.encode_patients([[["E11.9"], ["E10.9"]], [["E11"]]], padding=True, return_tensors="np")
    texts = ["[CLS] ICD10CM/E11.9 [SEP] ICD10CM/E10.9 [SEP]", "[CLS] ICD10CM/E11 [SEP]" + " [PAD]" * (WIDTH + 1)]
    codes = ["ICD10CM/E11.9 ICD10CM/E10.9", "ICD10CM/E11"]
    assert tokenizer.batch_decode(batch.input_ids) == texts
    for ids in (
        batch.input_ids,
        batch.input_ids.tolist(),
        torch.tensor(batch.input_ids),
        np.where(batch.input_ids < REGIONS.size, batch.input_ids, -100),
        np.where(batch.input_ids == tokenizer.pad_token_id, tokenizer.vocab_size + 22, batch.input_ids),
    ):
        assert tokenizer.batch_decode(ids, skip_special_tokens=True) == codes
        assert tokenizer.decode(ids, skip_special_tokens=True) == codes
        assert tokenizer.batch_decode(list(ids), skip_special_tokens=True) == codes
    assert tokenizer.batch_decode([[-100, -100], []], skip_special_tokens=True) == ["", ""]
    assert tokenizer.decode([-100]) == "[PAD]"
    assert tokenizer.convert_ids_to_tokens([0, 12, 22, 37, 41, 999]) == [
        *("<text_0>", "<graph_12>", "<shared_22>", "[UNK]", "[UNK]", "[UNK]")
    ]


@given(rows=st.lists(st.lists(ANY_ID, max_size=20), max_size=3), skip=st.booleans())
def test_no_id_raises(tokenizer, rows, skip):
    texts = tokenizer.batch_decode(rows, skip_special_tokens=skip)
    assert texts == [tokenizer.decode(row, skip_special_tokens=skip) for row in rows]
    for text, row in zip(texts, rows, strict=True):
        words = text.split()
        assert set(words) <= {*KEYS, "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
        assert not (skip and any(word.startswith("[") for word in words))
        held = [n for n in row if 0 <= n < REGIONS.size and len(tokenizer.similarity.codes_with(n))]
        assert bool(tokenizer.nearest(row)) == bool(held)
        keys = [[n.key for n in near] for near in tokenizer.nearest_codes(row)]
        assert [word for word in words if word in KEYS] == [key for near in keys for key in near]


def test_a_single_id(tokenizer):
    assert tokenizer.decode(tokenizer.cls_token_id) == "[CLS]"
    for one in (1, np.int32(1), torch.tensor(1), np.array(1)):
        assert tokenizer.decode(one) in KEYS


@pytest.mark.parametrize(
    "ids",
    [[1.5], ["<text_1>"], None, [None], [True], ["1"], "1", {1}, [[1], ["a"]], np.array([1.0]), [np.bool_(True)]],
    ids=repr,
)
def test_what_cannot_be_decoded(tokenizer, ids):
    for call in (tokenizer.decode, tokenizer.batch_decode, tokenizer.nearest, tokenizer.nearest_codes):
        with pytest.raises(InputError, match="oken id"):
            call(ids)
