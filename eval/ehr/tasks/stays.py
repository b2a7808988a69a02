"""Find the stays of a data set, and leave out those that no task can use, each with a reason that is counted."""

import dataclasses

from eval.ehr.tasks.spelling import FIRST_ICU, Spelling
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.meds.layout import BIRTH, DEATH

pl = load("polars")

ADULT_YEARS = 18
# Columns beside those of MEDS that say more about stays, where a data set has them.
FLAG, STAY_DAYS = "hospital_expire_flag", "stay_days"
OPTIONAL = {FLAG: pl.Int64, STAY_DAYS: pl.Int64, "route": pl.String, "icustay_id": pl.Int64}
ADDED_DISCHARGE = "HOSPITAL_DISCHARGE"


@dataclasses.dataclass
class Exclusions:
    """Count what is left out, by reason, in the order in which reasons are first given, and other facts (`notes`)."""

    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    notes: dict[str, int] = dataclasses.field(default_factory=dict)

    def leave_out(self, frame: "pl.DataFrame", reason: str, condition: "pl.Expr") -> "pl.DataFrame":
        """Return the rows for which a condition is not true, and count the others under a reason."""
        kept = frame.filter(~condition.fill_null(False))
        self.counts[reason] = self.counts.get(reason, 0) + len(frame) - len(kept)
        return kept

    def note(self, fact: str, count: int) -> None:
        """Add to the number of a fact that leaves nothing out."""
        self.notes[fact] = self.notes.get(fact, 0) + int(count)


def with_discharges(events: "pl.DataFrame", spelling: Spelling) -> "pl.DataFrame":
    """Return events with the discharges that a data set gives only as a column of its admissions.

    Raises:
        InputError: it should give them so, but the column is absent.
    """
    column = spelling.discharge_from
    if not column:
        return events
    if column not in events.columns:
        raise InputError(
            f"The visits of this data set have no column {column!r}, so that their ends are not known; choose tasks"
            " with published labels."
        )
    visits = events.filter(pl.col("code").str.contains(spelling.patterns["admission"]) & pl.col(column).is_not_null())
    added = visits.with_columns(time=pl.col(column).cast(pl.Datetime("us")), code=pl.lit(ADDED_DISCHARGE))
    return pl.concat([events, added]).sort("subject_id", "time", nulls_last=False, maintain_order=True)


def read_stays(events: "pl.DataFrame", spelling: Spelling) -> "pl.DataFrame":
    """Return the stays among the events of whole patients, sorted by patient and start.

    The discharge of a stay is that with its `hadm_id`, the latest if there are several; of an admission without
    `hadm_id` it is the next discharge without one, later than the admission.

    Args:
        events: columns `subject_id`, `time`, `code`, `hadm_id` and perhaps those of `OPTIONAL`, sorted.
        spelling: how the data set spells stays.

    Returns:
        Columns `subject_id`, `hadm_id`; `start`, where a task counts from (see `Spelling.stay`); `admitted` to the
        hospital; `end`, the discharge, null if there is none; `destination`, its code; `survival_known`; `stay_days`
        as stated, null if not; `icustay_id` of an admission to intensive care, else null; `born`, `died`, null if
        unknown; and bool `repeated`, `overlaps`, and `later_unit` for an admission to intensive care that is not the
        first one of its hospital stay.
    """
    for name, kind in OPTIONAL.items():
        if name not in events.columns:
            events = events.with_columns(pl.lit(None, kind).alias(name))
    timed = events.filter(pl.col("time").is_not_null())
    units = spelling.stay == FIRST_ICU
    admissions = _matching(timed, spelling.patterns["hospital_admission" if units else "admission"])
    stays = admissions.select("subject_id", "hadm_id", start="time")
    stays = _with_ends(stays, _matching(timed, spelling.patterns["discharge"]))
    stays = stays.sort("subject_id", "start", maintain_order=True)
    stays = _with_conflicts(stays).with_columns(
        admitted="start", later_unit=pl.lit(False), icustay_id=pl.lit(None, pl.Int64)
    )
    stays = _from_units(stays, timed, spelling) if units else stays
    for name, code in (("born", BIRTH), ("died", DEATH)):
        found = timed.filter(pl.col("code") == code).group_by("subject_id").agg(pl.col("time").min().alias(name))
        stays = stays.join(found, on="subject_id", how="left", maintain_order="left")
    return stays


def usable(stays: "pl.DataFrame", spelling: Spelling, exclusions: Exclusions, *, adults: bool) -> "pl.DataFrame":
    """Return the stays that can be samples; the others are counted by the first reason that applies.

    Args:
        stays: the result of `read_stays`.
        spelling: how the data set spells stays.
        exclusions: counts those that are left out.
        adults: whether to leave out stays of patients who are younger than 18 years at the admission, unless the data
            set is to be read at any age.
    """
    rules = []
    if spelling.stay == FIRST_ICU:
        rules += [("not the first stay in intensive care of its hospital stay", pl.col("later_unit"))]
    rules += [
        ("no discharge", pl.col("end").is_null()),
        ("discharge before the admission", pl.col("end") < pl.col("start")),
        ("the same stay a second time", pl.col("repeated")),
        ("overlaps another stay", pl.col("overlaps")),
        ("begins at or after the death", pl.col("start") >= pl.col("died")),
    ]
    if adults and not spelling.any_age:
        of_age = pl.col("born").dt.offset_by(f"{ADULT_YEARS}y")
        rules += [(f"younger than {ADULT_YEARS} years", pl.col("start") < of_age)]
    if spelling.needs_survival:
        rules += [("survival not known", ~pl.col("survival_known"))]
    for reason, condition in rules:
        stays = exclusions.leave_out(stays, reason, condition)
    return stays


def within(events: "pl.DataFrame", stays: "pl.DataFrame", start: str = "admitted", end: str = "end") -> "pl.DataFrame":
    """Return each pair of a stay and an event of its patient from one time of the stay to another, both inclusive.

    Args:
        events: columns `subject_id`, `time` and others.
        stays: columns `stay` (a number), `subject_id`, and those named by `start` and `end`.
        start: column of the beginning.
        end: column of the end.

    Returns:
        Columns `stay` and those of `events`.
    """
    bounds = stays.select("stay", "subject_id", low=start, high=end)
    pairs = events.join(bounds, on="subject_id", how="inner", maintain_order="left")
    return pairs.filter(pl.col("time").is_between("low", "high")).drop("low", "high")


def of_stay(events: "pl.DataFrame", stays: "pl.DataFrame") -> "pl.DataFrame":
    """Return each pair of a stay and an event of it: of its `hadm_id`, or without one, between admission and discharge.

    Args:
        events: columns `subject_id`, `time`, `hadm_id` and others.
        stays: columns `stay` (a number), `subject_id`, `hadm_id`, `admitted` and `end`.

    Returns:
        Columns `stay` and those of `events`.
    """
    numbered = stays.filter(pl.col("hadm_id").is_not_null()).select("stay", "subject_id", "hadm_id")
    by_number = events.join(numbered, on=["subject_id", "hadm_id"], how="inner", maintain_order="left")
    return pl.concat([by_number, within(events.filter(pl.col("hadm_id").is_null()), stays)], how="diagonal")


def _matching(events: "pl.DataFrame", pattern: str) -> "pl.DataFrame":
    return events.filter(pl.col("code").str.contains(pattern))


def _with_ends(stays: "pl.DataFrame", discharges: "pl.DataFrame") -> "pl.DataFrame":
    """Add `end`, `destination`, `survival_known` and `stay_days` of the discharge of each stay."""
    ends = discharges.select(
        "subject_id",
        "hadm_id",
        end="time",
        destination="code",
        survival_known=pl.col(FLAG).is_not_null(),
        stay_days=pl.col(STAY_DAYS),
    )
    numbered = ends.filter(pl.col("hadm_id").is_not_null())
    numbered = numbered.sort("end", maintain_order=True).unique(["subject_id", "hadm_id"], keep="last")
    with_number = stays.filter(pl.col("hadm_id").is_not_null())
    with_number = with_number.join(numbered, on=["subject_id", "hadm_id"], how="left", maintain_order="left")
    without = with_next_end(stays.filter(pl.col("hadm_id").is_null()), ends.filter(pl.col("hadm_id").is_null()))
    return pl.concat([with_number, without.select(with_number.columns)]).with_columns(
        pl.col("survival_known").fill_null(False)
    )


def with_next_end(stays: "pl.DataFrame", ends: "pl.DataFrame") -> "pl.DataFrame":
    """Return stays without `hadm_id`, sorted by start, with the columns of the next end of their patient, null if none.

    An end at the very time of a start is that of the stay before.

    Args:
        stays: columns `subject_id`, `start` and others.
        ends: columns `subject_id`, `end` and others, of which `hadm_id` is left out.
    """
    later = stays.with_columns(later=pl.col("start") + pl.duration(microseconds=1)).sort("later", maintain_order=True)
    return later.join_asof(
        ends.drop("hadm_id").sort("end", maintain_order=True),
        left_on="later",
        right_on="end",
        by="subject_id",
        strategy="forward",
        coalesce=False,
        check_sortedness=False,
    ).drop("later")


def _with_conflicts(stays: "pl.DataFrame") -> "pl.DataFrame":
    """Add `repeated`, true from the second row of a stay on, and `overlaps`, true where two stays share time."""
    again = ~pl.struct("subject_id", "hadm_id").is_first_distinct() & pl.col("hadm_id").is_not_null()
    alike = ~pl.struct("subject_id", "start", "end").is_first_distinct() & pl.col("end").is_not_null()
    stays = stays.with_columns(repeated=again | alike)
    once = stays.filter(~pl.col("repeated"))
    before = pl.col("end").cum_max().forward_fill().shift(1).over("subject_id")
    after = pl.col("start").shift(-1).over("subject_id")
    overlaps = (pl.col("start") < before).fill_null(False) | (after < pl.col("end")).fill_null(False)
    once = once.with_columns(overlaps=overlaps)
    repeats = stays.filter(pl.col("repeated")).with_columns(overlaps=pl.lit(False))
    return pl.concat([once, repeats]).sort("subject_id", "start", maintain_order=True)


def _from_units(stays: "pl.DataFrame", events: "pl.DataFrame", spelling: Spelling) -> "pl.DataFrame":
    """Return a row for each admission to intensive care, which begins there and ends with the hospital stay.

    The first one of a hospital stay is the earliest; of several at the same time, the one that ends first.
    """
    number = ["subject_id", "hadm_id", "icustay_id"]
    entered = _matching(events, spelling.patterns["admission"]).select(*number, start="time")
    left = _matching(events, spelling.patterns["unit_discharge"]).select(*number, left="time")
    units = entered.join(left.unique(number, keep="first"), on=number, how="left", maintain_order="left")
    units = units.sort("subject_id", "start", "left", nulls_last=True, maintain_order=True)
    units = units.with_columns(later_unit=~pl.struct("subject_id", "hadm_id").is_first_distinct())
    about = stays.filter(~pl.col("repeated")).drop("start", "later_unit", "icustay_id")
    rows = units.drop("left").join(about, on=["subject_id", "hadm_id"], how="left", maintain_order="left")
    return rows.select(stays.columns).with_columns(pl.col("repeated", "overlaps").fill_null(False))
