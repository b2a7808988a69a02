import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.common.ragged import offsets_of, positions, take

LISTS = st.lists(st.lists(st.integers(0, 99), max_size=4), min_size=1, max_size=6)


def flatten(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(list(itertools.chain.from_iterable(lists)), np.int64), offsets_of(
        np.array([len(row) for row in lists])
    )


@given(LISTS, st.data())
def test_rows_come_back_as_they_went_in(lists, data):
    flat, offsets = flatten(lists)
    rows = np.array(data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=8)), np.int64)
    wanted = [lists[row] for row in rows]
    found, counts = take(flat, offsets, rows)
    assert found.tolist() == list(itertools.chain.from_iterable(wanted))
    assert counts.tolist() == [len(row) for row in wanted]
    where, _ = positions(offsets, rows)
    assert flat[where].tolist() == found.tolist()


def test_offsets():
    np.testing.assert_array_equal(offsets_of([2, 0, 3]), [0, 2, 2, 5])
    np.testing.assert_array_equal(offsets_of([]), [0])
    # Counts of a small type do not overflow.
    assert offsets_of(np.full(300, 255, np.uint8))[-1] == 300 * 255
    assert offsets_of([1]).dtype == np.int64
