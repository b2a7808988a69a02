"""Make the cohort of a task in a data set: its labels, and how many stays were left out for which reason."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from eval.common import counts
from eval.ehr.results import BINARY, MULTICLASS, MULTILABEL
from eval.ehr.tasks import aces, phenotypes
from eval.ehr.tasks.definition import SOURCES, Task
from eval.ehr.tasks.functions import FUNCTIONS
from eval.ehr.tasks.shard import Shard, is_among
from eval.ehr.tasks.spelling import Spelling, read_spelling
from eval.ehr.tasks.stays import OPTIONAL, Exclusions, read_stays, usable, with_discharges
from medtok_jax.records.samples import Labels, read_labels
from preprocessing.common.atomic import whole_file
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.progress import Bar
from preprocessing.meds.dataset import MedsDataset, read_parquet
from preprocessing.meds.layout import LABELS, METADATA
from preprocessing.meds.sources.writer import PERSONS

pl = load("polars")

# Predicate from which the windows of a task count -> column of a stay with its time.
_ANCHORS = {"admission": "start", "discharge": "end"}
_COLUMNS = ("numeric_value", "text_value", "hadm_id")
_ORDER_ONLY = (
    "measures the time between events, but the records give only their order (time_is_order in their"
    " metadata/dataset.json); choose another task"
)


@dataclasses.dataclass(frozen=True)
class Cohort:
    """Hold the labels of a task, and how they came about.

    Attributes:
        labels: the labels, sorted by subject and time; `value` is bool `[n]`, int64 `[n]`, or bool `[n, classes]`.
        flow: what was counted, in order: stays, those left out by reason, samples, patients, and positive labels.
        task: the task.
    """

    labels: Labels
    flow: list[tuple[str, int]]
    task: Task

    @property
    def problem(self) -> str:
        """Return why nothing can be learned from the labels, a sentence without counts; empty if something can."""
        if not len(self.labels):
            count, reason = max(
                ((count, reason) for reason, count in self.flow if reason.startswith("left out")), default=(0, "")
            )
            # A reason of a few patients would tell something of each.
            most = f"; most were {reason}" if count >= counts.FEWEST else ""
            return f"The task {self.task.name} finds no sample in this data set{most}."
        if self.task.kind != MULTICLASS and not self.labels.value.any():
            return f"The task {self.task.name} finds no positive label in this data set."
        if self.task.kind != MULTILABEL and len(np.unique(self.labels.value)) < 2:
            return f"All labels that the task {self.task.name} finds in this data set are alike."
        return ""


def make_cohort(task: Task, dataset: MedsDataset, kind_of_source: str) -> Cohort:
    """Return the cohort of one task; see `make_cohorts`.

    Raises:
        InputError: the task needs what the data set lacks: published labels, or times that are more than an order; or
            the package es-aces is not installed.
    """
    [found] = make_cohorts([task], dataset, kind_of_source, progress=False).values()
    if isinstance(found, InputError):
        raise found
    return found


def make_cohorts(
    tasks: Sequence[Task], dataset: MedsDataset, kind_of_source: str, *, progress: bool = True
) -> dict[str, Cohort | InputError]:
    """Return the labels of tasks in a data set, by name, or why a task does not fit it.

    Labels are the published ones where the task names them and the data set has them. Else the file of the task
    decides: ACES finds what fits its windows, and the label function counts what is left out for which reason and gives
    each label. Each file of the data set is read once for all tasks, and is in memory alone.

    Args:
        tasks: the tasks.
        dataset: the events.
        kind_of_source: name of the data set in `definition.SOURCES`; any other is spelled as MEDS in general.
        progress: whether to show a progress bar.
    """
    source = SOURCES.get(kind_of_source, kind_of_source)
    found: dict[str, Cohort | InputError] = {}
    made: list[Task] = []
    for task in tasks:
        try:
            cohort = _published(task, dataset, source)
        except InputError as error:
            found[task.name] = error
            continue
        if cohort is None:
            made.append(task)
        else:
            found[task.name] = cohort
    if made:
        try:
            found |= _made(made, dataset, read_spelling(source), progress)
        except InputError as error:
            # The stays cannot be made out, which published labels do without.
            found |= {task.name: error for task in made}
    return {task.name: found[task.name] for task in tasks}


def _made(tasks: Sequence[Task], dataset: MedsDataset, spelling: Spelling, progress: bool) -> dict[str, Cohort]:
    """Return the cohorts of tasks that have a label function."""
    exclusions = {task.name: Exclusions() for task in tasks}
    parts: dict[str, list[pl.DataFrame]] = {task.name: [] for task in tasks}
    stays = 0
    count = len(dataset.shards)
    for shard in Bar(shards(dataset, spelling), "Making cohorts", count, unit=" files", show=progress):
        stays += len(shard.stays)
        for task in tasks:
            parts[task.name].append(label_shard(task, shard, exclusions[task.name]))
    persons = persons_of(dataset)
    cohorts = {}
    for task in tasks:
        labels, counted = _labels(task, parts[task.name]), exclusions[task.name]
        flow = [("stays", stays), *((f"left out: {reason}", count) for reason, count in counted.counts.items())]
        flow += [*_of_labels(task, labels, persons), *counted.notes.items()]
        cohorts[task.name] = Cohort(labels, flow, task)
    return cohorts


def shards(dataset: MedsDataset, spelling: Spelling) -> Iterator[Shard]:
    """Yield the events and stays of the patients of each file."""
    further = [name for name in (*OPTIONAL, spelling.discharge_from) if name in dataset.further]
    about = dataset.codes()
    described = about.drop_nulls("description") if "description" in about.columns else about.clear()
    names = dict(zip(described["code"], described["description"], strict=True)) if len(described) else {}
    parents = dataset.parent_codes()
    for frame in dataset.frames(columns=[*_COLUMNS, *further]):
        events = with_discharges(frame, spelling)
        yield Shard(events, read_stays(events, spelling).with_row_index("stay"), spelling, names, parents)


def label_shard(task: Task, shard: Shard, exclusions: Exclusions) -> "pl.DataFrame":
    """Return the samples among the stays of some patients: `subject_id`, `prediction_time` and `value`.

    Args:
        task: a task with a function.
        shard: the events and stays.
        exclusions: counts the stays that are left out.

    Raises:
        InputError: the package es-aces is not installed.
    """
    samples = usable(shard.stays, shard.spelling, exclusions, adults=task.adults)
    samples = FUNCTIONS[task.function](shard, samples, exclusions)
    if shard.spelling.needs_diagnosis:
        place = ["subject_id", "icustay_id"]
        diagnoses = phenotypes.diagnoses(shard.events).select(*place, seen="time")
        seen = samples.select("stay", *place, "prediction_time").join(diagnoses, on=place, how="inner")
        seen = seen.filter(pl.col("seen") <= pl.col("prediction_time"))
        samples = exclusions.leave_out(samples, "no diagnosis by the prediction time", ~is_among(seen))
    configuration = aces.read_configuration(task.path, shard.spelling.path)
    fitting = aces.extract(shard.events, configuration)
    fitting = fitting.select("subject_id", pl.col("trigger").alias(_ANCHORS[configuration.trigger.predicate]))
    outside = samples.join(fitting, on=fitting.columns, how="anti")
    return exclusions.leave_out(samples, task.outside, is_among(outside)).select(
        "subject_id", "prediction_time", "value"
    )


def write_labels(folder: Path, cohort: Cohort) -> list[Path]:
    """Write labels in the form of MEDS: `subject_id`, `prediction_time`, and `boolean_value` or `integer_value`.

    Args:
        folder: folder of the task; several labels are written to a folder each, named by the class.
        cohort: the labels.

    Returns:
        The files.
    """
    schema = load("meds").LabelSchema
    labels, task = cohort.labels, cohort.task
    if task.kind == MULTILABEL:
        values = {Path(_slug(name)): labels.value[:, place] for place, name in enumerate(task.classes)}
    else:
        values = {Path(): labels.value}
    column = "integer_value" if task.kind == MULTICLASS else "boolean_value"
    paths = []
    for name, value in values.items():
        frame = pl.DataFrame({"subject_id": labels.subject, "prediction_time": labels.time, column: value})
        paths.append(folder / name / "labels.parquet")
        with whole_file(paths[-1]) as partial:
            table = schema.align(frame.to_arrow(compat_level=pl.CompatLevel.oldest()))
            load("pyarrow.parquet").write_table(table, partial)
    return paths


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _published(task: Task, dataset: MedsDataset, source: str) -> Cohort | None:
    """Return the labels that a data set publishes, in its folder `labels`; None if they are to be made.

    Raises:
        InputError: labels are neither published nor can be made, or the published ones do not fit the data set.
    """
    folder = task.published.get(source)
    path = dataset.root / LABELS / (folder or task.name)
    if not (folder and path.is_dir()):
        if not task.function:
            raise InputError(
                f"The task {task.name} has published labels only, and {dataset.root} has no {LABELS}/{path.name}; fetch"
                " them, or choose another task."
            )
        if task.needs_intervals and dataset.time_is_order:
            raise InputError(f"The task {task.name} {_ORDER_ONLY}.")
        return None
    labels = read_labels(path)
    if not np.isin(labels.subject, dataset.subjects()).all():
        raise InputError(f"{path} has labels of subjects that {dataset.root} has no events of; give its own.")
    wanted = {BINARY: np.bool_, MULTICLASS: np.integer}[task.kind]
    if not np.issubdtype(labels.value.dtype, wanted):
        column = "boolean_value" if task.kind == BINARY else "integer_value"
        raise InputError(f"{path} must have the column {column} for the task {task.name}; choose the labels of it.")
    order = np.lexsort((labels.value, labels.time, labels.subject))
    subject, time, value = (column[order] for column in (labels.subject, labels.time, labels.value))
    again = np.zeros(len(order), bool)
    again[1:] = (subject[1:] == subject[:-1]) & (time[1:] == time[:-1])
    if (again[1:] & (value[1:] != value[:-1])).any():
        raise InputError(f"{path} contradicts itself: samples have two values; keep one label of each.")
    flow = [
        ("published labels", len(order)),
        *([("left out: the same label again", int(again.sum()))] if again.any() else []),
    ]
    labels = Labels(subject[~again], time[~again], value[~again])
    return Cohort(labels, [*flow, *_of_labels(task, labels, persons_of(dataset))], task)


def _labels(task: Task, parts: Sequence["pl.DataFrame"]) -> Labels:
    """Return the samples of all files as labels, sorted by subject and time."""
    frame = pl.concat([part for part in parts if len(part)] or parts[:1]) if parts else pl.DataFrame()
    if not len(frame):
        shape = (0, len(task.classes)) if task.kind == MULTILABEL else 0
        value = np.zeros(shape, np.int64 if task.kind == MULTICLASS else bool)
        return Labels(np.empty(0, np.int64), np.empty(0, "datetime64[us]"), value)
    frame = frame.sort("subject_id", "prediction_time", maintain_order=True)
    if task.kind == MULTILABEL:
        value = np.array(frame["value"].to_list(), bool)
    else:
        value = frame["value"].to_numpy().astype(np.int64 if task.kind == MULTICLASS else bool)
    return Labels(frame["subject_id"].to_numpy(), frame["prediction_time"].to_numpy().astype("datetime64[us]"), value)


def persons_of(dataset: MedsDataset) -> "pl.DataFrame":
    """Return the `person` of each `subject_id`; no rows if each subject is a person."""
    path = dataset.root / METADATA / PERSONS
    if path.is_file():
        return read_parquet(path).select("subject_id", "person")
    return pl.DataFrame(schema={"subject_id": pl.Int64, "person": pl.String})


def _of_labels(task: Task, labels: Labels, persons: "pl.DataFrame") -> list[tuple[str, int]]:
    """Return the numbers of samples, patients and positive labels, or of labels of each class."""
    subjects = pl.DataFrame({"subject_id": labels.subject}).unique()
    known = subjects.join(persons, on="subject_id", how="inner")
    patients = len(subjects) - len(known) + known["person"].n_unique()
    rows = [("samples", len(labels)), ("patients", patients)]
    if task.kind == BINARY:
        return [*rows, ("positive", int(labels.value.sum()))]
    if task.kind == MULTILABEL:
        counts = labels.value.sum(0)
    else:
        counts = np.bincount(labels.value, minlength=len(task.classes))
    return [*rows, *((f"of class {name}", int(count)) for name, count in zip(task.classes, counts, strict=True))]
