"""Labels of histories, against patients worked out by hand and a plain loop over labels."""

import datetime

import numpy as np
import polars as pl
import pytest

from medtok_jax.records import samples
from medtok_jax.records.event_codes import CodeMapper
from medtok_jax.records.visits import read_visits
from preprocessing.common.errors import InputError
from preprocessing.meds.dataset import MedsDataset
from tests.helpers import small_tokenizer, small_visits


@pytest.fixture(scope="module")
def visits(small_meds):
    return read_visits(MedsDataset.open(small_meds), CodeMapper(small_tokenizer.KEYS), progress=False)


def test_the_last_visit_labels_all_before_it(visits):
    mortality = samples.from_next_visits(visits, samples.MORTALITY)
    assert (mortality.first.tolist(), mortality.stop.tolist()) == ([0, 3, 5, 7], [2, 4, 6, 8])
    assert mortality.label.tolist() == [1, 0, 0, 0]
    readmission = samples.from_next_visits(visits, "readmission")
    # After 9 days and 16 hours; 61 days; 2 days and 22 hours; before the stay has ended.
    assert readmission.label.tolist() == [1, 0, 1, 1]
    assert samples.is_readmission(visits).tolist() == [False, False, True, False, False, False, True, False, True]


@pytest.mark.parametrize(("hour", "readmitted"), [(16, True), (17, False)])
def test_a_readmission_is_within_fifteen_days(tmp_path, hour, readmitted):
    events = [
        *small_visits.stay(1, 1, "2020-01-01", "2020-01-05", "ICD10CM/E11.9"),
        (1, small_visits.at("2020-01-20", hour), "ICD10CM/E11.9", None),
    ]
    root = small_visits.write(tmp_path / "meds", events)
    visits = read_visits(MedsDataset.open(root), CodeMapper(small_tokenizer.KEYS), progress=False)
    assert samples.is_readmission(visits).tolist() == [False, readmitted]


def write_labels(path, rows):
    schema = {"subject_id": pl.Int64, "prediction_time": pl.Datetime("us"), "boolean_value": pl.Boolean}
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(path)
    return path


def test_labels_of_a_file_see_only_visits_that_are_over(tmp_path, visits):
    rng = np.random.default_rng(0)
    times = [datetime.datetime(2019, 12, 1) + datetime.timedelta(hours=int(h)) for h in rng.integers(0, 30000, 300)]
    exact = [(int(s), end.item(), True) for s, end in zip(visits.subject, visits.end, strict=True)]
    rows = [(int(rng.integers(1, 7)), time, bool(rng.integers(2))) for time in times] + exact
    found = samples.from_labels(visits, write_labels(tmp_path / "labels.parquet", rows))
    wanted = []
    for subject, time, label in rows:
        history = []
        for visit in np.flatnonzero(visits.subject == subject):
            if visits.end[visit].item() > time:
                break
            history.append(int(visit))
        wanted.append((history[0], history[-1] + 1, int(label)) if history else None)
    kept = [row for row in wanted if row]
    assert list(zip(found.first, found.stop, found.label, strict=True)) == kept
    assert found.left_out == len(wanted) - len(kept) > 0


def test_a_stay_within_a_longer_one_waits_for_it(tmp_path):
    events = [
        *small_visits.stay(1, 1, "2020-01-01", "2020-01-20", "ICD10CM/E11.9"),
        *small_visits.stay(1, 2, "2020-01-05", "2020-01-06", "ICD10CM/E10.9"),
    ]
    root = small_visits.write(tmp_path / "meds", events)
    visits = read_visits(MedsDataset.open(root), CodeMapper(small_tokenizer.KEYS), progress=False)
    rows = [(1, datetime.datetime(2020, 1, day), True) for day in (7, 21)]
    found = samples.from_labels(visits, write_labels(tmp_path / "labels.parquet", rows))
    assert (found.first.tolist(), found.stop.tolist(), found.left_out) == ([0], [2], 1)


def test_files_that_are_no_labels_are_refused(tmp_path, visits):
    (tmp_path / "no.parquet").write_text("no")
    empty = write_labels(tmp_path / "empty.parquet", [])
    without = write_labels(tmp_path / "without.parquet", [(1, None, True)])
    early = write_labels(tmp_path / "early.parquet", [(1, datetime.datetime(1990, 1, 1), True)])
    for path, words in [
        *((tmp_path / name, "holds no MEDS labels") for name in ("no.parquet", "absent.parquet")),
        *((path, "holds no labels, or has nulls in") for path in (empty, without)),
        (early, "No label in"),
    ]:
        with pytest.raises(InputError, match=words):
            samples.from_labels(visits, path)


def test_patients_of_one_visit_have_no_next(tmp_path):
    root = small_visits.write(tmp_path / "meds", small_visits.stay(1, 1, "2020-01-01", "2020-01-02", "ICD10CM/E11.9"))
    visits = read_visits(MedsDataset.open(root), CodeMapper(small_tokenizer.KEYS), progress=False)
    with pytest.raises(InputError, match="No patient has two visits"):
        samples.from_next_visits(visits, samples.MORTALITY)
