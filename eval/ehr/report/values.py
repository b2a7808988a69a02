"""Give the report as values for JSON: every figure that its tables show, and nothing of single patients."""

import dataclasses
import math
from collections.abc import Sequence

from eval.common import counts
from eval.ehr.report import macro, names, sections, sentences
from eval.ehr.report.description import RunDescription
from eval.ehr.report.family import PrimaryComparison
from eval.ehr.report.licenses import license_of
from eval.ehr.report.macro import GroupMean
from eval.ehr.report.study import SetupResult, TokenizerResult, verdict
from eval.ehr.results import CellResult
from eval.ehr.statistics import METRICS, PairedDifference


def values(
    results: Sequence[SetupResult],
    comparisons: Sequence[PrimaryComparison],
    cells: Sequence[CellResult],
    run: RunDescription,
    means: Sequence[GroupMean] = (),
) -> dict:
    """Return the report as values for JSON; None stands for figures that are not defined.

    For the arguments see `sections.document`.
    """
    terms = license_of(run.dataset)
    flows = {
        task: {"steps": [reason for reason, _ in flow], "numbers": run.shown_flow(task)}
        for task, flow in run.flows.items()
    }
    return _finite(
        {
            "data_set": {"name": run.dataset} | dataclasses.asdict(terms),
            "run": dict(run.facts),
            "notes": sentences.notes(run, results),
            "findings": sentences.primary(comparisons, run),
            "exploratory": sentences.exploratory(results, run),
            "primary": [_primary(one, run) for one in comparisons],
            "setups": [_setup(result, run) for result in results],
            "means": macro.values(means, run.family.tokenizer),
            "costs": sections.costs(cells, run.family.tokenizer),
            "cohorts": flows,
        }
    )


def _primary(one: PrimaryComparison, run: RunDescription) -> dict:
    difference = {} if one.difference is None else one.difference._asdict()
    named = {"first": run.family.tokenizer, "other": one.other}
    return one.setup._asdict() | named | difference | {"corrected_p": one.corrected, "verdict": one.verdict}


def _setup(result: SetupResult, run: RunDescription) -> dict:
    ranks = result.ranks()
    first = run.family.tokenizer
    differences = [
        {"first": first, "other": name, "metric": metric} | _difference(result.difference(first, name, metric), metric)
        for name in result.tokenizers
        if name != first and first in result.tokenizers
        for metric in METRICS
    ]
    return result.setup._asdict() | {
        "selects_on_the_future": sentences.is_paper(run, result.setup.task),
        "samples": run.shown(result.samples, result),
        "persons": run.shown(result.persons, result),
        "positives": counts.MASKED if run.hides_outcomes(result) else run.shown(result.positives, result),
        "prevalence": run.prevalence(result),
        "too_small_to_rank": result.is_small,
        "tokenizers": [_tokenizer(one, ranks, result, run) for one in result.tokenizers.values()],
        "differences": differences,
    }


def _difference(difference: PairedDifference, metric: str) -> dict:
    return difference._asdict() | {"verdict": verdict(difference, metric)}


def _tokenizer(found: TokenizerResult, ranks: dict[str, int], result: SetupResult, run: RunDescription) -> dict:
    intervals = {metric: draws.interval() for metric, draws in found.draws.items()}
    return {
        "tokenizer": found.tokenizer,
        "joined": names.is_joined(found.tokenizer),
        "seeds": list(found.draws[METRICS[0]].seeds),
        "rank": ranks.get(found.tokenizer),
        **{metric: {"value": one.value, "low": one.low, "high": one.high} for metric, one in intervals.items()},
        "calibration_slope": found.scores.slope,
        "calibration_intercept": found.scores.intercept,
        "f1": found.scores.f1,
        "calibration": [
            {"samples": run.shown(one.samples, result), "predicted": one.predicted, "observed": run.share(one.observed)}
            for one in found.bins
        ],
    }


def _finite(value: object) -> object:
    """Return values with None in place of every number that is not finite, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
