import dataclasses

import numpy as np
import pytest

from eval.ehr import metrics
from eval.ehr.report import family, names
from eval.ehr.report.study import BETTER, NOISE, NOT_JUDGED, WORSE, Setup, analyze, verdict
from eval.ehr.statistics import AUPRC, BRIER, PairedDifference
from preprocessing.common.errors import InputError
from tests.helpers.ehr_cells import FAMILY, SKILLS, cell

FULL = FAMILY.setups[0]


def test_order_and_figures():
    cells = [cell(name, seed=seed) for name in reversed(SKILLS) for seed in (1, 0)]
    cells += [cell("codes", regime="few_shot", setting=f"k={k}") for k in (16, 2)]
    results = analyze(cells, "default")
    assert [(one.setup.regime, one.setup.setting) for one in results] == [
        ("full", ""),
        ("few_shot", "k=2"),
        ("few_shot", "k=16"),
    ]
    full = results[0]
    assert list(full.tokenizers) == ["default", "codes", "words", "text_pursuit", "shuffled", "default+words"]
    pair = [cell("words", seed=seed) for seed in (0, 1)]
    scores = [metrics.evaluate(one.y, one.p, one.kind, one.p_threshold) for one in pair]
    found = full.tokenizers["words"]
    assert found.draws[AUPRC].seeds == (0, 1)
    assert found.draws[AUPRC].values == pytest.approx([one.auprc for one in scores])
    assert found.scores.f1 == pytest.approx(np.mean([one.f1 for one in scores]))
    assert (full.samples, full.positives) == (400, pair[0].y.sum())
    assert full.persons == len(np.unique(pair[0].person))


def test_ranks_say_who_is_surely_better():
    cells = [cell(name) for name in SKILLS]
    found = analyze(cells, "default")[0]
    ranks = found.ranks()
    assert ranks["default"] == ranks["words"] == 1
    assert min(ranks["codes"], ranks["shuffled"]) == 4
    assert "default+words" not in ranks
    for name, rank in ranks.items():
        others = [found.difference(other, name, AUPRC) for other in ranks if other != name]
        assert rank == 1 + sum(one.low > 0 for one in others)


@pytest.mark.parametrize("size", [{"samples": 100, "persons": 10**6}, {"samples": 400, "persons": 150}])
def test_small_test_sets_have_no_ranks(size):
    found = analyze([cell(name, **size) for name in SKILLS], "default")[0]
    assert found.is_small
    assert found.ranks() == {}
    found = analyze([cell("default")], "default")[0]
    assert not found.is_small
    assert found.ranks() == {}


@pytest.mark.parametrize(
    ("bounds", "metric", "word"),
    [
        ((0.1, 0.3), AUPRC, BETTER),
        ((-0.3, -0.1), AUPRC, WORSE),
        ((-0.1, 0.3), AUPRC, NOISE),
        ((0.1, 0.3), BRIER, WORSE),
        ((-0.3, -0.1), BRIER, BETTER),
        ((np.nan, np.nan), AUPRC, NOISE),
    ],
)
def test_verdicts(bounds, metric, word):
    assert verdict(PairedDifference(np.mean(bounds), *bounds, 0.01, 0.1), metric) == word


def test_nothing_is_better_on_a_small_test_set():
    assert verdict(PairedDifference(0.2, 0.1, 0.3, 0.01, 0.1), AUPRC, is_small=True) == NOT_JUDGED


def test_the_size_of_test_sets_that_differ_by_seed_is_that_of_one_of_them():
    cells = [cell("codes", seed=seed, samples=samples) for seed, samples in ((0, 400), (1, 200), (2, 600))]
    found = analyze(cells, "codes")[0]
    assert found.differs_by_seed
    assert (found.samples, found.positives) == (200, cells[1].y.sum())
    assert not analyze([cell("codes", seed=seed) for seed in (0, 1)], "codes")[0].differs_by_seed


def test_cells_that_do_not_belong_together_are_refused():
    with pytest.raises(InputError, match="twice"):
        analyze([cell("codes"), cell("codes")], "default")
    turned = dataclasses.replace(cell("words"), y=cell("words").y[::-1])
    with pytest.raises(InputError, match="different samples of mortality"):
        analyze([cell("codes"), turned], "default")
    # Another seed may draw other test samples.
    analyze([cell("codes"), dataclasses.replace(turned, seed=1)], "default")


def test_the_primary_family():
    """A declared comparison that was not run counts in the correction, and a small test set is not judged."""
    absent = Setup("phenotype", "coded", "logistic", "full", "")
    small = Setup("paper_mortality", "coded", "logistic", "full", "")
    declared = dataclasses.replace(FAMILY, setups=(FULL, absent, small))
    cells = [cell(name, task=task) for name in ("default", "codes", "words") for task in ("mortality",)]
    cells += [cell(name, task="paper_mortality", samples=80) for name in ("default", "codes")]
    results = analyze(cells, "default")
    found = {(one.setup, one.other): one for one in family.compare(declared, results)}
    assert len(found) == 6
    codes = found[FULL, "codes"]
    assert codes.verdict == BETTER
    assert codes.corrected == pytest.approx(6 * codes.difference.p)
    assert found[FULL, "words"].verdict == NOISE
    assert found[absent, "codes"].verdict == found[small, "words"].verdict == family.NOT_RUN
    assert found[absent, "codes"].corrected == 1
    assert found[small, "codes"].verdict == family.TOO_FEW


def test_a_difference_that_the_correction_takes_away_is_noise():
    cells = [cell("default"), cell("codes"), cell("words", skill=1.2)]
    results = analyze(cells, "default")
    alone = dataclasses.replace(FAMILY, others=("words",))
    assert family.compare(alone, results)[0].verdict == BETTER
    unrun = tuple(Setup(f"task{number}", "coded", "logistic", "full", "") for number in range(300))
    many = dataclasses.replace(alone, setups=(FULL, *unrun))
    assert not family.compare(many, results)[0].difference.is_noise
    assert family.compare(many, results)[0].verdict == NOISE


def test_settings_are_ordered_by_their_number():
    assert sorted(["k=16", "k=2", "", "k=1"], key=names.setting_order) == ["", "k=1", "k=2", "k=16"]
    assert sorted(["rare", "own", "full", "few_shot"], key=names.regime_order) == ["full", "rare", "few_shot", "own"]
    assert [names.shots("few_shot", one) for one in ("k=128", "icd9->icd10", "")] == [128, None, None]
    assert names.shots("rare", "k=2") is None
