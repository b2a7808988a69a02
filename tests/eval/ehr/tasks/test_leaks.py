"""Leak tests pass what models see, and fire on every way to see the future, naming the type of event."""

import functools

import numpy as np
import polars as pl
import pytest

from eval.ehr.tasks.cohort import make_cohort
from eval.ehr.tasks.definition import load_tasks
from eval.ehr.tasks.leaks import CHANGES, check_leaks, deleted, flipped, replaced, seen_by_models
from eval.ehr.tasks.spelling import read_spelling
from medtok_jax.records.samples import Labels
from preprocessing.meds.dataset import MedsDataset
from tests.helpers import random_stays
from tests.helpers.small_visits import at

TASKS = load_tasks()
OF_MEDS = [name for name, task in TASKS.items() if "MEDS" in task.datasets]
# One of each kind of prediction time; the others are thorough.
FIRST = ("mortality", "phenotype", "readmission", "paper_drug")
SPELLING = read_spelling("MEDS")


def written(folder, frame: pl.DataFrame, files: int = 2) -> MedsDataset:
    (folder / "data").mkdir(parents=True)
    for number in range(files):
        frame.filter(pl.col("subject_id") % files == number).write_parquet(folder / "data" / f"{number}.parquet")
    return MedsDataset.open(folder)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return written(tmp_path_factory.mktemp("meds"), random_stays.events(11))


def labels_of(name: str, dataset: MedsDataset) -> Labels:
    return make_cohort(TASKS[name], dataset, "MEDS").labels


def all_until(frames, labels: Labels, rule: str, *, days: int = 0, hidden: str = "^MEDS_BIRTH$") -> pl.DataFrame:
    """Return the events up to some days after the prediction time but those with a hidden code."""
    keys = pl.DataFrame({"sample": np.arange(len(labels)), "subject_id": labels.subject, "limit": labels.time})
    events = pl.concat(frames).filter(pl.col("time").is_not_null() & ~pl.col("code").str.contains(hidden))
    pairs = keys.join(events, on="subject_id", how="inner").with_columns(
        days=(pl.col("limit") - pl.col("time")).dt.total_seconds() / 86400
    )
    return pairs.filter(pl.col("days") >= -days).select("sample", "code", "days")


@pytest.mark.integration
@pytest.mark.parametrize(
    "name", [name if name in FIRST else pytest.param(name, marks=pytest.mark.thorough) for name in OF_MEDS]
)
def test_what_models_see_has_no_leak(dataset, tmp_path, name):
    task = TASKS[name]
    inputs_of = seen_by_models(
        tmp_path / "scratch", read_spelling("MEDS"), hide_drugs_of_visit=task.hide_drugs_of_visit
    )
    labels = labels_of(name, dataset)
    assert check_leaks(task, dataset, labels, "MEDS", inputs_of=inputs_of) == []
    assert list(tmp_path.iterdir()) == []


def test_a_deleted_future_is_in_no_column_either():
    """EHRSHOT tells the end of a visit in a column of its beginning, and a task may read it."""
    times = pl.DataFrame({"subject_id": [1], "prediction_time": [at("2020-01-02")]})
    rows = [
        (1, at("2020-01-01"), "Visit/IP", 7, at("2020-01-04")),
        (1, at("2020-01-01"), "Visit/OP", 8, at("2020-01-01")),
    ]
    frame = pl.DataFrame(rows, schema={**random_stays.SCHEMA, "end": pl.Datetime("us")}, orient="row")
    assert deleted(frame, times, read_spelling("ehrshot"))["end"].to_list() == [None, at("2020-01-01")]


def test_events_after_the_time_are_found_by_each_test(dataset):
    """The inputs reach a month into the future, deaths and discharges included."""
    labels = labels_of("mortality", dataset)
    inputs_of = functools.partial(all_until, days=30)
    found = check_leaks(TASKS["mortality"], dataset, labels, "MEDS", inputs_of=inputs_of)
    told = [[one for one in found if name in one] for name in ("after their prediction time", *CHANGES)]
    assert [len(one) for one in told] == [1, 1, 1, 1]
    assert all("HOSPITAL_DISCHARGE" in one for one, *_ in told)
    assert "MEDS_DEATH" in told[-1][0]


def test_a_single_type_of_event_is_named(dataset):
    """Inputs that leak events of units alone are told to leak these."""
    labels = labels_of("mortality", dataset)
    inputs_of = functools.partial(all_until, days=30, hidden="^(?:HOSPITAL|MEDS|ICD|LAB|NDC|MEDICATION|DIAGNOSIS)")
    found = check_leaks(TASKS["mortality"], dataset, labels, "MEDS", inputs_of=inputs_of)
    assert len(found) == 3
    assert all(one.rpartition(" is ")[2].startswith("ICU_ADMISSION. (inputs") for one in found[1:])


def test_a_destination_at_the_prediction_time_is_found(dataset):
    """The discharge that the task counts from says where it leads; nothing later is seen."""
    labels = labels_of("readmission", dataset)
    found = check_leaks(TASKS["readmission"], dataset, labels, "MEDS", inputs_of=all_until)
    assert len(found) == len(TASKS["readmission"].inputs)
    for one in found:
        assert "the outcomes are turned into their opposite" in one
        assert "HOSPITAL_DISCHARGE" in one


def test_numbers_without_codes_are_named_by_their_part(dataset):
    """A count of all events of the patient is no event, and tells the future all the same."""

    def counted(frames, labels: Labels, rule: str) -> pl.DataFrame:
        counts = dict(pl.concat(frames)["subject_id"].value_counts().iter_rows())
        number = [counts[int(subject)] for subject in labels.subject]
        frame = {"sample": np.arange(len(labels)), "part": "events of all time", "number": number}
        return pl.DataFrame(frame).with_columns(code=pl.lit(None, pl.String))

    found = check_leaks(TASKS["mortality"], dataset, labels_of("mortality", dataset), "MEDS", inputs_of=counted)
    assert len(found) == 3
    assert all("events of all time" in one for one in found)


@pytest.mark.parametrize(
    ("code", "rules"),
    [("LEAK//1", ("coded", "bedside")), ("DIAGNOSIS//LEAK", ("coded",)), ("HOSPITAL_DISCHARGE//1", ())],
)
def test_a_code_that_says_what_the_label_says_is_found(tmp_path, code, rules):
    """It stands at the prediction time, a discharge; as a diagnosis it is coded afterwards."""
    time = at("2021-01-01")
    events = [(subject, time, "HOSPITAL_DISCHARGE//HOME", subject) for subject in range(1, 61)]
    events += [(subject, at("2020-12-31"), f"LAB//{subject % 3}", subject) for subject in range(1, 61)]
    events += [(subject, time, code, subject) for subject in range(1, 61, 2)]
    frame = pl.DataFrame(events, schema=random_stays.SCHEMA, orient="row").sort(
        "subject_id", "time", maintain_order=True
    )
    subject = np.arange(1, 61)
    labels = Labels(subject, np.full(60, time, "datetime64[us]"), subject % 2 == 1)
    dataset = written(tmp_path / "meds", frame)
    inputs_of = seen_by_models(tmp_path / "scratch", read_spelling("planted"))
    found = check_leaks(TASKS["planted"], dataset, labels, "planted", inputs_of=inputs_of)
    assert found == [f"Codes say what the label says: {code}. (inputs: {rule})" for rule in rules]


def test_persons_in_two_splits_are_found(tmp_path):
    frame = random_stays.events(11)
    written(tmp_path, frame)
    (tmp_path / "metadata").mkdir()
    subjects = list(range(1, 61))
    splits = pl.DataFrame({"subject_id": subjects, "split": ["train", "held_out"] * 30})
    splits.write_parquet(tmp_path / "metadata" / "subject_splits.parquet")
    persons = pl.DataFrame({"subject_id": subjects, "person": ["a", "a", *(str(number) for number in subjects[2:])]})
    persons.write_parquet(tmp_path / "metadata" / "persons.parquet")
    dataset = MedsDataset.open(tmp_path)
    found = check_leaks(
        TASKS["mortality"],
        dataset,
        labels_of("mortality", dataset),
        "MEDS",
        inputs_of=functools.partial(all_until, hidden="^(?:MEDS|HOSPITAL_DISCHARGE)"),
    )
    assert found == ["< 11 persons are in several splits; split by person."]


def test_repeated_and_foreign_labels_are_found(dataset, tmp_path):
    labels = labels_of("mortality", dataset)
    subject, time = np.append(labels.subject, labels.subject[:2]), np.append(labels.time, labels.time[:2])
    twice = Labels(subject, time, np.append(labels.value, labels.value[:2]))
    inputs_of = functools.partial(all_until, hidden="^(?:MEDS|HOSPITAL_DISCHARGE)")
    found = check_leaks(TASKS["mortality"], dataset, twice, "MEDS", inputs_of=inputs_of)
    assert found == ["2 labels of mortality have the patient and time of another one."]
    foreign = Labels(labels.subject + 1000, labels.time, labels.value)
    found = check_leaks(TASKS["mortality"], dataset, foreign, "MEDS", inputs_of=inputs_of)
    assert found == [f"{len(labels):,} labels of mortality are of patients without events."]


def test_rows_of_no_label_are_found(dataset):
    def shifted(frames, labels: Labels, rule: str) -> pl.DataFrame:
        made = all_until(frames, labels, rule, hidden="^(?:MEDS|HOSPITAL_DISCHARGE)")
        return made.with_columns(pl.col("sample") + 1)

    found = check_leaks(TASKS["mortality"], dataset, labels_of("mortality", dataset), "MEDS", inputs_of=shifted)
    assert found == ["Some inputs belong to no label; the rows of inputs and labels do not agree. (inputs: bedside)"]


EVENTS = [
    (1, at("1950-01-01"), "MEDS_BIRTH", None),
    (1, at("2020-01-01"), "HOSPITAL_ADMISSION//X//Y", 1),
    (1, at("2020-01-02"), "A", 1),
    (1, at("2020-01-03"), "HOSPITAL_DISCHARGE//HOME", 1),
    (2, at("2021-01-01"), "B", 2),
    (2, at("2021-01-02"), "HOSPITAL_DISCHARGE//DIED", 2),
    (2, at("2021-01-02"), "MEDS_DEATH", None),
]
FRAME = pl.DataFrame(EVENTS, schema=random_stays.SCHEMA, orient="row")
TIMES = pl.DataFrame({"subject_id": [1, 2], "prediction_time": [at("2020-01-02"), at("2021-01-01")]})


def told(frame: pl.DataFrame, subject: int) -> list[tuple]:
    return frame.filter(pl.col("subject_id") == subject).select("time", "code", "hadm_id").rows()


def test_the_future_is_deleted():
    frame = deleted(FRAME, TIMES, SPELLING)
    assert [code for _, code, _ in told(frame, 1)] == ["MEDS_BIRTH", "HOSPITAL_ADMISSION//X//Y", "A"]
    assert [code for _, code, _ in told(frame, 2)] == ["B"]


def test_the_future_is_replaced_by_that_of_another_patient():
    frame = replaced(FRAME, TIMES, SPELLING)
    later = told(frame, 1)[3:]
    assert [code for _, code, _ in later] == ["B", "HOSPITAL_DISCHARGE//DIED", "MEDS_DEATH"]
    assert all(time > at("2020-01-02") for time, _, _ in later)
    # Some are given to the stay that goes on.
    assert [stay for _, _, stay in later] == [1, 2, 1]
    assert "MEDS_BIRTH" not in [code for _, code, _ in told(frame, 2)]


def test_outcomes_are_turned_into_their_opposite():
    frame = flipped(
        FRAME.with_columns(hospital_expire_flag=pl.Series([None] * 3 + [0, None, 1, None])), TIMES, SPELLING
    )
    assert [code for _, code, _ in told(frame, 1)][3:] == ["HOSPITAL_DISCHARGE//DIED", "MEDS_DEATH"]
    assert [code for _, code, _ in told(frame, 2)] == ["B", "HOSPITAL_DISCHARGE//HOME"]
    flags = frame.filter(pl.col("code").str.starts_with("HOSPITAL_DISCHARGE"))["hospital_expire_flag"]
    assert flags.to_list() == [1, 0]


def test_what_is_drawn_depends_on_the_seed_alone(dataset):
    labels = labels_of("mortality", dataset)
    inputs_of = functools.partial(all_until, days=30)
    runs = [
        check_leaks(TASKS["mortality"], dataset, labels, "MEDS", inputs_of=inputs_of, patients=20, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
