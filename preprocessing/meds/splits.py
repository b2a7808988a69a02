"""Split patients into train, tuning and held-out, 80/10/10 by a stable hash, so that no release moves a patient."""

import numpy as np

from preprocessing.common.hashing import mix, uniform

# The names of MEDS 0.4.
TRAIN, TUNING, HELD_OUT = SUBJECT_SPLITS = ("train", "tuning", "held_out")
FRACTIONS = (0.8, 0.1, 0.1)
_BOUNDS = np.cumsum(FRACTIONS)[:-1]
# A salt of its own makes the splits independent of other uses of the hash.
_SALT = np.uint64(0x6D656473)


def split_of(subject_ids: np.ndarray) -> np.ndarray:
    """Return the position in `SUBJECT_SPLITS` of each subject id, int64 [n] -> int8 [n], by the id alone."""
    hashes = mix(mix(np.asarray(subject_ids).astype(np.int64).view(np.uint64)) ^ _SALT)
    return np.searchsorted(_BOUNDS, uniform(hashes), side="right").astype(np.int8)
