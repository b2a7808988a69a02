"""Say when the codes of a stay become known: in most hospitals they are coded after the discharge."""

from eval.ehr.tasks.spelling import Spelling
from eval.ehr.tasks.stays import with_discharges, with_next_end
from medtok_jax.records.visits import DIAGNOSIS, PROCEDURE, kind_of
from preprocessing.common.extras import load

pl = load("polars")

# Names of events of diagnoses and procedures that are in no code system.
_CODED_NAMES = r"^(?:DIAGNOSIS|PROCEDURE)(?:/|$)"


def with_coding(events: "pl.DataFrame", spelling: Spelling) -> "pl.DataFrame":
    """Add `coded`, true for diagnoses and procedures that stand at or after the discharge of their stay.

    Where a data set dates procedures of code systems before the discharge although they are coded after it (see
    `Spelling`), they are put at the discharge; those of a stay without one are left out, as it never becomes known when
    they were coded. Procedures in no code system, such as those that are noted in intensive care, keep their times.

    Args:
        events: columns `subject_id`, `time` (no null), `code` and `hadm_id`, of whole patients, sorted.
        spelling: how the data set spells stays.

    Returns:
        The events with `coded`, sorted by `subject_id` and `time`, simultaneous ones in their order, coded ones last.
    """
    events = events.with_row_index("place")
    stay = _stays(events, spelling)
    numbered, others = events.filter(pl.col("hadm_id").is_not_null()), events.filter(pl.col("hadm_id").is_null())
    by_number = stay.filter(pl.col("hadm_id").is_not_null())
    numbered = numbered.join(by_number, on=["subject_id", "hadm_id"], how="left", maintain_order="left")
    # Of those that begin together, the one that ends last; simultaneous rows are matched by the last of them.
    by_time = stay.drop_nulls("admitted").drop("hadm_id").sort("admitted", "discharged", nulls_last=True)
    others = others.sort("time").join_asof(
        by_time.with_columns(begun="admitted"),
        left_on="time",
        right_on="begun",
        by="subject_id",
        strategy="backward",
        check_sortedness=False,
    )
    # Without a number an event is of the last stay that has begun by its time, if that goes on.
    time, goes_on = pl.col("time"), ~(pl.col("time") > pl.col("discharged")).fill_null(False)
    others = others.with_columns(pl.when(goes_on).then(pl.col(name)).alias(name) for name in ("admitted", "discharged"))
    events = pl.concat([numbered, others.select(numbered.columns)])
    if spelling.procedures_at_discharge:
        # A number says that an event is of a stay, also one of the day before the admission.
        moved = _is_of_kind(events["code"], (PROCEDURE,)) & (
            pl.col("hadm_id").is_not_null() | pl.col("admitted").is_not_null()
        )
        events = events.filter(~(moved & pl.col("discharged").is_null()))
        events = events.with_columns(time=pl.when(moved).then(pl.max_horizontal("time", "discharged")).otherwise(time))
    is_code = _is_of_kind(events["code"], (DIAGNOSIS, PROCEDURE)) | pl.col("code").str.contains(_CODED_NAMES)
    events = events.with_columns(coded=(is_code & (time >= pl.col("discharged"))).fill_null(False))
    return events.sort("subject_id", "time", "coded", "place").drop("place", "admitted", "discharged")


def _stays(events: "pl.DataFrame", spelling: Spelling) -> "pl.DataFrame":
    """Return `subject_id`, `hadm_id`, and the first of its times `admitted` and `discharged`, or null, of each stay.

    A stay without `hadm_id` ends with the next discharge without one, or else where the next stay begins.
    """
    if spelling.discharge_from in events.columns:
        events = with_discharges(events, spelling)
    code, key = pl.col("code"), ["subject_id", "hadm_id"]
    pattern = spelling.patterns.get("hospital_admission", spelling.patterns["admission"])
    start = events.filter(code.str.contains(pattern)).select(*key, start="time")
    end = events.filter(code.str.contains(spelling.patterns["discharge"])).select(*key, end="time")
    starts = start.drop_nulls("hadm_id").group_by(key).agg(pl.col("start").min())
    ends = end.drop_nulls("hadm_id").group_by(key).agg(pl.col("end").min())
    numbered = starts.join(ends, on=key, how="full", coalesce=True)
    without = start.filter(pl.col("hadm_id").is_null()).sort("subject_id", "start")
    without = without.with_columns(following=pl.col("start").shift(-1).over("subject_id"))
    without = with_next_end(without, end.filter(pl.col("hadm_id").is_null()))
    without = without.with_columns(end=pl.min_horizontal("end", "following"))
    stays = pl.concat([numbered, without.select(numbered.columns)])
    return stays.rename({"start": "admitted", "end": "discharged"})


def _is_of_kind(events: "pl.Series", kinds: tuple[str, ...]) -> "pl.Expr":
    """Return the expression that is true where a code is of a code system of one of `kinds`."""
    return pl.col("code").is_in([code for code in events.unique() if kind_of(code) in kinds])
