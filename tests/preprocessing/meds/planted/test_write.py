"""A planted world on disk is a MEDS data set with labels that its deaths bear out."""

import datetime
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from eval.ehr.history import open_histories
from eval.ehr.inputs import BEDSIDE, CODED, bags, make_inputs
from eval.ehr.tasks.spelling import read_spelling
from medtok_jax.records.samples import read_labels
from preprocessing.common.errors import InputError
from preprocessing.meds.dataset import MedsDataset
from preprocessing.meds.planted.conditions import OUTCOME_PROXY
from preprocessing.meds.planted.write import LEAK_AFTER, PlantedRequest, write
from tests.helpers.forked import run_module
from tests.helpers.meds_events import events_of

pytestmark = pytest.mark.integration
PATIENTS = 360


@pytest.fixture(scope="module", params=["group", "leak"])
def planted(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("planted") / request.param
    return root, write(PlantedRequest(root, request.param, PATIENTS, 5, progress=False))


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_it_is_a_data_set_with_splits_labels_and_truth(planted):
    root, truth = planted
    dataset = MedsDataset.open(root)
    subjects = dataset.subjects()
    assert len(subjects) == PATIENTS
    names, counts = np.unique(dataset.split_of(subjects), return_counts=True)
    assert dict(zip(names, counts.tolist(), strict=True)) == {"train": 210, "tuning": 30, "held_out": 120}
    labels = read_labels(root / "labels" / "planted")
    assert (labels.subject == subjects).all()
    assert {name: split["patients"] for name, split in truth["splits"].items()} == {
        "train": 210,
        "tuning": 30,
        "held_out": 120,
    }
    assert sum(split["positives"] for split in truth["splits"].values()) == labels.value.sum()
    assert truth == json.loads((root / "truth.json").read_text())
    assert truth["events"] == len(events_of(root))
    table = pl.read_parquet(root / "truth.parquet")
    assert (table["subject_id"].to_numpy() == labels.subject).all()
    assert table["probability"].to_numpy()[labels.value].mean() > table["probability"].to_numpy()[~labels.value].mean()


def test_every_diagnosis_stands_in_both_vocabularies(planted):
    root, truth = planted
    partner = {nine: ten for one in truth["risk"] for nine, ten in zip(one["icd9"], one["icd10"], strict=True)}
    partner[OUTCOME_PROXY[0]] = OUTCOME_PROXY[1]
    keys = ["subject_id", "hadm_id", "time"]
    coded = events_of(root).with_columns(pl.col("code").str.split("/").alias("parts"))
    nine, ten = (
        coded.filter(pl.col("parts").list.first() == system).select(*keys, code=pl.col("parts").list.last())
        for system in ("ICD9CM", "ICD10CM")
    )
    assert len(nine) > 1000
    translated = nine.with_columns(pl.col("code").replace_strict(partner))
    assert translated.sort(*keys, "code").equals(ten.sort(*keys, "code"))


def test_a_label_is_true_if_the_patient_dies_within_thirty_days(planted):
    root, _ = planted
    labels = pl.read_parquet(root / "labels" / "planted" / "labels.parquet")
    events = events_of(root)
    deaths = events.filter(pl.col("code") == "MEDS_DEATH").select("subject_id", died="time")
    joined = labels.join(deaths, on="subject_id", how="left")
    soon = (joined["died"] - joined["prediction_time"] <= datetime.timedelta(days=30)).fill_null(False)
    assert (soon == joined["boolean_value"]).all()
    assert (joined["died"] > joined["prediction_time"]).drop_nulls().all()
    left = events.filter(pl.col("code").str.starts_with("HOSPITAL_DISCHARGE"))
    last = left.group_by("subject_id").agg(pl.col("time").max()).sort("subject_id")
    assert (last["time"] == labels["prediction_time"]).all()


def test_leaks_tell_the_label_and_the_bedside_hides_them(planted, tmp_path):
    root, truth = planted
    labels = read_labels(root / "labels" / "planted")
    events = events_of(root)
    after = events.filter(pl.col("code") == LEAK_AFTER)["subject_id"].unique().to_numpy()
    if truth["request"]["signal"] != "leak":
        assert truth["leaks"] is None
        assert not len(after)
        return
    assert sorted(after) == labels.subject[labels.value].tolist()
    histories = open_histories(MedsDataset.open(root), read_spelling("planted"), tmp_path / "histories", progress=False)
    told = np.isin(histories.codes, truth["leaks"]["at"])
    assert told.sum() == 2
    for rule, expected in ((CODED, labels.value), (BEDSIDE, np.zeros(PATIENTS, bool))):
        seen = bags(make_inputs(histories, labels, rule))
        assert (np.asarray(seen[:, told].sum(1)).ravel() > 0).tolist() == expected.tolist()
        assert not seen[:, histories.codes == LEAK_AFTER].nnz


def test_the_same_request_gives_the_same_bytes_and_is_not_written_twice(planted, tmp_path):
    root, truth = planted
    signal = truth["request"]["signal"]
    again = tmp_path / "again"
    write(PlantedRequest(again, signal, PATIENTS, 5, progress=False))
    assert contents(again) == contents(root)
    marker = again / "marker"
    marker.touch()
    assert write(PlantedRequest(again, signal, PATIENTS, 5, progress=False)) == truth
    assert marker.exists()
    write(PlantedRequest(again, signal, PATIENTS, 6, progress=False))
    assert not marker.exists()
    assert contents(again) != contents(root)


def test_more_patients_leave_the_first_as_they_are(planted, tmp_path):
    root, truth = planted
    write(PlantedRequest(tmp_path / "more", truth["request"]["signal"], 2 * PATIENTS, 5, progress=False))
    mine = events_of(tmp_path / "more").filter(pl.col("subject_id") <= PATIENTS)
    assert mine.equals(events_of(root))


def test_a_folder_of_something_else_and_too_few_patients_are_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="not empty"):
        write(PlantedRequest(tmp_path, "none", PATIENTS, progress=False))
    with pytest.raises(InputError, match="at least 12"):
        write(PlantedRequest(tmp_path / "few", "none", 5, progress=False))


@pytest.mark.thorough
def test_the_command_tells_the_oracle(tmp_path):
    done = run_module("preprocessing.meds.planted", f"--output={tmp_path / 'world'}", "--signal=none", "--patients=24")
    assert "held_out: 8 patients" in done.stdout
    assert (tmp_path / "world" / "truth.json").is_file()
