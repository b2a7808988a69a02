"""Describe a run for its report: its data, its tasks, its primary family, and what was left out."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Protocol

from eval.common import counts
from eval.ehr.report.family import PrimaryFamily
from eval.ehr.report.study import SetupResult
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
    inputs: Sequence[str]


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
        rounded: sizes of test sets and cohorts that are shown rounded, see `with_rounded`.
    """

    dataset: str
    tasks: Mapping[str, DescribedTask]
    family: PrimaryFamily
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    flows: Mapping[str, Sequence[tuple[str, int]]] = dataclasses.field(default_factory=dict)
    left_out: Sequence[str] = ()
    show_small_counts: bool = False
    rounded: frozenset[int] = frozenset()

    def with_rounded(self, results: Sequence[SetupResult]) -> "RunDescription":
        """Return the description of the same run that rounds sizes which tell a small number beside others.

        These are sizes that are close to others, and those of cohorts with a small step.
        """
        flows = [[number for _, number in flow] for flow in self.flows.values()]
        sizes = [number for result in results for number in (result.samples, result.persons)]
        outcomes = [number for result in results for number in (result.positives, result.samples - result.positives)]
        rounded = counts.close_numbers([*itertools.chain(*flows), *sizes]) | counts.close_numbers(outcomes)
        told = itertools.chain(*(flow for flow in flows if counts.tells_small(flow)))
        return dataclasses.replace(self, rounded=rounded.union(told))

    def is_rounded(self, result: SetupResult) -> bool:
        """Return True if the sizes of a test set are rounded, as one of them is among `rounded`."""
        negatives = result.samples - result.positives
        sizes = (result.samples, result.persons, result.positives, negatives)
        return not self.show_small_counts and not self.rounded.isdisjoint(sizes)

    def shown(self, number: int, result: SetupResult) -> int | str:
        """Return a number of samples or persons of a test set, masked or rounded where it must be."""
        rounded = (number,) if self.is_rounded(result) else ()
        return counts.shown(number, show_small=self.show_small_counts, rounded=rounded)

    def shown_flow(self, task: str) -> list[int | str]:
        """Return the numbers of the steps of a cohort, masked or rounded where they must be."""
        numbers = [number for _, number in self.flows[task]]
        return counts.shown_together(numbers, show_small=self.show_small_counts, rounded=self.rounded)

    def hides_outcomes(self, result: SetupResult) -> bool:
        """Return True if the share of positives must not be shown."""
        return counts.hides_outcomes(result.positives, result.samples, show_small=self.show_small_counts)

    def prevalence(self, result: SetupResult) -> float | None:
        """Return the share of positives, rounded where the sizes are, None where it must not be shown."""
        if self.hides_outcomes(result):
            return None
        return round(result.prevalence, 2) if self.is_rounded(result) else result.prevalence

    def share(self, share: float) -> float:
        """Return a share of samples, rounded where small counts must not be shown, so that it tells no number."""
        return share if self.show_small_counts else round(share, 2)

    def task(self, name: str) -> DescribedTask:
        """Return a task by its name.

        Raises:
            InputError: it is not described.
        """
        if name not in self.tasks:
            raise InputError(f"There are results of the task {name}, which this run does not have; remove them.")
        return self.tasks[name]
