"""A tokenizer that knows nothing must not look as if it did: the metrics can fail."""

import numpy as np
import pytest

from eval import tokenization
from eval.baselines import chance
from eval.common.intervals import interval
from eval.quality import seed_stability
from eval.quality.context import Context
from eval.quality.groups import MACRO_ACCURACY
from eval.quality.relations import AUC, HITS
from eval.quality.tree_metrics import RANK_CORRELATION, SAME_CATEGORY, SIBLINGS
from tests.helpers import hand_world

# What each metric is expected to be of tokens that know nothing, in the hand-made vocabulary.
SIZES = {"ICD10CM": 600, "ICD9CM": 360}
# A category has 10 or 6 codes of the system.
SAME = {"ICD10CM": 9 / 599, "ICD9CM": 5 / 359}
# Of the 590 codes of other categories 10 are wanted: 1 - C(580, 10) / C(590, 10).
NOTES = 1 - np.prod([(580 - i) / (590 - i) for i in range(10)])


def expected(figure: dict) -> float | None:
    metric, scope = figure["metric"], figure["scope"]
    if metric.startswith("R@"):
        return int(metric[2:]) / SIZES[scope.split(" to ")[1].split(",")[0]]
    if metric == "MRR":
        size = SIZES[scope.split(" to ")[1].split(",")[0]]
        return float((1 / np.arange(1, size + 1)).mean())
    known = {SIBLINGS: 0.5, RANK_CORRELATION: 0.0, AUC: 0.5, HITS: NOTES, MACRO_ACCURACY: 1 / 6}
    # Over all systems the shares of the systems depend on how many codes of each were drawn.
    return SAME.get(scope, figure["chance"]) if metric == SAME_CATEGORY else known.get(metric)


@pytest.fixture(scope="module")
def judged():
    labels, whole = hand_world.labels(), hand_world.representation()
    kinds = {"whole": whole, "shuffled": chance.shuffled(whole), "constant": chance.constant(whole)}
    return {name: tokenization.judge(one, labels)["figures"] for name, one in kinds.items()}


def test_what_is_whole_is_far_above_chance(judged):
    """Else the other tests would show nothing."""
    above = [f for f in judged["whole"] if expected(f) is not None]
    assert len(above) > 50
    assert not [f for f in above if f["metric"] != HITS and f["value"] <= expected(f)]
    # Few tokens of a few dozen edges tell less than vectors do.
    sharp = [f for f in above if f["metric"] != HITS and "tokens" not in f["view"]]
    assert not [f for f in sharp if f["low"] <= expected(f)]
    best = {(f["metric"], f["scope"]): f["value"] for f in above if f["view"] == "unquantized"}
    assert best["R@1", "ICD9CM to ICD10CM"] > 0.95
    assert best[SAME_CATEGORY, "ICD10CM"] > 0.9
    assert best[MACRO_ACCURACY, "CCSR"] > 0.8
    assert best[AUC, "all notes"] > 0.9


@pytest.mark.parametrize("broken", ["shuffled", "constant"])
def test_broken_tokenizers_score_at_chance(judged, broken):
    figures = [f for f in judged[broken] if expected(f) is not None]
    assert {f["metric"] for f in figures} >= {
        "R@1",
        "R@10",
        "MRR",
        SAME_CATEGORY,
        RANK_CORRELATION,
        SIBLINGS,
        AUC,
        HITS,
    }
    assert MACRO_ACCURACY in {f["metric"] for f in figures}
    for figure in figures:
        wanted = expected(figure)
        if broken == "constant":
            # No order of rows helps: what is tied is worth exactly what chance gives.
            assert figure["value"] == pytest.approx(wanted, abs=1e-6), figure
        else:
            spread = max(figure["high"] - figure["low"], 0.02)
            assert abs(figure["value"] - wanted) < 2 * spread, figure


def test_identity_and_codebook_tell_constant_tokens(judged):
    figures = {(f["metric"], f["scope"]): f["value"] for f in judged["constant"]}
    assert figures["collisions made by the model", "ordered tuple"] == 1
    assert figures["perplexity", "first"] == pytest.approx(3)
    assert figures["utilization", "first"] == pytest.approx(3 / hand_world.ROWS)
    # Shuffling moves tokens to other codes, and changes neither their number nor how often they are used.
    for name in ("collisions made by the model", "utilization", "perplexity"):
        whole, shuffled = (
            {f["scope"]: f["value"] for f in judged[kind] if f["metric"] == name and ", " not in f["scope"]}
            for kind in ("whole", "shuffled")
        )
        assert whole == pytest.approx(shuffled)


def test_stability_of_constant_and_shuffled_tokens_is_none():
    labels, whole = hand_world.labels(), hand_world.representation()
    constant, shuffled = chance.constant(whole), chance.shuffled(whole)
    for first, second in ((constant, constant), (whole, shuffled), (whole, constant), (constant, whole)):
        for measurement in seed_stability.measure(Context(first, labels), [second]):
            assert abs(interval(measurement).value) < 0.02, (first.name, second.name, measurement.name)
    for measurement in seed_stability.measure(Context(whole, labels), [whole]):
        # Less than one where neighbors are tied.
        assert interval(measurement).value > 0.7
