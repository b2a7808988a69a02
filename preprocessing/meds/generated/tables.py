"""Spell drawn patients as the tables of MIMIC-IV: identifiers, words, and times as PhysioNet publishes them."""

from collections.abc import Callable

import numpy as np

from preprocessing.common.extras import load
from preprocessing.meds.generated.draw import DAY, MOST_ROWS_OF_A_UNIT, NEVER, STAYS_OF_A_UNIT, UNIT, Patients, Table
from preprocessing.meds.generated.vocabularies import Ranked, Vocabularies

pl = load("polars")

# Ranges of MIMIC-IV's identifiers; a subject has 27 numbers, of which one is taken.
FIRST_SUBJECT, FIRST_STAY, FIRST_ICU, RANGE = 10_000_000, 20_000_000, 30_000_000, 10_000_000
MOST_SUBJECTS = 370_000
# Numbers of stays from here on are in no table of admissions.
_UNKNOWN = (MOST_SUBJECTS // UNIT + 1) * STAYS_OF_A_UNIT
_MULTIPLIER = 7_368_787  # Prime to `RANGE`, so that distinct numbers give distinct identifiers.
_TYPES = (
    *("EW EMER.", "EU OBSERVATION", "OBSERVATION ADMIT", "URGENT", "SURGICAL SAME DAY ADMISSION"),
    *("DIRECT OBSERVATION", "DIRECT EMER.", "ELECTIVE", "AMBULATORY OBSERVATION"),
)
_FROM = ("PHYSICIAN REFERRAL", "TRANSFER FROM HOSPITAL", "WALK-IN/SELF REFERRAL", "CLINIC REFERRAL")
_TO = ("HOME", "HOME", "HOME HEALTH CARE", "SKILLED NURSING FACILITY", "REHAB", "")
_INSURANCE = ("Medicare", "Private", "Medicaid", "Other")
_MARITAL = ("MARRIED", "SINGLE", "WIDOWED", "DIVORCED", "")
_RACES = ("WHITE", "BLACK/AFRICAN AMERICAN", "HISPANIC/LATINO - PUERTO RICAN", "ASIAN", "UNKNOWN")
_UNITS = (
    *("Medicine", "Med/Surg", "Cardiology", "Neurology", "Vascular", "Transplant", "Hematology/Oncology", "PACU"),
    *("Obstetrics (Postpartum & Antepartum)", "Emergency Department Observation", "Labor & Delivery", "Psychiatry"),
)
_ICU_UNITS = (
    *("Medical Intensive Care Unit (MICU)", "Cardiac Vascular Intensive Care Unit (CVICU)"),
    *("Medical/Surgical Intensive Care Unit (MICU/SICU)", "Surgical Intensive Care Unit (SICU)"),
    *("Trauma SICU (TSICU)", "Coronary Care Unit (CCU)", "Neuro Intermediate", "Neuro Surgical ICU (Neuro SICU)"),
)
_KINDS = ("MAIN", "BASE", "ADDITIVE")
_DOSES, _ROUTES = ("mg", "mL", "UNIT", "TAB", "mcg"), ("PO", "IV", "SC", "PO/NG", "IH")
# itemid, label, LOINC, unit, mean, standard deviation.
LAB_ITEMS = (
    *((50912, "Creatinine", "2160-0", "mg/dL", 1.2, 0.6), (50971, "Potassium", "2823-3", "mEq/L", 4.1, 0.5)),
    *((50983, "Sodium", "2951-2", "mEq/L", 138.5, 4.0), (50902, "Chloride", "2075-0", "mEq/L", 102.0, 5.0)),
    *((51006, "Urea Nitrogen", "3094-0", "mg/dL", 23.0, 12.0), (50931, "Glucose", "2345-7", "mg/dL", 130.0, 45.0)),
    *((50882, "Bicarbonate", "1963-8", "mEq/L", 25.5, 4.0), (51222, "Hemoglobin", "718-7", "g/dL", 10.6, 2.0)),
    *((51301, "White Blood Cells", "804-5", "K/uL", 9.0, 4.0), (51265, "Platelet Count", "777-3", "K/uL", 220.0, 90.0)),
    *((50960, "Magnesium", "2601-3", "mg/dL", 2.0, 0.3), (50893, "Calcium, Total", "2000-8", "mg/dL", 8.7, 0.7)),
)


def subject_ids(people: Table) -> np.ndarray:
    """Return the identifier of each patient, `[people]` int64, in the order of their numbers."""
    return FIRST_SUBJECT + 27 * people["person"] + people["id_offset"]


def stay_ids(stay: np.ndarray) -> np.ndarray:
    """Return the `hadm_id` of each stay number, `[rows]` int64."""
    return FIRST_STAY + stay * _MULTIPLIER % RANGE


def frames(patients: Patients, vocabularies: Vocabularies) -> dict[str, "pl.DataFrame"]:
    """Return the rows of each table of MIMIC-IV, by its file without ending (`hosp/patients`); texts and times typed.

    Args:
        patients: as `draw` returns them.
        vocabularies: those that they were drawn from.
    """
    ids = subject_ids(patients.people)
    first = int(patients.people["person"][0]) if len(ids) else 0

    def subject(table: Table) -> np.ndarray:
        return ids[table["person"] - first]

    made = {
        "hosp/patients": _people(patients.people, ids),
        "hosp/admissions": _admissions(patients, subject(patients.stays), first),
        "hosp/diagnoses_icd": _icd(patients.diagnoses, subject(patients.diagnoses), vocabularies.diagnoses),
        "hosp/procedures_icd": _icd(patients.procedures, subject(patients.procedures), vocabularies.procedures),
        "hosp/prescriptions": _prescriptions(patients.prescriptions, subject, vocabularies.drugs),
        "hosp/transfers": _transfers(patients.transfers, subject(patients.transfers)),
        "hosp/drgcodes": _drgs(patients.drgs, subject(patients.drgs)),
        "icu/icustays": _icu(patients.icu, subject(patients.icu)),
    }
    if len(patients.labs["person"]):
        made["hosp/labevents"] = _labs(patients.labs, subject(patients.labs))
    return made


def dictionaries(vocabularies: Vocabularies, with_labs: bool) -> dict[str, "pl.DataFrame"]:
    """Return the tables that describe codes; those without a title are not in them."""
    made = {}
    for name, by_edition in (("diagnoses", vocabularies.diagnoses), ("procedures", vocabularies.procedures)):
        parts = [
            pl.DataFrame(
                {"icd_code": ranked.code.tolist(), "icd_version": edition, "long_title": ranked.title.tolist()}
            )
            for edition, ranked in sorted(by_edition.items())
        ]
        titled = pl.concat(parts).filter(pl.col("long_title") != "")
        made[f"hosp/d_icd_{name}"] = titled.sort("icd_code", "icd_version")
    if with_labs:
        columns = zip(*LAB_ITEMS, strict=True)
        itemid, label, loinc, *_ = (list(column) for column in columns)
        about = {"itemid": itemid, "label": label, "fluid": "Blood", "category": "Chemistry", "loinc_code": loinc}
        made["hosp/d_labitems"] = pl.DataFrame(about)
    return made


def times(minutes: np.ndarray) -> "pl.Series":
    """Return minutes since 1970 as points in time; null for `NEVER`."""
    moments = np.where(minutes == NEVER, 0, minutes).astype("datetime64[m]").astype("datetime64[us]")
    moments[minutes == NEVER] = np.datetime64("NaT")
    return pl.Series(moments)


def dates(days: np.ndarray) -> "pl.Series":
    """Return days since 1970 as dates; null for `NEVER`."""
    missing = days == NEVER
    return times(np.where(missing, NEVER, np.where(missing, 0, days) * DAY)).cast(pl.Date)


def _words(words: tuple[str, ...], index: np.ndarray) -> "pl.Series":
    """Return a word for each index; null, which is written as nothing, for an empty word."""
    return pl.Series([word or None for word in words], dtype=pl.String).gather(index)


def _dense(number: np.ndarray) -> np.ndarray:
    """Return the numbers of rows of transfers with room for 16 a patient, so that they fit into `RANGE`."""
    unit, within = np.divmod(number, MOST_ROWS_OF_A_UNIT)
    return unit * 16 * UNIT + within


def _people(people: Table, ids: np.ndarray) -> "pl.DataFrame":
    begin = 2008 + (people["real_year"] - 2008) // 3 * 3
    gender = np.where(people["is_woman"], 0, 1)
    gender = np.where(people["no_gender"], 2, gender)
    return pl.DataFrame(
        {
            "subject_id": ids,
            "gender": _words(("F", "M", ""), gender),
            "anchor_age": np.where(people["age"] > 89, 91, people["age"]),
            "anchor_year": people["anchor"],
            "anchor_year_group": _words(
                tuple(f"{year} - {year + 2}" for year in range(2008, 2025, 3)), begin // 3 - 669
            ),
            "dod": dates(people["dod"]),
        }
    )


def _admissions(patients: Patients, subject: np.ndarray, first: int) -> "pl.DataFrame":
    stays, about = patients.stays, patients.stays["about"]
    urgent, expired = stays["from_emergency"], stays["expired"]
    home = np.where(expired, len(_TO), about % len(_TO))
    arrived = np.where(urgent, stays["start"] - 300, NEVER)
    frame = pl.DataFrame(
        {
            "subject_id": subject,
            "hadm_id": stay_ids(stays["stay"]),
            "admittime": times(stays["start"]),
            "dischtime": times(stays["discharge"]),
            "deathtime": times(stays["death"]),
            "admission_type": _words(_TYPES, stays["kind"]),
            "admit_provider_id": "P" + pl.Series(about % 90000 + 10000).cast(pl.String),
            "admission_location": _words((*_FROM, "EMERGENCY ROOM"), np.where(urgent, len(_FROM), about % len(_FROM))),
            "discharge_location": _words((*_TO, "DIED"), home),
            "insurance": _words(_INSURANCE, about // 7 % len(_INSURANCE)),
            "language": _words(("English", "Spanish", "?"), np.searchsorted([85, 95], about // 11 % 100)),
            "marital_status": _words(_MARITAL, about // 13 % len(_MARITAL)),
            "race": _words(_RACES, patients.people["race"][stays["person"] - first]),
            "edregtime": times(arrived),
            "edouttime": times(np.where(urgent, stays["start"] + 60, NEVER)),
            "hospital_expire_flag": expired.astype(np.int64),
        }
    )
    return _with_repeats(frame, stays["repeated"])


def _icd(table: Table, subject: np.ndarray, ranked: dict[int, Ranked]) -> "pl.DataFrame":
    codes = pl.Series(np.concatenate([ranked[9].code, ranked[10].code]).tolist(), dtype=pl.String)
    code = codes.gather(table["code"] + np.where(table["edition"] == 10, len(ranked[9].code), 0))
    # A code with a question mark has the shape of no system.
    code = code + pl.Series(["", "?"]).gather(table["malformed"].astype(np.int64))
    stay = table["stay"] + np.where(table["unknown_stay"], _UNKNOWN, 0)
    columns = {"subject_id": subject, "hadm_id": stay_ids(stay), "seq_num": table["seq"]}
    columns |= {"chartdate": dates(table["day"])} if "day" in table else {}
    frame = pl.DataFrame(columns | {"icd_code": code, "icd_version": table["edition"]})
    return _with_repeats(frame, table["repeated"])


def _prescriptions(table: Table, subject_of: Callable[[Table], np.ndarray], drugs: Ranked) -> "pl.DataFrame":
    code = pl.Series(drugs.code.tolist(), dtype=pl.String)
    without_zeros = code.str.strip_chars_start("0").replace("", "0")
    size = len(code)
    spelled = pl.concat([code, pl.Series(["0", None]), without_zeros])
    at = np.choose(table["ndc"], [table["drug"], size, size + 1, table["drug"] + size + 2])
    subject, dose, number = subject_of(table), table["dose"], table["pharmacy"]
    one = number % len(_DOSES)
    empty = pl.lit(None, pl.String)
    frame = pl.DataFrame(
        {
            "subject_id": subject,
            "hadm_id": stay_ids(table["stay"]),
            "pharmacy_id": number,
            "starttime": times(table["start"]),
            "stoptime": times(table["stop"]),
            "drug_type": _words(_KINDS, table["kind"]),
            "drug": pl.Series(drugs.title.tolist(), dtype=pl.String).gather(table["drug"]),
            "ndc": spelled.gather(at),
            # A hundredth of the doses are ranges.
            "dose_val_rx": _words(tuple(str(n) for n in range(5001)), dose)
            + pl.Series(["", "-10000"]).gather((number % 100 == 7).astype(np.int64)),
            "dose_unit_rx": _words(_DOSES, one),
            "doses_per_24_hrs": number // 7 % 4 + 1,
            "route": _words(_ROUTES, one),
        }
    ).with_columns(
        poe_id=pl.concat_str(["subject_id", pl.lit("-"), pl.col("pharmacy_id") % 1000]),
        poe_seq=pl.col("pharmacy_id") % 1000,
        prod_strength=pl.concat_str(["dose_val_rx", "dose_unit_rx"]),
        form_val_disp=pl.lit("1"),
        form_unit_disp=pl.col("dose_unit_rx"),
        order_provider_id=empty,
        formulary_drug_cd=empty,
        gsn=empty,
        form_rx=empty,
    )
    return _with_repeats(
        frame.select(
            *("subject_id", "hadm_id", "pharmacy_id", "poe_id", "poe_seq", "order_provider_id", "starttime"),
            *("stoptime", "drug_type", "drug", "formulary_drug_cd", "gsn", "ndc", "prod_strength", "form_rx"),
            *("dose_val_rx", "dose_unit_rx", "form_val_disp", "form_unit_disp", "doses_per_24_hrs", "route"),
        ),
        table["repeated"],
    )


def _transfers(table: Table, subject: np.ndarray) -> "pl.DataFrame":
    event, time, person = table["event"], table["time"], table["person"]
    left = np.where((np.diff(person, append=-1) == 0) & (event != 3), np.append(time[1:], NEVER), NEVER)
    unit = np.where(event == 3, len(_UNITS), table["unit"] % len(_UNITS))
    unit = np.where(event == 0, len(_UNITS) + 1, unit)
    hadm = pl.Series(stay_ids(np.maximum(table["stay"], 0)))
    return pl.DataFrame(
        {
            "subject_id": subject,
            "hadm_id": hadm.zip_with(pl.Series(table["stay"] >= 0), pl.Series([None], dtype=hadm.dtype)),
            "transfer_id": FIRST_ICU + _dense(table["number"]) * 3_368_787 % RANGE,
            "eventtype": _words(("ED", "admit", "transfer", "discharge"), event),
            "careunit": _words((*_UNITS, "", "Emergency Department"), unit),
            "intime": times(time),
            "outtime": times(left),
        }
    )


def _drgs(table: Table, subject: np.ndarray) -> "pl.DataFrame":
    severe = table["system"] == 1
    levels = pl.Series(table["level"]).zip_with(pl.Series(severe), pl.Series([None], dtype=pl.Int64))
    number = pl.Series(table["number"]).cast(pl.String).str.zfill(3)
    return pl.DataFrame(
        {
            "subject_id": subject,
            "hadm_id": stay_ids(table["stay"]),
            "drg_type": _words(("HCFA", "APR"), table["system"]),
            "drg_code": number,
            "description": "GROUP " + number,
            "drg_severity": levels,
            "drg_mortality": levels,
        }
    )


def _icu(table: Table, subject: np.ndarray) -> "pl.DataFrame":
    days = (table["stop"] - table["start"]) / DAY
    unit = _words(_ICU_UNITS, table["unit"])
    return pl.DataFrame(
        {
            "subject_id": subject,
            "hadm_id": stay_ids(table["stay"]),
            "stay_id": FIRST_ICU + table["stay"] * _MULTIPLIER % RANGE,
            "first_careunit": unit,
            "last_careunit": unit,
            "intime": times(table["start"]),
            "outtime": times(table["stop"]),
            "los": np.round(days, 4),
        }
    )


def _labs(table: Table, subject: np.ndarray) -> "pl.DataFrame":
    itemid, _, _, unit, mean, spread = (list(column) for column in zip(*LAB_ITEMS, strict=True))
    item = table["item"]
    value = np.round(np.abs(np.array(mean)[item] + np.array(spread)[item] * table["value"]), 1)
    return pl.DataFrame(
        {
            "labevent_id": table["number"],
            "subject_id": subject,
            "hadm_id": stay_ids(table["stay"]),
            "specimen_id": table["stored"] % RANGE,
            "itemid": np.array(itemid)[item],
            "charttime": times(table["time"]),
            "storetime": times(table["stored"]),
            "value": pl.Series(value).cast(pl.String),
            "valuenum": value,
            "valueuom": _words(tuple(unit), item),
        }
    )


def _with_repeats(frame: "pl.DataFrame", repeated: np.ndarray) -> "pl.DataFrame":
    """Return the frame with every marked row twice."""
    return frame[np.repeat(np.arange(len(frame)), 1 + repeated)] if repeated.any() else frame
