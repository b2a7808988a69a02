"""Make the samples of a prediction task, patient histories with a label each, from next visits or from MEDS labels."""

import dataclasses
from pathlib import Path

import numpy as np

from medtok_jax.records.visits import Visits
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load

pl = load("polars")

MORTALITY = "mortality"
READMISSION_DAYS = 15


@dataclasses.dataclass(frozen=True)
class Samples:
    """Hold labeled histories: sample s is the visits `first[s]` to `stop[s]` (exclusive) of one patient and `label[s]`.

    Attributes:
        first, stop: `[samples]` int64, rows of `Visits`.
        label: `[samples]` int64, 0 or 1.
        left_out: number of labels that make no sample, as no visit precedes them.
    """

    first: np.ndarray
    stop: np.ndarray
    label: np.ndarray
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.first)


def from_next_visits(visits: Visits, task: str) -> Samples:
    """Return a sample for each patient with two visits or more: all visits but the last, labeled by the last.

    Labels are those of the paper's evaluation: for `mortality`, 1 if the patient dies in the last visit; for
    `readmission`, 1 if the last visit begins 15 days or less after the one before it.

    Raises:
        InputError: no patient has two visits, or the task needs the time between visits and the records give only
            their order.
    """
    last = visits.patient_offsets[1:] - 1
    first = visits.patient_offsets[:-1]
    first, last = first[last > first], last[last > first]
    if not len(last):
        raise InputError("No patient has two visits, so there is no next visit to predict; give --labels.")
    label = visits.died[last] if task == MORTALITY else is_readmission(visits)[last]
    return Samples(first, last, label.astype(np.int64))


def is_readmission(visits: Visits) -> np.ndarray:
    """Return a `[visits]` bool mask of the visits that begin at most 15 days after the patient's previous visit.

    Raises:
        InputError: the records give only the order of visits.
    """
    visits.check_intervals("Readmission")
    gap = np.zeros(len(visits), "timedelta64[us]")
    gap[1:] = visits.start[1:] - visits.end[:-1]
    return ~visits.is_first & (gap <= np.timedelta64(READMISSION_DAYS, "D"))


def from_labels(visits: Visits, path: Path) -> Samples:
    """Return a sample for each MEDS label of a file: the visits that ended by the label's prediction time.

    Args:
        visits: all visits of the data set.
        path: parquet of `subject_id`, `prediction_time`, `boolean_value`, or a directory of such files (MEDS 0.4).

    Raises:
        InputError: the file holds no MEDS labels, or no label has a visit before it.
    """
    labels = _read_labels(path).with_row_index("label")
    numbered = pl.DataFrame({"subject_id": visits.subject, "end": visits.end, "visit": np.arange(len(visits))})
    # Where stays overlap, one counts as ended only when all that began before it have, so that a history has no gaps.
    over = numbered.with_columns(pl.col("end").cum_max().over("subject_id"))
    over = over.group_by("subject_id", "end").agg(pl.col("visit").max()).sort("end")
    by_time = labels.sort("prediction_time", maintain_order=True)
    found = by_time.join_asof(
        over, left_on="prediction_time", right_on="end", by="subject_id", strategy="backward", check_sortedness=False
    ).sort("label")
    kept = found["visit"].is_not_null()
    if not kept.any():
        raise InputError(f"No label in {path} has a visit that ended before its prediction_time.")
    stop = found["visit"].filter(kept).to_numpy() + 1
    first = visits.patient_offsets[np.searchsorted(visits.patient_offsets, stop - 1, side="right") - 1]
    label = labels["boolean_value"].filter(kept).to_numpy().astype(np.int64)
    return Samples(first, stop, label, int((~kept).sum()))


def _read_labels(path: Path) -> "pl.DataFrame":
    """Read `subject_id` int64, `prediction_time` datetime[us] and `boolean_value` bool from a file or a directory."""
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    columns = {"subject_id": pl.Int64, "prediction_time": pl.Datetime("us"), "boolean_value": pl.Boolean}
    try:
        frames = [pl.read_parquet(file, columns=list(columns)).cast(columns) for file in files]
        labels = pl.concat(frames).select(*columns) if frames else pl.DataFrame(schema=columns)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} holds no MEDS labels ({reason}); give parquet with the columns {', '.join(columns)}."
        ) from error
    if not len(labels) or any(labels[name].null_count() for name in columns):
        raise InputError(f"{path} holds no labels, or has nulls in {', '.join(columns)}; remove those rows.")
    return labels
