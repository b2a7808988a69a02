"""The one rule by which codes are sampled: stable, of whole families, and the same for data sets and configurations."""

import json
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.common.errors import InputError
from preprocessing.dataset.inputs import sampled
from preprocessing.dataset.name import parse_name
from preprocessing.dataset.sample import HELD_FILE, HELD_SHARE, family_of, held_codes, sample


@pytest.fixture(scope="module")
def keys(vocabulary) -> list[str]:
    return [record.key for record in vocabulary]


@pytest.mark.parametrize("size", [1, 120, 2000, 20_000])
def test_a_sample_is_of_whole_families_and_rising(keys, size):
    found = sample(keys, size)
    assert len(found) == size
    assert (np.diff(found) > 0).all()
    held = set(held_codes()[: size // HELD_SHARE])
    assert held <= {keys[row] for row in found}
    rest = [key for key in keys if key not in held]
    whole, drawn = (
        Counter(map(family_of, rest)),
        Counter(family_of(keys[row]) for row in found if keys[row] not in held),
    )
    assert sum(count < whole[name] for name, count in drawn.items()) <= 1, "whole families, but for the last"


def test_a_larger_sample_contains_a_smaller_one(keys):
    assert set(sample(keys, 60)) < set(sample(keys, 120))


# Codes of every kind that a sample treats in its own way, in few families.
_KEYS = [*held_codes()[::4], *(f"ICD10CM/{stem}.{end}" for stem in ("E11", "I10", "J99", "Q00") for end in range(40))]


@given(
    keys=st.permutations(sorted(set(_KEYS))),
    sizes=st.tuples(st.integers(1, 150), st.integers(1, 150)).map(sorted),
    include=st.sampled_from([(), ("ICD10CM/Q00.1",), ("ICD10CM/Q00.1", "ICD10CM/E11.0")]),
)
def test_samples_are_nested_also_drawn_from_a_sample(keys, sizes, include):
    smaller, larger = ([keys[row] for row in sample(keys, max(size, 12), include)] for size in sizes)
    assert set(smaller) <= set(larger)
    assert {larger[row] for row in sample(larger, len(smaller), include)} == set(smaller)
    assert {key for key in keys if key.startswith(include)} <= set(smaller) if include else True
    held = [key for key in held_codes() if key in keys]
    # Codes of `include` come first, and need not leave room for all.
    wanted = 0 if not include else sum(key.startswith(include) for key in keys)
    assert set(held[: min(len(larger) // HELD_SHARE, len(larger) - wanted)]) <= set(larger)


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


def test_the_held_codes_are_codes_and_name_their_sources(keys):
    content = json.loads(HELD_FILE.read_text(encoding="utf-8"))
    assert set(held_codes()) <= set(keys)
    assert len(set(content["documented"])) == len(content["documented"])
    common = content["common_diagnoses"]
    assert len(set(common["keys"])) == len(common["keys"]) == 200
    assert [name in source for name, source in zip(("MIMIC-III", "eICU"), common["sources"], strict=True)] == [True] * 2
    assert all("ODbL" in source for source in common["sources"])
    assert set(common) == {"sources", "rule", "keys"}
    assert not re.search(r"\d{5,}", " ".join(key.partition("/")[2] for key in common["keys"]))


def test_a_sample_of_the_quickstart_holds_all_of_them(keys):
    held = set(held_codes())
    assert len(held) > 200
    assert held <= {keys[row] for row in sample(keys, 12_000)}
    assert held <= {keys[row] for row in sample(keys, 2000, ("ICD10CM/E11", "ICD10CM/E10"))}
    assert {"ICD10CM/I10", "ICD9CM/401.9", "ICD9CM/428.0"} <= held
