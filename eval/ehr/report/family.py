"""Hold the primary family of comparisons, which is declared before a run, and correct its p-values together."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from eval.ehr import statistics
from eval.ehr.report.study import NOISE, Setup, SetupResult, verdict
from eval.ehr.statistics import AUPRC, PairedDifference

SIGNIFICANCE = 0.05
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
