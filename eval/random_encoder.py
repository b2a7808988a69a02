"""A text encoder of the shape of bert-base-uncased with random weights: as fast as the real one, from no download."""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from medtok_jax.text.encoder_files import EMBEDDED, resolve_text_encoder

# `tiny` is for tests.
SHAPES = {
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "tiny": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64},
}
VOCABULARY, POSITIONS = 30522, 512


def write_encoder(folder: Path, shape: str, *, seed: int = 0) -> Path:
    """Writes the directory, as Hugging Face lays it out, unless it is there; returns it.

    The wordpieces are those of the embedded encoder, which are bert-base-uncased's.
    """
    path = folder / shape
    if (path / "config.json").is_file():
        return path
    path.mkdir(parents=True, exist_ok=True)
    sizes, rng = SHAPES[shape], np.random.default_rng(seed)
    width, inner = sizes["hidden_size"], sizes["intermediate_size"]
    weights = {
        "embeddings.word_embeddings.weight": (VOCABULARY, width),
        "embeddings.position_embeddings.weight": (POSITIONS, width),
        "embeddings.token_type_embeddings.weight": (2, width),
        **_norm("embeddings.LayerNorm", width),
    }
    for layer in range(sizes["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}"
        for name, (rows, columns) in {
            "attention.self.query": (width, width),
            "attention.self.key": (width, width),
            "attention.self.value": (width, width),
            "attention.output.dense": (width, width),
            "intermediate.dense": (inner, width),
            "output.dense": (width, inner),
        }.items():
            weights |= {f"{prefix}.{name}.weight": (rows, columns), f"{prefix}.{name}.bias": (rows,)}
        weights |= _norm(f"{prefix}.attention.output.LayerNorm", width) | _norm(f"{prefix}.output.LayerNorm", width)
    arrays = {name: rng.normal(0, 0.02, shape).astype(np.float32) for name, shape in weights.items()}
    arrays |= {name: array + 1 for name, array in arrays.items() if name.endswith("LayerNorm.weight")}
    save_file(arrays, path / "model.safetensors")
    shutil.copyfile(resolve_text_encoder(EMBEDDED) / "tokenizer.json", path / "tokenizer.json")
    config = {"model_type": "bert", "vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS, **sizes}
    # Written last: it marks a whole directory.
    (path / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return path


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
