"""Arrange the results of one task: definition, differences, a table for each setup, few-shot curves, calibration."""

from collections.abc import Sequence

from eval.ehr.report import figures, names, sentences
from eval.ehr.report.blocks import Block, DataTable, Heading, Listing, Paragraph, Picture, Strong
from eval.ehr.report.description import RunDescription
from eval.ehr.report.sentences import signed
from eval.ehr.report.study import SetupResult, verdict
from eval.ehr.statistics import AUPRC, AUROC, BRIER
from eval.reports import writer
from eval.reports.writer import Cell


def task_section(task: str, results: Sequence[SetupResult], run: RunDescription) -> list[Block]:
    """Return the section of a task.

    Args:
        task: name of the task.
        results: its results.
        run: the description of the run.
    """
    described = run.task(task)
    first = run.family.tokenizer
    blocks: list[Block] = [Heading(described.title)]
    if sentences.is_paper(run, task):
        blocks.append(Paragraph(sentences.selects(described), is_warning=True))
    facts = {"Cohort": described.cohort, "Prediction time": described.prediction_time, "Label": described.label}
    blocks.append(Listing([f"{name}: {text}" for name, text in (facts | {"Source": described.source}).items()]))
    single = [result for result in results if result.setup.shots is None]
    for regime in dict.fromkeys(result.setup.regime for result in single):
        mine = [result for result in single if result.setup.regime == regime]
        heading = names.REGIME_TITLES.get(regime, regime).capitalize()
        blocks.append(Heading(heading, 3))
        if (drawn := figures.forest(mine, first)) is not None:
            text = (
                f"{described.title}, {heading.lower()}: {names.title(first, first)} less each other tokenizer, as in"
                " the tables below; right of the line it is better. Filled marks: the interval does not include 0, and"
                " the test set is large enough to judge by."
            )
            blocks.append(Picture(drawn, text, 760))
        for result in mine:
            blocks += _setup(result, run)
    series = sentences.few_shot_series(results)
    if series:
        blocks.append(Heading(names.REGIME_TITLES[names.FEW_SHOT].capitalize(), 3))
    for one in series:
        blocks += _few_shot(one, run)
    if (drawn := figures.calibration([one for one in single if one.setup.regime == "full"], first)) is not None:
        text = (
            f"{described.title}: observed share of positives by predicted probability, in bins of equally many samples,"
            " for the first seed."
        )
        blocks += [Heading("Calibration", 3), Picture(drawn, text, 360)]
    return blocks


def _setup(result: SetupResult, run: RunDescription) -> list[Block]:
    first = run.family.tokenizer
    ranks = result.ranks()
    rows = []
    for name, found in result.tokenizers.items():
        rank = ranks.get(name)
        shown = names.title(name, first)
        value = found.draws[AUPRC].interval()
        auprc = writer.with_interval(value.value, value.low, value.high)
        cells: list[Cell] = [Strong(shown) if rank == 1 else shown, Strong(auprc) if rank == 1 else auprc]
        value = found.draws[AUROC].interval()
        cells += [writer.with_interval(value.value, value.low, value.high), found.draws[BRIER].interval().value]
        cells += [found.scores.slope, found.scores.intercept, found.scores.f1, rank]
        for metric in (AUPRC, AUROC):
            difference = result.difference(first, name, metric) if name != first else None
            judged = verdict(difference, metric, is_small=result.is_small) if difference else ""
            cells.append(None if difference is None else f"{signed(difference)}, {judged}")
        rows.append(cells)
    medtok = names.title(first, first)
    headers = ["tokenizer", "AUPRC", "AUROC", "Brier", "slope", "intercept", "F1", "rank"]
    headers += [f"{medtok} less this, {metric}" for metric in ("AUPRC", "AUROC")]
    blocks: list[Block] = [Heading(result.setup.title, 4), Paragraph(_test_set(result, run))]
    blocks += [Paragraph(sentences.SMALL, is_warning=True)] if result.is_small else []
    if (sentence := sentences.standing(result, AUPRC, run)) is not None:
        blocks.append(Paragraph(sentence))
    return [*blocks, DataTable(headers, rows)]


def _test_set(result: SetupResult, run: RunDescription) -> str:
    """Return the size of a test set as a sentence, without numbers that must not be shown."""
    samples, persons = (_number(one, result, run) for one in (result.samples, result.persons))
    by_seed = (
        "; seeds differ in their test samples, and the one with the fewest is told" if result.differs_by_seed else ""
    )
    if (chance := run.prevalence(result)) is None:
        return (
            f"{samples} test samples of {persons} persons; one of the outcomes is too rare for its number to be shown"
            f"{by_seed}."
        )
    several = " in the rarest class" if result.has_classes else ""
    positives = _number(result.positives, result, run)
    return (
        f"{samples} test samples of {persons} persons, {positives} positive samples{several}; the AUPRC of chance is"
        f" {writer.number(chance)}{by_seed}."
    )


def _number(number: int, result: SetupResult, run: RunDescription) -> str:
    return writer.cell_text(run.shown(number, result))


def _few_shot(series: Sequence[SetupResult], run: RunDescription) -> list[Block]:
    first = run.family.tokenizer
    setup = series[0].setup
    tokenizers = sorted({name for one in series for name in one.tokenizers}, key=lambda name: names.order(name, first))
    headers = [f"k = {one.setup.shots}" for one in series]
    values, differences = [], []
    for name in tokenizers:
        cells: list[Cell] = [names.title(name, first)]
        for one in series:
            cells.append(one.tokenizers[name].draws[AUPRC].interval().value if name in one.tokenizers else None)
        values.append(cells)
        found = [one.difference(first, name, AUPRC) for one in series]
        if name != first and any(found):
            differences.append([name, *(None if one is None else signed(one) for one in found)])
    drawn = figures.few_shot(series, first, chance=run.prevalence(series[0]))
    text = (
        f"{run.task(setup.task).title}, {setup.model}, {setup.input}: by the number of training patients of each class."
        f" The band is the 95 % interval of {names.title(first, first)}; the grey lines across are chance."
    )
    picture = Picture(drawn, text, 760)
    blocks: list[Block] = [Heading(f"{setup.model}, {setup.input}", 4), Paragraph(_test_set(series[0], run))]
    blocks += [Paragraph(sentences.SMALL, is_warning=True)] if any(one.is_small for one in series) else []
    blocks += [picture, Paragraph("AUPRC with k training patients of each class, mean over draws of them:")]
    blocks.append(DataTable(["tokenizer", *headers], values))
    if differences:
        text = f"{names.title(first, first)} less each other tokenizer, AUPRC with 95 % intervals:"
        blocks += [Paragraph(text), DataTable(["tokenizer", *headers], differences)]
    return blocks
