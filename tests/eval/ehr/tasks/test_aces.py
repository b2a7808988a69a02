"""Label functions and ACES agree on the same task files, and ACES finds the same as when it reads files itself."""

import sys

import polars as pl
import pytest
from omegaconf import OmegaConf

from eval.ehr.tasks import aces
from eval.ehr.tasks.definition import load_tasks
from eval.ehr.tasks.functions import FUNCTIONS
from eval.ehr.tasks.shard import Shard
from eval.ehr.tasks.spelling import read_spelling
from eval.ehr.tasks.stays import Exclusions, read_stays, usable
from preprocessing.common.errors import InputError
from tests.helpers import random_stays

SPELLING = read_spelling("MEDS")
TASKS = {name: task for name, task in load_tasks().items() if "MEDS" in task.datasets}
FIRST_DAY = ("mortality", "long_los", "los10", "drug")


def shard(seed: int) -> Shard:
    events = random_stays.events(seed).with_columns(
        numeric_value=pl.lit(None, pl.Float32), text_value=pl.lit(None, pl.String)
    )
    return Shard(events, read_stays(events, SPELLING).with_row_index("stay"), SPELLING)


def both(name: str, seed: int) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return the stays that can be samples, those of them that the function labels, and what ACES finds."""
    made, exclusions, task = shard(seed), Exclusions(), TASKS[name]
    stays = usable(made.stays, SPELLING, exclusions, adults=task.adults)
    configuration = aces.read_configuration(task.path, SPELLING.path)
    anchor = {"admission": "start", "discharge": "end"}[configuration.trigger.predicate]
    found = aces.extract(made.events, configuration).rename({"trigger": anchor})
    return stays, FUNCTIONS[task.function](made, stays, exclusions), found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", TASKS)
def test_whatever_a_function_labels_fits_the_windows(name, seed):
    _, labeled, found = both(name, seed)
    anchor = "start" if "start" in found.columns else "end"
    joined = labeled.join(found, on=["subject_id", anchor], how="left", suffix="_aces")
    assert len(labeled)
    assert joined.join(found, on=["subject_id", anchor], how="anti").is_empty()
    times = joined.drop_nulls("prediction_time_aces")
    assert (times["prediction_time"] == times["prediction_time_aces"]).all()
    if name in ("mortality", "readmission", "readmission_deaths_kept"):
        assert joined["value_aces"].null_count() == 0
        assert joined["value"].to_list() == joined["value_aces"].to_list()
        assert joined["value"].n_unique() == 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", FIRST_DAY)
def test_functions_leave_out_what_aces_leaves_out(name, seed):
    stays, labeled, found = both(name, seed)
    fitting = stays.join(found, on=["subject_id", "start"], how="semi")
    assert len(fitting) < len(stays)
    assert fitting["stay"].to_list() == labeled["stay"].to_list()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["readmission", "readmission_deaths_kept"])
def test_of_discharges_only_same_day_returns_are_left_out_besides(name, seed):
    stays, labeled, found = both(name, seed)
    fitting = stays.join(found, on=["subject_id", "end"], how="semi")
    others = fitting.join(labeled, on="stay", how="anti")
    admissions = shard(seed).stays.select("subject_id", again="start", other="stay")
    same_day = others.join(admissions, on="subject_id").filter(
        (pl.col("other") != pl.col("stay")) & (pl.col("again").dt.date() == pl.col("end").dt.date())
    )
    assert set(same_day["stay"]) == set(others["stay"])
    assert set(labeled["stay"]) <= set(fitting["stay"])


@pytest.mark.parametrize("name", ["mortality", "readmission", "phenotype"])
def test_aces_finds_the_same_when_it_reads_the_file_itself(tmp_path, name):
    events = shard(0).events
    path = tmp_path / "0.parquet"
    events.write_parquet(path)
    configuration = aces.read_configuration(TASKS[name].path, SPELLING.path)
    from aces import predicates, query

    found = aces.extract(events, configuration)
    settings = OmegaConf.create({"path": str(path), "standard": "meds", "ts_format": None})
    expected = query.query(configuration, predicates.get_predicates_df(configuration, settings))
    assert found.select("subject_id", "trigger").rows() == sorted(expected.select("subject_id", "trigger").rows())


def test_a_stay_without_discharge_is_left_out():
    """Else a death in a later stay, or at home, would be one of this stay."""
    rows = [
        (1, "2020-01-01", "HOSPITAL_ADMISSION//A"),
        (1, "2020-02-01", "HOSPITAL_ADMISSION//A"),
        (1, "2020-02-09", "MEDS_DEATH"),
        (1, "2020-02-09", "HOSPITAL_DISCHARGE//DIED"),
        (2, "2020-01-01", "HOSPITAL_ADMISSION//A"),
        (2, "2020-02-01", "HOSPITAL_ADMISSION//A"),
        (2, "2020-02-09", "HOSPITAL_DISCHARGE//HOME"),
        (2, "2020-02-10", "MEDS_DEATH"),
        (3, "2020-01-01", "HOSPITAL_ADMISSION//A"),
        (3, "2020-01-09", "MEDS_DEATH"),
    ]
    events = pl.DataFrame(rows, ["subject_id", "time", "code"], orient="row").with_columns(
        pl.col("time").str.to_datetime(time_unit="us"),
        numeric_value=pl.lit(None, pl.Float32),
        text_value=pl.lit(None, pl.String),
    )
    found = aces.extract(events, aces.read_configuration(TASKS["mortality"].path, SPELLING.path))
    assert found.select("subject_id", "value").rows() == [(1, True), (2, False)]


def test_a_configuration_serves_several_times():
    configuration = aces.read_configuration(TASKS["mortality"].path, SPELLING.path)
    events = shard(0).events
    assert aces.extract(events, configuration).equals(aces.extract(events, configuration))


def test_nothing_is_found_among_no_events():
    configuration = aces.read_configuration(TASKS["mortality"].path, SPELLING.path)
    assert len(aces.extract(shard(0).events.clear(), configuration)) == 0
    assert len(aces.extract(shard(0).events.filter(pl.col("code") == "LAB//1//mg"), configuration)) == 0


def test_without_the_package_its_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "aces"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Without(), *sys.meta_path])
    with pytest.raises(InputError, match=r"needs the Python package aces.*medtok_jax\[benchmark\]"):
        aces.read_configuration(TASKS["mortality"].path, SPELLING.path)


class _Without:
    """Find no package aces."""

    @staticmethod
    def find_spec(name: str, path=None, target=None) -> None:
        if name == "aces":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
