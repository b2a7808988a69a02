"""Label stays with death, length, readmission, or transfer, and count what is left out for which reason."""

from eval.ehr.tasks.shard import DAY, Shard, is_among
from eval.ehr.tasks.stays import Exclusions, of_stay
from preprocessing.common.extras import load

pl = load("polars")

LONG_DAYS = 7
READMISSION_DAYS = 30
# Days up to which each class of the length of a stay reaches; the last class has no end.
_CLASS_ENDS = (0, 1, 2, 3, 4, 5, 6, 7, 14)
_LAST_MINUTE = pl.time(23, 59, 0)


def in_hospital_after_a_day(samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Return the stays in which the patient is alive and in hospital at the prediction time, 24 hours after `start`."""
    samples = samples.with_columns(prediction_time=pl.col("start") + DAY)
    over = pl.min_horizontal("end", "died") <= pl.col("prediction_time")
    return exclusions.leave_out(samples, "24 hours or less in hospital", over)


def died_in_stay(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Label stays with death after the first day and before the discharge; see `functions`."""
    samples = in_hospital_after_a_day(samples, exclusions)
    return samples.with_columns(value=(pl.col("died") <= pl.col("end")).fill_null(False))


def long_stay(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Label stays with a length of more than seven days; see `functions`."""
    samples = in_hospital_after_a_day(samples, exclusions)
    return samples.with_columns(value=pl.col("end") - pl.col("start") > pl.duration(days=LONG_DAYS))


def stay_classes(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Label stays with one of ten classes of their length; see `functions`."""
    samples = in_hospital_after_a_day(samples, exclusions)
    return samples.with_columns(value=class_of_days((pl.col("end") - pl.col("start")).dt.total_days()))


def class_of_days(days: "pl.Expr") -> "pl.Expr":
    """Return the class of a number of whole days: 0 to 7 are classes of their own, then 8 to 14, and more."""
    return pl.sum_horizontal((days > end).cast(pl.Int64) for end in _CLASS_ENDS)


def long_stated_stay(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Label stays with a stated length of more than seven days; see `functions`."""
    return _stated(samples, exclusions).with_columns(value=pl.col("stay_days") > LONG_DAYS)


def stated_stay_classes(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Label stays with one of ten classes of their stated length; see `functions`."""
    return _stated(samples, exclusions).with_columns(value=class_of_days(pl.col("stay_days")))


def _stated(samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    samples = exclusions.leave_out(samples, "no number of days", pl.col("stay_days").is_null())
    return samples.with_columns(prediction_time="start")


def readmitted(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Label discharges with an admission within 30 days; deaths in these are left out; see `functions`."""
    samples = readmitted_or_dead(shard, samples, exclusions)
    window = pl.col("end") + pl.duration(days=READMISSION_DAYS)
    dead = pl.col("died") <= window
    with_death = samples.filter(dead)["value"]
    exclusions.note("of deaths within 30 days, after a readmission", int(with_death.sum()))
    return exclusions.leave_out(samples, "died within 30 days after the discharge", dead)


def readmitted_or_dead(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Label discharges with an admission within 30 days, of patients who die too; see `functions`."""
    patterns, destination = shard.spelling.patterns, pl.col("destination")
    samples = samples.with_columns(prediction_time="end")
    for reason, condition in (
        ("died in hospital", (pl.col("died") <= pl.col("end")) | destination.str.contains(patterns["discharge_dead"])),
        ("discharged to a hospice", destination.str.contains(patterns["discharge_to_hospice"])),
        ("transferred to another hospital", destination.str.contains(patterns["discharge_to_hospital"])),
    ):
        samples = exclusions.leave_out(samples, reason, condition.fill_null(False))
    others = shard.stays.select("subject_id", other="stay", again="start")
    pairs = samples.select("stay", "subject_id", "end").join(others, on="subject_id", how="inner")
    pairs = pairs.filter((pl.col("other") != pl.col("stay")) & (pl.col("again") >= pl.col("end")))
    same_day = pairs.filter(pl.col("again").dt.date() == pl.col("end").dt.date())
    soon = pairs.filter(pl.col("again") <= pl.col("end") + pl.duration(days=READMISSION_DAYS))
    samples = exclusions.leave_out(samples, "admitted again on the day of the discharge", is_among(same_day))
    return samples.with_columns(value=is_among(soon))


def entered_icu(shard: Shard, samples: "pl.DataFrame", exclusions: Exclusions) -> "pl.DataFrame":
    """Label stays with a transfer to intensive care after the day of admission; see `functions`."""
    time = pl.col("prediction_time")
    samples = samples.with_columns(prediction_time=pl.col("start").dt.date().dt.combine(_LAST_MINUTE, "us"))
    samples = exclusions.leave_out(samples, "admitted after 23:59:00", time < pl.col("start"))
    over = pl.min_horizontal("end", "died") <= time
    samples = exclusions.leave_out(samples, "discharged or dead on the day of admission", over)
    entries = of_stay(shard.events_like("icu_admission"), samples).select("stay", entry="time")
    entries = entries.join(samples.select("stay", "prediction_time", "end"), on="stay", how="left")
    early = entries.filter(pl.col("entry") <= time)
    later = entries.filter((pl.col("entry") > time) & (pl.col("entry") <= pl.col("end")))
    samples = exclusions.leave_out(samples, "in intensive care on the day of admission", is_among(early))
    return samples.with_columns(value=is_among(later))
