"""Make the cohort of each task once, and keep its labels as files that other programs read too."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eval.ehr.results import MULTILABEL
from eval.ehr.tasks.cohort import Cohort, make_cohorts, write_labels
from eval.ehr.tasks.definition import SOURCES, Task
from eval.ehr.tasks.spelling import read_spelling
from medtok_jax.records.samples import Labels, read_labels
from preprocessing.common.atomic import recover, whole_folder
from preprocessing.common.checksums import sha256_of_files
from preprocessing.common.errors import InputError
from preprocessing.meds.dataset import MedsDataset
from preprocessing.meds.layout import LABELS, METADATA

FLOW = "cohort.json"
# To be increased when the same records give other labels.
FORMAT_VERSION = 4


def open_cohorts(
    tasks: Sequence[Task], dataset: MedsDataset, source: str, folder: Path, *, digest: str, progress: bool = True
) -> dict[str, Cohort | InputError]:
    """Return the cohorts of tasks by name, or why one does not fit the records.

    Those that do not lie in `folder/NAME` yet, in the form of `tasks.cohort.write_labels`, are made together.

    Args:
        tasks: the tasks.
        dataset: the events.
        source: name of the data set in `tasks.definition.SOURCES`.
        folder: folder of the labels of all tasks.
        digest: hash of the records, see `digest_of_records`.
        progress: whether to show a progress bar.

    Raises:
        InputError: the folder cannot be written.
    """
    found: dict[str, Cohort | InputError] = {}
    for task in tasks:
        recover(folder / task.name)
        if (kept := _read(folder / task.name, task, _stamp(task, source, digest))) is not None:
            found[task.name] = kept
    made = make_cohorts([task for task in tasks if task.name not in found], dataset, source, progress=progress)
    for name, cohort in made.items():
        if isinstance(cohort, Cohort):
            _write(folder / name, cohort, _stamp(cohort.task, source, digest))
    found |= made
    return {task.name: found[task.name] for task in tasks}


def _write(path: Path, cohort: Cohort, stamp: str) -> None:
    with whole_folder(path) as provisional:
        files = write_labels(provisional, cohort) if len(cohort.labels) else []
        names = [file.relative_to(provisional).as_posix() for file in files]
        content = {"stamp": stamp, "flow": cohort.flow, "files": names, "sha256": sha256_of_files(files)}
        (provisional / FLOW).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def digest_of_records(dataset: MedsDataset) -> str:
    """Return a hash of everything of a data set that results depend on: events, metadata and published labels."""
    published = sorted((dataset.root / LABELS).rglob("*.parquet"))
    metadata = sorted((dataset.root / METADATA).glob("*.parquet"))
    return f"{sha256_of_files([*dataset.shards, *metadata, *published])} {dataset.time_is_order}"


def _stamp(task: Task, source: str, digest: str) -> str:
    """Return a hash of all that the labels of a task depend on."""
    files = (task.path, read_spelling(SOURCES.get(source, source)).path)
    content = (FORMAT_VERSION, *(path.read_text(encoding="utf-8") for path in files), digest)
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _read(path: Path, task: Task, stamp: str) -> Cohort | None:
    """Return a cohort that was written, None if it was not, is of other records, or was changed since."""
    try:
        content = json.loads((path / FLOW).read_text(encoding="utf-8"))
        if content["stamp"] != stamp or not content["files"]:
            return None
        flow = [(reason, int(count)) for reason, count in content["flow"]]
        files = [path / file for file in content["files"]]
        if sha256_of_files(files) != content["sha256"]:
            return None
        parts = [read_labels(file) for file in files]
    except (OSError, ValueError, TypeError, KeyError, InputError):
        return None
    value = np.stack([part.value for part in parts], axis=1) if task.kind == MULTILABEL else parts[0].value
    return dataclasses.replace(Cohort(parts[0], flow, task), labels=Labels(parts[0].subject, parts[0].time, value))
