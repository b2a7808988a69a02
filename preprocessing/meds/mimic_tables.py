"""Define the tables of MIMIC-III and MIMIC-IV with the columns that are read and the functions that make events.

Sources of the columns: https://mimic.mit.edu/docs, https://github.com/MIT-LCP/mimic-code (`create.sql` of both).
"""

import dataclasses
from collections.abc import Mapping

from preprocessing.meds.mimic_events import (
    Events,
    admissions,
    drg,
    drugs,
    emar,
    icd,
    icu,
    measurements,
    omr,
    patients,
    services,
    transfers,
)
from preprocessing.meds.mimic_files import MIMIC3, MIMIC4, Kind

_ID, _TEXT, _NUMBER, _MOMENT, _DATE = Kind.INTEGER, Kind.TEXT, Kind.NUMBER, Kind.MOMENT, Kind.DATE
_STAY = {"subject_id": _ID, "hadm_id": _ID}


@dataclasses.dataclass(frozen=True)
class Table:
    """Describe one table.

    Attributes:
        name: name in lower case.
        columns: columns that are read; see `MimicFiles.read`.
        events: makes the events of a block of rows, which have `admitted` and `discharged` of their stays.
        optional: columns that are read if the file has them.
        of_stay: whether rows without a stay are rejected.
        needed: whether a copy without this table is refused.
        asked: whether the table is read only if it is asked for.
    """

    name: str
    columns: Mapping[str, Kind]
    events: Events
    optional: Mapping[str, Kind] = dataclasses.field(default_factory=dict)
    of_stay: bool = False
    needed: bool = False
    asked: bool = False


_ABOUT_STAY = {
    **{name: _TEXT for name in ("language", "marital_status", "admission_location", "discharge_location")},
    # MIMIC-III and the first versions of MIMIC-IV call race ethnicity.
    **{"race": _TEXT, "ethnicity": _TEXT, "edregtime": _MOMENT, "edouttime": _MOMENT},
}
_ADMISSION = {
    **{**_STAY, "admission_type": _TEXT, "insurance": _TEXT, "hospital_expire_flag": _ID},
    **{"admittime": _MOMENT, "dischtime": _MOMENT, "deathtime": _MOMENT},
}
_VALUES = {"itemid": _TEXT, "charttime": _MOMENT, "value": _TEXT, "valuenum": _NUMBER, "valueuom": _TEXT}
_DRG_LEVELS = {"description": _TEXT, "drg_severity": _ID, "drg_mortality": _ID}
_DOSE = {"dose_val_rx": _TEXT, "dose_unit_rx": _TEXT}

# The tables to which others refer come first.
TABLES: dict[str, tuple[Table, ...]] = {
    MIMIC3: (
        Table("admissions", _ADMISSION, admissions, _ABOUT_STAY, needed=True),
        Table("patients", {"subject_id": _ID, "gender": _TEXT, "dob": Kind.DAY, "dod": _DATE}, patients, needed=True),
        Table(
            "diagnoses_icd",
            {**_STAY, "seq_num": _ID, "icd9_code": _TEXT},
            icd("DIAGNOSIS", None),
            of_stay=True,
            needed=True,
        ),
        Table("procedures_icd", {**_STAY, "seq_num": _ID, "icd9_code": _TEXT}, icd("PROCEDURE", None), of_stay=True),
        Table(
            "prescriptions",
            {**_STAY, "startdate": _DATE, "drug": _TEXT, "ndc": _TEXT},
            drugs("startdate", "enddate"),
            {"enddate": _DATE, **_DOSE},
        ),
        Table(
            "icustays",
            {
                **_STAY,
                "icustay_id": _ID,
                "first_careunit": _TEXT,
                "last_careunit": _TEXT,
                "intime": _MOMENT,
                "outtime": _MOMENT,
            },
            icu("icustay_id"),
        ),
        Table(
            "transfers",
            {**_STAY, "eventtype": _TEXT, "curr_careunit": _TEXT, "intime": _MOMENT},
            transfers("curr_careunit"),
        ),
        Table("drgcodes", {**_STAY, "drg_type": _TEXT, "drg_code": _TEXT}, drg, _DRG_LEVELS, of_stay=True),
        Table(
            "cptevents",
            {**_STAY, "chartdate": _DATE, "cpt_cd": _TEXT},
            services("cpt_cd", "description"),
            {"description": _TEXT},
        ),
        Table("labevents", {**_STAY, **_VALUES}, measurements("LAB"), {"storetime": _MOMENT}),
        Table(
            "chartevents",
            {**_STAY, "icustay_id": _ID, **_VALUES},
            measurements("CHART", "icustay_id"),
            {"storetime": _MOMENT},
            asked=True,
        ),
    ),
    MIMIC4: (
        Table("admissions", _ADMISSION, admissions, _ABOUT_STAY, needed=True),
        Table(
            "patients",
            {"subject_id": _ID, "gender": _TEXT, "anchor_age": _ID, "anchor_year": _ID, "dod": _DATE},
            patients,
            needed=True,
        ),
        Table(
            "diagnoses_icd",
            {**_STAY, "seq_num": _ID, "icd_code": _TEXT, "icd_version": _TEXT},
            icd("DIAGNOSIS", None),
            of_stay=True,
            needed=True,
        ),
        Table(
            "procedures_icd",
            {**_STAY, "seq_num": _ID, "icd_code": _TEXT, "icd_version": _TEXT},
            icd("PROCEDURE", "chartdate"),
            {"chartdate": _DATE},
            of_stay=True,
        ),
        Table(
            "prescriptions",
            {**_STAY, "starttime": _MOMENT, "drug": _TEXT, "ndc": _TEXT},
            drugs("starttime", "stoptime"),
            {"stoptime": _MOMENT, **_DOSE},
        ),
        Table(
            "icustays",
            {
                **_STAY,
                "stay_id": _ID,
                "first_careunit": _TEXT,
                "last_careunit": _TEXT,
                "intime": _MOMENT,
                "outtime": _MOMENT,
            },
            icu("stay_id"),
        ),
        Table("transfers", {**_STAY, "eventtype": _TEXT, "careunit": _TEXT, "intime": _MOMENT}, transfers("careunit")),
        Table("drgcodes", {**_STAY, "drg_type": _TEXT, "drg_code": _TEXT}, drg, _DRG_LEVELS, of_stay=True),
        Table(
            "hcpcsevents",
            {**_STAY, "chartdate": _DATE, "hcpcs_cd": _TEXT},
            services("hcpcs_cd", "short_description"),
            {"short_description": _TEXT},
        ),
        Table("omr", {"subject_id": _ID, "chartdate": _DATE, "result_name": _TEXT, "result_value": _TEXT}, omr),
        Table("labevents", {**_STAY, **_VALUES}, measurements("LAB"), {"storetime": _MOMENT}),
        Table(
            "chartevents",
            {**_STAY, "stay_id": _ID, **_VALUES},
            measurements("CHART", "stay_id"),
            {"storetime": _MOMENT},
            asked=True,
        ),
        Table("emar", {**_STAY, "charttime": _MOMENT, "medication": _TEXT, "event_txt": _TEXT}, emar, asked=True),
    ),
}
