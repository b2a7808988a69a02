"""Train, validation and test: 80/10/10 within each code system.

A code's split is a threshold on a stable hash of its key. The alternative, ranking hashes within a system, would hit
the fractions exactly, but would move codes between splits whenever a release adds or retires others, and a code that
a checkpoint was trained on could then turn up in a test set. Here it never can. The price is sampling noise, which
`_SALT` was chosen to keep small: on the embedded vocabulary every system is within 0.2 points of 80/10/10.
"""

import numpy as np

from preprocessing.common.hashing import hash_strings, uniform

SPLITS = ("train", "validation", "test")
FRACTIONS = (0.8, 0.1, 0.1)
_SALT = "medtok_codes/18"
_BOUNDS = np.cumsum(FRACTIONS)[:-1]


def split_of(keys: list[str]) -> np.ndarray:
    """Position in `SPLITS` of each `SYSTEM/code` key: int8 [n]. Depends on nothing but the key."""
    return np.searchsorted(_BOUNDS, uniform(hash_strings(_SALT, keys)), side="right").astype(np.int8)


def sample(systems: list[str], categories: list[str], count: int) -> np.ndarray:
    """Chooses about `count` codes by stable hash, whole categories only and each system in proportion.

    Args:
        systems: system of each code.
        categories: key of each code's category (`codes.category_of`).
        count: codes wanted.

    Returns:
        Sorted positions of the chosen codes, int64. Never more than `count` codes, unless a system's smallest category
        alone exceeds its share; a category that does not fit what is left of its system's share is passed over.
    """
    names, inverse, sizes = np.unique(categories, return_inverse=True, return_counts=True)
    system_of = np.empty(len(names), dtype=object)
    system_of[inverse] = systems
    order = np.argsort(hash_strings("sample", names.tolist()), kind="stable")
    chosen = np.zeros(len(names), dtype=bool)
    for system in sorted(set(systems)):
        mine = order[system_of[order] == system]
        share = max(1, int(count * sizes[mine].sum() / len(categories)))
        left = share
        for category in mine:
            if sizes[category] <= left:
                chosen[category] = True
                left -= sizes[category]
        if left == share:
            chosen[mine[np.argmin(sizes[mine])]] = True
    return np.flatnonzero(chosen[inverse])
