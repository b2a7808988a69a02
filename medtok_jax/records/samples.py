"""Make the samples of a prediction task: what is known of a patient at a time, with a label. No JAX here.

A label is a patient, a prediction time and a value, from a file in the form of MEDS (`read_labels`) or from the next
visit (`task_labels`). `make_samples` gives each label its history, in one way for every export and benchmark:

- An event is seen if it is known at the prediction time: of a stay that goes on, all that has happened but procedures,
  which are coded after its discharge (`Visits.known`).
- Diagnoses and procedures at the discharge or after it are seen at once only where the caller asks for them (`coded`),
  else a day later.
- The beginning, the end and the type of a visit are those that can be told by then.

What a sample sees is the same whatever follows its prediction time.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medtok_jax.records.choices import MORTALITY
from medtok_jax.records.visits import Visits, VisitTable
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.ragged import offsets_of
from preprocessing.meds.dataset import cast, read_parquet
from preprocessing.meds.layout import TASK_FILE

pl = load("polars")

READMISSION_DAYS = 15
# Columns of values in MEDS label files -> type of the values.
VALUES = {
    "boolean_value": pl.Boolean,
    "integer_value": pl.Int64,
    "float_value": pl.Float64,
    "categorical_value": pl.String,
}


@dataclasses.dataclass(frozen=True)
class Labels:
    """Hold labels of one task.

    Attributes:
        subject: `[labels]` int64, the `subject_id`.
        time: `[labels]` datetime64[us], the `prediction_time`.
        value: `[labels]` bool, int64, float64 or str.
    """

    subject: np.ndarray
    time: np.ndarray
    value: np.ndarray

    def __len__(self) -> int:
        return len(self.subject)


@dataclasses.dataclass(frozen=True)
class Samples:
    """Hold labeled histories: the visits of sample s are `row[offsets[s]:offsets[s + 1]]`, in the order of their start.

    Attributes:
        visits: the visits as they are seen; samples share those that they see alike.
        offsets: `[samples + 1]` int64.
        row: `[...]` int64, rows of `visits`.
        labels: the label of each sample.
        left_out: number of labels that make no sample, as no code is seen at their time.
    """

    visits: VisitTable
    offsets: np.ndarray
    row: np.ndarray
    labels: Labels
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def rows_of(self, sample: int) -> np.ndarray:
        """Return the visits of a sample, `[visits]` int64 rows of `visits`."""
        return self.row[self.offsets[sample] : self.offsets[sample + 1]]

    @property
    def days_since_previous(self) -> np.ndarray:
        """Return the full days since the end of the visit before, int64 for each of `row`; 0 for the first."""
        gap = np.zeros(len(self.row), np.int64)
        gap[1:] = (self.visits.start[self.row[1:]] - self.visits.end[self.row[:-1]]) // np.timedelta64(1, "D")
        gap[self.offsets[:-1]] = 0
        return np.maximum(gap, 0)


class NextVisits(NamedTuple):
    """Hold the visits that another one follows; visits that overlap are one, which ends when all of them have.

    Attributes:
        row: `[n]` int64, the last visit before each gap, by its start.
        time: `[n]` datetime64[us], the time at which the gap begins.
        stop: `[n]` int64, the row behind those of the next visit, which are `row + 1` to `stop - 1`.
    """

    row: np.ndarray
    time: np.ndarray
    stop: np.ndarray

    def any(self, flags: np.ndarray) -> np.ndarray:
        """Return the `[n]` bool mask of next visits with one of `flags`, `[visits]` bool."""
        before = offsets_of(flags)
        return before[self.stop] > before[self.row + 1]


def next_visits(visits: Visits) -> NextVisits:
    """Return all visits that another one follows; a patient who has died has none, even where the records go on."""
    table = pl.DataFrame({"subject": visits.subject, "end": visits.end, "died": visits.died})
    seen = table.select(pl.col("end", "died").cum_max().over("subject"))
    over = seen["end"].to_numpy().astype("datetime64[us]")
    begins = visits.is_first.copy()
    begins[1:] |= visits.start[1:] >= over[:-1]
    # The last rows before a beginning, and behind the last visit of all.
    last = np.append(np.flatnonzero(begins)[1:], len(visits)) - 1
    followed = np.append(~visits.is_first[last[:-1] + 1], False) & ~seen["died"].to_numpy()[last]
    place = np.flatnonzero(followed)
    return NextVisits(last[place], over[last[place]], last[place + 1] + 1)


def task_labels(visits: Visits, task: str) -> Labels:
    """Return a label for each visit that another one follows, at the time at which it ends; see `next_visits`.

    Labels are those of the paper's evaluation: for `mortality` True if the patient dies in the next visit; for
    `readmission` True if the next visit begins at most 15 days after the end of this one, be it on the same day.

    Raises:
        InputError: no visit is followed by another, or the task needs the time between visits and the records give
            only their order.
    """
    if task != MORTALITY:
        visits.check_intervals("Readmission", "give the --labels of the data set, or choose another task")
    following = next_visits(visits)
    if not len(following.row):
        raise InputError("No patient has two visits, so there is no next visit to predict; give --labels.")
    gap = visits.start[following.row + 1] - following.time
    soon = gap <= np.timedelta64(READMISSION_DAYS, "D")
    value = following.any(visits.died) if task == MORTALITY else soon
    return Labels(visits.subject[following.row], following.time, value)


def read_labels(path: Path) -> Labels:
    """Read labels in the form of MEDS: `subject_id`, `prediction_time`, and one of the columns `VALUES` with values.

    Args:
        path: a parquet file, or a folder of such files.

    Raises:
        InputError: there are no labels, or those of several tasks, a column is missing or has another type, a value is
            missing, or several of the columns have values.
    """
    path = Path(path)
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    tasks = [file.parent for file in files if file.name == TASK_FILE]
    if len(tasks) > 1:
        raise InputError(
            f"{path} holds the labels of {len(tasks):,} tasks; give the folder of one, such as {tasks[0]}."
        )
    frames = [_read_file(file) for file in files]
    labels = pl.concat(frames) if frames else pl.DataFrame()
    if not len(labels):
        raise InputError(f"{path} holds no labels; give a parquet file in MEDS form, or a folder of such files.")
    given = [name for name in VALUES if labels[name].null_count() < len(labels)]
    if len(given) != 1:
        found = f"{' and '.join(given)} have values" if given else "none has values"
        raise InputError(f"{path} must have values in one of {', '.join(VALUES)}, but {found}; keep one task a file.")
    for name in ("subject_id", "prediction_time", given[0]):
        if missing := labels[name].null_count():
            raise InputError(f"{path} has {missing:,} labels without {name}; remove those rows.")
    value = labels[given[0]].to_numpy()
    return Labels(
        labels["subject_id"].to_numpy(),
        labels["prediction_time"].to_numpy().astype("datetime64[us]"),
        value.astype(str) if given[0] == "categorical_value" else value,
    )


def _read_file(path: Path) -> "pl.DataFrame":
    frame = read_parquet(path)
    missing = [name for name in ("subject_id", "prediction_time") if name not in frame.columns]
    if missing or not any(name in frame.columns for name in VALUES):
        lacking = missing[0] if missing else f"of values ({', '.join(VALUES)})"
        raise InputError(f"{path} holds no MEDS labels: it has no column {lacking}; write it again.")
    if not isinstance(frame.schema["prediction_time"], (pl.Datetime, pl.Date)):
        raise InputError(f"the column prediction_time of {path} is no date and time; write it with that type.")
    kinds = {"subject_id": pl.Int64, "prediction_time": pl.Datetime("us"), **VALUES}
    absent = {name: pl.Series(name, [None] * len(frame), kind) for name, kind in kinds.items()}
    return pl.DataFrame(
        [cast(path, frame[name], kind) if name in frame.columns else absent[name] for name, kind in kinds.items()]
    )


def make_samples(visits: Visits, labels: Labels, *, coded: bool) -> Samples:
    """Return a sample for each label of a patient of whom a code is seen at its time, in the order of the labels.

    Args:
        visits: all visits of the data set.
        labels: the labels.
        coded: whether diagnoses and procedures from the discharge on are seen at once, not `Visits.coding` later.

    Raises:
        InputError: no label has a code before it.
    """
    label, visit = _pairs(visits, labels.subject)
    time = labels.time[label]
    begun = visits.first[visit] <= time
    label, visit, time = label[begun], visit[begun], time[begun]
    # Most visits are over, and seen by all samples alike; of each other one a row of its own is made.
    partial = ~(visits.complete[visit] <= time)
    if not coded:
        partial |= visits.has_coded[visit] & (visits.complete[visit] >= time - visits.coding)
    row = visit.copy()
    kept = ~partial
    where = np.flatnonzero(partial)
    rows, has_codes = _as_seen(visits, visit[where], time[where], coded)
    kept[where] = has_codes
    row[where[has_codes]] = len(visits) + np.arange(len(rows))
    seen = VisitTable.concatenated(visits, rows)
    label, row, visit = label[kept], row[kept], visit[kept]
    order = np.lexsort((visits.name[visit], visits.first[visit], seen.start[row], label))
    counts = np.bincount(label, minlength=len(labels))
    found = counts > 0
    if not found.any():
        raise InputError("No label has a medical code of its patient at or before its prediction_time; check both.")
    return Samples(
        visits=seen,
        offsets=offsets_of(counts[found]),
        row=row[order],
        labels=Labels(labels.subject[found], labels.time[found], labels.value[found]),
        left_out=int((~found).sum()),
    )


def _pairs(visits: Visits, subjects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return every pair of a label and a visit of its patient, `[pairs]` int64 each, label after label."""
    start = np.searchsorted(visits.subject, subjects, side="left")
    counts = np.searchsorted(visits.subject, subjects, side="right") - start
    return _ranges(start, counts)


def _ranges(start: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for ranges of numbers the place of the range of each number, and the numbers, `[sum of counts]` int64."""
    place = np.repeat(np.arange(len(counts)), counts)
    inside = np.arange(len(place)) - np.repeat(np.cumsum(counts) - counts, counts)
    return place, start[place] + inside


def _as_seen(visits: Visits, visit: np.ndarray, time: np.ndarray, coded: bool) -> tuple[VisitTable, np.ndarray]:
    """Return visits as they are seen at a time each, those of which a code is seen, and a `[n]` bool mask of these."""
    place, code = _ranges(visits.offsets[visit], np.diff(visits.offsets)[visit])
    is_seen = visits.known[code] <= time[place]
    if not coded:
        is_seen &= ~(visits.is_coded[code] & (visits.known[code] >= (time - visits.coding)[place]))
    place, code = place[is_seen], code[is_seen]
    counts = np.bincount(place, minlength=len(visit))
    kept = counts > 0
    visit, time, counts = visit[kept], time[kept], counts[kept]
    # Codes of a visit are in the order of their times, so the last one is the latest.
    last = visits.code_time[code[np.cumsum(counts) - 1]]
    start = _by_then(visits.admission[visit], time, visits.first[visit])
    table = VisitTable(
        subject=visits.subject[visit],
        name=visits.name[visit],
        start=start,
        end=np.maximum(start, _by_then(visits.discharge[visit], time, last)),
        birth=_by_then(visits.birth[visit], time, np.datetime64("NaT", "us")),
        died=np.zeros(len(visit), bool),
        admission_type=np.where(visits.typed[visit] <= time, visits.admission_type[visit], ""),
        offsets=offsets_of(counts),
        code=visits.code[code],
        key=visits.key,
        row=visits.row,
        kind=visits.kind,
        stay_days=np.where(visits.discharge[visit] <= time, visits.stay_days[visit], -1),
    )
    return table, kept


def _by_then(moment: np.ndarray, time: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Return each moment that is known and not after `time`, else `otherwise`."""
    return np.where(moment <= time, moment, otherwise)
