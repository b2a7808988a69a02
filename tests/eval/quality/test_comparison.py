"""Comparisons: the paired bootstrap against a case worked by hand, what is common, what is written, what is refused."""

import dataclasses
import functools
import json
import weakref

import numpy as np
import pytest

from eval.common.measurement import Measurement
from eval.common.representation import Representation
from eval.quality.comparison import BETTER, INCONCLUSIVE, WORSE, common_codes, compare
from eval.reports import comparison
from eval.reports.headlines import HEADLINES
from preprocessing.common.errors import InputError
from tests.helpers.forked import run_module

HEADLINE = HEADLINES[0]


def representation(name: str, keys=("A/1", "A/2", "A/3")) -> Representation:
    return Representation(name, np.array(keys), np.array(keys), tokens=np.zeros((len(keys), 1), np.int32))


def measurement(values, *, items=None, better="higher", given="", metric=HEADLINE.metric) -> Measurement:
    values = np.asarray(values, float)
    items = np.arange(len(values)) if items is None else np.asarray(items)
    return Measurement(
        HEADLINE.family, metric, HEADLINE.view, HEADLINE.scope, "codes", items, values, better=better, given=given
    )


def openers(*names: str) -> list:
    return [functools.partial(representation, name) for name in names]


def compared(first: Measurement, second: Measurement):
    figures = {"first": first, "second": second}
    found = compare(openers("first", "second"), None, lambda one, _: [figures[one.name]], seed=0)
    (difference,) = found.differences
    return found, difference


def test_the_paired_bootstrap_of_two_items_by_hand():
    """Values (1, 0) and (0, 0): of the four draws of two items the difference is 0, 1/2, 1/2 and 1."""
    _, found = compared(measurement([1, 0]), measurement([0, 0]))
    assert found.interval == (0.5, 0.0, 1.0, 2)
    assert found.verdict == INCONCLUSIVE


def test_pairs_tell_apart_what_intervals_do_not():
    """Items differ much, tokenizers always by 0.1: the difference is certain although both intervals overlap."""
    values = np.arange(100) / 100
    found, difference = compared(measurement(values + 0.1), measurement(values))
    first, second = (found.intervals[name][HEADLINE.name] for name in ("first", "second"))
    assert first.low < second.high
    np.testing.assert_allclose(difference.interval[:3], 0.1, atol=1e-12)
    assert difference.verdict == BETTER
    _, lower = compared(measurement(values + 0.1, better="lower"), measurement(values, better="lower"))
    assert lower.verdict == WORSE
    _, neither = compared(measurement(values + 0.1, better=""), measurement(values, better=""))
    assert neither.verdict == ""


def test_only_items_that_both_have_are_compared():
    """Item 3 of the first and item 9 of the second have no partner."""
    _, found = compared(measurement([1, 1, 100], items=[1, 2, 3]), measurement([100, 0, 0], items=[9, 2, 1]))
    assert found.interval.value == 1.0
    assert found.interval.n == 2


def test_a_figure_that_one_lacks_is_not_compared():
    found = compare(
        openers("first", "second"),
        None,
        lambda one, _: [measurement([1, 2])] if one.name == "first" else [measurement([1, 2], metric="other")],
    )
    assert found.differences == []
    assert set(found.figures["second"]) != set(found.figures["first"])


def test_all_search_among_the_codes_that_all_hold():
    first, second = representation("first"), representation("second", ("A/0", "A/2", "A/3", "A/4"))
    seen = []

    def measure(one, _):
        seen.append(one.keys.tolist())
        return []

    found = compare([lambda: first, lambda: second], None, measure)
    assert seen == [["A/2", "A/3"]] * 2
    assert found.codes == 2
    with pytest.raises(InputError, match="two tokenizers are called first"):
        common_codes(["first", "first"], [first.keys, first.keys])
    with pytest.raises(InputError, match="no code in common"):
        common_codes(["first", "second"], [first.keys, np.array(["B/1"])])


def test_one_is_held_at_a_time():
    """The tokenizer opened before is freed when the next one is opened."""
    alive = []

    def open_it(name):
        assert not [ref for ref in alive if ref() is not None]
        opened = representation(name)
        alive.append(weakref.ref(opened))
        return opened

    compare([functools.partial(open_it, name) for name in "abc"], None, lambda one, _: [measurement([1, 2])])
    assert len(alive) == 6


def test_the_report(tmp_path):
    values = np.random.default_rng(0).random(50)
    found, _ = compared(measurement(values + 0.1, given="GIVEN"), measurement(values, given="GIVEN"))
    about = {"data_set": "medtok_codes/icd", "split": "test", "quick": False}
    text = comparison.markdown(found, about, "comparison.png")
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {HEADLINE.title}")]
    mean = values.mean()
    assert row.startswith(f"| {HEADLINE.title} | {mean + 0.1:.3f} [")
    assert row.endswith("] * ▲ |")
    assert "] * | " in row
    assert f"| {mean:.3f} [" in row
    content = json.loads(json.dumps(comparison.as_values(found, about)))
    assert content["codes"] == 3
    assert [one["n"] for one in content["figures"]["first"]] == [50]
    assert content["differences"][0]["verdict"] == BETTER
    assert content["differences"][0]["value"] == pytest.approx(0.1)
    comparison.draw(found, tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").stat().st_size > 10_000


def test_figures_of_several_seeds_are_means_by_item(tmp_path):
    """Seeds list their items in any order; the difference is that of the mean over seeds, item by item."""
    rng = np.random.default_rng(0)
    of = {name: rng.random(40) for name in ("one", "two", "three", "other")}
    order = rng.permutation(40)

    def measure(opened, _):
        at = order if opened.name == "two" else np.arange(40)
        return [measurement(of[opened.name][at], items=at)]

    found = compare(openers("one", "other"), None, measure, other_seeds=openers("two", "three"))
    mean = np.mean([of[name] for name in ("one", "two", "three")], axis=0)
    assert found.names == ["one", "other"]
    assert found.seeds[HEADLINE.name] == pytest.approx([of[name].mean() for name in ("one", "two", "three")])
    _, expected = compared(measurement(mean), measurement(of["other"]))
    assert found.differences[0].interval == pytest.approx(expected.interval)
    about = {"data_set": "medtok_codes/icd", "split": "test", "quick": False}
    assert "one are means over 3 seeds" in comparison.markdown(found, about, "comparison.png")
    content = comparison.as_values(found, about)["figures"]
    assert len(content["one"][0]["seeds"]) == 3
    assert "seeds" not in content["other"][0]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--baseline=nonsense"], "--baseline=nonsense is not a baseline; choose from: bert, "),
        (["--dataset=mimic3", "--task=mortality", "--baseline=bert", "--other_seeds=a"], "compares on codes"),
        (["--baseline=text_pursuit:few"], "must give a number of tokens behind the colon, such as text_pursuit:8."),
        ([], "there is nothing to compare first with"),
        (["--tokenizers=first,second", "--output=/dev/null/x"], "the folder /dev/null/x cannot be written"),
    ],
)
def test_bad_input(tmp_path, arguments, sentence):
    done = run_module("eval.compare", "--tokenizers=first", f"--output={tmp_path / 'out'}", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert not (tmp_path / "out").exists()


def test_marks_are_those_of_each_tokenizer():
    """The first was trained on the kind that is scored, and the graph of the second contains its labels."""
    first = dataclasses.replace(measurement([1, 0, 1]), trained="TRAINED on other pairs of this kind: gem_exact")
    found, _ = compared(first, measurement([0, 0, 1], given="GIVEN"))
    found.about["second"]["trials"] = 1
    text = comparison.markdown(found, {"data_set": "d", "split": "test", "quick": False}, "comparison.png")
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {HEADLINE.title}")]
    assert "] † | " in row
    assert row.endswith("] * = |")
    assert "Settings that were tried before these figures: second 1." in text
    assert comparison.as_values(found, {})["figures"]["first"][0]["trained"].startswith("TRAINED")
