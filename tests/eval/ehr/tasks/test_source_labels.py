"""Labels of every task are those of plain loops over the source tables, written from the sentences of the tasks."""

import datetime
from pathlib import Path

import numpy as np
import pytest

from eval.ehr.tasks.cohort import make_cohort
from eval.ehr.tasks.definition import choose
from preprocessing.meds.conversion import MedsRequest
from preprocessing.meds.dataset import MedsDataset
from preprocessing.meds.generated.write import GenerateRequest, generate
from preprocessing.meds.open import convert
from tests.helpers import mimic_copies, source_labels
from tests.helpers.paths import SHARED

MIMIC_TASKS = [task.name for task in choose([], "mimic3")]
EICU_TASKS = [task.name for task in choose([], "eicu_demo")]

pytestmark = pytest.mark.integration


def in_meds(source: Path, folder: Path) -> MedsDataset:
    return MedsDataset.open(convert(MedsRequest(source, folder, progress=False)).output)


def found(task: str, dataset: MedsDataset, name: str) -> source_labels.Labels:
    """Return the labels of the product in the form of `source_labels`."""
    labels = make_cohort(choose([task], name)[0], dataset, name).labels
    keys = zip(labels.subject.tolist(), labels.time.tolist(), strict=True)
    values = [tuple(row) if isinstance(row, list) else row for row in labels.value.tolist()]
    return dict(zip(keys, values, strict=True))


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    source = SHARED / "data" / "mimic3demo"
    if not source.is_dir():
        pytest.skip("the MIMIC-III demo is not here")
    return source_labels.mimic_stays(source), in_meds(source, tmp_path_factory.mktemp("demo") / "meds")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    source = mimic_copies.write(tmp_path_factory.mktemp("small"), "mimic3")
    return source_labels.mimic_stays(source), in_meds(source, tmp_path_factory.mktemp("small_meds") / "meds")


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """A MIMIC-IV of 150 invented patients, coded in ICD-9 and ICD-10."""
    source = tmp_path_factory.mktemp("generated") / "mimic4"
    generate(GenerateRequest(source, 150, 3, faults=0.0, is_gzipped=False))
    return source_labels.mimic_stays(source), in_meds(source, source.parent / "meds")


@pytest.fixture(scope="module")
def eicu(tmp_path_factory):
    source = SHARED / "data" / "eicu_demo"
    if not source.is_dir():
        pytest.skip("the eICU demo is not here")
    return source_labels.eicu_stays(source), in_meds(source, tmp_path_factory.mktemp("eicu") / "meds")


@pytest.mark.parametrize("task", MIMIC_TASKS)
def test_mimic3_demo(demo, task):
    stays, dataset = demo
    expected = source_labels.labels_of(task, stays)
    assert expected
    assert found(task, dataset, "mimic3") == expected


def test_mimic3_demo_has_31_deaths_among_116_stays(demo):
    labels = found("mortality", demo[1], "mimic3")
    assert (len(labels), sum(labels.values())) == (116, 31)


@pytest.mark.parametrize("task", MIMIC_TASKS)
def test_small_copy_of_mimic3(small, task):
    stays, dataset = small
    assert found(task, dataset, "mimic3") == source_labels.labels_of(task, stays)


@pytest.mark.thorough
@pytest.mark.parametrize("task", MIMIC_TASKS)
def test_generated_mimic4(generated, task):
    stays, dataset = generated
    expected = source_labels.labels_of(task, stays)
    assert expected
    assert found(task, dataset, "mimic4") == expected


@pytest.mark.parametrize("task", EICU_TASKS)
def test_eicu_demo(eicu, task):
    stays, dataset = eicu
    expected = source_labels.labels_of(task, stays)
    assert expected
    assert found(task, dataset, "eicu_demo") == expected


def test_eicu_demo_has_131_deaths_among_1760_stays(eicu):
    labels = found("mortality", eicu[1], "eicu_demo")
    assert (len(labels), sum(labels.values())) == (1760, 131)


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory):
    source = SHARED / "data" / "diabetes130"
    if not source.is_dir():
        pytest.skip("the part of Diabetes-130 is not here")
    return source, in_meds(source, tmp_path_factory.mktemp("diabetes") / "meds")


@pytest.mark.thorough
@pytest.mark.parametrize("task", ["long_los_days", "los10_days"])
def test_diabetes130(diabetes, task):
    """Encounters of adults up to a death, by their rank among those of the patient."""
    source, dataset = diabetes
    patients: dict[str, list[dict[str, str]]] = {}
    for row in source_labels.rows_of(source, "diabetic_data"):
        patients.setdefault(row["patient_nbr"], []).append(row)
    expected = {}
    for patient, rows in patients.items():
        rows.sort(key=lambda row: int(row["encounter_id"]))
        dead = [place for place, row in enumerate(rows) if row["discharge_disposition_id"] in ("11", "19", "20", "21")]
        if rows[0]["age"] not in ("[0-10)", "[10-20)"):
            for place, row in enumerate(rows[: dead[-1] + 1] if dead else rows):
                days = int(row["time_in_hospital"])
                time = datetime.datetime(2000, 1, 1) + datetime.timedelta(days=place)
                expected[int(patient), time] = days > 7 if task == "long_los_days" else source_labels.los_class(days)
    assert found(task, dataset, "diabetes130") == expected


@pytest.mark.thorough
def test_generated_labels_are_not_trivial(generated):
    """Each task has labels of both kinds here, so that the comparison says something."""
    stays, _ = generated
    for task in MIMIC_TASKS:
        values = np.array(list(source_labels.labels_of(task, stays).values()))
        assert len(np.unique(values)) > 1, task
