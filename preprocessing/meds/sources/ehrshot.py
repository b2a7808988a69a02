"""Convert the CSV release of EHRSHOT (Wornow et al. 2023, `EHRSHOT_ASSETS`) to MEDS.

    data/ehrshot.csv                           patient_id, start, end, code, value, unit, visit_id, omop_table
    splits/person_id_map.csv                   omop_person_id, split (train, val, test)
    benchmark/<task>/labeled_patients.csv      patient_id, prediction_time, value, label_type

Each row is an event at its `start`, with its code as it is (`SNOMED/44054006`, `RxNorm/860975`, `Visit/IP`) except for
birth and death, which MEDS names MEDS_BIRTH and MEDS_DEATH. A value that is a number is `numeric_value`, any other
`text_value`; `end`, `unit` and `omop_table` are columns. The published splits become train, tuning and held_out, and
the published labels `labels/<task>`: `boolean` ones with `boolean_value`, all others, which are whole numbers, with
`integer_value`, as in the MEDS release. That release needs no conversion.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.rejects import Rejects
from preprocessing.meds import splits
from preprocessing.meds.conversion import Conversion, MedsRequest
from preprocessing.meds.layout import BIRTH, OLD_CODES
from preprocessing.meds.mimic_tables import Kind
from preprocessing.meds.sources.tables import Source, Tables, only_home, tables_in
from preprocessing.meds.sources.writer import Timelines, write
from preprocessing.meds.table_files import known, moments

pl = load("polars")

_ID, _TEXT, _MOMENT = Kind.INTEGER, Kind.TEXT, Kind.MOMENT
TABLE, SPLITS = "ehrshot", "person_id_map"
_EVENT = {"patient_id": _ID, "start": _MOMENT, "code": _TEXT}
_ABOUT = {"end": _MOMENT, "value": _TEXT, "unit": _TEXT, "omop_table": _TEXT, "visit_id": _ID}
_LABEL = {"patient_id": _ID, "prediction_time": _TEXT, "value": _TEXT, "label_type": _TEXT}
SOURCE = Source(
    name="ehrshot",
    mark=TABLE,
    mark_columns=tuple(_EVENT),
    tables=(TABLE, SPLITS),
    columns={"unit": pl.String, "omop_table": pl.String, "end": pl.Datetime("us")},
    further={"license": "EHRSHOT Data Set License 1.0 (Stanford)"},
)
_SPLITS = {"train": splits.TRAIN, "val": splits.TUNING, "test": splits.HELD_OUT}
# Patients per file at most: 6,739 patients have 41.6 million events.
_PER_SHARD = 250
# Folders of the splits and of the labels, in the order in which they are looked for.
_SPLIT_FOLDERS = ("splits", "splits_ehrshot")
_LABEL_FOLDERS = ("benchmark", "benchmark_ehrshot")
LABELED = "labeled_patients"
_TRUTHS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


def convert(request: MedsRequest) -> Conversion:
    """Convert a copy of the CSV release of EHRSHOT to MEDS, see `writer.write`.

    Raises:
        InputError: the input is no copy of EHRSHOT, a file cannot be read, or the output cannot be written.
    """
    table = only_home(request.input, SOURCE)
    base = table.parent.parent if table.parent.name == "data" and table.parent != request.input else table.parent
    paths = {TABLE: table}
    for folder in _SPLIT_FOLDERS:
        if SPLITS not in paths and SPLITS in (found := tables_in(base / folder)):
            paths[SPLITS] = found[SPLITS]
    for folder in _LABEL_FOLDERS:
        for task in sorted((base / folder).iterdir() if (base / folder).is_dir() else ()):
            if task.name not in paths and LABELED in (found := tables_in(task)):
                paths[task.name] = found[LABELED]
    per_shard = min(request.subjects_per_shard, _PER_SHARD)
    return write(dataclasses.replace(request, subjects_per_shard=per_shard), SOURCE, paths, read)


def read(tables: Tables) -> Timelines:
    """Read the splits, the labels and the ids of all patients, and return them with an iterator over the events."""
    subjects = _subjects(tables)
    split = splits.split_of(subjects)
    if tables.has(SPLITS):
        given = _published(tables)
        names = np.array([given.get(int(subject), "") for subject in subjects])
        tables.count("patients have no published split; a hash of their id decides", (names == "").sum())
        for position, name in enumerate(splits.SUBJECT_SPLITS):
            split[names == name] = position
    else:
        tables.count("patients are split by a hash of their id, as splits/person_id_map.csv is absent", len(subjects))
    tasks = [name for name in tables.files.paths if name not in (TABLE, SPLITS)]
    return Timelines(subjects, split, _events(tables), {task: _labels(tables, task, subjects) for task in tasks})


def _subjects(tables: Tables) -> np.ndarray:
    """Return the ids of all patients with an event, int64 [n] sorted, in a pass that reads nothing else."""
    found = np.empty(0, np.int64)
    for frame in Tables(SOURCE, tables.files, Rejects(None), tables.progress).read(TABLE, {"patient_id": _ID}):
        found = np.union1d(found, frame["patient_id"].drop_nulls().to_numpy())
    if not len(found):
        raise InputError(f"{tables.files.path(TABLE)} has no rows with a patient_id; fetch it again.")
    return found


def _published(tables: Tables) -> dict[int, str]:
    """Return the published split of each patient, in the names of MEDS."""
    frame = tables.read_all(SPLITS, {"omop_person_id": _ID, "split": _TEXT})
    name = frame["split"].replace_strict(_SPLITS, default=None, return_dtype=pl.String)
    frame = frame.with_columns(name=name)
    bad = frame["name"].is_null() | frame["omop_person_id"].is_null()
    frame = tables.reject(SPLITS, frame, bad, "no split", "the row gives no patient a known split", ["name"])
    twice = ~frame["omop_person_id"].is_first_distinct()
    frame = tables.reject(SPLITS, frame, twice, "repeated", "a patient twice", ["name"])
    tables.with_events[SPLITS] += len(frame)
    return dict(zip(frame["omop_person_id"].to_list(), frame["name"].to_list(), strict=True))


def _labels(tables: Tables, task: str, subjects: np.ndarray) -> "pl.DataFrame":
    """Return the published labels of a task."""
    frame = tables.read_all(task, _LABEL)
    value = pl.col("value").str.to_lowercase()
    frame = frame.with_columns(
        time=moments(frame["prediction_time"]),
        truth=value.replace_strict(_TRUTHS, default=None, return_dtype=pl.Boolean),
        whole=value.str.strip_suffix(".0").cast(pl.Int64, strict=False),
    )
    hidden = ["time", "truth", "whole"]
    frame = tables.reject(task, frame, frame["time"].is_null(), "no time", "the row has no prediction time", hidden)
    unknown = ~known(frame["patient_id"], subjects)
    frame = tables.reject(task, frame, unknown, "no such patient", "the patient has no events", hidden)
    is_boolean = bool((frame["label_type"] == "boolean").all())
    values = "truth" if is_boolean else "whole"
    frame = tables.reject(task, frame, frame[values].is_null(), "no value", "the label is not of its type", hidden)
    tables.with_events[task] += len(frame)
    name = "boolean_value" if is_boolean else "integer_value"
    return frame.select(pl.col("patient_id").alias("subject_id"), prediction_time="time", **{name: values})


def _events(tables: Tables) -> Iterator[tuple[str, "pl.DataFrame", "pl.DataFrame"]]:
    for block in tables.read(TABLE, _EVENT, _ABOUT):
        lost = block["patient_id"].is_null()
        frame = tables.reject(TABLE, block, lost, "no patient_id", "the row names no patient")
        frame = tables.reject(TABLE, frame, frame["code"].is_null(), "no code", "the row has no code")
        frame = frame.with_columns(subject_id="patient_id", hadm_id="visit_id", code=pl.col("code").replace(OLD_CODES))
        number = pl.col("value").cast(pl.Float64, strict=False)
        about = {name: pl.col(name) for name in SOURCE.columns}
        about |= {"numeric_value": number, "text_value": pl.when(number.is_null()).then("value")}
        # The first event of a patient is the birth, with sex and race at the same time.
        first = frame.filter(pl.col("code") == BIRTH)
        others = frame.filter(pl.col("code") != BIRTH)
        code, time = pl.col("code"), pl.col("start")
        made = [tables.event(part, rank, code, time, **about) for part, rank in ((first, "BIRTH"), (others, "EVENT"))]
        yield TABLE, frame, pl.concat(made)
