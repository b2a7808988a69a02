"""Convert "Diabetes 130-US Hospitals for Years 1999-2008" (UCI 296, Strack et al. 2014) to MEDS.

The data give no dates. The encounters of a patient are in the order of `encounter_id`: the first is on the first of
January 2000, each next one a day later. Times only order events (`time_is_order` in `dataset.json`): a task that
measures days between stays is refused. An admission is at midnight, and all that is known of an encounter at its end is
at the last second of its day. The days of a stay are the column `stay_days` of its discharge:

    GENDER//F, MEDS_BIRTH                      the middle of the age band of the first encounter
    HOSPITAL_ADMISSION//<type>//<source>       race, insurance and specialty in columns
    AGE//[70-80), WEIGHT//[75-100)             at the admission
    PRIOR_VISITS//outpatient, //emergency, //inpatient     number in the year before, at the admission
    COUNT//lab_procedures, //procedures, //medications, //diagnoses
    LAB//A1Cresult//>8, LAB//max_glu_serum//>300           only where they were measured
    MEDICATION//<drug>//<Steady, Up or Down>   only where the drug was given
    HOSPITAL_DISCHARGE//<disposition>          MEDS_DEATH precedes it where the patient expired
    ICD9CM/250.83                              diag_1 to diag_3 in seq_num; mostly categories of three characters

The labels `labels/readmission_30` have `boolean_value` for a readmission within 30 days, and `labels/readmitted`
`categorical_value` as the source writes it (`<30`, `>30`, `NO`), at the discharge of every encounter but those that end
in death or hospice.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.text_files import opened
from preprocessing.meds.conversion import Conversion, MedsRequest
from preprocessing.meds.layout import BIRTH, DEATH, TIME_IS_ORDER
from preprocessing.meds.mimic_tables import Kind
from preprocessing.meds.sources.tables import Source, Tables, named, named_where, only_home, tables_in
from preprocessing.meds.sources.writer import Timelines, write
from preprocessing.meds.table_files import new_year

pl = load("polars")

_ID, _TEXT = Kind.INTEGER, Kind.TEXT
TABLE = "diabetic_data"
# The archive spells it IDS_mapping.csv.
_MAPPING = "ids_mapping"
_DRUGS = (
    *("metformin", "repaglinide", "nateglinide", "chlorpropamide", "glimepiride", "acetohexamide", "glipizide"),
    *("glyburide", "tolbutamide", "pioglitazone", "rosiglitazone", "acarbose", "miglitol", "troglitazone"),
    *("tolazamide", "examide", "citoglipton", "insulin", "glyburide-metformin", "glipizide-metformin"),
    *("glimepiride-pioglitazone", "metformin-rosiglitazone", "metformin-pioglitazone"),
)
_PRIOR = ("number_outpatient", "number_emergency", "number_inpatient")
_COUNTS = ("num_lab_procedures", "num_procedures", "num_medications", "number_diagnoses")
_DIAGNOSES = ("diag_1", "diag_2", "diag_3")
_RESULTS = {"a1cresult": "A1Cresult", "max_glu_serum": "max_glu_serum"}
_MAPPED = ("admission_type_id", "admission_source_id", "discharge_disposition_id")
_COLUMNS = {
    **dict.fromkeys(("encounter_id", "patient_nbr", "time_in_hospital", *_PRIOR, *_COUNTS), _ID),
    **dict.fromkeys(("race", "gender", "age", "weight", "payer_code", "medical_specialty"), _TEXT),
    **dict.fromkeys(_MAPPED, Kind.NUMERAL),
    **dict.fromkeys((*_DIAGNOSES, *_RESULTS, *_DRUGS, "readmitted"), _TEXT),
}
SOURCE = Source(
    name="diabetes130",
    mark=TABLE,
    mark_columns=("encounter_id", "patient_nbr"),
    tables=(TABLE,),
    columns={
        **{"seq_num": pl.Int64, "race": pl.String, "insurance": pl.String, "specialty": pl.String},
        **{"hospital_expire_flag": pl.Int64, "stay_days": pl.Int64},
    },
    further={"license": "Creative Commons Attribution 4.0", TIME_IS_ORDER: True},
)
READMITTED, READMISSION_30 = "readmitted", "readmission_30"
_FIRST_DAY = pl.datetime(2000, 1, 1, time_unit="us")
# Dispositions of patients who expired, and of hospices; none of these can be readmitted.
_EXPIRED = ("11", "19", "20", "21")
_HOSPICE = ("13", "14")
_SEXES = {"Male": "M", "Female": "F"}
_OUTCOMES = ("<30", ">30", "NO")


def convert(request: MedsRequest) -> Conversion:
    """Convert a copy of Diabetes-130 to MEDS, see `writer.write`.

    Raises:
        InputError: the input is no copy of Diabetes-130, a file cannot be read, or the output cannot be written.
    """
    table = only_home(request.input, SOURCE)
    mapping = tables_in(table.parent).get(_MAPPING)
    if mapping is None:
        raise InputError(f"{table.parent} lacks IDS_mapping.csv, which names admission types; fetch it.")
    names = read_mapping(mapping)
    return write(request, SOURCE, {TABLE: table, _MAPPING: mapping}, lambda tables: read(tables, names))


def read_mapping(path: Path) -> dict[str, dict[str, str]]:
    """Read the file of ids, three tables one below the other: column -> id -> description.

    Descriptions that say that nothing is known (`NULL`, `Not Available`, `Not Mapped`, `Unknown/Invalid`) are left out.

    Raises:
        InputError: the file lacks one of the tables.
    """
    with opened(path) as (file, _):
        rows = list(csv.reader(io.StringIO(file.read().decode("utf-8-sig", errors="replace"))))
    names: dict[str, dict[str, str]] = {}
    here: dict[str, str] = {}
    for row in rows:
        first, second = [cell.strip() for cell in (*row, "", "")[:2]]
        if second == "description":
            here = names.setdefault(first, {})
        elif first and second not in ("NULL", "Not Available", "Not Mapped", "Unknown/Invalid"):
            here[first] = second
    missing = [name for name in _MAPPED if name not in names]
    if missing:
        raise InputError(f"{path} does not list {missing[0]}; fetch it again.")
    return names


def read(tables: Tables, names: dict[str, dict[str, str]]) -> Timelines:
    """Read all encounters, and return the patients with their events and labels.

    Args:
        tables: the tables.
        names: the result of `read_mapping`.
    """
    frame = _ordered(tables, tables.read_all(TABLE, _COLUMNS))
    for column in _MAPPED:
        frame = frame.with_columns(
            pl.col(column).replace_strict(names[column], default=None, return_dtype=pl.String).alias(f"{column}_name")
        )
    subjects = frame["subject_id"].unique().sort().to_numpy()
    return Timelines(subjects, None, _events(tables, frame), _labels(tables, frame))


def _ordered(tables: Tables, frame: "pl.DataFrame") -> "pl.DataFrame":
    """Return the encounters, each once, in their order, with the times `admitted` and `discharged`."""
    texts = [name for name, kind in _COLUMNS.items() if kind in (_TEXT, Kind.NUMERAL)]
    frame = frame.with_columns(pl.col(texts).replace("?", None))
    for name in ("encounter_id", "patient_nbr"):
        frame = tables.reject(TABLE, frame, frame[name].is_null(), f"no {name}", f"the row has no {name}")
    repeated = ~frame["encounter_id"].is_first_distinct()
    frame = tables.reject(TABLE, frame, repeated, "repeated", "an encounter twice")
    frame = frame.with_columns(subject_id="patient_nbr", hadm_id="encounter_id").sort("subject_id", "hadm_id")
    rank = pl.int_range(pl.len()).over("subject_id")
    frame = frame.with_columns(rank=rank, admitted=_FIRST_DAY + pl.duration(days=rank))
    expired = pl.col("discharge_disposition_id").is_in(_EXPIRED)
    frame = frame.with_columns(
        discharged=pl.col("admitted") + pl.duration(days=1, seconds=-1), expired=expired.fill_null(False)
    )
    dead = pl.col("expired").cum_max().over("subject_id") & ~pl.col("expired")
    tables.count("encounters follow one that ended in death; they are kept", frame.select(dead).sum().item())
    # A patient dies once; an earlier death is contradicted by the later one.
    last = pl.col("rank") == pl.col("rank").filter("expired").max().over("subject_id")
    return frame.with_columns(dies=pl.col("expired") & last.fill_null(False))


def _events(tables: Tables, frame: "pl.DataFrame") -> Iterator[tuple[str, "pl.DataFrame", "pl.DataFrame"]]:
    parts = [*_of_patients(tables, frame), *_at_admission(tables, frame), *_at_discharge(tables, frame)]
    yield TABLE, frame, pl.concat(parts)


def _of_patients(tables: Tables, frame: "pl.DataFrame") -> Iterator["pl.DataFrame"]:
    first = frame.filter(pl.col("rank") == 0)
    band = r"^\[(\d{1,3})-(\d{1,3})\)$"
    lowest, above = (pl.col("age").str.extract(band, group).cast(pl.Int32) for group in (1, 2))
    first = first.with_columns(
        born=new_year(_FIRST_DAY.dt.year() - (lowest + above) // 2),
        sex=pl.col("gender").replace_strict(_SEXES, default=None, return_dtype=pl.String),
    )
    tables.count("patients without an age band have no birth", first["born"].null_count())
    tables.count("patients without a known sex", first["sex"].null_count())
    none = {"hadm_id": pl.lit(None)}
    yield tables.event(first, "GENDER", named_where("GENDER", "sex"), pl.lit(None), **none)
    birth = pl.when(pl.col("born").is_not_null()).then(pl.lit(BIRTH))
    yield tables.event(first, "BIRTH", birth, pl.col("born"), **none)


def _at_admission(tables: Tables, frame: "pl.DataFrame") -> Iterator["pl.DataFrame"]:
    time = pl.col("admitted")
    about = {name: pl.col(column) for name, column in (("race", "race"), ("insurance", "payer_code"))}
    about["specialty"] = pl.col("medical_specialty")
    arrival = named("HOSPITAL_ADMISSION", "admission_type_id_name", "admission_source_id_name")
    yield tables.event(frame, "HOSPITAL_ADMISSION", arrival, time, **about)
    for name in ("age", "weight"):
        yield tables.event(frame, "MEASUREMENT", named_where(name.upper(), name), time)
    for name in _PRIOR:
        code = pl.lit(f"PRIOR_VISITS//{name.removeprefix('number_')}")
        code = pl.when(pl.col(name).is_not_null()).then(code)
        yield tables.event(frame, "MEASUREMENT", code, time, numeric_value=pl.col(name))


def _at_discharge(tables: Tables, frame: "pl.DataFrame") -> Iterator["pl.DataFrame"]:
    time = pl.col("discharged")
    for name in _COUNTS:
        code = pl.lit(f"COUNT//{name.removeprefix('num_').removeprefix('number_')}")
        code = pl.when(pl.col(name).is_not_null()).then(code)
        yield tables.event(frame, "MEASUREMENT", code, time, numeric_value=pl.col(name))
    for column, name in _RESULTS.items():
        measured = frame.filter(pl.col(column) != "None")
        yield tables.event(measured, "OBSERVATION", named(f"LAB//{name}", column), time)
    for name in _DRUGS:
        given = frame.filter(pl.col(name) != "No")
        yield tables.event(given, "DRUG", named(f"MEDICATION//{name}", name), time)
    yield tables.event(frame, "DEATH", pl.when("dies").then(pl.lit(DEATH)), time)
    leaving = named("HOSPITAL_DISCHARGE", "discharge_disposition_id_name")
    about = {"hospital_expire_flag": pl.col("expired"), "stay_days": pl.col("time_in_hospital")}
    yield tables.event(frame, "HOSPITAL_DISCHARGE", leaving, time, **about)
    for number, name in enumerate(_DIAGNOSES, 1):
        # The source lost the leading zeros of ICD-9: 8 stands for 008.
        raw = frame[name].str.replace(r"^(\d\d?)(\..*)?$", "00$1$2").str.replace(r"^0+(\d{3})(\..*)?$", "$1$2")
        code = tables.codes.icd("DIAGNOSIS", raw, pl.Series(["9"] * len(frame), dtype=pl.String))
        yield tables.event(frame, "CODED", code, time, seq_num=pl.lit(number))


def _labels(tables: Tables, frame: "pl.DataFrame") -> dict[str, "pl.DataFrame"]:
    """Return for both tasks a label at the discharge of each encounter after which the patient could be readmitted."""
    outcome = pl.col("readmitted")
    final = pl.col("discharge_disposition_id").is_in((*_EXPIRED, *_HOSPICE)).fill_null(False)
    kept = frame.filter(outcome.is_in(_OUTCOMES) & ~final)
    tables.count(
        "encounters that end in death or hospice have no label of readmission", frame.select(final).sum().item()
    )
    labels = kept.select("subject_id", "readmitted", prediction_time="discharged")
    return {
        READMISSION_30: labels.select("subject_id", "prediction_time", boolean_value=outcome == "<30"),
        READMITTED: labels.select("subject_id", "prediction_time", categorical_value=outcome),
    }
