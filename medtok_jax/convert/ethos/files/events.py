"""Write events of patient records in the vocabulary of ETHOS.

The module needs only polars. It is copied to `ethos/tokenize/medtok/events.py` in ETHOS and runs there; the conversion
that copies it uses it too, so that both spell events alike. A frame of events has the columns `subject_id`, `time` and
`code`, and may have `numeric_value`, `text_value`, `hadm_id`, `icustay_id`, `insurance`, `race` and `marital_status`.
"""

from collections.abc import Callable

import polars as pl

NUM_QUANTILES = 10
# Number of measurements with values, the most frequent ones; each needs a token of its own.
MAX_MEASUREMENTS = 200
# Static data of a patient besides the age; unknown data is `PREFIX//UNKNOWN`.
STATIC_PREFIXES = ("GENDER", "MARITAL", "RACE")
BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"
ADMISSION, DISCHARGE = "HOSPITAL_ADMISSION", "HOSPITAL_DISCHARGE"
# Tokens of the time between two events and the lower bound of each in minutes; the last is repeated.
INTERVALS = {
    "5m-15m": 5,
    "15m-45m": 15,
    "45m-1h15m": 45,
    "1h15m-2h": 75,
    "2h-3h": 120,
    "3h-5h": 180,
    "5h-8h": 300,
    "8h-12h": 480,
    "12h-18h": 720,
    "18h-1d": 1080,
    "1d-2d": 1440,
    "2d-4d": 2 * 1440,
    "4d-7d": 4 * 1440,
    "7d-12d": 7 * 1440,
    "12d-20d": 12 * 1440,
    "20d-30d": 20 * 1440,
    "30d-2mt": 30 * 1440,
    "2mt-6mt": 60 * 1440,
    "=6mt": 180 * 1440,
}


def unified(code: pl.Expr) -> pl.Expr:
    """Return a code as ETHOS writes it in its vocabulary."""
    return code.str.to_uppercase().str.replace_all(r"[,.]", "").str.replace_all(" ", "_", literal=True)


def spelled(code: pl.Expr) -> pl.Expr:
    """Return a code as `unified` does, with `CODE//` before text that ETHOS would read as a quantile or a number."""
    text = unified(code).str.replace_all(r"[\r\n]", "_")
    return pl.when(text.str.contains(r"^(Q?[0-9]+|[+-][0-9]+|)$")).then(pl.lit("CODE//") + text).otherwise(text)


def part(number: int) -> pl.Expr:
    """Return the part of a code with this number between `//`; null if it is missing, empty or `UNK`."""
    text = pl.col("code").str.split("//").list.get(number, null_on_oob=True).str.strip_chars()
    return pl.when(~text.is_in(["", "UNK"])).then(text)


def of_kind(df: pl.DataFrame, *kinds: str) -> pl.Expr:
    """Return a mask of the events whose codes begin with one of `kinds`, which are in capitals."""
    unique = df["code"].unique().to_list()
    return pl.col("code").is_in([code for code in unique if code.split("//")[0].upper() in kinds])


def revised(df: pl.DataFrame, mask: pl.Expr, revise: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    """Return the frame with the rows of `mask` revised and put back in order; only these rows are processed."""
    df = df.with_row_index("__row")
    some = revise(df.filter(mask)).select(df.columns)
    return pl.concat([df.filter(~mask), some]).sort("__row", maintain_order=True).drop("__row")


def with_words(df: pl.DataFrame) -> pl.DataFrame:
    """Write admissions, discharges, stays in intensive care and diagnosis-related groups as ETHOS does.

    An admission is always three tokens: ETHOS predicts mortality from the third. A discharge is two tokens; the events
    that follow it at the same time come next, and then exactly one group, from which ETHOS predicts readmission. A
    death at that time comes before the discharge.

    Args:
        df: events sorted by subject and time.
    """
    df = _with_columns(df, insurance=pl.String)
    known = part(1).is_in(["HCFA", "MS"]) & part(2).is_not_null()
    df = revised(df, of_kind(df, "DRG"), lambda rows: rows.filter(known | (pl.col("code") == "DRG//UNKNOWN")))
    df = revised(df, of_kind(df, DISCHARGE).any().over("subject_id", "time"), _ordered)
    words = (ADMISSION, DISCHARGE, DEATH, "ICU_ADMISSION", "ICU_DISCHARGE", "TRANSFER_TO", "DRG")
    return revised(df, of_kind(df, *words), _spelled)


def _ordered(df: pl.DataFrame) -> pl.DataFrame:
    """Order the events at the time of a discharge: a death comes before it, exactly one group last."""
    kind = part(0)
    when = ["subject_id", "time"]
    after = (kind == DISCHARGE).cast(pl.Int32).cum_sum().over(when) > 0
    order = pl.when(kind == DEATH).then(1).when(kind == DISCHARGE).then(2).when(kind == "DRG").then(4)
    df = df.with_columns(
        pl.col("__row").min().over(when),
        __order=order.when(after).then(3).otherwise(0),
        __grouped=(kind == "DRG").any().over(when),
    )
    first = pl.int_range(pl.len()).over([*when, "__order"]) == 0
    df = df.filter((kind != "DRG") | first)
    lone = df.filter((kind == DISCHARGE) & ~pl.col("__grouped") & first)
    lone = lone.with_columns(code=pl.lit("DRG//UNKNOWN"), __order=pl.lit(4, pl.Int32))
    df = pl.concat([df.with_columns(pl.col("__order").cast(pl.Int32)), lone.select(df.columns)])
    return df.sort("__row", "__order", maintain_order=True)


def _spelled(df: pl.DataFrame) -> pl.DataFrame:
    kind = part(0)
    arrival = part(1).str.to_uppercase()
    admission_type = (
        pl.when(arrival.str.contains("EMER|URGENT"))
        .then(pl.lit("EMERGENCY"))
        .when(arrival.is_in(["ELECTIVE", "SURGICAL SAME DAY ADMISSION"]))
        .then(pl.lit("SCHEDULED"))
        .when(arrival == "NEWBORN")
        .then(arrival)
        .otherwise(pl.lit("OBSERVATION"))
    )
    insurance = pl.lit("INSURANCE//") + pl.col("insurance").fill_null("UNKNOWN")
    transfer = (kind == "TRANSFER_TO") & part(1).str.to_lowercase().is_in(["transfer", "admit"])
    words = (
        pl.when(kind == ADMISSION)
        .then(pl.concat_list(pl.lit(ADMISSION), pl.lit("ADMISSION_TYPE//") + admission_type, insurance))
        .when(kind == DISCHARGE)
        .then(pl.concat_list(pl.lit(DISCHARGE), pl.lit("DISCHARGE_LOCATION//") + _destination()))
        .when(kind == "ICU_ADMISSION")
        .then(pl.concat_list(kind, pl.lit("ICU_TYPE//") + part(1).fill_null("UNKNOWN")))
        .when(kind.is_in(["ICU_DISCHARGE", DEATH]))
        .then(pl.concat_list(kind))
        .when((kind == "DRG") & part(2).is_not_null())
        .then(pl.concat_list(pl.lit("DRG//") + part(2).str.strip_chars_start("0")))
        .when(transfer)
        .then(pl.concat_list(pl.lit("TRANSFER//") + part(2).fill_null("UNKNOWN")))
        .when(kind == "TRANSFER_TO")
        .then(pl.lit(None, pl.List(pl.String)))
        .otherwise(pl.concat_list("code"))
    )
    return df.with_columns(code=words).drop_nulls("code").explode("code")


def _destination() -> pl.Expr:
    """Return the discharge location, with all care facilities merged."""
    location = part(1).str.to_uppercase()
    facility = location.str.contains("FACILITY|REHAB|CHRONIC|SNF|LONG TERM")
    return pl.when(facility).then(pl.lit("HEALTHCARE_FACILITY")).otherwise(location.fill_null("UNKNOWN"))


def with_demographics(df: pl.DataFrame) -> pl.DataFrame:
    """Write `RACE//` and `MARITAL//` as events of their own, from codes or from columns of admissions."""
    df = _with_columns(df, race=pl.String, marital_status=pl.String, text_value=pl.String)
    return revised(df, of_kind(df, ADMISSION, "RACE", "ETHNICITY", "MARITAL", "MARITAL_STATUS"), _demographics)


def _demographics(df: pl.DataFrame) -> pl.DataFrame:
    kind = part(0).str.to_uppercase()
    value = pl.coalesce(part(1), pl.col("text_value"))
    admitted = kind == ADMISSION
    words = (
        pl.when(kind.is_in(["RACE", "ETHNICITY"]))
        .then(pl.concat_list(pl.lit("RACE//") + _race(value)))
        .when(kind.is_in(["MARITAL", "MARITAL_STATUS"]))
        .then(pl.concat_list(pl.lit("MARITAL//") + value))
        .when(admitted)
        .then(
            pl.concat_list(
                "code", pl.lit("RACE//") + _race(pl.col("race")), pl.lit("MARITAL//") + pl.col("marital_status")
            )
        )
    )
    return df.with_columns(code=words).explode("code").drop_nulls("code")


def _race(value: pl.Expr) -> pl.Expr:
    """Return the first word of the recorded race, with small groups merged; null if it is unknown."""
    word = value.str.to_uppercase().str.extract(r"^([^/ \-]+)")
    unknown = value.str.to_uppercase().str.contains("UNKNOWN|UNABLE|DECLINED")
    small = value.str.to_uppercase().str.contains("HAWAIIAN|AMERICAN INDIAN|MULTI")
    return pl.when(unknown).then(None).when(small).then(pl.lit("OTHER")).otherwise(word)


def _with_columns(df: pl.DataFrame, **types) -> pl.DataFrame:
    """Return the frame with these columns cast to their types, or null where it lacks them."""
    return df.with_columns(
        (pl.col(name).cast(kind) if name in df.columns else pl.lit(None, kind)).alias(name)
        for name, kind in types.items()
    )


def static_data(df: pl.DataFrame, prefixes: tuple[str, ...] = STATIC_PREFIXES) -> dict[int, dict]:
    """Return the static data that ETHOS reads: `{subject: {prefix: {"code": [...], "time": [...] or None}}}`.

    Subjects without a birth are left out, as ETHOS needs their age. Of several codes with one prefix and time, the
    first is kept.
    """
    df = df.filter(of_kind(df, BIRTH, *prefixes)).select("subject_id", part(0).alias("prefix"), "code", "time")
    code = pl.when(pl.col("prefix") == BIRTH).then(pl.lit(BIRTH)).otherwise(unified(pl.col("code")))
    df = df.with_columns(pl.col("time").cast(pl.Int64), code.alias("code"))
    group = ["subject_id", "prefix"]
    timed = df.drop_nulls("time").unique([*group, "time"], keep="first", maintain_order=True)
    timed = timed.sort([*group, "time"]).group_by(group, maintain_order=True).agg("code", "time")
    once = (pl.col("prefix") == BIRTH) | (pl.col("code").list.n_unique() == 1)
    timed = timed.with_columns(
        pl.when(once).then(pl.col(name).list.head(1)).otherwise(name).alias(name) for name in ("code", "time")
    )
    rest = df.filter(pl.col("prefix") != BIRTH).unique(group, keep="first", maintain_order=True)
    rest = rest.join(timed, on=group, how="anti").select(*group, pl.concat_list("code"), pl.concat_list("time"))
    static: dict[int, dict] = {}
    for subject, prefix, codes, times in pl.concat([timed, rest]).iter_rows():
        static.setdefault(subject, {})[prefix] = {"code": codes, "time": times}
    unknown = {prefix: {"code": [f"{prefix}//UNKNOWN"], "time": None} for prefix in prefixes}
    return {
        subject: {prefix: (unknown | known)[prefix] for prefix in sorted([*prefixes, BIRTH])}
        for subject, known in sorted(static.items())
        if BIRTH in known
    }


def is_static(df: pl.DataFrame) -> pl.Expr:
    """Return a mask of static events, which are not part of the timeline."""
    return of_kind(df, BIRTH, *STATIC_PREFIXES)


def is_measurement(df: pl.DataFrame, medical: pl.Expr) -> pl.Expr:
    """Return a mask of the events whose values are used: laboratory tests and vital signs, not doses or stays."""
    words = ("MEDICATION", "DRG", "TRANSFER", "TRANSFER_TO", BIRTH, DEATH, ADMISSION, DISCHARGE)
    return pl.col("numeric_value").is_finite().fill_null(False) & ~medical & ~of_kind(df, *words)


def quantile_code(code: pl.Expr) -> pl.Expr:
    """Return the name under which the quantile breaks of a measurement are stored."""
    return pl.lit("Q//") + code
