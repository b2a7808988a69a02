"""Deaths in hospital that an ACES task finds in converted records, against the flag in the tables of the source."""

import json

import polars as pl
import pytest

from preprocessing.meds.conversion import MedsRequest
from preprocessing.meds.generated.write import GenerateRequest, generate
from preprocessing.meds.open import convert
from tests.helpers.paths import SHARED

config = pytest.importorskip("aces.config")
predicates = pytest.importorskip("aces.predicates")
query = pytest.importorskip("aces.query")
omegaconf = pytest.importorskip("omegaconf")

pytestmark = pytest.mark.integration
# Every admission; its label counts the deaths from the admission to the discharge, both included.
TASK = {
    "predicates": {
        "admission": {"code": {"regex": "^HOSPITAL_ADMISSION//"}},
        "discharge": {"code": {"regex": "^HOSPITAL_DISCHARGE//"}},
        "death": {"code": "MEDS_DEATH"},
    },
    "trigger": "admission",
    "windows": {
        "stay": {
            **{"start": "trigger", "end": "start -> discharge", "label": "death"},
            **{"start_inclusive": True, "end_inclusive": True},
        }
    },
}


def labels(meds, folder):
    """Return the stays that ACES finds in a MEDS data set, and those of them with a death."""
    path = folder / "task.yaml"
    path.write_text(json.dumps(TASK))
    task = config.TaskExtractorConfig.load(path)
    found = []
    for shard in sorted((meds / "data").rglob("*.parquet")):
        data = omegaconf.OmegaConf.create({"path": str(shard), "standard": "meds", "ts_format": None})
        found.append(query.query(task, predicates.get_predicates_df(task, data)))
    counts = pl.concat([frame["label"] for frame in found if len(frame)])
    return len(counts), int((counts > 0).sum())


def flagged(path, stay, flag, value):
    """Return the stays of a table, and those of them with a flag."""
    rows = pl.read_csv(path, infer_schema=False).rename(str.lower).drop_nulls(stay).unique(stay)
    return len(rows), int((rows[flag] == value).sum())


def converted(source, folder):
    return convert(MedsRequest(source, folder / "meds", progress=False)).output


@pytest.mark.thorough
def test_generated_deaths_are_those_of_the_flag(tmp_path):
    """Every fault is fifty times as frequent as in MIMIC, and a quarter of the discharges precede their death."""
    source = tmp_path / "mimic4"
    truth = generate(GenerateRequest(source, 1000, seed=3, faults=50, progress=False))["counts"]
    assert truth["discharged_at_midnight_before_an_evening_death"] > 0
    stays, deaths = flagged(source / "hosp" / "admissions.csv.gz", "hadm_id", "hospital_expire_flag", "1")
    assert deaths == truth["deaths_in_hospital"] > 10
    assert labels(converted(source, tmp_path), tmp_path) == (stays, deaths)


@pytest.mark.parametrize(
    ("source", "table", "stay", "flag", "value", "expected"),
    [
        ("mimic3demo", "ADMISSIONS.csv", "hadm_id", "hospital_expire_flag", "1", (129, 40)),
        (
            *("eicu_demo", "patient.csv.gz", "patienthealthsystemstayid"),
            *("hospitaldischargestatus", "Expired", (2174, 182)),
        ),
    ],
)
def test_deaths_of_real_records_are_those_of_the_flag(tmp_path, source, table, stay, flag, value, expected):
    folder = SHARED / "data" / source
    if not folder.is_dir():
        pytest.skip(f"{source} is not there")
    assert flagged(folder / table, stay, flag, value) == expected
    assert labels(converted(folder, tmp_path), tmp_path) == expected
