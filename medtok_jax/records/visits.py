"""Group MEDS events into visits, for every export and benchmark that reads codes visit by visit. No JAX here.

Events with the same `hadm_id` are one visit; events without one make a visit for each patient and day. A visit begins
with its admission, or else with its first event. It ends with its discharge, or else when its last code first appears.
Only medical codes are kept, each once a visit, in the order of their first event; visits without any are left out.
"""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from medtok_jax.records.event_codes import MISSING, CodeMapper, systems_and_code
from preprocessing import codes
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.progress import Bar
from preprocessing.common.ragged import offsets_of
from preprocessing.meds.dataset import MedsDataset
from preprocessing.meds.layout import BIRTH, DEATH

pl = load("polars")

KINDS = DIAGNOSIS, PROCEDURE, PRESCRIPTION = ("diagnosis", "procedure", "prescription")
_KIND_OF_SYSTEM = {
    **dict.fromkeys((codes.ICD9CM, codes.ICD10CM, codes.SNOMED), DIAGNOSIS),
    **dict.fromkeys((codes.ICD9PROC, codes.ICD10PCS, codes.CPT4, codes.HCPCS), PROCEDURE),
    **dict.fromkeys((codes.RXNORM, codes.NDC, codes.ATC), PRESCRIPTION),
}
_VISIT = ["subject_id", "hadm_id", "day"]
# MIMIC in MEDS writes `HOSPITAL_ADMISSION//EW EMER.//EMERGENCY ROOM`, OMOP in MEDS `Visit/IP`.
_ADMISSION = r"^(?:HOSPITAL_ADMISSION//|Visit/)([^/]+)"
DISCHARGE = r"^HOSPITAL_DISCHARGE(?://|$)"
_DIED = r"(?i)^HOSPITAL_DISCHARGE//.*(?:DIED|DEAD|DEATH|EXPIRED)"
# MIMIC-III shifts ages over 89 to about 300 years; the median of the true ages is 91.4 (its documentation).
_SHIFTED_AGE = 150
_MEDIAN_AGE = 91
DAYS_A_YEAR = 365.2425
# Days for which codes at the discharge of their stay or after it are not there yet.
CODING_DAYS = 1.0
_NEVER = np.datetime64("9999-12-31", "us")
# Column of a discharge with the days of the stay, which data sets without dates have.
STAY_DAYS = "stay_days"


def kind_of(code: str) -> str | None:
    """Return which of `KINDS` a code is by its system, as events spell it; None where it names no code system."""
    named, _ = systems_and_code(code)
    return _KIND_OF_SYSTEM.get(named[0], DIAGNOSIS) if named else None


def age_days(birth: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return the age in days at each time, float64, NaN where it is unknown.

    Ages over 89, which MIMIC-III replaces by about 300 years, become 91 years.

    Args:
        birth: `[n]` datetime64[us].
        time: `[n]` datetime64[us].
    """
    days = (time - birth) / np.timedelta64(1, "D")
    days[days < 0] = 0
    days[days > _SHIFTED_AGE * DAYS_A_YEAR] = _MEDIAN_AGE * DAYS_A_YEAR
    return days


@dataclasses.dataclass(frozen=True)
class VisitTable:
    """Hold visits, in any order.

    Attributes:
        subject: `[visits]` int64, the `subject_id`.
        name: `[visits]` str, the `hadm_id`, or subject and day of a visit without one.
        start, end: `[visits]` datetime64[us].
        birth: `[visits]` datetime64[us], of the patient; NaT where it is unknown.
        died: `[visits]` bool, True if the patient died before the visit ended, or on the day of its end; no sample may
            see it.
        admission_type: `[visits]` str, as the data set spells it; empty where unknown.
        offsets: `[visits + 1]` int64, the codes of visit v are `code[offsets[v]:offsets[v + 1]]`.
        code: `[codes]` int32, indices into `key`.
        key: `[keys]` str, distinct codes `SYSTEM/code`, sorted; spelled as in the tokenizer where it holds them.
        row: `[keys]` int64, row of the tokenizer's table, -1 for a code that it does not hold.
        kind: `[keys]` int8, index into `KINDS`.
        stay_days: `[visits]` int64, the days of the stay as the data set states them, -1 where it does not.
    """

    subject: np.ndarray
    name: np.ndarray
    start: np.ndarray
    end: np.ndarray
    birth: np.ndarray
    died: np.ndarray
    admission_type: np.ndarray
    offsets: np.ndarray
    code: np.ndarray
    key: np.ndarray
    row: np.ndarray
    kind: np.ndarray
    stay_days: np.ndarray

    def __len__(self) -> int:
        return len(self.subject)

    def codes_of(self, visit: int) -> np.ndarray:
        """Return the codes of a visit, `[codes]` int32 indices into `key`."""
        return self.code[self.offsets[visit] : self.offsets[visit + 1]]

    @classmethod
    def concatenated(cls, one: "VisitTable", other: "VisitTable") -> "VisitTable":
        """Return the visits of both; they share `key`, `row` and `kind`."""
        of_visits = ("subject", "name", "start", "end", "birth", "died", "admission_type", "stay_days", "code")
        joined = {name: np.concatenate([getattr(one, name), getattr(other, name)]) for name in of_visits}
        offsets = np.concatenate([one.offsets, one.offsets[-1] + other.offsets[1:]])
        return VisitTable(**joined, offsets=offsets, key=one.key, row=one.row, kind=one.kind)

    @property
    def days(self) -> np.ndarray:
        """Return the full days of each visit, as stated, else from its start to its end, `[visits]` int64."""
        return np.where(self.stay_days >= 0, self.stay_days, (self.end - self.start) // np.timedelta64(1, "D"))

    @property
    def age_days(self) -> np.ndarray:
        """Return the age in days at the start of each visit, `[visits]` float64, NaN where it is unknown."""
        return age_days(self.birth, self.start)


@dataclasses.dataclass(frozen=True)
class Visits(VisitTable):
    """Hold all visits of a data set, sorted by subject and start, with the times at which they became known.

    Attributes:
        first: `[visits]` datetime64[us], the first event.
        admission, discharge: `[visits]` datetime64[us], the first event of each kind; NaT where there is none.
        typed: `[visits]` datetime64[us], the event that gives `admission_type`; NaT where there is none.
        code_time: `[codes]` datetime64[us], the first event of each of `code`.
        numbered: `[visits]` bool, True for those with a `hadm_id`; the others are days.
        without_codes: number of visits with a `hadm_id` that are left out because they have no medical code.
        time_is_order: True if the data set states that times only order events, so that no interval has a meaning.
    """

    first: np.ndarray
    admission: np.ndarray
    discharge: np.ndarray
    typed: np.ndarray
    code_time: np.ndarray
    numbered: np.ndarray
    without_codes: int
    time_is_order: bool

    def check_intervals(self, what: str, remedy: str) -> None:
        """Refuse what needs the time between visits, if the data set gives only their order.

        Args:
            what: a subject that starts the sentence, such as `Readmission`.
            remedy: what the user can do instead, without a full stop.

        Raises:
            InputError: `time_is_order` is True.
        """
        if self.time_is_order:
            raise InputError(
                f"{what} needs the time between visits, but the records give only their order (time_is_order in their"
                f" metadata/dataset.json); {remedy}."
            )

    @functools.cached_property
    def complete(self) -> np.ndarray:
        """Return the time from which on nothing of each visit changes any more, `[visits]` datetime64[us]."""
        known = np.maximum.reduceat(self.known, self.offsets[:-1])
        return functools.reduce(np.fmax, (self.admission, self.discharge, self.typed, self.birth, known))

    @functools.cached_property
    def known(self) -> np.ndarray:
        """Return the time from which on each of `code` is known, `[codes]` datetime64[us].

        Procedures of a stay with a `hadm_id` are coded after its discharge, whatever their date in the records, if the
        data set has discharges; those of a stay that has none are never known.
        """
        discharge, numbered = (np.repeat(part, np.diff(self.offsets)) for part in (self.discharge, self.numbered))
        if np.isnat(discharge).all():
            return self.code_time
        moved = (self.kind[self.code] == KINDS.index(PROCEDURE)) & numbered
        at_discharge = np.where(np.isnat(discharge), _NEVER, np.fmax(self.code_time, discharge))
        return np.where(moved, at_discharge, self.code_time)

    @functools.cached_property
    def is_coded(self) -> np.ndarray:
        """Return a `[codes]` bool mask of diagnoses and procedures from the discharge on; they are coded after it."""
        left = np.repeat(self.discharge, np.diff(self.offsets))
        return (self.kind[self.code] != KINDS.index(PRESCRIPTION)) & (self.known >= left)

    @functools.cached_property
    def has_coded(self) -> np.ndarray:
        """Return a `[visits]` bool mask of the visits with a code of `is_coded`."""
        return np.logical_or.reduceat(self.is_coded, self.offsets[:-1])

    @property
    def coding(self) -> np.timedelta64:
        """Return how long codes at a discharge or after it are not there yet; no time where times are an order."""
        return np.timedelta64(0 if self.time_is_order else round(CODING_DAYS * 86400e6), "us")

    @property
    def is_first(self) -> np.ndarray:
        """Return a `[visits]` bool mask of each patient's first visit."""
        return np.concatenate([[True], self.subject[1:] != self.subject[:-1]])[: len(self)]

    @property
    def patient_offsets(self) -> np.ndarray:
        """Return `[patients + 1]` int64 offsets: the visits of patient p are `offsets[p]` to `offsets[p + 1]`."""
        return np.append(np.flatnonzero(self.is_first), len(self))

    def admission_types(self) -> tuple[list[str], np.ndarray]:
        """Return the types of admission and the index of each visit's type among them, `[visits]` int64.

        Types are sorted by frequency, the most frequent first (ties by name). The index of an unknown type is -1.
        """
        names, inverse, counts = np.unique(self.admission_type, return_inverse=True, return_counts=True)
        order = [i for i in np.lexsort((names, -counts)) if names[i]]
        index = np.full(len(names), -1, np.int64)
        index[order] = np.arange(len(order))
        return [str(names[i]) for i in order], index[inverse]


def read_visits(dataset: MedsDataset, mapper: CodeMapper, *, progress: bool = True) -> Visits:
    """Read all visits of a data set, one file at a time.

    Args:
        dataset: the events.
        mapper: maps codes to rows and counts them; codes without a row are dropped if its `unmapped` is `drop`.
        progress: whether to show a progress bar.

    Raises:
        InputError: no visit has a medical code.
    """
    vocabulary = _Codes(mapper)
    parts = [_of_shard(frame, vocabulary) for frame in _frames(dataset, progress)]
    if not any(len(pairs) for _, pairs in parts):
        raise InputError(
            f"{dataset.root} has no event with a code that the tokenizer holds; write codes with their system, like"
            " ICD10CM/E11.9 or DIAGNOSIS//ICD//10//E119."
        )
    visits = pl.concat([visits for visits, _ in parts])
    # Each file numbers its visits from 0; they are shifted by the visits of the files before.
    shifts = np.cumsum([0, *(len(visits) for visits, _ in parts[:-1])])
    visit = np.concatenate([p["visit"].to_numpy() + shift for (_, p), shift in zip(parts, shifts, strict=True)])
    pairs = pl.concat([pairs.select("name", "time") for _, pairs in parts]).with_columns(pl.Series("visit", visit))
    return _assemble(visits, pairs, vocabulary, time_is_order=dataset.time_is_order)


def _frames(dataset: MedsDataset, progress: bool) -> Iterator["pl.DataFrame"]:
    columns = ["hadm_id", *(name for name in (STAY_DAYS,) if name in dataset.further)]
    bar = Bar(total=len(dataset.shards), desc="Reading visits", unit=" files", show=progress)
    with bar:
        for frame in dataset.frames(columns=columns):
            yield frame
            bar.update()


class _Codes:
    """Number the medical codes of a data set; all spellings of a code get the same number."""

    def __init__(self, mapper: CodeMapper):
        self.mapper = mapper
        self.number: dict[str, int] = {}
        self.row: list[int] = []
        self.kind: list[int] = []

    def numbers(self, spellings: "pl.Series", rows: np.ndarray) -> list[int | None]:
        """Return the number of each distinct spelling's code; None if it is not a medical code or is to be dropped."""
        medical = self.mapper.is_medical(spellings)
        return [
            self._number(text, int(row)) if is_code and (row != MISSING or self.mapper.unmapped != "drop") else None
            for text, row, is_code in zip(spellings, rows, medical, strict=True)
        ]

    def _number(self, text: str, row: int) -> int:
        key = self.mapper.key(text, row)
        if key not in self.number:
            self.number[key] = len(self.number)
            self.row.append(row)
            self.kind.append(KINDS.index(_KIND_OF_SYSTEM.get(key.partition("/")[0], DIAGNOSIS)))
        return self.number[key]


def _of_shard(frame: "pl.DataFrame", vocabulary: _Codes) -> tuple["pl.DataFrame", "pl.DataFrame"]:
    """Return the visits of one file and its (visit, code) pairs: each code once a visit, in the order of events."""
    stated = pl.col(STAY_DAYS) if STAY_DAYS in frame.columns else pl.lit(None)
    frame = frame.with_columns(stated.cast(pl.Int64, strict=False).alias(STAY_DAYS))
    births, deaths = (_times(frame, code) for code in (BIRTH, DEATH))
    events = frame.filter(pl.col("time").is_not_null() & ~pl.col("code").is_in([BIRTH, DEATH]))
    events = events.with_columns(
        day=pl.when(pl.col("hadm_id").is_null()).then(pl.col("time").dt.date()).otherwise(None),
    ).join(_meaning(events["code"], vocabulary), on="code", how="left", maintain_order="left")
    # A day without any medical code or admission, such as one of laboratory values only, makes no visit.
    events = events.filter(
        pl.col("hadm_id").is_not_null() | pl.col("name").is_not_null() | pl.col("type").is_not_null()
    )
    time = pl.col("time")
    pairs = events.filter(pl.col("name").is_not_null()).select(*_VISIT, "name", "time")
    pairs = pairs.unique([*_VISIT, "name"], keep="first", maintain_order=True)
    last_code = pairs.group_by(_VISIT).agg(last_code=time.max())
    visits = (
        events.group_by(_VISIT, maintain_order=True)
        .agg(
            first=time.min(),
            admission=time.filter(pl.col("admission")).min(),
            discharge=time.filter(pl.col("discharge")).min(),
            typed=time.filter(pl.col("type").is_not_null()).first(),
            admission_type=pl.col("type").drop_nulls().first().fill_null(""),
            died=pl.col("died").any(),
            stay_days=pl.col(STAY_DAYS).max().fill_null(-1),
        )
        .join(last_code, on=_VISIT, how="left", nulls_equal=True, maintain_order="left")
        .join(births.rename({"time": "birth"}), on="subject_id", how="left", maintain_order="left")
        .join(deaths.rename({"time": "death"}), on="subject_id", how="left", maintain_order="left")
        .with_columns(start=pl.coalesce("admission", "first"))
        .with_columns(end=pl.max_horizontal("start", pl.coalesce("discharge", "last_code")))
        .with_columns(
            died=pl.col("died")
            | pl.col("death").dt.date().is_between(pl.col("start").dt.date(), pl.col("end").dt.date()).fill_null(False)
        )
        .with_row_index("visit")
    )
    pairs = pairs.join(visits.select(*_VISIT, "visit"), on=_VISIT, how="left", nulls_equal=True, maintain_order="left")
    return visits.drop("visit", "death", "last_code"), pairs.select("visit", "name", "time")


def _times(frame: "pl.DataFrame", code: str) -> "pl.DataFrame":
    """Return the time of each patient's first event with a code."""
    found = frame.filter((pl.col("code") == code) & pl.col("time").is_not_null())
    return found.group_by("subject_id").agg(pl.col("time").min())


def _meaning(events: "pl.Series", vocabulary: _Codes) -> "pl.DataFrame":
    """Return for each distinct code whether it is a medical code, an admission, a discharge or a death."""
    # The mapper counts events, so every event is passed to it, not only distinct codes.
    rows = pl.DataFrame({"code": events, "row": vocabulary.mapper.rows(events)}).unique("code", maintain_order=True)
    code = pl.col("code")
    return rows.select(
        code,
        pl.Series("name", vocabulary.numbers(rows["code"], rows["row"].to_numpy()), pl.Int32),
        code.str.extract(_ADMISSION, 1).alias("type"),
        code.str.contains(r"^HOSPITAL_ADMISSION(?://|$)").alias("admission"),
        code.str.contains(DISCHARGE).alias("discharge"),
        code.str.contains(_DIED).alias("died"),
    )


def _assemble(visits: "pl.DataFrame", pairs: "pl.DataFrame", vocabulary: _Codes, *, time_is_order: bool) -> Visits:
    """Sort visits and keys, and leave out visits without codes; `pairs` are the `visit`, `name` and `time` of codes."""
    visit = pairs["visit"].to_numpy().astype(np.int64)
    code = pairs["name"].to_numpy().astype(np.int32)
    key = np.array(list(vocabulary.number), dtype=object)
    by_key = np.argsort(key.astype(str), kind="stable")
    new_index = np.empty(len(key), np.int32)
    new_index[by_key] = np.arange(len(key))
    counts = np.bincount(visit, minlength=len(visits))
    days = pl.col("subject_id").cast(pl.String) + "-" + pl.col("day").dt.to_string("%Y%m%d")
    table = visits.with_columns(
        pl.Series("count", counts),
        pl.int_range(pl.len()).alias("number"),
        pl.col("hadm_id").cast(pl.String).fill_null(days).alias("visit_name"),
    )
    # Not by what is known only later, such as the end.
    kept = table.filter(pl.col("count") > 0).sort("subject_id", "start", "first", "visit_name")
    rank = np.full(len(visits), -1, np.int64)
    rank[kept["number"].to_numpy()] = np.arange(len(kept))
    order = np.argsort(rank[visit], kind="stable")
    left_out = table.filter((pl.col("count") == 0) & pl.col("hadm_id").is_not_null())
    return Visits(
        subject=kept["subject_id"].to_numpy(),
        name=kept["visit_name"].to_numpy().astype(str),
        **{
            name: kept[name].to_numpy().astype("datetime64[us]")
            for name in ("start", "end", "birth", "first", "admission", "discharge", "typed")
        },
        code_time=pairs["time"].to_numpy().astype("datetime64[us]")[order],
        numbered=kept["hadm_id"].is_not_null().to_numpy(),
        died=kept["died"].to_numpy(),
        admission_type=kept["admission_type"].to_numpy().astype(str),
        offsets=offsets_of(kept["count"].to_numpy()),
        code=new_index[code[order]],
        key=key[by_key].astype(str),
        row=np.array(vocabulary.row, np.int64)[by_key],
        kind=np.array(vocabulary.kind, np.int8)[by_key],
        without_codes=len(left_out),
        stay_days=kept[STAY_DAYS].cast(pl.Int64).to_numpy(),
        time_is_order=time_is_order,
    )
