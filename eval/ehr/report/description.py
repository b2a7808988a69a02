"""Describe a run for its report: its data, its tasks, its primary family, and what was left out."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

from eval.ehr.report.family import PrimaryFamily
from preprocessing.common.errors import InputError

PAPER = "paper"


class DescribedTask(Protocol):
    """Say what a report tells of a task: sentences about it, and the protocol that it follows."""

    title: str
    source: str
    cohort: str
    prediction_time: str
    label: str
    protocol: str


@dataclasses.dataclass(frozen=True)
class RunDescription:
    """Describe a run.

    Attributes:
        dataset: name of the data set, such as `eicu_demo`.
        tasks: name -> task, of every task that has results or a cohort.
        family: the primary family, declared before the run.
        facts: what else the report says of the run, as title -> text, such as versions and settings.
        flows: task -> the steps of its cohort, each a reason and a number of samples or patients.
        left_out: a sentence for each part of the run that has no results.
        show_small_counts: whether numbers from 1 to 10 are shown, which only open data allow.
    """

    dataset: str
    tasks: Mapping[str, DescribedTask]
    family: PrimaryFamily
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    flows: Mapping[str, Sequence[tuple[str, int]]] = dataclasses.field(default_factory=dict)
    left_out: Sequence[str] = ()
    show_small_counts: bool = False

    def task(self, name: str) -> DescribedTask:
        """Return a task by its name.

        Raises:
            InputError: it is not described.
        """
        if name not in self.tasks:
            raise InputError(f"There are results of the task {name}, which this run does not have; remove them.")
        return self.tasks[name]
