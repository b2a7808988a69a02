"""List the readers of records of patients: MEDS, the sources that are converted to it, labels and predictions."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from eval.ehr import cells, external, history, records
from eval.ehr.results import BINARY, MULTILABEL
from eval.ehr.tasks import cohort, definition
from medtok_jax.records.samples import Labels, read_labels
from preprocessing.meds import open
from preprocessing.meds.conversion import MedsRequest
from preprocessing.meds.dataset import MedsDataset
from preprocessing.meds.layout import METADATA
from preprocessing.meds.sources import diabetes130
from preprocessing.meds.sources.writer import PERSONS
from tests.helpers import mimic_copies, small_visits, source_copies
from tests.helpers.foreign_readers.mutations import ForeignReader

SUBJECT = np.array([1, 2, 3])
TIME = np.array(["2020-03-05", "2021-01-04", "2022-02-03"], "datetime64[us]")
Y = np.array([True, False, True])


def _write_meds(folder: Path) -> None:
    small_visits.write(folder, splits={1: "train", 2: "tuning", 3: "train", 4: "held_out", 5: "train"})
    (folder / METADATA / "conversion.json").write_text('{"tables_not_read": ["diagnosis"]}')
    (folder / METADATA / "dataset.json").write_text('{"dataset_name": "made up", "meds_version": "0.3.3"}')
    about = {"code": ["ICD10CM/E11.9"], "description": ["Sugar"], "parent_codes": [["ICD10CM/E11"]]}
    pl.DataFrame(about).write_parquet(folder / METADATA / "codes.parquet")
    pl.DataFrame({"subject_id": [1, 2], "person": ["a", "b"]}).write_parquet(folder / METADATA / PERSONS)


def _read_meds(folder: Path) -> None:
    dataset = MedsDataset.open(folder)
    for frame in dataset.frames("train"):
        frame.to_dicts()
    dataset.parent_codes()
    dataset.descriptions()
    cohort.persons_of(dataset)
    history._persons(dataset, SUBJECT)
    records._own_name(folder)
    ", ".join(records.Records(records.MEDS, dataset).tables_not_read)


def _converted(write: Callable[[Path], object]) -> ForeignReader:
    def read(folder: Path) -> None:
        output = folder.with_name(f"{folder.name}.meds")
        try:
            open.convert(MedsRequest(folder, output, progress=False))
        finally:
            shutil.rmtree(output, ignore_errors=True)

    return ForeignReader(write, read, 0.1)


def _write_labels(folder: Path) -> None:
    frame = {"subject_id": SUBJECT, "prediction_time": TIME, "boolean_value": Y}
    pl.DataFrame(frame).write_parquet(folder / "labels.parquet")


def _write_predictions(folder: Path) -> None:
    frame = {"subject_id": SUBJECT, "prediction_time": TIME, "predicted_boolean_probability": [0.5, 0.25, 1.0]}
    pl.DataFrame(frame).write_parquet(folder / "p.parquet")


def _read_predictions(folder: Path) -> None:
    external.read(external.parse(f"mortality=own={folder / 'p.parquet'}"), Labels(SUBJECT, TIME, Y))


def _cell(kind: str) -> cells.Cell:
    return cells.Cell("mortality", "codes", "logistic", "full", "", "bedside", 0, kind, {})


def _written_cell(kind: str, value: np.ndarray, p: np.ndarray) -> ForeignReader:
    def write(folder: Path) -> None:
        predicted = cells.Predicted(Labels(SUBJECT, TIME, value), p, np.array([0.5, 0.4, 0.5]), {}, np.array([0, 1, 2]))
        cells.Cells(folder).save(_cell(kind), predicted)

    return ForeignReader(write, lambda folder: cells.Cells(folder).load(_cell(kind), {1: 0, 2: 1, 3: 2}))


def _write_task(folder: Path) -> None:
    shutil.copy(definition.FOLDER / "mortality.yaml", folder)


def _read_task(folder: Path) -> None:
    definition.read_task(next(folder.glob("*.yaml")))


READERS = {
    "MEDS": ForeignReader(_write_meds, _read_meds, 0.5),
    "MIMIC-III": _converted(lambda folder: mimic_copies.write(folder, "mimic3")),
    "MIMIC-IV": _converted(lambda folder: mimic_copies.write(folder, "mimic4", gzipped=True)),
    "eICU": _converted(source_copies.eicu),
    "Diabetes-130": _converted(source_copies.diabetes130),
    "EHRSHOT": _converted(source_copies.ehrshot),
    "mapping of Diabetes-130": ForeignReader(
        lambda folder: (folder / "IDS_mapping.csv").write_text(source_copies.MAPPING),
        lambda folder: diabetes130.read_mapping(folder / "IDS_mapping.csv"),
    ),
    "labels": ForeignReader(_write_labels, read_labels),
    "predictions": ForeignReader(_write_predictions, _read_predictions),
    "binary cell": _written_cell(BINARY, Y, np.array([0.5, 0.25, 1.0], np.float32)),
    "multilabel cell": _written_cell(MULTILABEL, np.eye(3).astype(bool), np.full((3, 3), 0.25, np.float32)),
    "task": ForeignReader(_write_task, _read_task),
}
