"""The mean over the tasks of a group: its figures, and an interval that knows that tasks share persons."""

import dataclasses

import numpy as np
import pytest

from eval.ehr import statistics
from eval.ehr.report import macro
from eval.ehr.report.study import analyze
from eval.ehr.statistics import AUPRC, AUROC
from tests.helpers.ehr_cells import cell, described, run

TASKS = ("long_los", "readmission")
INPUTS = {"long_los": ("before",), "readmission": ("bedside", "coded"), "mortality": ("before",)}


def cells(*, of: dict[str, str] | None = None, seeds=(0, 1)) -> list:
    """Cells of the tasks of the group under their headline, or `of` other samples, task by task."""
    found = []
    for task in (*TASKS, "mortality"):
        for name in ("default", "codes"):
            for seed in seeds:
                one = cell(name, task=(of or {}).get(task, task), rule=INPUTS[task][0], seed=seed)
                found.append(dataclasses.replace(one, task=task))
    return found


def test_the_mean_is_that_of_the_tasks():
    coded = dataclasses.replace(cells()[4], input="coded", p=np.zeros(400))
    [found] = macro.means_of_groups([*cells(), coded], INPUTS, "default")
    assert (found.group, found.tasks, list(found.tokenizers)) == ("operational_outcomes", TASKS, ["default", "codes"])
    single = {(one.setup.task): one for one in analyze(cells(), "default")}
    for name, figures in found.tokenizers.items():
        for metric in (AUPRC, AUROC):
            wanted = np.mean([single[task].tokenizers[name].draws[metric].values for task in TASKS], axis=0)
            np.testing.assert_allclose(figures[metric].values, wanted, atol=1e-7)


def test_tasks_that_are_equal_have_the_interval_of_one():
    """If tasks were drawn apart, the interval of their mean would be narrower by the square root of two."""
    [found] = macro.means_of_groups(cells(of={"readmission": "long_los"}, seeds=(0,)), INPUTS, "default")
    alone = [one for one in cells(seeds=(0,)) if one.task == "long_los"]
    drawn = statistics.bootstrap(alone)
    for number, name in enumerate(("default", "codes")):
        np.testing.assert_allclose(found.tokenizers[name][AUROC].drawn[0], drawn[number][AUROC][1], atol=1e-6)


def test_what_lacks_a_task_is_left_out():
    some = [one for one in cells() if (one.task, one.tokenizer) != ("readmission", "codes")]
    [found] = macro.means_of_groups(some, INPUTS, "default")
    assert list(found.tokenizers) == ["default"]
    fewer = [one for one in cells() if (one.task, one.tokenizer, one.seed) != ("readmission", "codes", 1)]
    [found] = macro.means_of_groups(fewer, INPUTS, "default")
    assert found.tokenizers["codes"][AUROC].seeds == (0,)
    assert macro.means_of_groups([one for one in cells() if one.task != "long_los"], INPUTS, "default") == []


def test_section_and_values():
    titles = {task: described(task) for task in INPUTS}
    means = macro.means_of_groups(cells(), INPUTS, "default")
    heading, _, told, table = macro.section(means, run(tasks=titles))
    assert (heading.text, told.text) == ("Means of groups of tasks", "The mean of: long_los, readmission.")
    difference = means[0].tokenizers["default"][AUPRC].minus(means[0].tokenizers["codes"][AUPRC])
    assert table.rows[0][3:] == [None, None]
    assert table.rows[1][3].startswith(f"{difference.value:+.3f} [")
    [one] = macro.values(means, "default")
    assert one["tokenizers"][1]["less_this"][AUPRC]["value"] == pytest.approx(difference.value)
    assert macro.section([], run(tasks=titles)) == []
