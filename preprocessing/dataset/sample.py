"""Draw a sample of codes by one rule, for the option `sample_<n>` of a data set and for `data.sample_size` alike."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from preprocessing.common.errors import InputError
from preprocessing.common.hashing import hash_strings

# Characters of a code that its family has in common: a category, in the ICD systems.
FAMILY = 3
# Codes that samples hold: those that the documentation looks up, and the commonest diagnoses of open demos of patient
# records (see `preprocessing.common_diagnoses`), the most wanted first.
HELD_FILE = Path(__file__).with_name("held_codes.json")
# They take at most this part of a sample.
HELD_SHARE = 9


def sample(keys: Sequence[str], size: int, include: Sequence[str] = ()) -> np.ndarray:
    """Draw codes: what `include` names, codes of `HELD_FILE`, then families by stable hash, the last one cut to fit.

    A family is the codes of a system that begin with the same three characters (an ICD category). Sampled one by one,
    codes would lose their siblings, and nearly every node of the graph would be in use, its name to be encoded. The
    choice depends on the keys alone, not on their order, and a larger sample contains a smaller one.

    Args:
        keys: `SYSTEM/code` of each code.
        size: number of codes to draw; 0, or as many as there are, for all.
        include: keys or prefixes of keys (with or without the dot) that the sample contains in any case.

    Returns:
        Positions of the drawn codes, rising, int64 [size].

    Raises:
        InputError: a prefix matches no key, or the prefixes match more codes than `size`.
    """
    if not size or size >= len(keys):
        return np.arange(len(keys))
    plain = np.char.replace(np.asarray(keys).astype(str), ".", "")
    wanted = np.zeros(len(keys), bool)
    for prefix in include:
        matches = np.char.startswith(plain, prefix.replace(".", ""))
        if not matches.any():
            raise InputError(f"data.include names {prefix!r}, but no key begins with it; keys look like ICD10CM/E11.9.")
        wanted |= matches
    included = int(wanted.sum())
    if included > size:
        raise InputError(f"data.include matches {included} codes, more than data.sample_size={size}.")
    wanted[held_rows(keys)[: min(size // HELD_SHARE, size - included)]] = True
    order = np.lexsort((hash_strings("", keys), hash_strings("", map(family_of, keys)), ~wanted))
    return np.sort(order[:size])


def held_rows(keys: Sequence[str]) -> np.ndarray:
    """Return the positions of those `keys` that are in `HELD_FILE`, in the order of that file, int64."""
    row_of = {key: row for row, key in enumerate(keys)}
    return np.array([row_of[key] for key in held_codes() if key in row_of], np.int64)


@functools.cache
def held_codes() -> tuple[str, ...]:
    """Return the keys of `HELD_FILE` without repeats: those of the documentation, then the commonest diagnoses."""
    content = json.loads(HELD_FILE.read_text(encoding="utf-8"))
    return tuple(dict.fromkeys([*content["documented"], *content["common_diagnoses"]["keys"]]))


def family_of(key: str) -> str:
    """Return the family of a code, `SYSTEM/` and the first three characters of the code."""
    system, _, code = key.partition("/")
    return f"{system}/{code[:FAMILY]}"
