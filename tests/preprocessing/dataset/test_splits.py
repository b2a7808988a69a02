import numpy as np
import pytest

from preprocessing.dataset.splits import FRACTIONS, SPLITS, split_of


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
