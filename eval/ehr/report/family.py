"""Declare the primary family of comparisons before a run, and correct its p-values together."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from eval.ehr import statistics
from eval.ehr.regimes import CROSS_VOCABULARY, FULL
from eval.ehr.report.study import NOISE, Setup, SetupResult, verdict
from eval.ehr.settings import Settings
from eval.ehr.statistics import AUPRC, PairedDifference
from eval.ehr.tasks.definition import Task
from medtok_jax.records.choices import CODED

SIGNIFICANCE = 0.05
# Opponents of the primary comparisons: the code itself, and the words of its description.
OPPONENTS = ("codes", "words")
# Setting of the primary comparison of a regime.
_SETTINGS = {FULL: "", CROSS_VOCABULARY: "icd9->icd10"}
TOO_FEW, NOT_RUN = "too few events to judge", "not run"


@dataclasses.dataclass(frozen=True)
class PrimaryFamily:
    """Declare the comparisons that the conclusions of a run rest on, all of them by AUPRC.

    Attributes:
        tokenizer: name of the tokenizer that is judged.
        others: names of the tokenizers that it is compared with in each setup.
        setups: the setups.
    """

    tokenizer: str
    others: tuple[str, ...]
    setups: tuple[Setup, ...]


@dataclasses.dataclass(frozen=True)
class PrimaryComparison:
    """Hold one comparison of the primary family.

    Attributes:
        setup: the setup.
        other: name of the tokenizer that is compared with.
        difference: the paired difference in AUPRC, None if it was not run.
        corrected: p-value corrected for the whole family.
        verdict: `better`, `worse`, `within noise`, or why there is none.
    """

    setup: Setup
    other: str
    difference: PairedDifference | None
    corrected: float
    verdict: str


def declared(settings: Settings, tasks: Iterable[Task], judged: str) -> PrimaryFamily:
    """Return the comparisons that the conclusions rest on: the judged tokenizer with codes and words.

    They are made for each task that its file calls primary, by the first model: with all training samples on the
    headline input, and, where that is asked for, across vocabularies on the input that sees the codes of the stay, as
    samples that see none cannot tell vocabularies apart. Settings alone decide, and no result.

    Args:
        settings: settings of the run.
        tasks: its tasks.
        judged: name of the judged tokenizer.
    """
    setups = [
        Setup(task.name, _input_of(task, regime), settings.models[0], regime, setting)
        for task in tasks
        if task.primary
        for regime, setting in _SETTINGS.items()
        if regime in settings.regimes
    ]
    others = tuple(name for name in OPPONENTS if name in settings.tokenizers and name != judged)
    return PrimaryFamily(judged, others, tuple(setups))


def _input_of(task: Task, regime: str) -> str:
    """Return the input rule of the primary comparison: the headline, across vocabularies with all codes of the stay."""
    return CODED if regime == CROSS_VOCABULARY and CODED in task.inputs else task.inputs[0]


def compare(family: PrimaryFamily, results: Sequence[SetupResult]) -> list[PrimaryComparison]:
    """Return the comparisons of the family, in its order; those that were not run count in the correction."""
    by_setup = {result.setup: result for result in results}
    found = {
        (setup, other): by_setup[setup].difference(family.tokenizer, other, AUPRC) if setup in by_setup else None
        for setup in family.setups
        for other in family.others
    }
    corrected = statistics.holm({key: np.nan if one is None else one.p for key, one in found.items()})
    return [
        PrimaryComparison(*key, one, corrected[key], _verdict(by_setup.get(key[0]), one, corrected[key]))
        for key, one in found.items()
    ]


def _verdict(result: SetupResult | None, difference: PairedDifference | None, corrected: float) -> str:
    if difference is None:
        return NOT_RUN
    if result.is_small:
        return TOO_FEW
    return verdict(difference, AUPRC) if corrected < SIGNIFICANCE else NOISE
