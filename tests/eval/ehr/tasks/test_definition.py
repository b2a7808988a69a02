"""Task files state everything, fit ACES and the label functions, and are chosen by name."""

import pytest
import yaml

from eval.ehr.inputs import INPUT_RULES
from eval.ehr.results import KINDS
from eval.ehr.tasks import aces
from eval.ehr.tasks.definition import GROUPS, SOURCES, choose, load_tasks, read_task
from eval.ehr.tasks.functions import FUNCTIONS
from eval.ehr.tasks.spelling import read_spelling
from preprocessing.common.errors import InputError

TASKS = load_tasks()


@pytest.mark.parametrize("name", TASKS)
def test_each_task_states_all_that_is_needed(name):
    task = TASKS[name]
    for sentence in (task.source, task.cohort, task.prediction_time, task.label):
        assert sentence.endswith(".")
    assert task.kind in KINDS
    assert bool(task.classes) == (task.kind != "binary")
    assert task.inputs
    assert set(task.inputs) <= set(INPUT_RULES)
    assert set(task.datasets) <= set(SOURCES.values())
    assert set(task.published) <= set(task.datasets)
    assert task.function in FUNCTIONS or (not task.function and set(task.published) == set(task.datasets))
    if task.protocol == "paper":
        assert task.name == "paper_los" or "selects on the future" in task.cohort


def test_every_function_makes_the_labels_of_a_task():
    assert {task.function for task in TASKS.values()} - {""} == set(FUNCTIONS)


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.function])
def test_aces_reads_each_task_with_the_predicates_of_each_data_set(name):
    for source in TASKS[name].datasets:
        configuration = aces.read_configuration(TASKS[name].path, read_spelling(source).path)
        assert configuration.trigger.predicate in ("admission", "discharge")


@pytest.mark.parametrize("source", sorted(set(SOURCES.values())))
def test_every_data_set_spells_the_same_predicates(source):
    needed = {"admission", "discharge", "discharge_dead", "discharge_to_hospice", "discharge_to_hospital"}
    assert needed | {"icu_admission", "death"} <= set(read_spelling(source).patterns)


def test_groups_hold_tasks():
    assert GROUPS["operational_outcomes"] == ("long_los", "readmission", "icu_transfer")
    assert {name for names in GROUPS.values() for name in names} <= set(TASKS)


def test_without_names_all_tasks_that_fit_are_chosen():
    chosen = {task.name for task in choose([], "eicu_demo")}
    assert chosen == {"mortality", "long_los", "los10", "drug"}
    assert [task.name for task in choose([], "planted")] == ["planted"]
    assert {task.name for task in choose([], "diabetes130")} == {"long_los_days", "los10_days", "readmission"}


def test_groups_and_names_are_chosen_once_in_their_order():
    chosen = [task.name for task in choose(["icu_transfer", "operational_outcomes"], "mimic4")]
    assert chosen == ["icu_transfer", "long_los", "readmission"]


def test_of_a_group_those_are_chosen_that_fit():
    assert [task.name for task in choose(["operational_outcomes"], "eicu_demo")] == ["long_los"]


@pytest.mark.parametrize(
    ("names", "dataset", "message"),
    [
        (["mortalty"], "mimic3", "'mortalty' is no task; did you mean 'mortality'"),
        (["mortality"], "mimc3", "'mimc3' is no data set of the benchmark; did you mean 'mimic3'"),
        (["readmission"], "eicu_demo", "The task readmission does not fit eicu_demo; it fits"),
        (["paper"], "eicu", "The task paper does not fit eicu; it fits MEDS, mimic3, mimic4"),
    ],
)
def test_what_cannot_be_chosen_is_refused(names, dataset, message):
    with pytest.raises(InputError) as refused:
        choose(names, dataset)
    assert message in str(refused.value)
    assert str(refused.value).endswith((".", "?"))


def test_a_broken_file_is_refused(tmp_path):
    path = tmp_path / "task.yaml"
    stated = yaml.safe_load(TASKS["mortality"].path.read_text())
    for change in ({"kind": "ordinal"}, {"protocol": "other"}, {"titel": "x"}):
        path.write_text(yaml.safe_dump({"metadata": stated["metadata"] | change}))
        with pytest.raises(InputError, match=r"task\.yaml"):
            read_task(path)
    path.write_text("nothing")
    with pytest.raises(InputError, match="cannot be read as a task file"):
        read_task(path)
