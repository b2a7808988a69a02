"""Convert the eICU Collaborative Research Database (eICU-CRD, and its open demo) to MEDS.

A hospital stay (`patienthealthsystemstayid`) is a subject of its own, because the order of a patient's stays is not
known beyond the year; its number is `subject_id` and `hadm_id`. Splits are by patient (`uniquepid`), so that no patient
is in two of them; `metadata/persons.parquet` names the patient of each subject.

Times are minutes from the admission to intensive care. They are placed on dates by one rule: the hospital admission is
on the first of January of `hospitaldischargeyear` at `hospitaladmittime24`. Year, time of day and all intervals within
a stay are true; month and day mean nothing. No event is moved:

    GENDER//F, MEDS_BIRTH                      the year of birth by the age; "> 89" is 90
    HOSPITAL_ADMISSION//UNK//<source>          race and facts about the hospital in columns
    ICU_ADMISSION//<unit>, ICU_DISCHARGE//<unit>   icustay_id is patientunitstayid
    HEIGHT//cm, WEIGHT//kg                     at the admission to the unit; the last weight at its end
    ICD9CM/401.9, ICD10CM/I10, ICD9Proc/31.1   when a diagnosis was entered; one event for each code of its field
    DIAGNOSIS//<text>                          a diagnosis without a code
    MEDICATION//HICL//<number>                 at the start or the order, whichever is later; else START//<NAME>
    TREATMENT//<text>, PAST_HISTORY//<text>, ADMISSION_DIAGNOSIS//<text>     when they were entered
    APACHE//<version>//<result>                24 hours after the admission to the unit, or at its end if it is earlier
    MEDS_DEATH, HOSPITAL_DISCHARGE//<location>     a death in hospital is at the discharge, and precedes it

Outcomes in the APACHE results, and whether a diagnosis or treatment was active at the discharge, are left out: they are
known only later. Source of the columns: https://eicu-crd.mit.edu/eicutables.
"""

from collections.abc import Iterator

import numpy as np

from preprocessing.common.extras import load
from preprocessing.common.hashing import hash_strings
from preprocessing.meds import splits
from preprocessing.meds.conversion import Conversion, MedsRequest
from preprocessing.meds.layout import BIRTH, DEATH
from preprocessing.meds.mimic_tables import Kind
from preprocessing.meds.sources.tables import Source, Tables, named, named_where, only_home, tables_in
from preprocessing.meds.sources.writer import Timelines, write
from preprocessing.meds.table_files import new_year

pl = load("polars")

_ID, _TEXT, _NUMBER = Kind.INTEGER, Kind.TEXT, Kind.NUMBER
_STAY = {"patientunitstayid": _ID}
_PATIENT = {
    **_STAY,
    **dict.fromkeys(("patienthealthsystemstayid", "hospitalid", "hospitaldischargeyear"), _ID),
    **dict.fromkeys(("hospitaladmitoffset", "hospitaldischargeoffset", "unitdischargeoffset"), _ID),
    **dict.fromkeys(("uniquepid", "gender", "age", "ethnicity", "unittype", "unitstaytype", "unitadmitsource"), _TEXT),
    **dict.fromkeys(("hospitaladmittime24", "hospitaladmitsource", "hospitaldischargelocation"), _TEXT),
    **dict.fromkeys(("hospitaldischargestatus", "unitdischargelocation", "unitdischargestatus"), _TEXT),
    **dict.fromkeys(("admissionheight", "admissionweight", "dischargeweight"), _NUMBER),
}
_HOSPITAL = {"hospitalid": _ID, "numbedscategory": _TEXT, "teachingstatus": _TEXT, "region": _TEXT}
_DRUG_NUMBERS = ("drugorderoffset", "drugstartoffset", "drugstopoffset")
_DRUG_TEXTS = ("drugordercancelled", "drugname", "dosage", "routeadmin", "frequency")
_DRUG_NUMERALS = ("drughiclseqno", "gtc")
_SCORES = {
    "acutephysiologyscore": "ACUTE_PHYSIOLOGY_SCORE",
    "apachescore": "APACHE_SCORE",
    "predictedicumortality": "PREDICTED_ICU_MORTALITY",
    "predictedhospitalmortality": "PREDICTED_HOSPITAL_MORTALITY",
}
# Table -> its columns, in the order in which tables are read.
_COLUMNS = {
    "diagnosis": {**_STAY, "diagnosisoffset": _ID, "diagnosisstring": _TEXT, "icd9code": _TEXT},
    "medication": {
        **{**_STAY, **dict.fromkeys(_DRUG_NUMBERS, _ID)},
        **{**dict.fromkeys(_DRUG_TEXTS, _TEXT), **dict.fromkeys(_DRUG_NUMERALS, Kind.NUMERAL)},
    },
    "treatment": {**_STAY, "treatmentoffset": _ID, "treatmentstring": _TEXT},
    "pasthistory": {**_STAY, "pasthistoryoffset": _ID, "pasthistorypath": _TEXT, "pasthistoryvaluetext": _TEXT},
    "admissiondx": {**_STAY, "admitdxenteredoffset": _ID, "admitdxpath": _TEXT, "admitdxtext": _TEXT},
    "apachepatientresult": {**_STAY, "apacheversion": _TEXT, **dict.fromkeys(_SCORES, _NUMBER)},
}
_OPTIONAL = {"diagnosis": {"diagnosispriority": _TEXT}, "pasthistory": {"pasthistoryenteredoffset": _ID}}
SOURCE = Source(
    name="eicu",
    mark="patient",
    mark_columns=("patientunitstayid",),
    tables=("patient", "hospital", *_COLUMNS),
    columns={
        **{"icustay_id": pl.Int64, "hospital_id": pl.Int64, "hospital_beds": pl.String, "hospital_teaching": pl.String},
        **{"hospital_region": pl.String, "race": pl.String, "hospital_expire_flag": pl.Int64, "stay_type": pl.String},
        **{"priority": pl.String, "dose": pl.String, "route": pl.String, "frequency": pl.String, "gtc": pl.String},
        "stoptime": pl.Datetime("us"),
    },
    further={
        "license": "Open Database License 1.0 (demo); PhysioNet Credentialed Health Data License 1.5.0 (full)",
        "site_id_columns": ["hospital_id"],
    },
)
OLDEST = 90
_SEXES = {"Male": "M", "Female": "F", "Other": "Other"}
# Shapes that tell ICD-9 from ICD-10 in one field. E codes of ICD-9 have three digits, E800 to E999; no code of ICD-10
# from V00 to V99 is as short as those of ICD-9. A procedure of ICD-9 has two digits before its dot.
_ICD9 = r"^(?:[0-9]{3}(?:\.[0-9]{1,2})?|V[0-9]{2}(?:\.[0-9]{1,2})?|E[89][0-9]{2}(?:\.[0-9])?)$"
_ICD9_PROCEDURE = r"^[0-9]{2}\.[0-9]{1,2}$"
_ICD10 = r"^[A-Z][0-9][0-9A-Z]"


def convert(request: MedsRequest) -> Conversion:
    """Convert a copy of eICU-CRD to MEDS, see `writer.write`.

    Raises:
        InputError: the input is no copy of eICU-CRD, a table cannot be read, or the output cannot be written.
    """
    folder = only_home(request.input, SOURCE).parent
    paths = {name: path for name, path in tables_in(folder).items() if name in SOURCE.tables}
    return write(request, SOURCE, paths, read)


def read(tables: Tables) -> Timelines:
    """Read all hospital stays, and return them with an iterator over their events."""
    patients = _placed(tables, _patients(tables))
    stays = _hospital_stays(tables, patients).sort("subject_id")
    hashes = (hash_strings("uniquepid", stays["uniquepid"].to_list()) >> np.uint64(1)).astype(np.int64)
    persons = stays.select("subject_id", person="uniquepid")
    described = {"HEIGHT//cm": "Height", "WEIGHT//kg": "Body weight"}
    return Timelines(
        stays["subject_id"].to_numpy(),
        splits.split_of(hashes),
        _events(tables, patients, stays),
        described=described,
        persons=persons,
    )


def _patients(tables: Tables) -> "pl.DataFrame":
    """Read the stays in intensive care, each once, with facts about the hospital."""
    frame = tables.read_all("patient", _PATIENT)
    needed = ("patientunitstayid", "patienthealthsystemstayid", "uniquepid", "hospitaldischargeyear")
    needed += ("hospitaladmitoffset", "hospitaldischargeoffset", "unitdischargeoffset")
    for name in needed:
        frame = tables.reject("patient", frame, frame[name].is_null(), f"no {name}", f"the row has no {name}")
    no_year = frame.select(new_year(pl.col("hospitaldischargeyear")).is_null()).to_series()
    kind = "bad value of hospitaldischargeyear"
    frame = tables.reject("patient", frame, no_year, kind, "hospitaldischargeyear is not a year")
    repeated = ~frame["patientunitstayid"].is_first_distinct()
    frame = tables.reject("patient", frame, repeated, "repeated", "a stay twice")
    first = frame.unique("patienthealthsystemstayid", keep="first", maintain_order=True)
    own = frame.join(
        first.select("patienthealthsystemstayid", first="uniquepid"),
        on="patienthealthsystemstayid",
        maintain_order="left",
    )
    other = own["first"] != own["uniquepid"]
    frame = tables.reject("patient", frame, other, "another patient's stay", "the hospital stay is of another patient")
    hospitals = pl.DataFrame(schema={"hospitalid": pl.Int64, "numbedscategory": pl.String, "teachingstatus": pl.String})
    hospitals = hospitals.with_columns(region=pl.lit(None, pl.String))
    if tables.has("hospital"):
        read = tables.read_all("hospital", _HOSPITAL)
        again = ~read["hospitalid"].is_first_distinct()
        hospitals = tables.reject("hospital", read, again, "repeated", "a hospital twice").drop("line")
    return frame.join(hospitals, on="hospitalid", how="left", maintain_order="left")


def _placed(tables: Tables, frame: "pl.DataFrame") -> "pl.DataFrame":
    """Add the ids of MEDS and the times `admitted`, `discharged` (hospital), `entered` and `left` (unit)."""
    clock = pl.col("hospitaladmittime24").str.to_time("%H:%M:%S", strict=False)
    tables.count(
        "ICU stays have no time of day of the hospital admission; it is midnight",
        frame.select(clock).null_count().item(),
    )
    day = new_year(pl.col("hospitaldischargeyear"))
    frame = frame.with_columns(admitted=day.dt.combine(clock.fill_null(pl.time(0, 0, 0)), "us"))
    return frame.with_columns(
        subject_id="patienthealthsystemstayid",
        hadm_id="patienthealthsystemstayid",
        entered=pl.col("admitted") - pl.duration(minutes="hospitaladmitoffset"),
    ).with_columns(
        left=pl.col("entered") + pl.duration(minutes="unitdischargeoffset"),
        discharged=pl.col("entered") + pl.duration(minutes="hospitaldischargeoffset"),
    )


def _hospital_stays(tables: Tables, patients: "pl.DataFrame") -> "pl.DataFrame":
    """Return the hospital stays, as the first stay in intensive care of each states them, and `died`."""
    count = tables.count
    ordered = patients.sort("subject_id", "entered", maintain_order=True)
    by_stay = ordered.group_by("subject_id", maintain_order=True)
    died_in_unit = (pl.col("unitdischargestatus") == "Expired").any()
    differing = [pl.col(name).n_unique() > 1 for name in ("admitted", "discharged", "hospitaldischargestatus")]
    found = by_stay.agg(died_in_unit=died_in_unit, differs=pl.any_horizontal(differing))
    stays = ordered.unique("subject_id", keep="first", maintain_order=True).join(found, on="subject_id")
    status = pl.col("hospitaldischargestatus")
    stays = stays.with_columns(died=pl.when(status.is_null()).then("died_in_unit").otherwise(status == "Expired"))
    count(
        "hospital stays whose ICU stays disagree on admission, discharge or survival; the first one is read",
        stays["differs"].sum(),
    )
    count(
        "hospital stays without a discharge status; the patient died if an ICU stay says so",
        stays["hospitaldischargestatus"].null_count(),
    )
    contradicted = stays["died_in_unit"] & ~stays["died"]
    count("hospital stays with a death in the ICU but a discharge alive; the discharge is read", contradicted.sum())
    count(
        "hospital stays that end before they begin; their times are kept",
        (stays["discharged"] < stays["admitted"]).sum(),
    )
    early, late = patients["entered"] < patients["admitted"], patients["left"] > patients["discharged"]
    count("ICU stays that begin before the hospital admission; their times are kept", early.sum())
    count("ICU stays that end after the hospital discharge; their times are kept", late.sum())
    return stays


def _events(
    tables: Tables, patients: "pl.DataFrame", stays: "pl.DataFrame"
) -> Iterator[tuple[str, "pl.DataFrame", "pl.DataFrame"]]:
    events = [*_of_stays(tables, stays), *_of_units(tables, patients)]
    yield "patient", patients, pl.concat(events)
    times = patients.select("patientunitstayid", "subject_id", "hadm_id", "entered", "left", "admitted", "discharged")
    makers = {
        "diagnosis": _diagnoses,
        "medication": _drugs,
        "treatment": _treatments,
        "pasthistory": _past_history,
        "admissiondx": _admission_diagnoses,
        "apachepatientresult": _apache,
    }
    for table, columns in _COLUMNS.items():
        for block in tables.read(table, columns, _OPTIONAL.get(table)):
            frame = block.join(times, on="patientunitstayid", how="left", maintain_order="left")
            lost = frame["subject_id"].is_null()
            frame = tables.reject(
                table, frame, lost, "no such stay", "its stay is not in the table of patients", times.columns[1:]
            )
            made = makers[table](tables, frame)
            timed = made.join(frame.select("line", "admitted", "discharged"), on="line", how="left")
            early, late = pl.col("time") < pl.col("admitted"), pl.col("time") > pl.col("discharged")
            for where, mask in (("before the hospital admission", early), ("after the hospital discharge", late)):
                tables.count(f"events of {table} {where}; their times are kept", len(timed.filter(mask)))
            yield table, frame, made


def _of_stays(tables: Tables, stays: "pl.DataFrame") -> Iterator["pl.DataFrame"]:
    age = (
        pl.when(pl.col("age").str.contains("^> ?89$"))
        .then(OLDEST)
        .otherwise(pl.col("age").cast(pl.Int64, strict=False))
    )
    stays = stays.with_columns(
        born=new_year(pl.col("admitted").dt.year() - age),
        sex=pl.col("gender").replace_strict(_SEXES, default=None, return_dtype=pl.String),
    )
    tables.count("hospital stays without an age have no birth", stays["born"].null_count())
    about = {
        **{
            "race": pl.col("ethnicity"),
            "hospital_id": pl.col("hospitalid"),
            "hospital_beds": pl.col("numbedscategory"),
        },
        **{"hospital_teaching": pl.col("teachingstatus"), "hospital_region": pl.col("region")},
    }
    yield tables.event(stays, "GENDER", named_where("GENDER", "sex"), pl.lit(None), hadm_id=pl.lit(None))
    birth = pl.when(pl.col("born").is_not_null()).then(pl.lit(BIRTH))
    yield tables.event(stays, "BIRTH", birth, pl.col("born"), hadm_id=pl.lit(None))
    stays = stays.with_columns(unknown=pl.lit(None, pl.String))
    arrival = named("HOSPITAL_ADMISSION", "unknown", "hospitaladmitsource")
    yield tables.event(stays, "HOSPITAL_ADMISSION", arrival, pl.col("admitted"), **about)
    yield tables.event(stays, "DEATH", pl.when("died").then(pl.lit(DEATH)), pl.col("discharged"))
    known = pl.col("hospitaldischargestatus").is_not_null() | pl.col("died")
    leaving = named("HOSPITAL_DISCHARGE", "hospitaldischargelocation")
    flag = pl.when(known).then(pl.col("died"))
    yield tables.event(stays, "HOSPITAL_DISCHARGE", leaving, pl.col("discharged"), hospital_expire_flag=flag)


def _of_units(tables: Tables, patients: "pl.DataFrame") -> Iterator["pl.DataFrame"]:
    number = {"icustay_id": pl.col("patientunitstayid"), "stay_type": pl.col("unitstaytype")}
    came, went = pl.col("unitadmitsource"), pl.col("unitdischargelocation")
    entered, left = pl.col("entered"), pl.col("left")
    yield tables.event(
        patients, "ICU_ADMISSION", named("ICU_ADMISSION", "unittype"), entered, text_value=came, **number
    )
    yield tables.event(patients, "ICU_DISCHARGE", named("ICU_DISCHARGE", "unittype"), left, text_value=went, **number)
    measured = (
        ("admissionheight", "HEIGHT//cm", entered),
        ("admissionweight", "WEIGHT//kg", entered),
        ("dischargeweight", "WEIGHT//kg", left),
    )
    for column, code, time in measured:
        given = pl.when(pl.col(column) > 0).then(pl.lit(code))
        yield tables.event(
            patients, "MEASUREMENT", given, time, numeric_value=pl.col(column), icustay_id=number["icustay_id"]
        )


def _minutes(*columns: str) -> "pl.Expr":
    """Return the time of the latest of some offsets in minutes."""
    return pl.col("entered") + pl.duration(minutes=pl.max_horizontal(*columns))


def _diagnoses(tables: Tables, frame: "pl.DataFrame") -> "pl.DataFrame":
    """Make an event for each distinct code of a field, and one of the text where there is no code."""
    raw = pl.col("icd9code").str.split(",")
    coded = frame.with_columns(raw=raw).explode("raw").with_columns(pl.col("raw").str.strip_chars().str.to_uppercase())
    coded = coded.filter(pl.col("raw").is_not_null() & (pl.col("raw") != ""))
    once = coded.unique(["line", "raw"], keep="first", maintain_order=True)
    tables.count("codes stand twice in the field of one diagnosis and make one event", len(coded) - len(once))
    coded = once
    code = _icd(tables, coded["raw"])
    about = {"text_value": pl.col("diagnosisstring"), "icustay_id": pl.col("patientunitstayid")}
    about |= {"priority": pl.col("diagnosispriority")}
    time = _minutes("diagnosisoffset")
    bare = frame.filter(~pl.col("line").is_in(coded["line"].unique().implode()))
    tables.count("diagnoses have no code; their text makes the event", len(bare))
    return pl.concat(
        [
            tables.event(coded, "OBSERVATION", code, time, **about),
            tables.event(bare, "OBSERVATION", named_where("DIAGNOSIS", "diagnosisstring"), time, **about),
        ]
    )


def _system() -> "pl.Expr":
    """Return the system of the codes in `raw`, in capitals, by their shape; empty if they have none."""
    raw = pl.col("raw")
    return (
        pl.when(raw.str.contains(_ICD9))
        .then(pl.lit("ICD9CM"))
        .when(raw.str.contains(_ICD9_PROCEDURE))
        .then(pl.lit("ICD9Proc"))
        .when(raw.str.contains(_ICD10))
        .then(pl.lit("ICD10CM"))
        .otherwise(pl.lit(""))
    )


def _icd(tables: Tables, raw: "pl.Series") -> "pl.Series":
    """Return the event codes of ICD codes, [n] -> [n]."""
    frame = raw.to_frame("raw").with_columns(system=_system())
    edition = frame["system"].replace_strict({"ICD9CM": "9", "ICD9Proc": "9", "ICD10CM": "10", "": None})
    is_procedure = frame["system"] == "ICD9Proc"
    diagnoses = tables.codes.icd("DIAGNOSIS", raw.zip_with(~is_procedure, raw.clear(len(raw))), edition)
    procedures = tables.codes.icd("PROCEDURE", raw.zip_with(is_procedure, raw.clear(len(raw))), edition)
    return diagnoses.zip_with(~is_procedure, procedures)


def _drugs(tables: Tables, frame: "pl.DataFrame") -> "pl.DataFrame":
    canceled = frame["drugordercancelled"].fill_null("No").str.to_lowercase() == "yes"
    tables.count("canceled orders of drugs make no event", canceled.sum())
    frame = frame.filter(~canceled)
    name = pl.col("drugname").str.to_uppercase().str.replace_all(r"\s+", " ")
    frame = frame.with_columns(name=name.fill_null("UNK"))
    stop = _minutes("drugstopoffset")
    about = {
        **{"text_value": pl.col("drugname"), "icustay_id": pl.col("patientunitstayid"), "dose": pl.col("dosage")},
        **{"route": pl.col("routeadmin"), "frequency": pl.col("frequency"), "gtc": pl.col("gtc")},
        "stoptime": pl.when(stop >= _minutes("drugstartoffset")).then(stop),
    }
    code = pl.coalesce(named_where("MEDICATION//HICL", "drughiclseqno"), named("MEDICATION//START", "name"))
    return tables.event(frame, "DRUG", code, _minutes("drugorderoffset", "drugstartoffset"), **about)


def _treatments(tables: Tables, frame: "pl.DataFrame") -> "pl.DataFrame":
    code = named_where("TREATMENT", "treatmentstring")
    return tables.event(frame, "PROCEDURE", code, _minutes("treatmentoffset"), icustay_id=pl.col("patientunitstayid"))


def _past_history(tables: Tables, frame: "pl.DataFrame") -> "pl.DataFrame":
    frame = frame.with_columns(path=pl.col("pasthistorypath").str.replace(r"^.*/Past History/", ""))
    about = {"text_value": pl.col("pasthistoryvaluetext"), "icustay_id": pl.col("patientunitstayid")}
    time = _minutes("pasthistoryoffset", "pasthistoryenteredoffset")
    return tables.event(frame, "OBSERVATION", named_where("PAST_HISTORY", "path"), time, **about)


def _admission_diagnoses(tables: Tables, frame: "pl.DataFrame") -> "pl.DataFrame":
    frame = frame.with_columns(path=pl.col("admitdxpath").str.replace(r"^admission diagnosis\|", ""))
    about = {"text_value": pl.col("admitdxtext"), "icustay_id": pl.col("patientunitstayid")}
    code = named_where("ADMISSION_DIAGNOSIS", "path")
    return tables.event(frame, "OBSERVATION", code, _minutes("admitdxenteredoffset"), **about)


def _apache(tables: Tables, frame: "pl.DataFrame") -> "pl.DataFrame":
    """Make the events of scores and predicted mortality; a negative value stands for a missing one."""
    time = pl.min_horizontal(pl.col("entered") + pl.duration(hours=24), "left")
    made = []
    for column, name in _SCORES.items():
        scored = frame.filter(pl.col(column) >= 0).with_columns(score=pl.lit(name))
        number = {"numeric_value": pl.col(column), "icustay_id": pl.col("patientunitstayid")}
        made.append(tables.event(scored, "OBSERVATION", named("APACHE", "apacheversion", "score"), time, **number))
    return pl.concat(made)
