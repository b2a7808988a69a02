"""Ragged arrays as one flat array and offsets: row i is `flat[offsets[i]:offsets[i + 1]]`."""

import numpy as np


def offsets_of(counts: np.ndarray) -> np.ndarray:
    """Return the `[rows + 1]` int64 offsets of rows of the given lengths."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def positions(offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the elements of some rows lie in the flat array.

    Returns:
        `[elements]` int64 positions, row after row, and the `[rows]` number of elements of each row.
    """
    starts = np.asarray(offsets[rows])
    counts = np.asarray(offsets[rows + 1]) - starts
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts), counts


def take(flat: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the elements of some rows, row after row, and the number of elements of each."""
    where, counts = positions(offsets, rows)
    return flat[where], counts
