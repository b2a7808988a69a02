"""Diabetes-130 as MEDS: against encounters worked out by hand, and against a plain reading of the real file."""

import collections
import csv
import datetime
import gzip
import json

import meds as standard
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from medtok_jax.records import samples
from medtok_jax.records.event_codes import CodeMapper
from medtok_jax.records.visits import read_visits
from preprocessing.common.errors import InputError
from preprocessing.meds.conversion import MedsRequest
from preprocessing.meds.dataset import MedsDataset
from preprocessing.meds.open import convert, detect
from preprocessing.meds.sources.diabetes130 import read_mapping
from tests.helpers import source_copies
from tests.helpers.forked import run_module
from tests.helpers.meds_events import events_of, story
from tests.helpers.paths import SHARED

DATA = SHARED / "data" / "diabetes130"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="Diabetes-130 is not there")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diabetes")
    source = source_copies.diabetes130(folder / "source")
    assert detect(source) == "diabetes130"
    return convert(MedsRequest(source, folder / "meds", progress=False))


@pytest.fixture(scope="module")
def frame(converted):
    return events_of(converted.output)


def test_the_story_of_a_patient(frame):
    """Encounters in the order of their ids, a day each; leading zeros restored; only what was measured or given."""
    known = [
        ("COUNT//lab_procedures", 41),
        ("COUNT//procedures", 0),
        ("COUNT//medications", 8),
        ("COUNT//diagnoses", 3),
    ]
    prior = [("PRIOR_VISITS//outpatient", 0), ("PRIOR_VISITS//emergency", 0), ("PRIOR_VISITS//inpatient", 2)]

    def encounter(day, *between, age="[70-80)", to="Discharged to home", weight=(), codes=()):
        begin, end = f"2000-01-0{day} 00:00:00", f"2000-01-0{day} 23:59:59"
        at_admission = ["HOSPITAL_ADMISSION//Emergency//Emergency Room", f"AGE//{age}", *weight]
        at_admission += [name for name, _ in prior]
        at_discharge = [*(name for name, _ in known), *between, f"HOSPITAL_DISCHARGE//{to}", *codes]
        return [*((begin, code) for code in at_admission), *((end, code) for code in at_discharge)]

    drugs = ("LAB//A1Cresult//>8", "MEDICATION//insulin//Up", "MEDICATION//glyburide-metformin//Steady")
    assert story(frame, 7) == [
        ("", "GENDER//F"),
        ("1925-01-01 00:00:00", "MEDS_BIRTH"),
        *encounter(1, *drugs, weight=["WEIGHT//[75-100)"], codes=["ICD9CM/250.83", "ICD9CM/008"]),
        *encounter(2, codes=["ICD9CM/V57", "ICD9CM/038", "ICD9CM/E878"]),
        *encounter(3, "MEDS_DEATH", age="[80-90)", to="Expired", codes=["ICD9CM/250.83", "ICD9CM/008"]),
    ]
    numbers = frame.filter((pl.col("subject_id") == 7) & pl.col("numeric_value").is_not_null())
    found = set(numbers.select("code", "numeric_value").iter_rows())
    assert found == set(known) | set(prior)


def test_what_is_unknown_is_not_an_event(frame):
    codes = [code for _, code in story(frame, 8)]
    assert codes[:2] == ["MEDS_BIRTH", "HOSPITAL_ADMISSION//UNK//Emergency Room"]
    assert "LAB//max_glu_serum//Norm" in codes
    assert not any(code.startswith(("GENDER", "WEIGHT", "LAB//A1C", "MEDICATION", "MEDS_DEATH")) for code in codes)
    admission = frame.filter((pl.col("subject_id") == 8) & pl.col("code").str.starts_with("HOSPITAL_ADMISSION"))
    assert admission.select("race", "insurance", "specialty").row(0) == (None, None, "Cardiology")


def test_labels_are_meds_and_leave_out_death_and_hospice(converted):
    for task, column, values in (
        ("readmission_30", "boolean_value", [True, False]),
        ("readmitted", "categorical_value", ["<30", ">30"]),
    ):
        table = pq.read_table(converted.output / "labels" / task / "labels.parquet")
        standard.LabelSchema.validate(table)
        assert [(row["subject_id"], str(row["prediction_time"])) for row in table.to_pylist()] == [
            (7, "2000-01-01 23:59:59"),
            (7, "2000-01-02 23:59:59"),
        ]
        assert table[column].to_pylist() == values
    assert converted.about["labels"] == {"readmission_30": 2, "readmitted": 2}


def test_metadata_says_that_time_is_order(converted):
    root = converted.output
    about = json.loads((root / "metadata" / "dataset.json").read_text())
    assert about["time_is_order"] is True
    assert MedsDataset.open(root).time_is_order
    for path in (root / "data").rglob("*.parquet"):
        standard.DataSchema.validate(pq.read_table(path))
    counts = converted.about["tables"]["diabetic_data"]
    assert [counts[name] for name in ("rows", "rejected", "absorbed")] == [4, 0, 0]
    assert "ids_mapping" not in converted.about["tables"]


def test_tasks_that_need_gaps_are_refused(converted, tmp_path):
    """Stays last as long as stated; readmission by the dates of order would call every second stay one."""
    mapper = CodeMapper(["ICD9CM/250.83", "ICD9CM/008", "ICD9CM/038"])
    visits = read_visits(MedsDataset.open(converted.output), mapper, progress=False)
    assert visits.name.tolist() == ["100", "200", "300", "250"]
    assert visits.days.tolist() == [3, 3, 14, 3]
    assert visits.died.tolist() == [False, False, True, False]
    with pytest.raises(InputError, match="Readmission needs the time between visits, but the records give only their"):
        samples.task_labels(visits, "readmission")
    assert samples.task_labels(visits, "mortality").value.tolist() == [False, True]
    labels = samples.read_labels(converted.output / "labels" / "readmission_30")
    labeled = samples.make_samples(visits, labels, coded=True)
    assert labeled.labels.value.tolist() == [True, False]
    assert np.diff(labeled.offsets).tolist() == [1, 2]


def test_a_second_death_and_wrong_rows(tmp_path):
    source = source_copies.diabetes130(tmp_path / "source")
    with open(source / "diabetic_data.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for encounter, changes in {
        "400": {"discharge_disposition_id": "1"},
        "500": {"discharge_disposition_id": "20"},
        "300": {},
        "": {"patient_nbr": "9"},
    }.items():
        rows.append({**rows[0], **changes, "encounter_id": encounter})
    with open(source / "diabetic_data.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    made = convert(MedsRequest(source, tmp_path / "meds", progress=False))
    deaths = events_of(made.output).filter(pl.col("code") == "MEDS_DEATH")
    assert deaths.select("subject_id", "hadm_id").rows() == [(7, 500)]
    assert made.about["counted"]["encounters follow one that ended in death; they are kept"] == 1
    assert made.about["rejected"] == 2


def test_a_mapping_without_a_table_is_refused(tmp_path):
    source = source_copies.diabetes130(tmp_path / "source")
    path = source / "IDS_mapping.csv"
    path.write_text(source_copies.MAPPING.partition("admission_source_id")[0])
    with pytest.raises(InputError, match="does not list admission_source_id"):
        convert(MedsRequest(source, tmp_path / "meds", progress=False))
    path.unlink()
    with pytest.raises(InputError, match=r"lacks IDS_mapping\.csv"):
        convert(MedsRequest(source, tmp_path / "meds", progress=False))


@needs_data
@pytest.mark.integration
def test_the_real_file_by_its_command(tmp_path):
    root = tmp_path / "meds"
    done = run_module("preprocessing.meds", f"--input={DATA}", f"--output={root}")
    assert done.returncode == 0, done.stderr
    assert "59,553 labels of readmitted" in done.stdout
    with gzip.open(DATA / "diabetic_data.csv.gz", "rt", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: (int(row["patient_nbr"]), int(row["encounter_id"])))
    frame = events_of(root)
    ended = frame.filter(pl.col("code").str.starts_with("HOSPITAL_DISCHARGE"))
    assert ended["hadm_id"].to_list() == [int(row["encounter_id"]) for row in rows]
    assert ended["stay_days"].to_list() == [int(row["time_in_hospital"]) for row in rows]
    rank = collections.Counter()
    for row, time in zip(rows, ended["time"].to_list(), strict=True):
        rank[row["patient_nbr"]] += 1
        assert (time.date() - datetime.date(1999, 12, 31)).days == rank[row["patient_nbr"]]
    expected = collections.Counter(
        code.partition(".")[0].zfill(3) + "".join(code.partition(".")[1:])
        for row in rows
        for code in (row["diag_1"], row["diag_2"], row["diag_3"])
        if code != "?"
    )
    coded = frame.filter(pl.col("code").str.starts_with("ICD9CM/"))
    assert collections.Counter(coded["code"].str.strip_prefix("ICD9CM/").to_list()) == expected
    drugs = sum(row[name] != "No" for row in rows for name in list(row)[24:47])
    assert frame["code"].str.starts_with("MEDICATION//").sum() == drugs
    final = {"11", "13", "14", "19", "20", "21"}
    kept = [row for row in rows if row["discharge_disposition_id"] not in final]
    labels = pl.read_parquet(root / "labels" / "readmitted" / "labels.parquet")
    assert labels["categorical_value"].to_list() == [row["readmitted"] for row in kept]
    labels = pl.read_parquet(root / "labels" / "readmission_30" / "labels.parquet")
    assert labels["boolean_value"].mean() == pytest.approx(np.mean([row["readmitted"] == "<30" for row in kept]))
    assert len(read_mapping(DATA / "IDs_mapping.csv")["discharge_disposition_id"]) == 27
    # Splits hold about 80, 10 and 10 of 100 patients.
    shares = pl.read_parquet(root / "metadata" / "subject_splits.parquet")["split"].value_counts(normalize=True)
    found = dict(shares.iter_rows())
    assert [found[name] for name in ("train", "tuning", "held_out")] == pytest.approx([0.8, 0.1, 0.1], abs=0.005)


def test_ids_of_dispositions_may_have_a_fraction(tmp_path, frame):
    """A program that reads a column with missing values as numbers writes 11.0 for 11, which is a death."""
    source = source_copies.diabetes130(tmp_path / "source")
    names = ("admission_type_id", "discharge_disposition_id", "admission_source_id")
    rows = [row | {name: f"{row[name]}.0" for name in names} for row in source_copies.DIABETES]
    source_copies._write(source / "diabetic_data.csv", source_copies.DIABETES_COLUMNS, rows)
    made = convert(MedsRequest(source, tmp_path / "meds", progress=False))
    assert events_of(made.output).equals(frame)
    assert made.about["labels"] == {"readmission_30": 2, "readmitted": 2}


def test_an_age_band_that_cannot_be_is_no_birth(tmp_path):
    source = source_copies.diabetes130(tmp_path / "source")
    rows = [row | {"age": "[99999999990-99999999999)"} for row in source_copies.DIABETES]
    source_copies._write(source / "diabetic_data.csv", source_copies.DIABETES_COLUMNS, rows)
    made = convert(MedsRequest(source, tmp_path / "meds", progress=False))
    assert made.about["counted"]["patients without an age band have no birth"] == 2


def test_an_earlier_death_is_told_by_its_discharge(tmp_path):
    """MEDS_DEATH stands in the last deadly encounter alone; the disposition of an earlier one says Expired."""
    source = source_copies.diabetes130(tmp_path / "source")
    first, *others = source_copies.DIABETES
    rows = [first, *others, first | {"encounter_id": 400}]
    source_copies._write(source / "diabetic_data.csv", source_copies.DIABETES_COLUMNS, rows)
    made = convert(MedsRequest(source, tmp_path / "meds", progress=False))
    visits = read_visits(MedsDataset.open(made.output), CodeMapper(["ICD9CM/250.83"]), progress=False)
    died = dict(zip(visits.name.tolist(), visits.died.tolist(), strict=True))
    assert died == {"100": False, "200": False, "300": True, "400": True, "250": False}
    labels = samples.task_labels(visits, "mortality")
    assert labels.value.tolist() == [False, True]
