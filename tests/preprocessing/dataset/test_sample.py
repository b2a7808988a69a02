"""The one rule by which codes are sampled: stable, of whole families, and the same for data sets and configurations."""

from collections import Counter

import numpy as np
import pytest

from preprocessing.common.errors import InputError
from preprocessing.dataset.inputs import sampled
from preprocessing.dataset.name import parse_name
from preprocessing.dataset.sample import family_of, sample


@pytest.fixture(scope="module")
def keys(vocabulary) -> list[str]:
    return [record.key for record in vocabulary]


@pytest.mark.parametrize("size", [1, 120, 2000, 20_000])
def test_a_sample_is_of_whole_families_and_rising(keys, size):
    found = sample(keys, size)
    assert len(found) == size
    assert (np.diff(found) > 0).all()
    whole, drawn = Counter(map(family_of, keys)), Counter(family_of(keys[row]) for row in found)
    assert sum(count < whole[name] for name, count in drawn.items()) <= 1, "whole families, but for the last"


def test_a_larger_sample_contains_a_smaller_one(keys):
    assert set(sample(keys, 60)) < set(sample(keys, 120))


def test_the_choice_depends_on_keys_alone(keys):
    order = np.random.default_rng(0).permutation(len(keys))
    shuffled = [keys[row] for row in order]
    assert {shuffled[row] for row in sample(shuffled, 120)} == {keys[row] for row in sample(keys, 120)}


def test_the_codes_of_a_small_sample_never_change():
    """Saved tokens and results of runs on samples stay comparable: recorded on purpose."""
    keys = [f"{system}/{stem}{digit}" for system in ("A", "B") for stem in ("E11", "E12", "I10") for digit in "123"]
    found = [keys[row] for row in sample(keys, 5)]
    assert found == ["A/E111", "A/E112", "B/E121", "B/E122", "B/E123"]


@pytest.mark.parametrize("size", [0, 10_000_000])
def test_no_sample(keys, size):
    np.testing.assert_array_equal(sample(keys, size), np.arange(len(keys)))


@pytest.mark.parametrize("prefix", ["ICD10CM/E11.6", "ICD10CM/E116"])
def test_include(keys, prefix):
    found = {keys[row] for row in sample(keys, 100, (prefix,))}
    assert len(found) == 100
    wanted = {key for key in keys if key.startswith("ICD10CM/E11.6")}
    assert len(wanted) > 10
    assert wanted <= found


def test_include_that_cannot_be(keys):
    with pytest.raises(InputError, match=r"data\.include names 'NO/SUCH'.*ICD10CM/E11\.9"):
        sample(keys, 50, ("NO/SUCH",))
    count = sum(key.startswith("ICD9Proc/") for key in keys)
    with pytest.raises(InputError, match=rf"data\.include matches {count} codes, more than data\.sample_size=5\."):
        sample(keys, 5, ("ICD9Proc/",))


def test_the_option_of_a_data_set_draws_the_same_codes(vocabulary, keys):
    records, chosen = sampled(vocabulary, parse_name("medtok_codes/icd-sample_2000"))
    np.testing.assert_array_equal(chosen, sample(keys, 2000))
    assert [record.key for record in records] == [keys[row] for row in chosen]
    assert len(sampled(vocabulary, parse_name("medtok_codes/icd"))[0]) == len(vocabulary)
