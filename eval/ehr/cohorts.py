"""Make the cohort of each task once, and keep its labels as files that other programs read too."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np

from eval.ehr.results import MULTILABEL
from eval.ehr.tasks.cohort import Cohort, make_cohort, write_labels
from eval.ehr.tasks.definition import Task
from medtok_jax.records.samples import Labels, read_labels
from preprocessing.common.atomic import recover, whole_folder
from preprocessing.common.checksums import sha256_of_files
from preprocessing.meds.dataset import MedsDataset
from preprocessing.meds.layout import LABELS, METADATA

FLOW = "cohort.json"
# To be increased when the same records give other labels.
FORMAT_VERSION = 1


def open_cohort(task: Task, dataset: MedsDataset, source: str, folder: Path, *, digest: str) -> Cohort:
    """Return the cohort of a task, made unless it lies in `folder/NAME`, in the form of `tasks.cohort.write_labels`.

    Args:
        task: the task.
        dataset: the events.
        source: name of the data set in `tasks.definition.SOURCES`.
        folder: folder of the labels of all tasks.
        digest: hash of the records, see `digest_of_records`.

    Raises:
        InputError: the task does not fit the records, see `make_cohort`.
    """
    path = folder / task.name
    recover(path)
    stamp = _stamp(task, digest)
    if (kept := _read(path, task, stamp)) is not None:
        return kept
    cohort = make_cohort(task, dataset, source)
    with whole_folder(path) as provisional:
        files = write_labels(provisional, cohort) if len(cohort.labels) else []
        names = [file.relative_to(provisional).as_posix() for file in files]
        content = {"stamp": stamp, "flow": cohort.flow, "files": names}
        (provisional / FLOW).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return cohort


def digest_of_records(dataset: MedsDataset) -> str:
    """Return a hash of everything of a data set that labels depend on: events, metadata and published labels."""
    published = sorted((dataset.root / LABELS).rglob("*.parquet"))
    metadata = sorted((dataset.root / METADATA).glob("*.parquet"))
    return sha256_of_files([*dataset.shards, *metadata, *published])


def _stamp(task: Task, digest: str) -> str:
    """Return a hash of all that the labels of a task depend on."""
    content = (FORMAT_VERSION, task.path.read_text(encoding="utf-8"), digest)
    return hashlib.sha256(repr(content).encode()).hexdigest()


def _read(path: Path, task: Task, stamp: str) -> Cohort | None:
    """Return a cohort that was written, None if it was not, or of other records."""
    try:
        content = json.loads((path / FLOW).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if content.get("stamp") != stamp:
        return None
    flow = [(reason, int(count)) for reason, count in content["flow"]]
    if not content["files"]:
        return None
    parts = [read_labels(path / file) for file in content["files"]]
    value = np.stack([part.value for part in parts], axis=1) if task.kind == MULTILABEL else parts[0].value
    return dataclasses.replace(Cohort(parts[0], flow, task), labels=Labels(parts[0].subject, parts[0].time, value))
