"""Arrange the results of a run as a document: findings, primary family, tasks, costs, cohorts, sources, methods."""

from collections.abc import Sequence

import numpy as np

from eval.common import counts
from eval.ehr.report import macro, names, published, sentences
from eval.ehr.report.blocks import Block, DataTable, Heading, Listing, Paragraph, Strong
from eval.ehr.report.description import RunDescription
from eval.ehr.report.family import PrimaryComparison
from eval.ehr.report.licenses import license_of
from eval.ehr.report.macro import GroupMean
from eval.ehr.report.sentences import signed
from eval.ehr.report.study import BETTER, NOISE, WORSE, SetupResult, verdict
from eval.ehr.report.task_section import task_section
from eval.ehr.results import CellResult
from eval.ehr.statistics import AUPRC, FEWEST_PERSONS, FEWEST_POSITIVES, PERSON_DRAWS

TEXT_PURSUIT = "text_pursuit"
# Facts of `CellResult.about` that the table of costs shows, with their titles.
COSTS = {
    "seconds": "seconds a cell",
    "positions": "positions a patient",
    "parameters": "parameters",
    "mapped": "share of codes with tokens",
}
METHODS = (
    f"Intervals are 95 % percentile intervals of {PERSON_DRAWS:,} bootstrap draws of persons; all samples of a person"
    " are drawn together. Where a tokenizer has several seeds, its figure is their mean, and each draw also moves it by"
    " the standard error of the seeds times a draw from Student's distribution.",
    "Differences are paired: both tokenizers are scored on the same draws of persons, and seed by seed."
    " p-values are two-sided, from the draws. Only those of the primary family are corrected for their number (Holm)."
    " A difference is called within noise if its interval includes 0, or in the primary family if its corrected p-value"
    " is not below 5 %.",
    "The detectable difference is 2.8 standard errors of a difference: one comparison alone, not corrected for others,"
    " finds a true difference of this size with a power of 80 %.",
    "The rank of a tokenizer is one more than the number of tokenizers with a higher AUPRC, by an interval that does"
    " not include 0; so tokenizers may share a rank. Joined tokenizers (with +) have none.",
    "Where patients are cross-fitted, the models' probabilities are not on one scale: AUROC compares test samples of"
    " one fold with one another, and AUPRC is that of (rank - 1/2) / n within each fold of n samples.",
    f"With fewer than {FEWEST_POSITIVES} positive samples or {FEWEST_PERSONS} persons in a test set nothing is ranked.",
    "Tasks of several classes: one class against the rest, averaged with equal weight over the classes that have both"
    " outcomes.",
    "Calibration slope: 1 is calibrated, less is overconfident. Calibration intercept (slope fixed to 1): 0 is"
    " calibrated, less says that risks are overestimated. F1 is at the threshold chosen on tuning samples.",
)


def document(
    results: Sequence[SetupResult],
    comparisons: Sequence[PrimaryComparison],
    cells: Sequence[CellResult],
    run: RunDescription,
    means: Sequence[GroupMean] = (),
) -> list[Block]:
    """Return the whole report.

    Args:
        results: what `study.analyze` made of the cells.
        comparisons: the primary family.
        cells: the cells, for their costs.
        run: the description of the run.
        means: means over the tasks of groups.
    """
    blocks: list[Block] = [Heading(title(run), 1), *_about(run), *_findings(results, comparisons, run)]
    blocks += [*_primary(comparisons, run), *_summary(results, run), *_text_pursuit(results, run)]
    blocks += macro.section(means, run)
    for task in dict.fromkeys(result.setup.task for result in results):
        blocks += task_section(task, [result for result in results if result.setup.task == task], run)
    return [*blocks, *_costs(cells, run), *_cohorts(run), *_published(run), *_license(run), *_methods()]


def title(run: RunDescription) -> str:
    """Return the title of the report."""
    return f"EHR benchmark: {license_of(run.dataset).title}"


def _about(run: RunDescription) -> list[Block]:
    facts = [f"{name}: {text}" for name, text in run.facts.items()]
    return [Heading("This run"), Listing(facts)] if facts else []


def _findings(
    results: Sequence[SetupResult], comparisons: Sequence[PrimaryComparison], run: RunDescription
) -> list[Block]:
    blocks: list[Block] = [Heading("What this run found")]
    blocks += [Paragraph(note, is_warning=True) for note in sentences.notes(run, results)]
    blocks.append(Listing(sentences.primary(comparisons, run)))
    if found := sentences.exploratory(results, run):
        blocks += [Heading("Exploratory, not corrected for the number of comparisons", 3), Listing(found)]
    return blocks


def _primary(comparisons: Sequence[PrimaryComparison], run: RunDescription) -> list[Block]:
    if not comparisons:
        return []
    rows = []
    for one in comparisons:
        difference = one.difference
        figures_of = [None] * 3 if difference is None else [signed(difference), f"{difference.p:.3f}"]
        if difference is not None:
            figures_of.append(f"{one.corrected:.3f}")
        detectable = None if difference is None else difference.detectable
        word = Strong(one.verdict) if one.verdict in (BETTER, WORSE) else one.verdict
        rows.append([run.task(one.setup.task).title, one.setup.title, one.other, *figures_of, detectable, word])
    medtok = names.title(run.family.tokenizer, run.family.tokenizer)
    headers = ["task", "setup", f"{medtok} less", "AUPRC", "p", "corrected p", "detectable", f"{medtok} is"]
    return [Heading("Primary family"), DataTable(headers, rows, texts=3)]


def _summary(results: Sequence[SetupResult], run: RunDescription) -> list[Block]:
    """Return how often the primary tokenizer is better, worse or within noise, by other tokenizer and regime."""
    first = run.family.tokenizer
    tally: dict[str, dict[str, list[str]]] = {}
    for result in results:
        for name in result.tokenizers if not result.is_small else ():
            difference = result.difference(first, name, AUPRC)
            if name != first and difference is not None:
                words = tally.setdefault(name, {}).setdefault(result.setup.regime, [])
                words.append(verdict(difference, AUPRC))
    if not tally:
        return []
    regimes = sorted({regime for by_regime in tally.values() for regime in by_regime}, key=names.regime_order)
    rows = [
        [name, *(_tallied(tally[name].get(regime)) for regime in regimes)]
        for name in sorted(tally, key=lambda name: names.order(name, first))
    ]
    headers = ["against", *(names.REGIME_TITLES.get(regime, regime) for regime in regimes)]
    text = (
        f"The number of setups (task, model, setting) in which {names.title(first, first)} is better / worse / within"
        " noise by AUPRC, without small test sets. Not corrected: where there is no difference, 5 % of the comparisons"
        " show one by chance."
    )
    return [Heading("How often it differs"), Paragraph(text), DataTable(headers, rows)]


def _tallied(words: Sequence[str] | None) -> str | None:
    return None if words is None else " / ".join(str(words.count(word)) for word in (BETTER, WORSE, NOISE))


def _text_pursuit(results: Sequence[SetupResult], run: RunDescription) -> list[Block]:
    first = run.family.tokenizer
    rows = []
    for result in results:
        found = [result.difference(first, TEXT_PURSUIT, metric) for metric in sentences.METRIC_TITLES]
        if None not in found:
            words = [
                verdict(one, metric, is_small=result.is_small)
                for one, metric in zip(found, sentences.METRIC_TITLES, strict=True)
            ]
            cells = [cell for pair in zip(map(signed, found), words, strict=True) for cell in pair]
            rows.append([run.task(result.setup.task).title, result.setup.title, *cells])
    if not rows:
        return []
    text = (
        "text_pursuit quantizes the frozen text embedding alone: a difference from it is what graph, crosswalks and"
        f" packing are worth on patients. Shown is {names.title(first, first)} less text_pursuit, not"
        " corrected for the number of setups."
    )
    headers = ["task", "setup", "AUPRC", "is", "AUROC", "is"]
    heading = Heading("Where MedTok differs from text_pursuit")
    return [heading, Paragraph(text), DataTable(headers, rows, texts=2)]


def costs(cells: Sequence[CellResult], primary: str) -> list[dict]:
    """Return the means over cells of the facts in `COSTS`, by tokenizer and model, None where they are not given."""
    groups: dict[tuple[str, str], list[dict]] = {}
    for cell in cells:
        groups.setdefault((cell.tokenizer, cell.model), []).append(cell.about)
    found = []
    for tokenizer, model in sorted(groups, key=lambda key: (names.order(key[0], primary), key[1])):
        abouts = groups[tokenizer, model]
        means = {name: _mean([about[name] for about in abouts if about.get(name) is not None]) for name in COSTS}
        found.append({"tokenizer": tokenizer, "model": model, "cells": len(abouts)} | means)
    return found


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _costs(cells: Sequence[CellResult], run: RunDescription) -> list[Block]:
    first = run.family.tokenizer
    rows = [
        [names.title(one["tokenizer"], first), one["model"], one["cells"], *(one[name] for name in COSTS)]
        for one in costs(cells, first)
    ]
    text = "Means over cells. A position is one element of the sequence, or one event of the bag, that a model reads."
    return [
        Heading("Cost"),
        Paragraph(text),
        DataTable(["tokenizer", "model", "cells", *COSTS.values()], rows, texts=2),
    ]


def _cohorts(run: RunDescription) -> list[Block]:
    blocks: list[Block] = []
    for task, flow in run.flows.items():
        rows = [[reason, number] for (reason, _), number in zip(flow, run.shown_flow(task), strict=True)]
        blocks += [Heading(run.task(task).title, 3), DataTable(["step", "number"], rows)]
    if not blocks:
        return []
    note = (
        ""
        if run.show_small_counts
        else f" Numbers from 1 to {counts.FEWEST - 1} are not shown, and others are rounded where they would tell them."
    )
    return [Heading("Cohorts"), Paragraph(f"How many samples each rule keeps or leaves out.{note}"), *blocks]


def _published(run: RunDescription) -> list[Block]:
    rows = [
        [license_of(one.dataset).title, one.task, one.model, one.without, one.with_medtok]
        for one in published.PUBLISHED_RESULTS
    ]
    text = (
        f"Published AUPRC ({published.SOURCE}). Cohorts, labels and inputs differ from those of this run, so no figure"
        " here can be set beside one above."
    )
    headers = ["data set", "task", "model", "without MedTok", "with MedTok"]
    return [Heading("Other cohort, not comparable"), Paragraph(text), DataTable(headers, rows, texts=3)]


def _license(run: RunDescription) -> list[Block]:
    terms = license_of(run.dataset)
    items = [f"License: {terms.license}", *(f"Cite: {one}" for one in terms.citations), *filter(None, [terms.note])]
    return [Heading("Data set, license and citation"), Paragraph(f"{terms.title}."), Listing(items)]


def _methods() -> list[Block]:
    return [Heading("How it was computed"), Listing(METHODS)]
