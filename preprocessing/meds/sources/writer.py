"""Write the events of a source other than MIMIC as a MEDS data set, and count what became of its rows."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from rich.console import Console

from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.rejects import Rejects
from preprocessing.meds import metadata as meds_metadata
from preprocessing.meds.conversion import (
    CORE,
    MALFORMED,
    Conversion,
    MedsRequest,
    convert_once,
    events_with_malformed_codes,
    release_of,
)
from preprocessing.meds.layout import LABELS, METADATA, TASK_FILE
from preprocessing.meds.shards import Shards
from preprocessing.meds.sources.tables import Source, Tables
from preprocessing.meds.table_files import TableFiles

pl = load("polars")

# Number to increase when the same files give another result.
_FORMAT = 3
# File of the persons behind subjects, where a source has several subjects of one person.
PERSONS = "persons.parquet"
# Beginnings of codes that the text of their events describes.
_DESCRIBED_BY_TEXT = ("MEDICATION//HICL//",)


@dataclasses.dataclass
class Timelines:
    """Hold the subjects of a source and its events.

    Attributes:
        subjects: sorted ids, int64 [n].
        split: position in `splits.SUBJECT_SPLITS` of each subject, int8 [n]; None splits by a hash of the id.
        events: yields the name of a table, a block of its rows with `line`, and the events of the block (see
            `Tables.event`).
        labels: name of a task -> its labels, with the columns of `meds.LabelSchema`.
        described: code -> description.
        persons: the person of each subject (`subject_id`, `person`), or None where subjects are persons.
    """

    subjects: np.ndarray
    split: np.ndarray | None
    events: Iterator[tuple[str, "pl.DataFrame", "pl.DataFrame"]]
    labels: Mapping[str, "pl.DataFrame"] = dataclasses.field(default_factory=dict)
    described: Mapping[str, str] = dataclasses.field(default_factory=dict)
    persons: "pl.DataFrame | None" = None


def write(
    request: MedsRequest, source: Source, paths: Mapping[str, Path], read: Callable[[Tables], Timelines]
) -> Conversion:
    """Convert a source to MEDS, unless the output was made of the same files; it appears once it is complete.

    Args:
        request: input, output and options.
        source: the source.
        paths: name of a table -> its file.
        read: reads the tables.

    Raises:
        InputError: the tables cannot be read, an option is one of MIMIC alone, or the output cannot be written.
    """
    meds = load("meds")  # Fails before any work.
    of_mimic = {"version": None, "also": (), "ndc_map": None, "lab_time": "store"}
    for option, default in of_mimic.items():
        if getattr(request, option) != default:
            raise InputError(f"--{option} is an option of MIMIC; leave it out to convert {source.name}.")
    options = {"subjects_per_shard": request.subjects_per_shard, "verify": request.verify}
    files = TableFiles(request.input, paths, home=Path(os.path.commonpath([path.parent for path in paths.values()])))
    inputs = files.stamps(paths.values(), request.verify)
    stamp = {"format": _FORMAT, "version": source.name, "options": options, "inputs": inputs}

    def make(folder: Path, rejects: Rejects) -> dict:
        tables = Tables(source, files, rejects, request.progress)
        about = _write_all(request, tables, read(tables), folder, meds)
        about["checksums"] = files.verify(paths.values(), request.progress) if request.verify else None
        return about

    return convert_once(request, request.input, stamp, make)


def _write_all(request: MedsRequest, tables: Tables, timelines: Timelines, folder: Path, meds) -> dict:
    """Write data, metadata and labels, and return the numbers for `conversion.json`."""
    source, metadata = tables.source, folder / METADATA
    subjects = timelines.subjects
    with Shards(folder, subjects, request.subjects_per_shard, source.event, timelines.split) as shards:
        for table, frame, events in timelines.events:
            shards.add(_timed(tables, table, frame, events))
        tally = shards.finish(_is_described_by_text, meds.DataSchema.validate, request.progress)
    meds_metadata.write_codes(metadata, tally.events, tally.texts, (dict(timelines.described), {}))
    meds_metadata.write_splits(metadata, subjects, shards.split)
    meds_metadata.write_dataset(
        metadata,
        source.name,
        release_of(request.input),
        [name for name in source.event if name not in CORE],
        meds.__version__,
        source.further,
    )
    meds_metadata.write_malformed(metadata / MALFORMED, tables.codes.malformed)
    if timelines.persons is not None:
        timelines.persons.sort("subject_id").write_parquet(metadata / PERSONS)
    for task, labels in timelines.labels.items():
        write_labels(folder, task, labels)
    persons = {} if timelines.persons is None else {"persons": timelines.persons["person"].n_unique()}
    return {
        "patients": len(subjects),
        **persons,
        "events": sum(tally.rows.values()),
        "tables": tables.summary(),
        "tables_not_read": [name for name in source.tables if not tables.has(name)],
        "columns_not_found": {tables.files.relative(tables.files.path(t)): c for t, c in tables.columns_absent.items()},
        "files_not_known": tables.files.others(tables.files.paths.values(), request.output),
        "events_with_malformed_codes": events_with_malformed_codes(tables.codes),
        "labels": {task: len(labels) for task, labels in sorted(timelines.labels.items())},
        "counted": dict(tables.counted),
    }


def write_labels(folder: Path, task: str, labels: "pl.DataFrame") -> None:
    """Write the labels of a task, with the columns of `meds.LabelSchema`, into the folder of a data set."""
    path = folder / LABELS / task / TASK_FILE
    path.parent.mkdir(parents=True)
    labels = labels.sort("subject_id", "prediction_time", maintain_order=True)
    table = labels.to_arrow(compat_level=pl.CompatLevel.oldest())
    load("pyarrow.parquet").write_table(load("meds").LabelSchema.align(table), path)


def _timed(tables: Tables, table: str, frame: "pl.DataFrame", events: "pl.DataFrame") -> "pl.DataFrame":
    """Return the events with a time, and reject the rows whose only events have none; sex has no time."""
    timeless = events["time"].is_null() & ~events["code"].str.starts_with("GENDER//")
    kept = events.filter(~timeless)
    lost = frame["line"].is_in(events["line"].filter(timeless).unique().implode()) & ~frame["line"].is_in(
        kept["line"].unique().implode()
    )
    tables.reject(table, frame, lost, "no time", "the row has no time")
    tables.with_events[table] += kept["line"].n_unique()
    tables.events[table] += len(kept)
    return kept


def _is_described_by_text(code: str) -> bool:
    return code.startswith(_DESCRIBED_BY_TEXT)


def show_counted(conversion: Conversion, console: Console) -> None:
    """Print what was counted beside rows and events, one line each, and the labels."""
    about = conversion.about
    for what, number in about.get("counted", {}).items():
        console.print(f"{number:,} {what}.", highlight=False, soft_wrap=True)
    for task, number in about.get("labels", {}).items():
        line = f"{number:,} labels of {task}: {conversion.output / LABELS / task}."
        console.print(line, highlight=False, markup=False, soft_wrap=True)
