"""Split codes into train, validation and test: 80/10/10 within each code system.

A stable hash of a code's key, compared with thresholds, decides its split. The alternative, ranking hashes within a
system, would meet the fractions exactly, but would move codes between splits whenever a release adds or retires
others, and a code that a checkpoint was trained on could then be in a test set. With thresholds it never can. The cost
is sampling noise, which `_SALT` was chosen to keep small: on the embedded vocabulary every system is within 0.2
percentage points of 80/10/10.
"""

import numpy as np

from preprocessing.common.hashing import hash_strings, uniform

SPLITS = ("train", "validation", "test")
FRACTIONS = (0.8, 0.1, 0.1)
_SALT = "medtok_codes/18"
_BOUNDS = np.cumsum(FRACTIONS)[:-1]


def split_of(keys: list[str]) -> np.ndarray:
    """Return the position in `SPLITS` of each `SYSTEM/code` key, int8 [n], which depends only on the key."""
    return np.searchsorted(_BOUNDS, uniform(hash_strings(_SALT, keys)), side="right").astype(np.int8)
