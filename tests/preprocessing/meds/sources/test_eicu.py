"""eICU-CRD as MEDS: against stays worked out by hand, and against a plain reading of the real demo."""

import collections
import csv
import dataclasses
import datetime
import gzip
import hashlib
import json

import meds as standard
import polars as pl
import pyarrow.parquet as pq
import pytest

from preprocessing.common.errors import InputError
from preprocessing.meds.conversion import MedsRequest
from preprocessing.meds.dataset import MedsDataset
from preprocessing.meds.open import convert, detect, open_events
from tests.helpers import source_copies
from tests.helpers.forked import run_module
from tests.helpers.meds_events import events_of, story
from tests.helpers.paths import SHARED

DEMO = SHARED / "data" / "eicu_demo"
needs_demo = pytest.mark.skipif(not DEMO.is_dir(), reason="the demo of eICU-CRD is not there")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eicu")
    source = source_copies.eicu(folder / "physionet.org" / "files" / "eicu-crd-demo" / "2.0.1")
    assert detect(folder) == "eicu"
    return convert(MedsRequest(source, folder / "meds", progress=False))


@pytest.fixture(scope="module")
def frame(converted):
    return events_of(converted.output)


def test_the_story_of_a_stay_with_two_units(frame):
    """Offsets count from the unit; both units agree on the hospital stay; codes of a field are told by their shape."""
    assert story(frame, 900) == [
        ("", "GENDER//F"),
        ("1925-01-01 00:00:00", "MEDS_BIRTH"),
        ("2015-01-01 23:36:00", "HOSPITAL_ADMISSION//UNK//Floor"),
        ("2015-01-01 23:44:00", "ICU_ADMISSION//MICU"),
        ("2015-01-01 23:44:00", "HEIGHT//cm"),
        ("2015-01-02 00:04:00", "ICD9CM/401.9"),
        ("2015-01-02 00:04:00", "ICD10CM/I10"),
        ("2015-01-02 00:04:00", "DIAGNOSIS//c|d"),
        ("2015-01-02 00:14:00", "ICD9CM/E980.2"),
        ("2015-01-02 00:14:00", "ICD10CM/E87.2"),
        ("2015-01-02 00:14:00", "ICD9CM/V08"),
        ("2015-01-02 00:14:00", "ICD9CM/V45.01"),
        ("2015-01-02 00:14:00", "ICD10CM/V45.01XA"),
        ("2015-01-02 00:24:00", "ICD9Proc/31.1"),
        ("2015-01-02 00:24:00", "DIAGNOSIS//ICD//UNK//8"),
        ("2015-01-02 00:24:00", "DIAGNOSIS//ICD//UNK//??"),
        ("2015-01-02 00:24:00", "DIAGNOSIS//ICD//10//E11.9X9X9"),
        ("2015-01-02 16:24:00", "ICU_DISCHARGE//MICU"),
        ("2015-01-02 23:44:00", "ICU_ADMISSION//MICU"),
        ("2015-01-03 01:24:00", "WEIGHT//kg"),
        ("2015-01-03 01:24:00", "ICU_DISCHARGE//MICU"),
        ("2015-01-03 19:20:00", "HOSPITAL_DISCHARGE//Home"),
    ]


def test_the_story_of_a_death(frame):
    """A drug is not known before its order, a history not before it was entered; death precedes the discharge."""
    assert story(frame, 800) == [
        ("", "GENDER//M"),
        ("1953-01-01 00:00:00", "MEDS_BIRTH"),
        ("2014-01-01 08:00:00", "HOSPITAL_ADMISSION//UNK//Floor"),
        ("2014-01-01 09:00:00", "ICU_ADMISSION//MICU"),
        ("2014-01-01 09:05:00", "MEDICATION//START//ASPIRIN EC 81/MG"),
        ("2014-01-01 09:10:00", "PAST_HISTORY//Organ Systems/Renal"),
        ("2014-01-01 09:10:00", "TREATMENT//pulmonary|oxygen"),
        ("2014-01-01 09:15:00", "ADMISSION_DIAGNOSIS//All Diagnosis|Sepsis, pulmonary"),
        ("2014-01-01 14:00:00", "MEDICATION//HICL//2812"),
        ("2014-01-01 19:00:00", "APACHE//IVa//ACUTE_PHYSIOLOGY_SCORE"),
        ("2014-01-01 19:00:00", "APACHE//IVa//APACHE_SCORE"),
        ("2014-01-01 19:00:00", "APACHE//IVa//PREDICTED_ICU_MORTALITY"),
        ("2014-01-01 19:00:00", "ICU_DISCHARGE//MICU"),
        ("2014-01-01 19:00:00", "MEDS_DEATH"),
        ("2014-01-01 19:00:00", "HOSPITAL_DISCHARGE//Death"),
        ("2014-01-01 20:40:00", "ICD9CM/038.9"),
    ]


def test_what_is_missing_is_not_invented(frame, converted):
    """Stay 700 has no known sex, age, hour or status; the unit knows of the death."""
    assert story(frame, 700) == [
        ("2014-01-01 00:00:00", "HOSPITAL_ADMISSION//UNK//Floor"),
        ("2014-01-01 01:00:00", "ICU_ADMISSION//MICU"),
        ("2014-01-01 11:00:00", "ICU_DISCHARGE//MICU"),
        ("2014-01-01 11:00:00", "MEDS_DEATH"),
        ("2014-01-01 11:00:00", "HOSPITAL_DISCHARGE//Death"),
    ]
    assert converted.about["counted"] == {
        "ICU stays have no time of day of the hospital admission; it is midnight": 1,
        "hospital stays without a discharge status; the patient died if an ICU stay says so": 1,
        "hospital stays without an age have no birth": 1,
        "codes stand twice in the field of one diagnosis and make one event": 1,
        "diagnoses have no code; their text makes the event": 1,
        "events of diagnosis after the hospital discharge; their times are kept": 1,
        "canceled orders of drugs make no event": 1,
    }


def test_what_stands_beside_the_code(frame):
    def row(subject, code):
        found = frame.filter((pl.col("subject_id") == subject) & (pl.col("code") == code)).to_dicts()[0]
        return {name: value for name, value in found.items() if value is not None}

    admission = row(900, "HOSPITAL_ADMISSION//UNK//Floor")
    hospital = {"hospital_id": 59, "hospital_beds": "<100", "hospital_teaching": "f", "hospital_region": "Midwest"}
    assert ({"hadm_id": 900, "race": "Asian"} | hospital).items() <= admission.items()
    assert "hospital_expire_flag" not in admission
    assert row(900, "HOSPITAL_DISCHARGE//Home")["hospital_expire_flag"] == 0
    assert row(800, "HOSPITAL_DISCHARGE//Death")["hospital_expire_flag"] == 1
    assert row(700, "HOSPITAL_DISCHARGE//Death")["hospital_expire_flag"] == 1
    assert {"icustay_id": 11, "text_value": "a|b", "priority": "Major"}.items() <= row(900, "ICD10CM/I10").items()
    drug = {
        "text_value": "WARFARIN SODIUM 5 MG PO TABS",
        "dose": "5 3",
        "route": "PO",
        "frequency": "Daily",
        "gtc": "0",
    }
    drug["stoptime"] = datetime.datetime(2014, 1, 1, 17, 20)
    assert drug.items() <= row(800, "MEDICATION//HICL//2812").items()
    assert "stoptime" not in row(800, "MEDICATION//START//ASPIRIN EC 81/MG")  # It would end before it starts.
    assert row(800, "APACHE//IVa//PREDICTED_ICU_MORTALITY")["numeric_value"] == pytest.approx(0.012)
    assert row(900, "HEIGHT//cm")["numeric_value"] == 157.5
    stays = frame.filter((pl.col("code") == "ICU_ADMISSION//MICU") & (pl.col("subject_id") == 900))
    assert stays["stay_type"].to_list() == ["admit", "stepdown/other"]
    assert stays["icustay_id"].to_list() == [11, 12]


def test_files_are_meds_and_splits_are_by_patient(converted):
    root = converted.output
    for path in (root / "data").rglob("*.parquet"):
        standard.DataSchema.validate(pq.read_table(path))
    standard.CodeMetadataSchema.validate(pq.read_table(root / "metadata" / "codes.parquet"))
    standard.SubjectSplitSchema.validate(pq.read_table(root / "metadata" / "subject_splits.parquet"))
    about = json.loads((root / "metadata" / "dataset.json").read_text())
    standard.DatasetMetadataSchema.validate(about)
    assert about["dataset_name"] == "eICU-CRD"
    assert "icustay_id" in about["raw_source_id_columns"]
    assert not MedsDataset.open(root).time_is_order
    persons = pl.read_parquet(root / "metadata" / "persons.parquet")
    assert dict(persons.iter_rows()) == {900: "002-1", 800: "002-1", 700: "002-2"}
    split = MedsDataset.open(root).splits
    assert split[800] == split[900]
    codes = dict(MedsDataset.open(root).codes().select("code", "description").iter_rows())
    assert codes["MEDICATION//HICL//2812"] == "WARFARIN SODIUM 5 MG PO TABS"


def test_every_row_is_accounted_for(converted):
    tables = converted.about["tables"]
    counts = {name: tuple(table[key] for key in ("rows", "rejected", "absorbed")) for name, table in tables.items()}
    assert counts == {
        "patient": (6, 2, 0),
        "hospital": (1, 0, 1),
        "diagnosis": (7, 2, 0),
        "medication": (3, 0, 1),
        "treatment": (1, 0, 0),
        "pasthistory": (1, 0, 0),
        "admissiondx": (1, 0, 0),
        "apachepatientresult": (1, 0, 0),
    }
    with open(converted.output / "metadata" / "rejects.csv", newline="") as file:
        rejected = [(row["file"], row["line"], row["kind"]) for row in csv.DictReader(file)]
    assert rejected == [
        ("patient.csv.gz", "7", "no uniquepid"),
        ("patient.csv.gz", "6", "repeated"),
        ("diagnosis.csv.gz", "8", "bad value of patientunitstayid"),
        ("diagnosis.csv.gz", "7", "no such stay"),
    ]
    assert converted.about["events_with_malformed_codes"] == {"ICD of an unknown edition": 2, "ICD10CM": 1}


def test_the_same_files_are_converted_once(converted, tmp_path):
    source = converted.output.parent / "physionet.org" / "files" / "eicu-crd-demo" / "2.0.1"
    assert convert(MedsRequest(source, converted.output, progress=False)).done_already
    assert open_events(source, converted.output).root == converted.output
    again = convert(MedsRequest(source, tmp_path / "again", subjects_per_shard=1, progress=False))
    assert len(MedsDataset.open(again.output).shards) > len(MedsDataset.open(converted.output).shards)
    assert events_of(again.output).equals(events_of(converted.output))
    split = pl.read_parquet(again.output / "metadata" / "subject_splits.parquet")
    assert split.equals(pl.read_parquet(converted.output / "metadata" / "subject_splits.parquet"))


def test_options_of_mimic_are_refused(tmp_path):
    source = source_copies.eicu(tmp_path / "eicu")
    with pytest.raises(InputError, match="--also is an option of MIMIC"):
        convert(MedsRequest(source, tmp_path / "meds", also=("chartevents",)))
    (source / "diagnosis.csv.gz").unlink()
    assert "diagnosis" in convert(MedsRequest(source, tmp_path / "meds", progress=False)).about["tables_not_read"]
    (source / "patient.csv.gz").unlink()
    with pytest.raises(InputError, match=r"holds no patient\.csv of eicu"):
        convert(MedsRequest(source, tmp_path / "meds"), "eicu")


@needs_demo
@pytest.mark.integration
def test_the_demo_by_its_command(tmp_path):
    done = run_module("preprocessing.meds", f"--input={DEMO}", f"--output={tmp_path / 'meds'}")
    assert (done.returncode, done.stderr.strip() and "error" in done.stderr) == (0, ""), done.stderr
    assert "of 2,174 subjects, the stays of 1,841 patients" in done.stdout
    root = tmp_path / "meds"
    frame = events_of(root)

    def rows(table):
        with gzip.open(DEMO / f"{table}.csv.gz", "rt", newline="") as file:
            return list(csv.DictReader(file))

    patients = rows("patient")
    assert frame["subject_id"].n_unique() == 2174
    assert len({row["uniquepid"] for row in patients}) == 1841
    assert frame["hospital_id"].drop_nulls().n_unique() == 186
    split = MedsDataset.open(root).splits
    of_person = collections.defaultdict(set)
    for row in patients:
        of_person[row["uniquepid"]].add(split[int(row["patienthealthsystemstayid"])])
    assert {len(found) for found in of_person.values()} == {1}
    # Every stay: minutes from the admission to the discharge, and who died.
    stays = {int(row["patientunitstayid"]): row for row in patients}
    minutes = {
        int(row["patienthealthsystemstayid"]): int(row["hospitaldischargeoffset"]) - int(row["hospitaladmitoffset"])
        for row in patients
    }
    ends = {
        kind: dict(frame.filter(pl.col("code").str.starts_with(kind)).select("subject_id", "time").iter_rows())
        for kind in ("HOSPITAL_ADMISSION", "HOSPITAL_DISCHARGE", "MEDS_DEATH")
    }
    found = {
        subject: (end - ends["HOSPITAL_ADMISSION"][subject]).total_seconds() / 60
        for subject, end in ends["HOSPITAL_DISCHARGE"].items()
    }
    assert found == minutes
    expired = {int(r["patienthealthsystemstayid"]) for r in patients if r["hospitaldischargestatus"] == "Expired"}
    assert set(ends["MEDS_DEATH"]) == expired
    assert len(expired) == 182
    assert all(ends["MEDS_DEATH"][subject] == ends["HOSPITAL_DISCHARGE"][subject] for subject in expired)
    # Every code of every diagnosis, in its minute.
    expected = set()
    for row in rows("diagnosis"):
        stay = stays[int(row["patientunitstayid"])]
        minute = int(row["diagnosisoffset"]) - int(stay["hospitaladmitoffset"])
        subject = int(stay["patienthealthsystemstayid"])
        expected |= {(subject, minute, code.strip()) for code in row["icd9code"].split(",") if code.strip()}
    coded = frame.filter(pl.col("code").str.contains("^ICD"))
    admitted = coded["subject_id"].replace_strict(ends["HOSPITAL_ADMISSION"])
    minute = ((coded["time"] - admitted).dt.total_seconds() // 60).to_list()
    plain = coded["code"].str.extract("/(.*)$", 1).to_list()
    assert set(zip(coded["subject_id"].to_list(), minute, plain, strict=True)) == expected
    systems = coded["code"].str.extract("^([^/]+)", 1)
    distinct = {name: coded["code"].filter(systems == name).n_unique() for name in ("ICD9CM", "ICD9Proc", "ICD10CM")}
    # 835 codes. The six E codes of ICD-9 (E930.8, E980.x) begin with a letter, too.
    assert distinct == {"ICD9CM": 425, "ICD9Proc": 1, "ICD10CM": 409}
    offsets = [int(row["diagnosisoffset"]) for row in rows("diagnosis")]
    assert round(sum(offset <= 1440 for offset in offsets) / len(offsets), 2) == 0.51
    about = json.loads((root / "metadata" / "conversion.json").read_text())
    assert about["rejected"] == 0
    names = {name.lower(): name for name in source_copies.EICU_COLUMNS}
    assert {table: counts["rows"] for table, counts in about["tables"].items()} == {
        table: len(rows(name)) for table, name in names.items()
    }


@needs_demo
@pytest.mark.integration
def test_no_event_of_the_demo_is_earlier_or_later_than_its_row(tmp_path):
    """Minutes after the admission to the unit, by the largest offset that says when a row was known."""
    made = convert(MedsRequest(DEMO, tmp_path / "meds", progress=False))
    frame = events_of(made.output)
    entered = dict(
        frame.filter(pl.col("code").str.starts_with("ICU_ADMISSION")).select("icustay_id", "time").iter_rows()
    )
    known = {
        "medication": ("MEDICATION//", ("drugorderoffset", "drugstartoffset")),
        "treatment": ("TREATMENT//", ("treatmentoffset",)),
        "pastHistory": ("PAST_HISTORY//", ("pasthistoryoffset", "pasthistoryenteredoffset")),
        "admissionDx": ("ADMISSION_DIAGNOSIS//", ("admitdxenteredoffset",)),
    }
    for table, (prefix, columns) in known.items():
        with gzip.open(DEMO / f"{table}.csv.gz", "rt", newline="") as file:
            expected = collections.Counter(
                (int(row["patientunitstayid"]), max(int(row[column]) for column in columns))
                for row in csv.DictReader(file)
                if row.get("drugordercancelled") != "Yes"
            )
        events = frame.filter(pl.col("code").str.starts_with(prefix)).select("icustay_id", "time")
        found = collections.Counter(
            (stay, (time - entered[stay]).total_seconds() / 60) for stay, time in events.iter_rows()
        )
        assert found == expected, table


def test_files_are_compared_with_the_published_checksums(tmp_path):
    """PhysioNet publishes the list with eICU-CRD, as with MIMIC; a list that is added later is read."""
    source = source_copies.eicu(tmp_path / "in")
    names = sorted(path.name for path in source.iterdir())
    request = MedsRequest(source, tmp_path / "out", progress=False)
    assert convert(request).about["checksums"] is None
    lines = [f"{hashlib.sha256((source / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (source / "SHA256SUMS.txt").write_text("".join(lines[1:]))
    published = {"list": "SHA256SUMS.txt", "as_published": len(names) - 1, "differ": [], "not_listed": names[:1]}
    assert convert(request).about["checksums"] == published
    path = source / names[-1]
    path.write_bytes(path.read_bytes() + gzip.compress(b""))
    assert convert(request).about["checksums"]["differ"] == names[-1:]
    assert convert(dataclasses.replace(request, verify=False)).about["checksums"] is None


def damaged(folder, table, change):
    """Write a copy with the rows of a table changed by a function."""
    source = source_copies.eicu(folder)
    rows = [change(dict(row)) for row in source_copies.EICU[table]]
    source_copies._write(source / f"{table}.csv.gz", source_copies.EICU_COLUMNS[table], rows)
    return source


def test_a_year_or_an_age_that_cannot_be_ends_no_conversion(tmp_path):
    """One wrong row is rejected, and an age that nobody reaches is none."""

    def change(row):
        year = {21: 70000099, 31: -5}.get(row["patientunitstayid"], row["hospitaldischargeyear"])
        return row | {"hospitaldischargeyear": year, "age": 70000099 if row["patientunitstayid"] == 11 else row["age"]}

    made = convert(MedsRequest(damaged(tmp_path / "in", "patient", change), tmp_path / "out", progress=False))
    kinds = {entry["kind"]: entry["count"] for entry in made.about["rejected_kinds"]}
    assert kinds["bad value of hospitaldischargeyear"] == 3
    frame = events_of(made.output)
    assert frame["subject_id"].unique().to_list() == [900]
    assert "MEDS_BIRTH" not in frame["code"]


def test_events_before_the_stay_are_counted(tmp_path):
    source = damaged(tmp_path / "in", "treatment", lambda row: row | {"treatmentoffset": -100})
    counted = convert(MedsRequest(source, tmp_path / "out", progress=False)).about["counted"]
    assert counted["events of treatment before the hospital admission; their times are kept"] == 1


def test_numbers_of_drugs_may_have_a_fraction(tmp_path, frame):
    """A program that reads a column with missing values as numbers writes 2812.0 for 2812."""

    def change(row):
        return row | {name: f"{row[name]}.0" for name in ("drughiclseqno", "gtc") if name in row}

    made = convert(MedsRequest(damaged(tmp_path / "in", "medication", change), tmp_path / "out", progress=False))
    assert events_of(made.output).equals(frame)
