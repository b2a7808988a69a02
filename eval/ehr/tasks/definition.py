"""Define the prediction tasks: each is a YAML file beside this one, with sentences for people and windows for ACES.

A file is an ACES task file (https://eventstreamaces.readthedocs.io) whose `metadata` state what ACES cannot say. It
runs in ACES itself together with a file of `predicates/`, which spells the events of a data set; ACES ignores
`metadata`.
Tasks whose labels a data set publishes have no windows.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from eval.ehr.results import KINDS
from eval.ehr.tasks.drugs import DRUGS
from eval.ehr.tasks.phenotypes import PHENOTYPES
from preprocessing.common.errors import InputError, did_you_mean
from preprocessing.common.foreign_files import reading

FOLDER = Path(__file__).parent
PROTOCOLS = CLINICAL, PAPER = ("clinical", "paper")
# Classes that a file names instead of listing them.
_CLASSES = {"phenotypes": tuple(PHENOTYPES), "drugs": tuple(DRUGS)}
# Any data set in MEDS that spells stays as MIMIC-IV in MEDS does.
ANY_MEDS = "MEDS"
# Names of the benchmark's data sets -> name of the source that spells their events.
SOURCES = {
    **{name: name for name in ("mimic3", "mimic4", "ehrshot", "eicu", "diabetes130", "planted", ANY_MEDS)},
    "eicu_demo": "eicu",
}
GROUPS = {
    "operational_outcomes": ("long_los", "readmission", "icu_transfer"),
    "new_diagnosis": tuple(
        f"new_{disease}" for disease in ("hypertension", "hyperlipidemia", "pancan", "celiac", "lupus", "acutemi")
    ),
    "paper": tuple(f"paper_{name}" for name in ("mortality", "readmission", "los", "phenotype", "drug")),
}


@dataclasses.dataclass(frozen=True)
class Task:
    """Hold the definition of a prediction task.

    Attributes:
        name: name of its file, without the ending.
        title: a few words for tables.
        kind: one of `results.KINDS`: labels are bool `[n]`, int64 `[n]` (index into `classes`), or bool `[n, classes]`.
        classes: names of the classes; empty for `binary`.
        source: paper or benchmark that defined it.
        cohort, prediction_time, label: sentences that state who is in it, when is predicted, and what.
        protocol: `clinical`, or `paper` for the evaluation of the MedTok paper, which selects on the future.
        inputs: rules of what is seen, see `eval.ehr.inputs`; the first one is the headline.
        datasets: sources that it fits, values of `SOURCES`.
        needs_intervals: True if it measures time, so that data which give only an order are refused.
        hide_drugs_of_visit: True if drugs of the visit that ends at the prediction time are hidden.
        primary: True if it is in the family of primary comparisons.
        function: name in `functions.FUNCTIONS` of the function that makes its labels; empty if they are published only.
        adults: True if stays of patients younger than 18 years are left out.
        outside: reason in the flow of the cohort for stays that do not fit the windows.
        published: source -> folder of `labels/` whose labels take the place of those of the function.
        path: its file.
    """

    name: str
    title: str
    kind: str
    source: str
    cohort: str
    prediction_time: str
    label: str
    protocol: str
    inputs: tuple[str, ...]
    datasets: tuple[str, ...]
    needs_intervals: bool
    hide_drugs_of_visit: bool
    primary: bool
    path: Path
    classes: tuple[str, ...] = ()
    function: str = ""
    adults: bool = True
    outside: str = ""
    published: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def fits(self, dataset: str) -> bool:
        """Return True if the task fits a data set, by its name in `SOURCES`."""
        return SOURCES[dataset] in self.datasets


@functools.cache
def load_tasks() -> dict[str, Task]:
    """Return all tasks by name, sorted."""
    return {path.stem: read_task(path) for path in sorted(FOLDER.glob("*.yaml"))}


def read_task(path: Path) -> Task:
    """Read a task file and check its metadata.

    Raises:
        InputError: the file is no task file, lacks a field, or has one that is not known.
    """
    with reading(path, "a task file", f"see the files of {FOLDER}"):
        stated = yaml.safe_load(path.read_text(encoding="utf-8"))["metadata"]
        listed = ("inputs", "datasets")
        classes = stated.pop("classes", ())
        classes = _CLASSES[classes] if isinstance(classes, str) else tuple(classes)
        sequences = {name: tuple(stated.pop(name)) for name in listed}
        task = Task(name=path.stem, path=path, classes=classes, **sequences, **stated)
    if task.kind not in KINDS or task.protocol not in PROTOCOLS:
        raise InputError(
            f"{path} has kind {task.kind!r} and protocol {task.protocol!r}; they must be among {', '.join(KINDS)} and"
            f" {', '.join(PROTOCOLS)}."
        )
    return task


def choose(names: Sequence[str], dataset: str) -> list[Task]:
    """Return tasks by name, each once, in the order of `names`.

    Args:
        names: names of tasks, or of `GROUPS`, of which the tasks that fit are taken; empty for all tasks that fit.
        dataset: name of the data set, one of `SOURCES`.

    Raises:
        InputError: a name is not known, or a task does not fit the data set.
    """
    if dataset not in SOURCES:
        raise InputError(f"{dataset!r} is no data set of the benchmark; {did_you_mean(dataset, SOURCES)}")
    tasks = load_tasks()
    chosen: dict[str, Task] = {}
    for name in names or tasks:
        if name not in tasks and name not in GROUPS:
            raise InputError(f"{name!r} is no task; {did_you_mean(name, [*tasks, *GROUPS])}")
        fitting = [one for one in GROUPS.get(name, (name,)) if tasks[one].fits(dataset)]
        if names and not fitting:
            fits = sorted({source for one in GROUPS.get(name, (name,)) for source in tasks[one].datasets})
            raise InputError(f"The task {name} does not fit {dataset}; it fits {', '.join(fits)}.")
        chosen |= {one: tasks[one] for one in fitting}
    return list(chosen.values())
