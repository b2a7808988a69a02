"""Rename and transpose weights between Flax and `modeling_medtok`, exactly in both directions.

Both have the same module names. Flax stores kernels as `[in, out]` and PyTorch as `[out, in]`; `Bert` holds query, key
and value in one matrix and transformers' `BertModel` in three.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading

BERT = "text_encoder.bert."
_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
_BERT_MODULES = {
    "words": ["embeddings.word_embeddings"],
    "positions": ["embeddings.position_embeddings"],
    "token_types": ["embeddings.token_type_embeddings"],
    "norm": ["embeddings.LayerNorm"],
    "qkv": [f"attention.self.{part}" for part in ("query", "key", "value")],
    "attention_out": ["attention.output.dense"],
    "attention_norm": ["attention.output.LayerNorm"],
    "mlp_in": ["intermediate.dense"],
    "mlp_out": ["output.dense"],
    "mlp_norm": ["output.LayerNorm"],
}
_BERT_NAME = re.compile(r"(?:layers\.(\d+)\.)?(\w+)")


def torch_names(name: str) -> list[str]:
    """Return the PyTorch names of a Flax variable: one, or three for the joined query, key and value.

    Args:
        name: dotted name, as in `model.safetensors` of a tokenizer directory (`params.text_head.kernel`).
    """
    module, _, leaf = name.partition(".")[2].rpartition(".")
    leaf = _LEAVES.get(leaf, leaf)
    if not f"{module}.".startswith(BERT):
        return [f"{module}.{leaf}" if module else leaf]
    layer, part = _BERT_NAME.fullmatch(module.removeprefix(BERT)).groups()
    layer = "" if layer is None else f"encoder.layer.{layer}."
    return [f"{BERT}{layer}{target}.{leaf}" for target in _BERT_MODULES[part]]


def to_torch(variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return all variables with the names and layouts of PyTorch."""
    weights = {}
    for name, array in variables.items():
        targets = torch_names(name)
        parts = np.split(array.T if name.endswith(".kernel") else array, len(targets))
        weights |= {target: np.ascontiguousarray(part) for target, part in zip(targets, parts, strict=True)}
    return weights


def to_flax(weights: Mapping[str, np.ndarray], names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return all variables with the names and layouts of Flax, undoing `to_torch`.

    Args:
        weights: weights of a PyTorch model.
        names: names of all variables of the Flax model.

    Raises:
        InputError: weights are missing or unexpected.
    """
    targets = {name: torch_names(name) for name in names}
    wanted = {target for group in targets.values() for target in group}
    if wanted != weights.keys():
        odd = min(wanted ^ weights.keys())
        problem = f"lack {odd}" if odd in wanted else f"hold {odd}, which the configuration does not have"
        raise InputError(f"The PyTorch weights {problem}; give the directory as save_pretrained wrote it.")
    joined = {name: np.concatenate([weights[target] for target in group]) for name, group in targets.items()}
    return {
        name: np.ascontiguousarray(array.T) if name.endswith(".kernel") else array for name, array in joined.items()
    }


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a safetensors file.

    Raises:
        InputError: the file cannot be read, or holds a dtype that NumPy does not have.
    """
    with reading(path, "safetensors with dtypes of NumPy", "save the model again"):
        return load_file(path)
