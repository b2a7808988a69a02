"""Names and layouts of the variables in Flax and in `modeling_medtok`: nothing is computed, so both ways are exact.

Both name their modules alike. Flax keeps kernels as `[in, out]` and PyTorch as `[out, in]`; `Bert` holds query, key and
value in one matrix and transformers' `BertModel` in three.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from preprocessing.common.errors import InputError

# Flax collections in front of every name; which one a variable is of is told by the configuration.
COLLECTIONS = ("params.", "fixed.")
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
    """Names in PyTorch of a Flax variable: one, or three for query, key and value side by side.

    Args:
        name: dotted, as in `model.safetensors` of a tokenizer directory (`params.text_head.kernel`).
    """
    module, _, leaf = name.partition(".")[2].rpartition(".")
    leaf = _LEAVES.get(leaf, leaf)
    if not f"{module}.".startswith(BERT):
        return [f"{module}.{leaf}" if module else leaf]
    layer, part = _BERT_NAME.fullmatch(module.removeprefix(BERT)).groups()
    layer = "" if layer is None else f"encoder.layer.{layer}."
    return [f"{BERT}{layer}{target}.{leaf}" for target in _BERT_MODULES[part]]


def to_torch(variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All variables as PyTorch names and lays them out."""
    weights = {}
    for name, array in variables.items():
        targets = torch_names(name)
        parts = np.split(array.T if name.endswith(".kernel") else array, len(targets))
        weights |= {target: np.ascontiguousarray(part) for target, part in zip(targets, parts, strict=True)}
    return weights


def to_flax(weights: Mapping[str, np.ndarray], names: Iterable[str]) -> dict[str, np.ndarray]:
    """Undoes `to_torch`.

    Args:
        weights: of a PyTorch model.
        names: of all variables of the Flax model.

    Raises:
        InputError: weights are missing, or more than the model has.
    """
    targets = {name: torch_names(name) for name in names}
    wanted = {target for group in targets.values() for target in group}
    if wanted != weights.keys():
        odd = min(wanted ^ weights.keys())
        what = "lack" if odd in wanted else "hold what the configuration does not call for:"
        raise InputError(f"The PyTorch weights {what} {odd}; take the directory as save_pretrained wrote it.")
    joined = {name: np.concatenate([weights[target] for target in group]) for name, group in targets.items()}
    return {
        name: np.ascontiguousarray(array.T) if name.endswith(".kernel") else array for name, array in joined.items()
    }


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError, TypeError, KeyError) as error:
        raise InputError(f"{path} cannot be read as safetensors of numbers that NumPy knows ({error}).") from error
