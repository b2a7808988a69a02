"""Cohorts: windows do not depend on labels, published labels are taken, and what is wrong is said in one sentence."""

import datetime

import numpy as np
import polars as pl
import pytest

from eval.ehr.tasks.cohort import make_cohort, make_cohorts, write_labels
from eval.ehr.tasks.definition import load_tasks
from medtok_jax.records.samples import Labels, read_labels
from preprocessing.common.errors import InputError
from preprocessing.meds.dataset import MedsDataset
from tests.helpers import random_stays
from tests.helpers.small_visits import at

TASKS = load_tasks()
OF_MEDS = [name for name, task in TASKS.items() if "MEDS" in task.datasets]


def written(folder, frame: pl.DataFrame, files: int = 2) -> MedsDataset:
    (folder / "data").mkdir(parents=True)
    for number in range(files):
        frame.filter(pl.col("subject_id") % files == number).write_parquet(folder / "data" / f"{number}.parquet")
    return MedsDataset.open(folder)


def publish(dataset: MedsDataset, name: str, **columns) -> None:
    folder = dataset.root / "labels" / name
    folder.mkdir(parents=True)
    pl.DataFrame(columns).write_parquet(folder / "labels.parquet")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return written(tmp_path_factory.mktemp("meds"), random_stays.events(7))


def keys(labels: Labels) -> list[tuple]:
    return list(zip(labels.subject.tolist(), labels.time.tolist(), strict=True))


@pytest.mark.parametrize("name", OF_MEDS)
def test_the_flow_adds_up(dataset, name):
    cohort = make_cohort(TASKS[name], dataset, "MEDS")
    flow = dict(cohort.flow)
    left_out = sum(count for reason, count in cohort.flow if reason.startswith("left out"))
    assert flow["stays"] - left_out == flow["samples"] == len(cohort.labels) > 0
    assert flow["patients"] == len(np.unique(cohort.labels.subject))
    assert cohort.flow[0][0] == "stays"
    assert cohort.problem == ""


@pytest.mark.parametrize("name", OF_MEDS)
def test_labels_are_sorted_once_each_and_have_their_kind(dataset, name):
    task = TASKS[name]
    labels = make_cohort(task, dataset, "MEDS").labels
    assert keys(labels) == sorted(set(keys(labels)))
    assert labels.time.dtype == np.dtype("datetime64[us]")
    assert labels.value.dtype == (np.int64 if task.kind == "multiclass" else bool)
    assert labels.value.shape[1:] == ((len(task.classes),) if task.kind == "multilabel" else ())


@pytest.mark.parametrize("name", OF_MEDS)
def test_files_do_not_matter(dataset, tmp_path, name):
    one = make_cohort(TASKS[name], dataset, "MEDS")
    other = make_cohort(TASKS[name], written(tmp_path, random_stays.events(7), files=1), "MEDS")
    assert one.flow == other.flow
    assert keys(one.labels) == keys(other.labels)
    assert (one.labels.value == other.labels.value).all()


def without_deaths_in_hospital(frame: pl.DataFrame, after: dict) -> pl.DataFrame:
    """Return the events without the deaths of patients after a time."""
    late = [code == "MEDS_DEATH" and time > after.get(subject, time) for subject, time, code, _ in frame.iter_rows()]
    return frame.filter(~pl.Series(late))


def test_the_cohort_of_mortality_does_not_depend_on_death(dataset, tmp_path):
    """Deaths after the latest prediction time of a patient are removed: the samples stay, as survivors."""
    labels = make_cohort(TASKS["mortality"], dataset, "MEDS").labels
    assert labels.value.any()
    latest = dict(keys(labels))
    changed = written(tmp_path, without_deaths_in_hospital(random_stays.events(7), latest))
    others = make_cohort(TASKS["mortality"], changed, "MEDS").labels
    assert set(keys(labels)) <= set(keys(others))
    # Stays after a death that is removed are stays of the living.
    assert all(time > latest[subject] for subject, time in set(keys(others)) - set(keys(labels)))
    last = [latest.get(subject) == time for subject, time in keys(others)]
    assert not others.value[last].any()


@pytest.mark.parametrize("name", ["long_los", "los10", "drug", "icu_transfer", "mortality"])
def test_windows_end_before_what_is_predicted(dataset, tmp_path, name):
    """Later discharges are moved by ten days, and later drugs and units removed: the samples stay the same."""
    labels = make_cohort(TASKS[name], dataset, "MEDS").labels
    latest = dict(keys(labels))
    rows = []
    for subject, time, code, stay in random_stays.events(7).iter_rows():
        late = time is not None and time > latest.get(subject, datetime.datetime.max)
        if late and code.startswith("HOSPITAL_DISCHARGE"):
            time += datetime.timedelta(days=10)
        if not late or code.startswith(("HOSPITAL", "MEDS")):
            rows.append((subject, time, code, stay))
    frame = pl.DataFrame(rows, schema=random_stays.SCHEMA, orient="row")
    # Only where no later stay would overlap now.
    first = frame.filter(pl.col("code").str.starts_with("HOSPITAL_ADMISSION")).group_by("subject_id")
    last_start = dict(first.agg(pl.col("time").max()).iter_rows())
    final = {subject for subject, time in latest.items() if last_start[subject] <= time}
    assert len(final) > 20
    frame = frame.filter(pl.col("subject_id").is_in(final))
    others = make_cohort(
        TASKS[name], written(tmp_path, frame.sort("subject_id", "time", maintain_order=True)), "MEDS"
    ).labels
    assert set(keys(others)) == {key for key in keys(labels) if key[0] in final}


def test_readmissions_do_not_decide_who_is_in(dataset, tmp_path):
    """Without all later stays, the first discharge of each patient is in the cohort if it was before, labeled false."""
    labels = make_cohort(TASKS["readmission"], dataset, "MEDS").labels
    assert labels.value.any()
    frame = random_stays.events(7).filter(
        pl.col("hadm_id").is_null() | (pl.col("hadm_id") == pl.col("hadm_id").min().over("subject_id"))
    )
    others = make_cohort(TASKS["readmission"], written(tmp_path, frame), "MEDS").labels
    assert not others.value.any()
    firsts = [key for key in keys(labels) if key in set(keys(others))]
    assert firsts
    stays = frame.filter(pl.col("code").str.starts_with("HOSPITAL_DISCHARGE")).select("subject_id", "time").rows()
    assert set(keys(labels)) & set(stays) <= set(keys(others))


def test_published_labels_take_the_place_of_windows(tmp_path):
    dataset = written(tmp_path, random_stays.events(1))
    publish(dataset, "guo_los", subject_id=[2, 1], prediction_time=[at("2020-01-01")] * 2, boolean_value=[True, False])
    cohort = make_cohort(TASKS["long_los"], dataset, "ehrshot")
    assert keys(cohort.labels) == [(1, at("2020-01-01")), (2, at("2020-01-01"))]
    assert cohort.labels.value.tolist() == [False, True]
    assert cohort.flow == [("published labels", 2), ("samples", 2), ("patients", 2), ("positive", 1)]
    # The same folder means nothing to another data set.
    assert ("published labels", 2) not in make_cohort(TASKS["long_los"], dataset, "mimic4").flow


def test_published_labels_that_repeat_count_once_and_must_not_contradict(tmp_path):
    dataset = written(tmp_path, random_stays.events(1))
    columns = {"subject_id": [2, 1, 2], "prediction_time": [at("2020-01-01")] * 3}
    publish(dataset, "guo_los", **columns, boolean_value=[True, False, True])
    cohort = make_cohort(TASKS["long_los"], dataset, "ehrshot")
    assert cohort.labels.value.tolist() == [False, True]
    assert cohort.flow[:3] == [("published labels", 3), ("left out: the same label again", 1), ("samples", 2)]
    changed = pl.DataFrame({**columns, "boolean_value": [True, False, False]})
    changed.write_parquet(dataset.root / "labels" / "guo_los" / "labels.parquet")
    with pytest.raises(InputError, match="contradicts itself: samples have two values; keep one label of each"):
        make_cohort(TASKS["long_los"], dataset, "ehrshot")


def test_published_labels_serve_data_that_give_only_an_order(tmp_path):
    dataset = written(tmp_path, random_stays.events(1))
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "dataset.json").write_text('{"time_is_order": true}')
    dataset = MedsDataset.open(tmp_path)
    with pytest.raises(InputError, match="The task readmission measures the time between events"):
        make_cohort(TASKS["readmission"], dataset, "diabetes130")
    publish(dataset, "readmission_30", subject_id=[1], prediction_time=[at("2020-01-01")], boolean_value=[True])
    assert len(make_cohort(TASKS["readmission"], dataset, "diabetes130").labels) == 1


def test_visits_of_ehrshot_have_their_end_in_a_column(tmp_path):
    """An inpatient visit of a week in which the patient dies, and a visit as an outpatient."""
    rows = [
        (1, at("1950-01-01"), "MEDS_BIRTH", None, None),
        (1, at("2020-01-01"), "Visit/IP", 7, at("2020-01-09")),
        (1, at("2020-01-08"), "MEDS_DEATH", None, None),
        (2, at("2020-01-01"), "Visit/OP", 8, at("2020-01-09")),
        (3, at("2020-01-01"), "Visit/ERIP", 9, at("2020-01-04")),
    ]
    frame = pl.DataFrame(rows, schema=random_stays.SCHEMA | {"end": pl.Datetime("us")}, orient="row")
    dataset = written(tmp_path, frame)
    labels = make_cohort(TASKS["mortality"], dataset, "ehrshot").labels
    assert keys(labels) == [(1, at("2020-01-02")), (3, at("2020-01-02"))]
    assert labels.value.tolist() == [True, False]
    assert make_cohort(TASKS["long_los"], dataset, "ehrshot").labels.value.tolist() == [True, False]


def test_published_labels_serve_where_stays_cannot_be_made_out(tmp_path):
    dataset = written(tmp_path, random_stays.events(1))
    publish(
        dataset, "new_lupus", subject_id=[1, 2], prediction_time=[at("2020-01-01")] * 2, boolean_value=[True, False]
    )
    found = make_cohorts([TASKS["mortality"], TASKS["new_lupus"]], dataset, "ehrshot", progress=False)
    assert list(found) == ["mortality", "new_lupus"]
    assert isinstance(found["mortality"], InputError)
    assert found["new_lupus"].labels.value.tolist() == [True, False]


def test_all_tasks_at_once_are_what_each_is_alone(dataset):
    found = make_cohorts([TASKS[name] for name in OF_MEDS], dataset, "MEDS", progress=False)
    for name, cohort in found.items():
        alone = make_cohort(TASKS[name], dataset, "MEDS")
        assert cohort.flow == alone.flow
        assert keys(cohort.labels) == keys(alone.labels)
        np.testing.assert_array_equal(cohort.labels.value, alone.labels.value)


def test_labels_that_are_not_there_are_named(dataset):
    with pytest.raises(InputError, match=r"has published labels only, and .* has no labels/new_lupus"):
        make_cohort(TASKS["new_lupus"], dataset, "ehrshot")


def test_labels_outside_the_records_are_refused(tmp_path):
    dataset = written(tmp_path, random_stays.events(1))
    publish(
        dataset, "new_lupus", subject_id=[1, 999], prediction_time=[at("2020-01-01")] * 2, boolean_value=[True, False]
    )
    with pytest.raises(InputError, match="has labels of subjects") as refused:
        make_cohort(TASKS["new_lupus"], dataset, "ehrshot")
    assert "999" not in str(refused.value).replace(str(tmp_path), "")


def test_labels_of_another_kind_are_refused(tmp_path):
    dataset = written(tmp_path, random_stays.events(1))
    publish(dataset, "new_lupus", subject_id=[1], prediction_time=[at("2020-01-01")], integer_value=[3])
    with pytest.raises(InputError, match="must have the column boolean_value"):
        make_cohort(TASKS["new_lupus"], dataset, "ehrshot")


def test_no_sample_and_no_positive_are_said_in_a_sentence(tmp_path):
    # What holds of a few patients is not told.
    for patients, most in ((1, ""), (11, "; most were left out: 24 hours or less in hospital")):
        events = [
            (patient, at("2020-01-01", hour), code, patient)
            for patient in range(1, patients + 1)
            for hour, code in ((0, "HOSPITAL_ADMISSION//X//Y"), (3, "HOSPITAL_DISCHARGE//HOME"))
        ]
        frame = pl.DataFrame(events, schema=random_stays.SCHEMA, orient="row")
        cohort = make_cohort(TASKS["mortality"], written(tmp_path / f"short-{patients}", frame), "MEDS")
        assert len(cohort.labels) == 0
        assert cohort.problem == f"The task mortality finds no sample in this data set{most}."
    longer = frame[:2].with_columns(time=pl.Series([at("2020-01-01"), at("2020-01-05")]))
    cohort = make_cohort(TASKS["mortality"], written(tmp_path / "long", longer), "MEDS")
    assert cohort.problem == "The task mortality finds no positive label in this data set."
    cohort = make_cohort(TASKS["los10"], written(tmp_path / "los", longer), "MEDS")
    assert cohort.problem.startswith("All labels that the task los10 finds")
    dead = pl.concat(
        [longer, pl.DataFrame([(1, at("2020-01-05"), "MEDS_DEATH", None)], schema=frame.schema, orient="row")]
    )
    cohort = make_cohort(TASKS["mortality"], written(tmp_path / "dead", dead), "MEDS")
    assert cohort.problem.startswith("All labels that the task mortality finds")


@pytest.mark.parametrize(("name", "files"), [("mortality", 1), ("los10", 1), ("drug", 5), ("phenotype", 25)])
def test_labels_are_written_in_the_form_of_meds(dataset, tmp_path, name, files):
    cohort = make_cohort(TASKS[name], dataset, "MEDS")
    paths = write_labels(tmp_path / name, cohort)
    assert len(paths) == files
    for place, path in enumerate(paths):
        read = read_labels(path)
        assert keys(read) == keys(cohort.labels)
        expected = cohort.labels.value[:, place] if files > 1 else cohort.labels.value
        assert (read.value == expected).all()
    if name == "drug":
        assert paths[0] == tmp_path / "drug" / "vancomycin" / "labels.parquet"


def test_persons_are_counted_where_they_are_several_subjects(tmp_path):
    written(tmp_path, random_stays.events(7))
    (tmp_path / "metadata").mkdir()
    persons = pl.DataFrame({"subject_id": range(1, 61), "person": [f"p{number // 2}" for number in range(60)]})
    persons.write_parquet(tmp_path / "metadata" / "persons.parquet")
    cohort = make_cohort(TASKS["mortality"], MedsDataset.open(tmp_path), "MEDS")
    assert dict(cohort.flow)["patients"] == len(np.unique((cohort.labels.subject - 1) // 2))


@pytest.mark.parametrize("name", OF_MEDS)
def test_records_without_stays_have_no_sample(tmp_path, name):
    frame = pl.DataFrame([(1, at("2020-01-01"), "LAB//1", None)], schema=random_stays.SCHEMA, orient="row")
    cohort = make_cohort(TASKS[name], written(tmp_path, frame), "MEDS")
    assert len(cohort.labels) == 0
    assert cohort.flow[0] == ("stays", 0)
    assert cohort.problem == f"The task {name} finds no sample in this data set."
    assert write_labels(tmp_path / "labels", cohort)
