"""Times, doses and further columns of the events of MIMIC."""

import re
from datetime import datetime

import polars as pl
import pytest

from preprocessing.common.errors import InputError
from preprocessing.meds import convert as converter
from preprocessing.meds import mimic_events
from tests.helpers import mimic_copies
from tests.helpers.meds_events import events_of


def run(source, output, **options):
    return converter.convert(converter.MedsRequest(source, output, progress=False, **options))


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mimic")
    return {name: mimic_copies.write(folder / name, name) for name in mimic_copies.ROWS}


@pytest.fixture(scope="module")
def converted(copies, tmp_path_factory):
    folder = tmp_path_factory.mktemp("meds")
    return {name: run(source, folder / name) for name, source in copies.items()}


def test_what_stands_beside_the_code_in_mimic4(converted):
    frame = events_of(converted["mimic4"].output)
    (drug,) = frame.filter(pl.col("code") == "NDC/63323026201").to_dicts()
    order = {"numeric_value": 5000, "unit": "UNIT", "route": "SC", "drug_type": "MAIN"}
    assert (order | {"stoptime": datetime(2180, 5, 7, 20)}).items() <= drug.items()
    groups = frame.filter(pl.col("anchor_year_group").is_not_null()).select("subject_id", "code", "anchor_year_group")
    assert groups.rows() == [(10000021, "MEDS_BIRTH", "2014 - 2016")]


def test_the_end_of_a_prescription_in_mimic3_is_a_day(converted):
    frame = events_of(converted["mimic3"].output).filter(pl.col("code") == "NDC/00904516561")
    assert frame["stoptime"].to_list() == [datetime(2160, 5, 2, 23, 59, 59)]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("5", 5), ("0.5", 0.5), (".5", 0.5), ("5.", 5), (" 5 ", 5), ("1,325.5", 1325.5), ("1,000,000", 1e6)),
        *(("1-2", 1.5), ("0.5-1", 0.75), ("325 - 650", 487.5), ("1 to 2", 1.5), ("1,000-2,000", 1500)),
        *(("0,5", None), ("1-2mg", None), ("one", None), ("-1", None), ("1-2-3", None), ("nan", None), ("", None)),
        *(("1e5", None), ("-", None), (".", None), (None, None)),
    ],
)
def test_doses_are_numbers_or_ranges(text, number):
    found = pl.DataFrame({"dose": [text]}, schema={"dose": pl.String}).select(mimic_events.dose("dose")).item()
    assert found == (None if number is None else pytest.approx(number))


def test_doses_that_are_not_read_are_counted(tmp_path):
    source = mimic_copies.write(tmp_path / "in", "mimic3")
    assert run(source, tmp_path / "out").about["doses"] == {"given": 2, "not_read": 0}
    path = source / "PRESCRIPTIONS.csv"
    path.write_text(path.read_text().replace(",2-4,", ",2-4mg,"))
    assert run(source, tmp_path / "out").about["doses"] == {"given": 2, "not_read": 1}


def test_laboratory_values_stand_where_they_were_known_or_taken(copies, tmp_path):
    labs = {}
    for lab_time in ("store", "chart"):
        frame = events_of(run(copies["mimic4"], tmp_path / "out", lab_time=lab_time).output)
        labs[lab_time] = [str(time) for time in frame.filter(pl.col("code").str.starts_with("LAB//"))["time"]]
    assert labs["store"] == ["2180-05-06 23:30:00", "2150-06-02 08:00:00"]
    assert labs["chart"] == ["2180-05-06 22:30:00", "2150-06-02 08:00:00"]  # The second has no charttime.
    with pytest.raises(InputError, match="--lab_time=now is not known; give one of: store, chart"):
        run(copies["mimic4"], tmp_path / "out", lab_time="now")


def test_a_year_that_no_calendar_has_is_no_birth(tmp_path):
    source = mimic_copies.write(tmp_path / "in", "mimic4")
    path = source / "hosp" / "patients.csv"
    path.write_text(path.read_text().replace(",52,2180,", ",52,70000099,").replace(",30,2150,", ",2150,30,"))
    done = run(source, tmp_path / "out")
    found = {entry["kind"]: entry["lines"] for entry in done.about["contradictions"]}
    assert found["no birth"] == [2, 4]
    births = events_of(done.output).filter(pl.col("code") == "MEDS_BIRTH")["subject_id"]
    assert births.to_list() == [10000022]


def test_fractions_of_a_second_are_kept(tmp_path):
    """An event whose fraction was cut off would stand before the time of its row."""
    source = mimic_copies.write(tmp_path / "in", "mimic4")
    path = source / "hosp" / "labevents.csv"
    path.write_text(
        path.read_text().replace("23:30:00", "23:30:00.9").replace("2150-06-02 08:00:00", "2150-06-02T08:00:00.")
    )
    labs = events_of(run(source, tmp_path / "out").output).filter(pl.col("code").str.starts_with("LAB//"))
    assert labs["time"].to_list() == [datetime(2180, 5, 6, 23, 30, 0, 900_000), datetime(2150, 6, 2, 8)]


def test_numbers_that_name_something_may_have_a_fraction(converted, tmp_path):
    """A program that reads a column with missing values as numbers writes 10.0 for 10."""
    source = mimic_copies.write(tmp_path / "in", "mimic4")
    for name, changes in (
        ("diagnoses_icd", {",10\n": ",10.0\n", ",9\n": ",9.0\n"}),
        ("labevents", {",50912,": ",50912.0,"}),
        ("prescriptions", {",63323026201,": ",63323026201.0,", ",NS,,,0,": ",NS,,,0.0,"}),
        ("drgcodes", {",442,": ",442.0,"}),
    ):
        path = source / "hosp" / f"{name}.csv"
        for old, new in changes.items():
            assert old in path.read_text()
            path.write_text(path.read_text().replace(old, new))
    done = run(source, tmp_path / "out")
    assert events_of(done.output).equals(events_of(converted["mimic4"].output))
    malformed = converted["mimic4"].about["events_with_malformed_codes"]
    assert done.about["events_with_malformed_codes"] == malformed


def test_minutes_may_have_no_seconds(converted, tmp_path):
    source = mimic_copies.write(tmp_path / "in", "mimic4")
    for path in source.rglob("*.csv"):
        path.write_text(re.sub(r"(\d\d:\d\d):00", r"\1", path.read_text()))
    assert events_of(run(source, tmp_path / "out").output).equals(events_of(converted["mimic4"].output))


def test_records_that_give_no_event_are_no_data_set(tmp_path):
    """A folder without a file of events could not be opened; what was rejected is told."""
    source = mimic_copies.write(tmp_path / "in", "mimic4")
    path = source / "hosp" / "patients.csv"
    path.write_text(re.sub(r"(?m)^\d+", "x", path.read_text()))
    words = r"gives no event, so that nothing is written\. .* most of all .* \(no such patient\)\.$"
    with pytest.raises(InputError, match=words):
        run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
