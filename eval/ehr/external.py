"""Read predictions that other programs made for the same samples, so that they stand in the same report."""

import dataclasses
from pathlib import Path

import numpy as np

from eval.common.counts import shown
from medtok_jax.records.samples import Labels
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.meds.dataset import read_parquet

pl = load("polars")

_COLUMNS = {
    "subject_id": pl.Int64,
    "prediction_time": pl.Datetime("us"),
    "predicted_boolean_probability": pl.Float64,
}


@dataclasses.dataclass(frozen=True)
class ExternalModel:
    """Name predictions of one binary task by another program.

    Attributes:
        task: name of the task.
        name: name in tables and plots.
        path: parquet file in the prediction schema of MEDS.
    """

    task: str
    name: str
    path: Path


def parse(given: str) -> ExternalModel:
    """Return what `TASK=NAME=PATH` names.

    Raises:
        InputError: it has another form, or there is no such file.
    """
    task, first, rest = given.partition("=")
    name, second, path = rest.partition("=")
    if not (first and second and task and name and path):
        raise InputError(
            f"--predictions={given} must have the form TASK=NAME=PATH, such as mortality=ETHOS=ethos.parquet."
        )
    if not Path(path).expanduser().is_file():
        raise InputError(f"--predictions: there is no file {path}; give predictions in the MEDS schema as parquet.")
    return ExternalModel(task, name, Path(path).expanduser())


def read(external: ExternalModel, labels: Labels) -> np.ndarray:
    """Return the probability of each label, `[n]` float64.

    Raises:
        InputError: the file is not in the schema, predicts a sample twice, or lacks samples.
    """
    table = read_parquet(external.path)
    lacking = [name for name in _COLUMNS if name not in table.columns]
    if lacking:
        raise InputError(f"{external.path} has no column {lacking[0]}; write predictions in the MEDS schema.")
    for name, kind in _COLUMNS.items():
        try:
            table = table.with_columns(pl.col(name).cast(kind))
        except pl.exceptions.PolarsError:
            # The message of polars quotes values.
            raise InputError(f"{external.path} has a column {name} that is no {kind}; write it as one.") from None
    table = table.select(list(_COLUMNS))
    asked = pl.DataFrame({"subject_id": labels.subject, "prediction_time": labels.time.astype("datetime64[us]")})
    twice = len(table) - table.select("subject_id", "prediction_time").n_unique()
    if twice:
        raise InputError(
            f"{external.path} predicts {shown(twice, show_small=False)} samples more than once; keep one row for each."
        )
    found = asked.join(table, on=["subject_id", "prediction_time"], how="left", maintain_order="left")
    probability = found["predicted_boolean_probability"]
    missing = probability.null_count()
    if missing:
        raise InputError(
            f"{external.path} lacks {shown(missing, show_small=False)} of the test samples of {external.task}; predict"
            " those of the label files that the benchmark writes."
        )
    return probability.to_numpy()
