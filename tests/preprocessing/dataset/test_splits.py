from collections import Counter

import numpy as np
import pytest

from preprocessing.codes import category_of
from preprocessing.dataset.splits import FRACTIONS, SPLITS, sample, split_of


@pytest.fixture(scope="module")
def splits(vocabulary):
    return split_of([record.key for record in vocabulary])


def test_fractions_hold_in_every_system(vocabulary, splits):
    systems = np.array([record.system for record in vocabulary])
    assert set(systems) == {"ICD10CM", "ICD10PCS", "ICD9CM", "ICD9Proc"}
    for system in set(systems):
        shares = np.bincount(splits[systems == system], minlength=3) / (systems == system).sum()
        assert np.abs(shares - FRACTIONS).max() < 0.002


def test_a_split_depends_on_the_key_alone(vocabulary, splits):
    keys = [record.key for record in vocabulary]
    assert np.array_equal(split_of(keys[::-1]), splits[::-1])
    assert np.array_equal(split_of(keys[5:50]), splits[5:50])
    assert SPLITS == ("train", "validation", "test")


def test_splits_of_these_codes_never_change():
    """A checkpoint's training codes must not turn up in a later test set: recorded on purpose."""
    keys = ["ICD10CM/E11.9", "ICD10CM/E10.9", "ICD9CM/250.00", "ICD10PCS/0016070", "ICD9Proc/00.01", "ICD9CM/401.9"]
    assert split_of(keys).tolist() == [0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("count", [1, 50, 1000, 20_000])
def test_sample_keeps_categories_whole(vocabulary, count):
    systems = [record.system for record in vocabulary]
    categories = [category_of(record) for record in vocabulary]
    chosen = sample(systems, categories, count)
    names = {categories[i] for i in chosen}
    assert chosen.tolist() == [i for i, name in enumerate(categories) if name in names]
    found = Counter(systems[i] for i in chosen)
    assert set(found) == set(systems)
    if count >= 1000:
        assert 0.97 * count < len(chosen) <= count
        for system, total in Counter(systems).items():
            assert abs(found[system] / len(chosen) - total / len(systems)) < 0.02


def test_a_larger_count_than_codes_takes_all():
    assert sample(["A", "A", "B"], ["A/1", "A/2", "B/1"], 100).tolist() == [0, 1, 2]
