"""Convert the rows of MIMIC-III and MIMIC-IV to MEDS events.

Codes of a code system become `SYSTEM/code`: `ICD9CM/250.00`, `ICD10PCS/0016070`, `NDC/00006494300`, `CPT4/99213`,
`HCPCS/J1815`. All other events have the names of the MEDS release of MIMIC-IV, with `UNK` for a missing part:

    GENDER//F                                without time            MEDS_BIRTH, MEDS_DEATH
    HOSPITAL_ADMISSION//<type>//<location>   insurance, language, marital_status and race in columns
    HOSPITAL_DISCHARGE//<location>           at the end of the stay; hospital_expire_flag in a column
    ED_REGISTRATION, ED_OUT                  TRANSFER_TO//<event>//<unit>
    ICU_ADMISSION//<unit>                    ICU_DISCHARGE//<unit>, icustay_id in a column
    DRG//<type>//<code>//<description>       LAB//<itemid>//<unit>, CHART//<itemid>//<unit>
    MEDICATION//START//<drug>                a drug without an NDC; others have the name as text_value; dose, unit,
                                             stoptime, route and drug_type in columns

Diagnoses, DRGs and the procedures of MIMIC-III have no time and get that of the end of the stay, when they were coded;
`contradictions` decides when a stay ends. An event with only a date gets the last second of that day, or the end of the
stay on that day. All other events keep the time of their row, so that no event is earlier than it was known. Laboratory
values have the time at which the result was stored, if it is known, or on demand that of the specimen.
"""

from collections.abc import Callable
from typing import TypeAlias

from preprocessing.common.extras import load
from preprocessing.meds.layout import BIRTH, COLUMNS, DEATH
from preprocessing.meds.mimic_codes import MimicCodes
from preprocessing.meds.mimic_tables import END_OF_DAY, MIMIC3, MIMIC4
from preprocessing.meds.table_files import new_year

pl = load("polars")

# Columns of an event, with their types; `line` and `rank` serve to order and to reject events, and are not kept.
EVENT = {
    **COLUMNS,
    "icustay_id": pl.Int64,
    "seq_num": pl.Int64,
    "unit": pl.String,
    "insurance": pl.String,
    "language": pl.String,
    "marital_status": pl.String,
    "race": pl.String,
    "hospital_expire_flag": pl.Int64,
    "drg_severity": pl.Int64,
    "drg_mortality": pl.Int64,
    "stoptime": pl.Datetime("us"),
    "route": pl.String,
    "drug_type": pl.String,
    "anchor_year_group": pl.String,
}
# Order of simultaneous events. A death in hospital precedes the discharge, and what was coded after the stay.
_ORDER = (
    *("GENDER", "BIRTH", "ED_REGISTRATION", "HOSPITAL_ADMISSION", "TRANSFER", "ICU_ADMISSION", "ED_OUT"),
    *("MEASUREMENT", "DRUG", "PROCEDURE", "SERVICE"),
    *("ICU_DISCHARGE", "DEATH", "HOSPITAL_DISCHARGE", "DIAGNOSIS", "DRG"),
)
RANK = {name: position for position, name in enumerate(_ORDER)}
# MIMIC-III dates the birth of patients older than 89 exactly 300 years before their first admission; MIMIC-IV gives
# them an age of 91, about their mean.
_OLDEST, _SHIFTED, _AGE_OF_OLDEST = 150, 300, 91
# A dose is a number, with or without commas between thousands, or a range of two of them.
_AMOUNT = r"([0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_DOSE = rf"^\s*{_AMOUNT}(?:\s*(?:-|to)\s*{_AMOUNT})?\s*$"
# Time of a laboratory value by `--lab_time`: when it was stored and so known, or when the specimen was taken.
LAB_TIMES = {"store": pl.max_horizontal("charttime", "storetime"), "chart": pl.coalesce("charttime", "storetime")}
Frame: TypeAlias = "pl.DataFrame"
Events: TypeAlias = Callable[["pl.DataFrame", MimicCodes], list["pl.DataFrame"]]


def event(frame: Frame, rank: str, code: "pl.Expr | pl.Series", time: "pl.Expr", **values: "pl.Expr") -> Frame:
    """Make events of one kind, with the columns of `EVENT`, `line` and `rank`; rows without a code are dropped.

    Args:
        frame: rows, with `line`, `subject_id` and perhaps `hadm_id`, which the events keep.
        rank: one of `_ORDER`.
        code: code of each event.
        time: time of each event.
        values: further columns of `EVENT`; those that are not given are null.
    """
    if "hadm_id" in frame.columns:
        values = {"hadm_id": pl.col("hadm_id"), **values}
    given = {"subject_id": pl.col("subject_id"), "time": time, "code": code, **values}
    columns = [given.get(name, pl.lit(None)).cast(kind).alias(name) for name, kind in EVENT.items()]
    made = frame.select("line", *columns).with_columns(rank=pl.lit(RANK[rank], pl.Int8))
    return made.filter(pl.col("code").is_not_null())


def _named(kind: str, *parts: str) -> "pl.Expr":
    """Return the expression `KIND//<part>//<part>`, whose parts are columns."""
    return pl.concat_str([pl.lit(kind), *(pl.col(part).fill_null("UNK") for part in parts)], separator="//")


def _where(present: str, code: "pl.Expr") -> "pl.Expr":
    return pl.when(pl.col(present).is_not_null()).then(code)


def _within_stay(column: str) -> "pl.Expr":
    """Return the time of a column of dates; of a date without time, the end of the stay if it is on that day.

    Exact times, which some copies have in such a column, are returned unchanged.
    """
    time, discharged = pl.col(column), pl.col("discharged")
    is_bare = time.dt.time() == END_OF_DAY
    return pl.when(is_bare & (time.dt.date() == discharged.dt.date())).then(discharged).otherwise(time)


def dose(column: str) -> "pl.Expr":
    """Return the number in a column of doses: `1,325.5` -> 1325.5, the mean of a range: `0.5-1` -> 0.75, else null."""
    low, high = (
        pl.col(column).str.extract(_DOSE, group).str.replace_all(",", "").cast(pl.Float64, strict=False)
        for group in (1, 2)
    )
    return (low + pl.coalesce(high, low)) / 2


def patients(frame: Frame, _: MimicCodes) -> list[Frame]:
    """Make the events of rows with `born` and `died`: sex, birth and death; see `patients_of`."""
    group = {"anchor_year_group": pl.col("anchor_year_group")} if "anchor_year_group" in frame.columns else {}
    return [
        event(frame, "GENDER", _where("gender", _named("GENDER", "gender")), pl.lit(None)),
        event(frame, "BIRTH", _where("born", pl.lit(BIRTH)), pl.col("born"), **group),
        event(frame, "DEATH", _where("died", pl.lit(DEATH)), pl.col("died")),
    ]


def with_births(version: str, frame: Frame) -> tuple[Frame, int]:
    """Add the times of birth to the rows of patients; MIMIC-IV gives birth by year.

    Args:
        version: `mimic3` or `mimic4`.
        frame: rows of the table of patients, with `admitted`, the first admission, and `died`.

    Returns:
        The rows with `born`, and the number of patients whose birth was 300 years before admission.
    """
    if version == MIMIC4:
        return frame.with_columns(born=new_year(pl.col("anchor_year") - pl.col("anchor_age"))), 0
    last_seen = pl.coalesce("admitted", "died")
    shifted = (last_seen.dt.year() - pl.col("dob").dt.year()) > _OLDEST
    years = f"{_SHIFTED - _AGE_OF_OLDEST}y"
    frame = frame.with_columns(
        born=pl.when(shifted).then(pl.col("dob").dt.offset_by(years)).otherwise("dob"), shifted=shifted
    )
    return frame, int(frame["shifted"].sum())


def admissions(frame: Frame, _: MimicCodes) -> list[Frame]:
    """Make the events of arrival and departure of each stay, in the emergency department and in the hospital."""
    about = {name: pl.col(name) for name in ("insurance", "language", "marital_status")}
    about["race"] = pl.coalesce("race", "ethnicity")
    arrival = _named("HOSPITAL_ADMISSION", "admission_type", "admission_location")
    # Only an end that is recorded is a discharge, even if its time is not usable; others are estimates.
    recorded = pl.any_horizontal(pl.col("dischtime", "deathtime").is_not_null(), pl.col("hospital_expire_flag") == 1)
    leaving = pl.when(recorded).then(_named("HOSPITAL_DISCHARGE", "discharge_location"))
    flag = {"hospital_expire_flag": pl.col("hospital_expire_flag")}
    return [
        event(frame, "ED_REGISTRATION", _where("edregtime", pl.lit("ED_REGISTRATION")), pl.col("edregtime")),
        event(frame, "HOSPITAL_ADMISSION", arrival, pl.col("admittime"), **about),
        event(frame, "ED_OUT", _where("edouttime", pl.lit("ED_OUT")), pl.col("edouttime")),
        event(frame, "HOSPITAL_DISCHARGE", leaving, pl.col("discharged"), **flag),
    ]


def icd(role: str, time: str | None) -> Events:
    """Return a function that makes events of coded diagnoses or procedures, at the dates `time` or the stay's end."""

    def events(frame: Frame, codes: MimicCodes) -> list[Frame]:
        column = "icd_code" if "icd_code" in frame.columns else "icd9_code"
        edition = (
            frame["icd_version"] if "icd_version" in frame.columns else pl.Series(["9"] * len(frame), dtype=pl.String)
        )
        code = codes.icd(role, frame[column], edition)
        when = pl.coalesce(_within_stay(time), "discharged") if time else pl.col("discharged")
        return [event(frame, role, code, when, seq_num=pl.col("seq_num"))]

    return events


def drugs(started: str, stopped: str, *, dates: bool) -> Events:
    """Return a function that makes events of prescriptions at their start, else at their end or the stay's.

    Args:
        started: column of the start, which may be null.
        stopped: column of the end, which may be null.
        dates: whether these columns are dates without time.
    """

    def events(frame: Frame, codes: MimicCodes) -> list[Frame]:
        code = codes.drug(frame["ndc"], frame["drug"])
        start, stop = (_within_stay(name) if dates else pl.col(name) for name in (started, stopped))
        values = {"text_value": pl.col("drug"), "numeric_value": dose("dose_val_rx"), "unit": pl.col("dose_unit_rx")}
        order = {"stoptime": stop, "route": pl.col("route"), "drug_type": pl.col("drug_type")}
        return [event(frame, "DRUG", code, pl.coalesce(start, stop, "discharged"), **values, **order)]

    return events


def services(code_column: str, text: str) -> Events:
    """Return a function that makes events of billed CPT and HCPCS codes."""

    def events(frame: Frame, codes: MimicCodes) -> list[Frame]:
        when = pl.coalesce(_within_stay("chartdate"), "discharged")
        return [event(frame, "SERVICE", codes.procedure(frame[code_column]), when, text_value=pl.col(text))]

    return events


def transfers(unit: str) -> Events:
    """Return a function that makes events of transfers between units, which the column `unit` names."""

    def events(frame: Frame, _: MimicCodes) -> list[Frame]:
        return [event(frame, "TRANSFER", _named("TRANSFER_TO", "eventtype", unit), pl.col("intime"))]

    return events


def icu(stay: str) -> Events:
    """Return a function that makes events of stays in intensive care, which the column `stay` numbers."""

    def events(frame: Frame, _: MimicCodes) -> list[Frame]:
        number = {"icustay_id": pl.col(stay)}
        leaving = _where("outtime", _named("ICU_DISCHARGE", "last_careunit"))
        return [
            event(frame, "ICU_ADMISSION", _named("ICU_ADMISSION", "first_careunit"), pl.col("intime"), **number),
            event(frame, "ICU_DISCHARGE", leaving, pl.col("outtime"), **number),
        ]

    return events


def drg(frame: Frame, _: MimicCodes) -> list[Frame]:
    """Make the events of diagnosis-related groups."""
    levels = {name: pl.col(name) for name in ("drg_severity", "drg_mortality")}
    code = _named("DRG", "drg_type", "drg_code", "description")
    return [event(frame, "DRG", code, pl.col("discharged"), **levels)]


def measurements(kind: str, stay: str | None = None, *, time: "pl.Expr" = LAB_TIMES["chart"]) -> Events:
    """Return a function that makes events of values with a unit.

    Args:
        kind: `LAB` or `CHART`.
        stay: column that numbers the ICU stay, or None.
        time: time of each value, one of `LAB_TIMES`.
    """

    def events(frame: Frame, _: MimicCodes) -> list[Frame]:
        number = {"icustay_id": pl.col(stay)} if stay else {}
        code = _named(kind, "itemid", "valueuom")
        value = {"numeric_value": pl.col("valuenum"), "text_value": pl.col("value"), "unit": pl.col("valueuom")}
        return [event(frame, "MEASUREMENT", code, time, **value, **number)]

    return events


def omr(frame: Frame, _: MimicCodes) -> list[Frame]:
    """Make the events of outpatient measurements with the names of the table: `Blood Pressure`, `BMI (kg/m2)`."""
    number = pl.col("result_value").cast(pl.Float32, strict=False)
    values = {"text_value": pl.col("result_value"), "numeric_value": number}
    return [event(frame, "MEASUREMENT", pl.col("result_name"), pl.col("chartdate"), **values)]


def emar(frame: Frame, _: MimicCodes) -> list[Frame]:
    """Make the events of administrations of drugs."""
    return [event(frame, "DRUG", _named("MEDICATION", "medication", "event_txt"), pl.col("charttime"))]


# Version -> table -> the function that makes events of a block of its rows; to each row belong `admitted` and
# `discharged` of its stay.
_EVENTS: dict[str, dict[str, Events]] = {
    MIMIC3: {
        "admissions": admissions,
        "patients": patients,
        "diagnoses_icd": icd("DIAGNOSIS", None),
        "procedures_icd": icd("PROCEDURE", None),
        "prescriptions": drugs("startdate", "enddate", dates=True),
        "icustays": icu("icustay_id"),
        "transfers": transfers("curr_careunit"),
        "drgcodes": drg,
        "cptevents": services("cpt_cd", "description"),
        "chartevents": measurements("CHART", "icustay_id"),
    },
    MIMIC4: {
        "admissions": admissions,
        "patients": patients,
        "diagnoses_icd": icd("DIAGNOSIS", None),
        "procedures_icd": icd("PROCEDURE", "chartdate"),
        "prescriptions": drugs("starttime", "stoptime", dates=False),
        "icustays": icu("stay_id"),
        "transfers": transfers("careunit"),
        "drgcodes": drg,
        "hcpcsevents": services("hcpcs_cd", "short_description"),
        "omr": omr,
        "chartevents": measurements("CHART", "stay_id"),
        "emar": emar,
    },
}


def event_makers(version: str, lab_time: str) -> dict[str, Events]:
    """Return for each table of a version the function that makes events of a block of its rows.

    Args:
        version: `mimic3` or `mimic4`.
        lab_time: time of laboratory values, one of `LAB_TIMES`.
    """
    return {**_EVENTS[version], "labevents": measurements("LAB", time=LAB_TIMES[lab_time])}
