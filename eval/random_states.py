"""Text states of a given width filled with random numbers, in files as large as real ones: speed sees no values."""

import hashlib
import json
from pathlib import Path

import numpy as np

from medtok_jax.text.cache import DTYPES, TextCache
from medtok_jax.text.encoder_files import TextTokenizer

# Rows drawn; longer files repeat them.
BLOCK = 16_384


def random_states(
    encoder_dir: Path,
    cache_dir: Path,
    texts: list[str],
    names: list[str],
    *,
    max_length: int,
    dtype: str = "bfloat16",
    progress: bool = True,
    width: int,
    folder: Path | None,
) -> TextCache:
    """As `text_cache.open_or_encode` without the encoder: its wordpieces, random states.

    Args:
        encoder_dir, texts, names, max_length, dtype: as there. cache_dir, progress: not used.
        width: of the states.
        folder: where their file lies; None for one state that stands for all, where nothing is to be computed.
    """
    del cache_dir, progress
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
    """A file of `[tokens, width]` that repeats what was drawn; made unless it is there."""
    key = hashlib.sha256(json.dumps([*shape, str(drawn.dtype)]).encode()).hexdigest()
    path = folder / f"random-{key[:16]}.bin"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        with partial.open("wb") as file:
            for start in range(0, shape[0], BLOCK):
                file.write(drawn[: shape[0] - start].tobytes())
        partial.rename(path)
    return np.memmap(path, drawn.dtype, "r", shape=shape)
