"""Compute stable hashes: the same on every machine and in every process, unlike Python's `hash()`."""

import hashlib
from collections.abc import Iterable

import numpy as np


def hash_string(salt: str, text: str) -> int:
    """Return the unsigned 64-bit BLAKE2b hash of `text` under `salt`."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=salt.encode()[:64]).digest(), "little")


def hash_strings(salt: str, texts: Iterable[str]) -> np.ndarray:
    """Return `hash_string` of each text: uint64 [n]."""
    return np.fromiter((hash_string(salt, text) for text in texts), dtype=np.uint64)


def uniform(hashes: np.ndarray) -> np.ndarray:
    """Map uint64 hashes to float64 in [0, 1), keeping the 53 bits that a double holds."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53


def mix(values: np.ndarray) -> np.ndarray:
    """Scatter neighboring ids, uint64 [n], by a bijection: the finalizer of SplitMix64 (Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        x = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
