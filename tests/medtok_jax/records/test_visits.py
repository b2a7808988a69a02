"""Visits against patients worked out by hand, and against a plain loop over random events."""

import collections
import csv
import datetime
import random

import numpy as np
import polars as pl
import pytest

from medtok_jax.records.event_codes import CodeMapper
from medtok_jax.records.visits import KINDS, read_visits
from preprocessing.common.errors import InputError
from preprocessing.meds.dataset import MedsDataset
from preprocessing.meds.open import open_events
from tests.helpers import small_tokenizer, small_visits
from tests.helpers.paths import SHARED

DEMO = SHARED / "data" / "mimic3demo"


def read(root, unmapped="keep"):
    return read_visits(MedsDataset.open(root), CodeMapper(small_tokenizer.KEYS, unmapped), progress=False)


def table(name):
    with open(DEMO / name, newline="") as file:
        return list(csv.DictReader(file))


def codes_by_visit(visits):
    return {str(name): visits.key[visits.codes_of(v)].tolist() for v, name in enumerate(visits.name)}


@pytest.fixture(scope="module")
def visits(small_meds):
    return read(small_meds)


def test_stays_and_days_are_visits_of_distinct_codes_in_the_order_of_events(visits):
    kinds = list(small_visits.ALL_KINDS)
    assert codes_by_visit(visits) == {
        "11": [*kinds, "ICD9CM/250.00"],
        "12": [*kinds, "ICD10CM/E10.9"],
        "13": [*kinds, "SNOMED/44054006"],
        "21": ["ICD10CM/E11.9", "ICD9CM/999.99"],
        "23": ["ATC/A10BA02", "ICD9Proc/00.10", "ICD9CM/001.0", "NDC/99999999999"],
        "3-20220202": ["RxNorm/860975", "CPT4/99213"],
        "3-20220205": ["ICD10CM/S72.001A"],
        "41": kinds,
        "42": [*kinds, "ICD10CM/E11"],
    }
    assert visits.subject.tolist() == [1, 1, 1, 2, 2, 3, 3, 4, 4]
    assert visits.without_codes == 2


def test_what_a_visit_is_beside_its_codes(visits):
    assert visits.days.tolist() == [4, 20, 2, 0, 1, 0, 0, 2, 0]
    of = visits.name.tolist().index
    assert visits.start[of("11")] == np.datetime64("2020-01-01T08")
    assert visits.end[of("11")] == np.datetime64("2020-01-05T16")
    assert visits.start[of("3-20220202")] == np.datetime64("2022-02-02T09")
    assert visits.end[of("3-20220202")] == np.datetime64("2022-02-02T11")
    assert visits.died.tolist() == [False, False, True, *[False] * 6]
    assert visits.is_first.tolist() == [True, False, False, True, False, True, False, True, False]
    assert visits.patient_offsets.tolist() == [0, 3, 5, 7, 9]
    years = visits.age_days / 365.2425
    assert years[:3] == pytest.approx([69.55, 69.72, 69.80], abs=0.01)
    assert np.isnan(years[5:7]).all()
    assert years[7:] == pytest.approx([91, 91])
    names, place = visits.admission_types()
    assert names == ["URGENT", "ELECTIVE"]
    assert place.tolist() == [0, 1, 0, 0, 0, -1, -1, 0, 0]


def test_keys_have_rows_and_kinds(visits):
    assert visits.key.tolist() == sorted(visits.key.tolist())
    for key, row, kind in zip(visits.key, visits.row, visits.kind, strict=True):
        assert (row >= 0 and small_tokenizer.KEYS[row] == key) or (row < 0 and key not in small_tokenizer.KEYS)
        system = key.split("/")[0]
        wanted = {"ICD9CM": 0, "ICD10CM": 0, "SNOMED": 0, "NDC": 2, "RxNorm": 2, "ATC": 2}.get(system, 1)
        assert kind == wanted, (key, KINDS[kind])


def test_death_is_told_by_the_discharge_or_by_its_day(tmp_path):
    stay, code = small_visits.stay, "ICD10CM/E11.9"
    events = [
        *stay(1, 1, "2020-01-01", "2020-01-05", code, to="DEAD/EXPIRED"),
        *stay(2, 2, "2020-01-01", "2020-01-05", code),
        (2, small_visits.at("2020-01-03"), "MEDS_DEATH", None),
        # In MIMIC the day alone is known of some deaths: midnight, before the discharge.
        *stay(3, 3, "2020-01-01", "2020-01-05", code),
        (3, small_visits.at("2020-01-05"), "MEDS_DEATH", None),
        *stay(4, 4, "2020-01-01", "2020-01-05", code),
        (4, small_visits.at("2020-01-06"), "MEDS_DEATH", None),
    ]
    assert read(small_visits.write(tmp_path / "meds", events)).died.tolist() == [True, True, True, False]


def test_visits_are_in_the_order_of_admission_not_of_first_events(tmp_path):
    events = [
        (1, small_visits.at("2020-01-02"), "NDC/00002143380", 2),
        *small_visits.stay(1, 1, "2020-01-05", "2020-01-06", "ICD10CM/E11.9"),
        *small_visits.stay(1, 2, "2020-01-10", "2020-01-12", "ICD10CM/E10.9"),
    ]
    visits = read(small_visits.write(tmp_path / "meds", events))
    assert visits.name.tolist() == ["1", "2"]
    assert visits.start[1] == np.datetime64("2020-01-10T08")


def test_omop_tells_the_type_of_a_visit_in_its_own_way(tmp_path):
    events = [(1, small_visits.at("2020-01-02"), "Visit/IP", 7), (1, small_visits.at("2020-01-03"), "CPT4/99213", 7)]
    visits = read(small_visits.write(tmp_path / "meds", events))
    assert visits.admission_type.tolist() == ["IP"]
    assert visits.start[0] == np.datetime64("2020-01-02")


def test_unmapped_codes_are_dropped_where_asked(small_meds):
    visits = read(small_meds, "drop")
    assert (visits.row >= 0).all()
    assert codes_by_visit(visits)["23"] == ["ATC/A10BA02", "ICD9Proc/00.10", "ICD9CM/001.0"]


def test_a_data_set_without_medical_codes_is_refused(tmp_path):
    root = small_visits.write(tmp_path / "meds", small_visits.stay(1, 2, "2020-01-01", "2020-01-02", "LAB//1"))
    with pytest.raises(InputError, match="no event with a code"):
        read(root)


def test_files_do_not_matter(tmp_path, visits):
    other = read(small_visits.write(tmp_path / "meds", files=1))
    for name in ("subject", "name", "start", "end", "died", "offsets", "code", "key", "row", "admission_type"):
        np.testing.assert_array_equal(getattr(other, name), getattr(visits, name), name)


def test_random_events_against_a_plain_loop(tmp_path):
    draw = random.Random(0)
    codes = [*small_tokenizer.KEYS, "ICD9CM/999.99", "LAB//1", "NDC/99999999999"]
    events = [
        (
            draw.randrange(1, 12),
            datetime.datetime(2020, 1, 1) + datetime.timedelta(hours=draw.randrange(2000)),
            draw.choice(codes),
            draw.choice([None, *range(5)]),
        )
        for _ in range(800)
    ]
    # One stay is of one patient.
    events = [(*event[:3], event[3] if event[3] is None else event[0] * 10 + event[3]) for event in events]
    wanted = collections.defaultdict(list)
    for subject, time, code, hadm_id in sorted(events, key=lambda event: event[:2]):
        name = str(hadm_id) if hadm_id is not None else f"{subject}-{time:%Y%m%d}"
        if code != "LAB//1" and code not in wanted[subject, name]:
            wanted[subject, name].append(code)
    visits = read(small_visits.write(tmp_path / "meds", events, files=3))
    found = {(s, str(n)): codes for s, (n, codes) in zip(visits.subject, codes_by_visit(visits).items(), strict=True)}
    # At the same hour the order is that of the file.
    assert {key: sorted(value) for key, value in found.items()} == {k: sorted(v) for k, v in wanted.items() if v}
    assert (np.diff(visits.subject) >= 0).all()
    later = visits.start[1:] >= visits.start[:-1]
    assert (later | visits.is_first[1:]).all()


@pytest.mark.skipif(not DEMO.is_dir(), reason="the MIMIC-III demo is not here")
def test_the_demo_of_mimic3_has_the_stays_of_its_table(tmp_path):
    dataset = open_events(DEMO, tmp_path / "meds")
    visits = read_visits(dataset, CodeMapper(small_tokenizer.KEYS), progress=False)
    rows = {row["hadm_id"]: row for row in table("ADMISSIONS.csv")}
    assert len(visits) == len(rows) == 129
    for visit, name in enumerate(visits.name):
        row = rows[name]
        # A stay ends at the death in it, even if its dischtime is earlier; times are texts of one form.
        left = max(row["dischtime"], row["deathtime"])
        start, end = (datetime.datetime.fromisoformat(text) for text in (row["admittime"], left))
        assert visits.start[visit].item() == start
        assert visits.days[visit] == (end - start).days
        assert visits.died[visit] == (row["hospital_expire_flag"] == "1")
        assert visits.admission_type[visit] == row["admission_type"]
        assert str(visits.subject[visit]) == row["subject_id"]
    listed = collections.defaultdict(set)
    for row in table("DIAGNOSES_ICD.csv"):
        listed[row["hadm_id"]].add(row["icd9_code"])
    for visit, name in enumerate(visits.name):
        codes = visits.codes_of(visit)
        diagnoses = visits.key[codes[visits.kind[codes] == KINDS.index("diagnosis")]]
        assert len(diagnoses) == len(listed[name])
        assert {key.split("/")[1].replace(".", "") for key in diagnoses} == listed[name]


def test_days_of_stays_may_have_another_type_in_each_file(tmp_path, visits):
    root = small_visits.write(tmp_path / "meds", files=3)
    for number, kind in enumerate((pl.Float64, pl.String, pl.Int32)):
        path = root / "data" / f"{number}.parquet"
        days = pl.when(pl.col("code").str.starts_with("HOSPITAL_DISCHARGE")).then(7).cast(kind)
        pl.read_parquet(path).with_columns(stay_days=days).write_parquet(path)
    assert read(root).days.tolist() == [7, 7, 7, 7, 7, 0, 0, 7, 7]
