"""Make a text encoder with the shape of bert-base-uncased and random weights, as fast as the real one, and states."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from medtok_jax.text.cache import DTYPES, TextCache
from medtok_jax.text.encoder_files import EMBEDDED, TextTokenizer, resolve_text_encoder
from preprocessing.common.atomic import whole_file, write_json

# `tiny` is for tests.
SHAPES = {
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "tiny": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64},
}
VOCABULARY, POSITIONS = 30522, 512


def write_encoder(folder: Path, shape: str, *, seed: int = 0) -> Path:
    """Write the directory of an encoder in the layout of Hugging Face, unless it exists, and return it.

    The wordpieces are those of the embedded encoder and of bert-base-uncased.

    Args:
        folder: parent directory.
        shape: a key of `SHAPES`.
        seed: seed of the weights.
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
    # This file is written last, because it marks a complete directory.
    write_json(path / "config.json", config)
    return path


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


# Random rows; longer files repeat them.
BLOCK = 16_384


def random_states(
    encoder_dir: Path,
    cache_dir: Path,
    texts: list[str],
    names: list[str],
    *,
    max_length: int,
    dtype: str = "bfloat16",
    gelu: str = "exact",
    progress: bool = True,
    width: int,
    folder: Path | None,
) -> TextCache:
    """Return a text cache with the wordpieces of texts and random states, in place of encoding the texts.

    Args:
        encoder_dir, texts, names, max_length, dtype: see `medtok_jax.text.cache.open_or_encode`.
        cache_dir, gelu, progress: unused, for the same signature.
        width: width of the states.
        folder: folder of the file of states; None to repeat one state in memory, where no values are needed.
    """
    del cache_dir, gelu, progress
    kind = DTYPES[dtype]
    token_ids, offsets, num_cut = TextTokenizer(encoder_dir, max_length)(texts)
    drawn = np.random.default_rng(0).standard_normal((BLOCK, width), np.float32).astype(kind)
    rows, shape = np.arange(len(names) + 1) % BLOCK, (len(token_ids), width)
    return TextCache(
        states=np.broadcast_to(drawn[0], shape) if folder is None else _on_disk(drawn, shape, folder),
        offsets=offsets,
        token_ids=token_ids,
        name_embedding=drawn[rows],
        num_cut=num_cut,
    )


def _on_disk(drawn: np.ndarray, shape: tuple[int, int], folder: Path) -> np.memmap:
    """Return a memory-mapped file `[tokens, width]` that repeats the random rows, written unless it exists."""
    key = hashlib.sha256(json.dumps([*shape, str(drawn.dtype)]).encode()).hexdigest()
    path = folder / f"random-{key[:16]}.bin"
    if not path.exists():
        with whole_file(path) as partial, partial.open("wb") as file:
            for start in range(0, shape[0], BLOCK):
                file.write(drawn[: shape[0] - start].tobytes())
    return np.memmap(path, drawn.dtype, "r", shape=shape)
