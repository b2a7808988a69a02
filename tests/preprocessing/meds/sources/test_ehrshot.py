"""The CSV release of EHRSHOT as MEDS, against patients invented in its true format; its MEDS release as it is."""

import csv
import shutil

import meds as standard
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medtok_jax.records import samples
from medtok_jax.records.event_codes import CodeMapper
from medtok_jax.records.visits import read_visits
from preprocessing.common.errors import InputError
from preprocessing.meds.conversion import MedsRequest
from preprocessing.meds.dataset import MedsDataset
from preprocessing.meds.open import convert, detect, open_events
from tests.helpers import source_copies
from tests.helpers.forked import run_module


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return source_copies.ehrshot(tmp_path_factory.mktemp("ehrshot") / "EHRSHOT_ASSETS")


@pytest.fixture(scope="module")
def converted(source):
    assert detect(source) == "ehrshot"
    return convert(MedsRequest(source, source.parent / "meds", progress=False))


@pytest.fixture(scope="module")
def frame(converted):
    return pl.concat(MedsDataset.open(converted.output).frames()).sort("subject_id", maintain_order=True)


def test_events_keep_codes_times_and_values(frame):
    rows = frame.filter(pl.col("subject_id") == 5).select(
        "time", "code", "numeric_value", "text_value", "hadm_id", "end"
    )
    assert [tuple("" if value is None else str(value) for value in row) for row in rows.iter_rows()] == [
        ("1950-06-01 00:00:00", "MEDS_BIRTH", "", "", "", ""),
        ("1950-06-01 00:00:00", "Gender/F", "", "", "", ""),
        ("2012-03-01 08:15:00", "Visit/IP", "", "", "77", "2012-03-04 12:00:00"),
        ("2012-03-01 09:00:00", "LOINC/718-7", "13.5", "", "77", ""),
        ("2012-03-01 09:00:00", "LOINC/5778-6", "", "Yellow", "77", ""),
        ("2012-03-02 00:00:00", "SNOMED/44054006", "", "", "77", "2012-03-02 23:59:00"),
        ("2014-05-06 00:00:00", "MEDS_DEATH", "", "", "", ""),
    ]
    units = frame.filter(pl.col("code") == "LOINC/718-7").select("unit", "omop_table")
    assert units.row(0) == ("g/dL", "measurement")


def test_published_splits_are_kept(converted):
    standard.SubjectSplitSchema.validate(pq.read_table(converted.output / "metadata" / "subject_splits.parquet"))
    split = MedsDataset.open(converted.output).splits
    assert {subject: split[subject] for subject in (5, 6, 7)} == {5: "held_out", 6: "tuning", 7: "train"}
    assert split[8] in ("train", "tuning", "held_out")
    assert converted.about["counted"]["patients have no published split; a hash of their id decides"] == 1


def test_published_labels_are_meds(converted):
    labels = {path.parent.name: pq.read_table(path) for path in sorted(converted.output.glob("labels/*/*.parquet"))}
    assert sorted(labels) == ["guo_los", "lab_anemia"]
    for table in labels.values():
        standard.LabelSchema.validate(table)
    stays = labels["guo_los"].to_pylist()
    assert [(row["subject_id"], str(row["prediction_time"]), row["boolean_value"]) for row in stays] == [
        (5, "2012-03-01 23:59:00", True),
        (6, "2011-01-01 23:59:00", False),
    ]
    assert labels["lab_anemia"]["integer_value"].to_pylist() == [2, 0]
    assert "boolean_value" not in labels["lab_anemia"].column_names


def test_every_row_is_accounted_for(converted):
    tables = converted.about["tables"]
    counts = {name: tuple(table[key] for key in ("rows", "rejected", "absorbed")) for name, table in tables.items()}
    assert counts == {"ehrshot": (12, 1, 0), "person_id_map": (3, 0, 0), "guo_los": (3, 1, 0), "lab_anemia": (2, 0, 0)}
    with open(converted.output / "metadata" / "rejects.csv", newline="") as file:
        rejected = [(row["file"], row["line"], row["kind"]) for row in csv.DictReader(file)]
    assert rejected == [
        ("benchmark/guo_los/labeled_patients.csv", "4", "no such patient"),
        ("data/ehrshot.csv", "11", "no time"),
    ]


def test_labels_of_a_task_make_samples(converted):
    dataset = open_events(converted.output, converted.output)
    visits = read_visits(dataset, CodeMapper(["SNOMED/44054006", "RxNorm/860975"]), progress=False)
    assert visits.name.tolist() == ["77", "78"]
    assert visits.admission_type.tolist() == ["IP", ""]
    labels = samples.read_labels(converted.output / "labels" / "guo_los")
    labeled = samples.make_samples(visits, labels, coded=False)
    assert len(labeled) + labeled.left_out == 2


def test_without_published_files_a_hash_decides(source, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    shutil.copy(source / "data" / "ehrshot.csv", plain)
    made = convert(MedsRequest(plain, tmp_path / "meds", progress=False))
    assert made.about["labels"] == {}
    assert "person_id_map" in made.about["tables_not_read"]
    assert "patients are split by a hash of their id, as splits/person_id_map.csv is absent" in made.about["counted"]


def test_a_folder_of_several_sources_is_refused(source, tmp_path):
    both = tmp_path / "both"
    shutil.copytree(source, both / "EHRSHOT_ASSETS")
    source_copies.eicu(both / "eicu")
    with pytest.raises(InputError, match="holds files of several sources"):
        convert(MedsRequest(both, tmp_path / "meds", progress=False))
    done = run_module("preprocessing.meds", f"--input={both}", f"--output={tmp_path / 'meds'}", "--source=ehrshot")
    assert done.returncode == 0, done.stderr
    assert "1 labels of" not in done.stdout
    assert "2 labels of lab_anemia" in done.stdout


def test_the_meds_release_needs_no_conversion(tmp_path):
    """In the layout that EHRSHOT's own script writes: MEDS 0.3.3, codes of birth and death as in the CSV release."""
    root = tmp_path / "EHRSHOT_MEDS"
    for folder in ("data", "metadata", "labels/guo_los"):
        (root / folder).mkdir(parents=True)
    rows = [line.split(",") for line in source_copies.EHRSHOT.splitlines() if ",CPT4" not in line]
    columns = {
        "subject_id": pa.array([int(row[0]) for row in rows], pa.int64()),
        "time": pl.Series([row[1] for row in rows]).str.to_datetime(time_unit="us").to_arrow(),
        "code": pa.array([row[3] for row in rows]),
        "numeric_value": pa.array([None] * len(rows), pa.float32()),
        "text_value": pa.array([row[4] or None for row in rows]),
        "unit": pa.array([row[5] or None for row in rows]),
        "omop_table": pa.array([row[7] for row in rows]),
    }
    pq.write_table(pa.table(columns), root / "data" / "data.parquet")
    splits = pl.DataFrame({"split": ["held_out", "tuning", "train"], "subject_id": [5, 6, 7]})
    splits.write_parquet(root / "metadata" / "subject_splits.parquet")
    (root / "metadata" / "dataset.json").write_text('{"dataset_name": "EHRSHOT", "meds_version": "0.3.3"}')
    values = {"integer_value": pl.Int64, "float_value": pl.Float64, "categorical_value": pl.String}
    time = pl.Series(["2012-03-02 23:59:00"]).str.to_datetime(time_unit="us")
    labels = pl.DataFrame({"subject_id": [5], "prediction_time": time, "boolean_value": [True]})
    labels = labels.with_columns(pl.lit(None, kind).alias(name) for name, kind in values.items())
    labels.write_parquet(root / "labels" / "guo_los" / "labels.parquet")
    dataset = open_events(root, tmp_path / "never made")
    assert not (tmp_path / "never made").exists()
    assert dataset.splits == {5: "held_out", 6: "tuning", 7: "train"}
    frame = pl.concat(dataset.frames())
    assert frame["code"].is_in(["MEDS_BIRTH"]).sum() == 4
    assert frame["code"].is_in(["MEDS_DEATH"]).sum() == 1
    visits = read_visits(dataset, CodeMapper(["SNOMED/44054006", "RxNorm/860975"]), progress=False)
    labeled = samples.make_samples(visits, samples.read_labels(root / "labels" / "guo_los"), coded=False)
    assert labeled.labels.value.tolist() == [True]
