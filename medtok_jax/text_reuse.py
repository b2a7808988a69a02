"""Text states that another cache of the same encoder holds already: variants of a data set share most strings."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medtok_jax.ragged import positions

TEXTS, NAMES = "text_digests.npy", "name_digests.npy"
# Strings copied at once.
CHUNK = 8192


def digests(strings: Sequence[str]) -> np.ndarray:
    """`[strings, 2]` uint64, 128 bits that stand for each string."""
    joined = b"".join(hashlib.blake2b(string.encode(), digest_size=16).digest() for string in strings)
    return np.frombuffer(joined, "<u8").reshape(-1, 2)


def write_digests(folder: Path, texts: Sequence[str], names: Sequence[str]) -> None:
    """Tells of a cache which strings it holds."""
    np.save(folder / TEXTS, digests(texts))
    np.save(folder / NAMES, digests(names))


def find(wanted: np.ndarray, held: np.ndarray) -> np.ndarray:
    """`[wanted]` int64 row of each digest among those held, -1 where it is not."""
    if not len(held):
        return np.full(len(wanted), -1)
    order = np.argsort(held[:, 0], kind="stable")
    place = np.searchsorted(held[order, 0], wanted[:, 0])
    row = order[np.minimum(place, len(held) - 1)]
    return np.where((held[row] == wanted).all(1), row, -1)


def copy_states(cache, folder: Path, store, wanted: np.ndarray, missing: tuple[np.ndarray, np.ndarray]) -> None:
    """Copies what one cache holds of the missing strings, and marks it as there.

    Args:
        cache: `TextCache` to copy from. folder: where it lies.
        store: where encoded strings go, as `text_cache` opens it.
        wanted: `[strings, 2]` digests; the first strings are the descriptions.
        missing: `[descriptions]` and `[strings]` bool, whose token states and whose mean is missing; changed in place.
    """
    missing_states, missing_mean = missing
    of_text = np.flatnonzero(missing_states)
    row = find(wanted[of_text], np.load(folder / TEXTS))
    of_text, row = of_text[row >= 0], row[row >= 0]
    for start in range(0, len(row), CHUNK):
        part = slice(start, start + CHUNK)
        here, _ = positions(store.offsets, of_text[part])
        there, _ = positions(cache.offsets, row[part])
        store.states[here] = cache.states[there]
    missing_states[of_text] = False
    of_name = np.flatnonzero(missing_mean)
    row = find(wanted[of_name], np.load(folder / NAMES))
    of_name, row = of_name[row >= 0], row[row >= 0]
    store.pooled[store.name_row[of_name]] = cache.name_embedding[row + 1]
    missing_mean[of_name] = False
