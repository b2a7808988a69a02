"""Draw a sample of codes by one rule, for the option `sample_<n>` of a data set and for `data.sample_size` alike."""

from collections.abc import Sequence

import numpy as np

from preprocessing.common.errors import InputError
from preprocessing.common.hashing import hash_strings

# Characters of a code that its family has in common: a category, in the ICD systems.
FAMILY = 3


def sample(keys: Sequence[str], size: int, include: Sequence[str] = ()) -> np.ndarray:
    """Draw codes by stable hash, one family after the other; the last family is cut to fit.

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
    if wanted.sum() > size:
        raise InputError(f"data.include matches {wanted.sum()} codes, more than data.sample_size={size}.")
    order = np.lexsort((hash_strings("", keys), hash_strings("", map(family_of, keys)), ~wanted))
    return np.sort(order[:size])


def family_of(key: str) -> str:
    """Return the family of a code, `SYSTEM/` and the first three characters of the code."""
    system, _, code = key.partition("/")
    return f"{system}/{code[:FAMILY]}"
