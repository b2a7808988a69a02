"""Average the tasks of a group, such as `operational_outcomes`, with one interval for their mean."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from eval.common.intervals import Interval
from eval.ehr import statistics
from eval.ehr.report import names
from eval.ehr.report.blocks import Block, DataTable, Heading, Paragraph
from eval.ehr.report.description import RunDescription
from eval.ehr.report.sentences import signed
from eval.ehr.results import CellResult
from eval.ehr.statistics import AUPRC, AUROC, Draws
from eval.ehr.tasks.definition import GROUPS
from eval.reports import writer

METRICS = AUPRC, AUROC


@dataclasses.dataclass(frozen=True)
class GroupMean:
    """Hold the mean over the tasks of a group, each with equal weight, under the input rule of its headline.

    Attributes:
        group: name of the group.
        tasks: its tasks in this run, at least two.
        model, regime, setting: see `CellResult`.
        tokenizers: name -> metric -> draws of the mean, over the seeds that all tasks have.
    """

    group: str
    tasks: tuple[str, ...]
    model: str
    regime: str
    setting: str
    tokenizers: Mapping[str, Mapping[str, Draws]]


def means_of_groups(
    cells: Sequence[CellResult], inputs: Mapping[str, Sequence[str]], primary: str, *, seed: int = 0
) -> list[GroupMean]:
    """Return the means of all groups of which two tasks were run.

    Persons are drawn once for all tasks of a group, so that the interval knows that tasks share persons.

    Args:
        cells: results whose numbers of persons mean the same persons.
        inputs: input rules of each task, of which the first is the headline.
        primary: name of the tokenizer that stands first.
        seed: seed of the draws.
    """
    found = []
    for group, members in GROUPS.items():
        setups: dict[tuple[str, str, str], list[CellResult]] = {}
        for cell in cells:
            if cell.task in members and cell.input == inputs[cell.task][0]:
                setups.setdefault((cell.model, cell.regime, cell.setting), []).append(cell)
        for setup in sorted(setups, key=lambda one: (names.regime_order(one[1]), one[0], names.setting_order(one[2]))):
            tasks = tuple(task for task in members if any(cell.task == task for cell in setups[setup]))
            if len(tasks) > 1:
                found.append(GroupMean(group, tasks, *setup, _means(setups[setup], tasks, primary, seed)))
    return found


def _means(cells: list[CellResult], tasks: Sequence[str], primary: str, seed: int) -> dict[str, dict[str, Draws]]:
    """Return the draws of the mean of each tokenizer that has a result of every task."""
    keys = [(cell.tokenizer, cell.seed, cell.task) for cell in cells]
    drawn = dict(zip(keys, statistics.bootstrap(cells, seed=seed), strict=True))
    found = {}
    for name in sorted({cell.tokenizer for cell in cells}, key=lambda one: names.order(one, primary)):
        seeds = sorted({one for tokenizer, one, _ in drawn if tokenizer == name})
        seeds = [one for one in seeds if all((name, one, task) in drawn for task in tasks)]
        if seeds:
            found[name] = {metric: _mean(drawn, name, seeds, tasks, metric) for metric in METRICS}
    return found


def _mean(drawn: dict, name: str, seeds: Sequence[int], tasks: Sequence[str], metric: str) -> Draws:
    of_tasks = [[drawn[name, one, task][metric] for task in tasks] for one in seeds]
    values = np.array([np.mean([value for value, _ in figures]) for figures in of_tasks])
    return Draws(tuple(seeds), values, np.stack([np.mean([draws for _, draws in one], axis=0) for one in of_tasks]))


def values(means: Sequence[GroupMean], primary: str) -> list[dict]:
    """Return the means as values for JSON."""
    found = []
    for one in means:
        tokenizers = []
        for name, figures in one.tokenizers.items():
            told = {"tokenizer": name} | {metric: figures[metric].interval()._asdict() for metric in METRICS}
            if name != primary and primary in one.tokenizers:
                less = {metric: one.tokenizers[primary][metric].minus(figures[metric]) for metric in METRICS}
                told["less_this"] = {metric: difference._asdict() for metric, difference in less.items()}
            tokenizers.append(told)
        about = {"group": one.group, "tasks": one.tasks, "model": one.model, "regime": one.regime}
        found.append(about | {"setting": one.setting, "tokenizers": tokenizers})
    return found


def _shown(interval: Interval) -> str:
    return writer.with_interval(interval.value, interval.low, interval.high)


def section(means: Sequence[GroupMean], run: RunDescription) -> list[Block]:
    """Return the tables of the means; nothing where there are none."""
    first, blocks = run.family.tokenizer, []
    for one in means:
        headers = ["tokenizer", *METRICS, *(f"{names.title(first, first)} less this, {metric}" for metric in METRICS)]
        rows = []
        for name, figures in one.tokenizers.items():
            intervals = [_shown(figures[metric].interval()) for metric in METRICS]
            against = [None, None]
            if name != first and first in one.tokenizers:
                against = [signed(one.tokenizers[first][metric].minus(figures[metric])) for metric in METRICS]
            rows.append([names.title(name, first), *intervals, *against])
        of = ", ".join(run.task(task).title for task in one.tasks)
        where = ", ".join(filter(None, (one.regime, one.setting, one.model)))
        blocks += [Heading(f"{one.group}: {where}", 3), Paragraph(f"The mean of: {of}."), DataTable(headers, rows)]
    return [Heading("Means of groups of tasks"), *blocks] if blocks else []
