"""Declare the tables of MIMIC-III and MIMIC-IV that this project uses: when they are downloaded, and what is read.

Both the download (`preprocessing.mimic`) and the conversion (`preprocessing.meds`) follow this one declaration, which
needs no optional package. Sources of the columns: https://mimic.mit.edu/docs, https://github.com/MIT-LCP/mimic-code
(`create.sql` of both).
"""

import dataclasses
import datetime
import enum
from collections.abc import Mapping

MIMIC3, MIMIC4 = VERSIONS = ("mimic3", "mimic4")
# Time of day of an event on a DATE.
END_OF_DAY = datetime.time(23, 59, 59)


class Kind(enum.Enum):
    """Name the type of a column.

    MOMENT is a point in time, and DATE a day, even if the file adds a time of midnight, as MIMIC-III does. An event on
    a DATE gets the last second of that day, so that it is never known before it happened. DAY is a day that begins at
    midnight. NUMERAL is a number that names something, such as a laboratory item.
    """

    TEXT = "text"
    NUMERAL = "a number as a name"
    INTEGER = "a whole number"
    NUMBER = "a number"
    MOMENT = "a point in time"
    DATE = "a date"
    DAY = "a date without time"


class DownloadScope(enum.Enum):
    """Say when a table is downloaded.

    ALWAYS: with every download. FOR_RECORDS: if patient records are made and the release lists the table. LARGE: only
    with all tables of the release; such a table is converted only if the user asks for it by name.
    """

    ALWAYS = "always"
    FOR_RECORDS = "for patient records"
    LARGE = "with all tables"


@dataclasses.dataclass(frozen=True)
class MimicTable:
    """Describe one table.

    Attributes:
        file: path in the release without its ending, such as `hosp/patients` or `PATIENTS`.
        columns: columns that are read; see `TableFiles.read`.
        optional: columns that are read if the file has them.
        scope: when the table is downloaded.
        of_stay: True if a row says nothing without its hospital stay.
        needed: True if a copy without this table is refused.
    """

    file: str
    columns: Mapping[str, Kind]
    optional: Mapping[str, Kind] = dataclasses.field(default_factory=dict)
    scope: DownloadScope = DownloadScope.FOR_RECORDS
    of_stay: bool = False
    needed: bool = False

    @property
    def name(self) -> str:
        """Return the name in lower case, without the folder."""
        return self.file.rpartition("/")[2].lower()

    @property
    def is_dictionary(self) -> bool:
        """Return True if the table describes codes, False if its rows become events."""
        return self.name.startswith("d_")


ALWAYS, LARGE = DownloadScope.ALWAYS, DownloadScope.LARGE
_ID, _TEXT, _NUMBER, _MOMENT, _DATE = Kind.INTEGER, Kind.TEXT, Kind.NUMBER, Kind.MOMENT, Kind.DATE
_NUMERAL = Kind.NUMERAL
_STAY = {"subject_id": _ID, "hadm_id": _ID}
_ABOUT_STAY = {
    **{name: _TEXT for name in ("language", "marital_status", "admission_location", "discharge_location")},
    # MIMIC-III and the first versions of MIMIC-IV call race ethnicity.
    **{"race": _TEXT, "ethnicity": _TEXT, "edregtime": _MOMENT, "edouttime": _MOMENT},
}
_ADMISSION = {
    **{**_STAY, "admission_type": _TEXT, "insurance": _TEXT, "hospital_expire_flag": _ID},
    **{"admittime": _MOMENT, "dischtime": _MOMENT, "deathtime": _MOMENT},
}
_VALUES = {"itemid": _NUMERAL, "charttime": _MOMENT, "value": _TEXT, "valuenum": _NUMBER, "valueuom": _TEXT}
_DRG_LEVELS = {"description": _TEXT, "drg_severity": _ID, "drg_mortality": _ID}
_ORDER = {name: _TEXT for name in ("dose_val_rx", "dose_unit_rx", "route", "drug_type")}
_VERSION = {"icd_version": _NUMERAL}
_ITEM = {"itemid": _NUMERAL, "label": _TEXT}
_ABOUT_LAB = {"fluid": _TEXT, "category": _TEXT, "loinc_code": _TEXT}

# The tables to which others refer come first; dictionaries, which describe codes, come last.
TABLES: dict[str, tuple[MimicTable, ...]] = {
    MIMIC3: (
        MimicTable("ADMISSIONS", _ADMISSION, _ABOUT_STAY, scope=ALWAYS, needed=True),
        MimicTable(
            "PATIENTS", {"subject_id": _ID, "gender": _TEXT, "dob": Kind.DAY, "dod": _DATE}, scope=ALWAYS, needed=True
        ),
        MimicTable(
            "DIAGNOSES_ICD",
            {**_STAY, "seq_num": _ID, "icd9_code": _TEXT},
            scope=ALWAYS,
            of_stay=True,
            needed=True,
        ),
        MimicTable("PROCEDURES_ICD", {**_STAY, "seq_num": _ID, "icd9_code": _TEXT}, scope=ALWAYS, of_stay=True),
        MimicTable(
            "PRESCRIPTIONS",
            {**_STAY, "startdate": _DATE, "drug": _TEXT, "ndc": _NUMERAL},
            {"enddate": _DATE, **_ORDER},
            scope=ALWAYS,
        ),
        MimicTable(
            "ICUSTAYS",
            {
                **_STAY,
                "icustay_id": _ID,
                "first_careunit": _TEXT,
                "last_careunit": _TEXT,
                "intime": _MOMENT,
                "outtime": _MOMENT,
            },
            scope=ALWAYS,
        ),
        MimicTable(
            "TRANSFERS",
            {**_STAY, "eventtype": _TEXT, "curr_careunit": _TEXT, "intime": _MOMENT},
        ),
        MimicTable("DRGCODES", {**_STAY, "drg_type": _TEXT, "drg_code": _NUMERAL}, _DRG_LEVELS, of_stay=True),
        MimicTable(
            "CPTEVENTS",
            {**_STAY, "chartdate": _DATE, "cpt_cd": _TEXT},
            {"description": _TEXT},
        ),
        MimicTable("LABEVENTS", {**_STAY, **_VALUES}, {"storetime": _MOMENT}),
        MimicTable(
            "CHARTEVENTS",
            {**_STAY, "icustay_id": _ID, **_VALUES},
            {"storetime": _MOMENT},
            scope=LARGE,
        ),
        MimicTable("D_ICD_DIAGNOSES", {"icd9_code": _TEXT, "long_title": _TEXT}, _VERSION, scope=ALWAYS),
        MimicTable("D_ICD_PROCEDURES", {"icd9_code": _TEXT, "long_title": _TEXT}, _VERSION, scope=ALWAYS),
        MimicTable("D_LABITEMS", _ITEM, _ABOUT_LAB),
        MimicTable("D_ITEMS", _ITEM, {"category": _TEXT}, scope=LARGE),
    ),
    MIMIC4: (
        MimicTable("hosp/admissions", _ADMISSION, _ABOUT_STAY, scope=ALWAYS, needed=True),
        MimicTable(
            "hosp/patients",
            {"subject_id": _ID, "gender": _TEXT, "anchor_age": _ID, "anchor_year": _ID, "dod": _DATE},
            {"anchor_year_group": _TEXT},
            scope=ALWAYS,
            needed=True,
        ),
        MimicTable(
            "hosp/diagnoses_icd",
            {**_STAY, "seq_num": _ID, "icd_code": _TEXT, "icd_version": _NUMERAL},
            scope=ALWAYS,
            of_stay=True,
            needed=True,
        ),
        MimicTable(
            "hosp/procedures_icd",
            {**_STAY, "seq_num": _ID, "icd_code": _TEXT, "icd_version": _NUMERAL},
            {"chartdate": _DATE},
            scope=ALWAYS,
            of_stay=True,
        ),
        MimicTable(
            "hosp/prescriptions",
            {**_STAY, "starttime": _MOMENT, "drug": _TEXT, "ndc": _NUMERAL},
            {"stoptime": _MOMENT, **_ORDER},
            scope=ALWAYS,
        ),
        MimicTable(
            "icu/icustays",
            {
                **_STAY,
                "stay_id": _ID,
                "first_careunit": _TEXT,
                "last_careunit": _TEXT,
                "intime": _MOMENT,
                "outtime": _MOMENT,
            },
            scope=ALWAYS,
        ),
        MimicTable("hosp/transfers", {**_STAY, "eventtype": _TEXT, "careunit": _TEXT, "intime": _MOMENT}),
        MimicTable("hosp/drgcodes", {**_STAY, "drg_type": _TEXT, "drg_code": _NUMERAL}, _DRG_LEVELS, of_stay=True),
        MimicTable(
            "hosp/hcpcsevents",
            {**_STAY, "chartdate": _DATE, "hcpcs_cd": _TEXT},
            {"short_description": _TEXT},
        ),
        MimicTable("hosp/omr", {"subject_id": _ID, "chartdate": _DATE, "result_name": _TEXT, "result_value": _TEXT}),
        MimicTable("hosp/labevents", {**_STAY, **_VALUES}, {"storetime": _MOMENT}),
        MimicTable(
            "icu/chartevents",
            {**_STAY, "stay_id": _ID, **_VALUES},
            {"storetime": _MOMENT},
            scope=LARGE,
        ),
        MimicTable("hosp/emar", {**_STAY, "charttime": _MOMENT, "medication": _TEXT, "event_txt": _TEXT}, scope=LARGE),
        MimicTable("hosp/d_icd_diagnoses", {"icd_code": _TEXT, "long_title": _TEXT}, _VERSION, scope=ALWAYS),
        MimicTable("hosp/d_icd_procedures", {"icd_code": _TEXT, "long_title": _TEXT}, _VERSION, scope=ALWAYS),
        MimicTable("hosp/d_labitems", _ITEM, _ABOUT_LAB),
        MimicTable("hosp/d_hcpcs", {"code": _TEXT, "short_description": _TEXT}, {"long_description": _TEXT}),
        MimicTable("icu/d_items", _ITEM, {"category": _TEXT}, scope=LARGE),
    ),
}


def event_tables(version: str) -> list[MimicTable]:
    """Return the tables of a version whose rows become events."""
    return [table for table in TABLES[version] if not table.is_dictionary]


def table_of(version: str, name: str) -> MimicTable | None:
    """Return the table of a version with a name in lower case; None if this version has none."""
    return next((table for table in TABLES[version] if table.name == name), None)
