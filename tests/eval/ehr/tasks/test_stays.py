"""Stays are found as they are spelled, and each reason to leave one out is counted for the stays that it is about."""

import datetime

import polars as pl
import pytest

from eval.ehr.tasks.spelling import read_spelling
from eval.ehr.tasks.stays import Exclusions, of_stay, read_stays, usable, with_discharges
from preprocessing.common.errors import InputError
from tests.helpers.small_visits import SCHEMA, at

MEDS = read_spelling("MEDS")
BORN = (1, at("1950-01-01"), "MEDS_BIRTH", None)


def frame(*events: tuple, **columns: list) -> pl.DataFrame:
    made = pl.DataFrame(list(events), schema=SCHEMA, orient="row")
    made = made.with_columns(pl.Series(name, values) for name, values in columns.items())
    return made.sort("subject_id", "time", nulls_last=False, maintain_order=True)


def stay(number: int | None, start: str, end: str | None, subject: int = 1, hours: tuple = (8, 16)) -> list[tuple]:
    ends = [(subject, at(end, hours[1]), "HOSPITAL_DISCHARGE//HOME", number)] if end else []
    return [(subject, at(start, hours[0]), "HOSPITAL_ADMISSION//X//Y", number), *ends]


def reasons(*events: tuple, adults: bool = True) -> tuple[list, dict[str, int]]:
    """Return the starts of the stays that can be samples, and what was counted."""
    exclusions = Exclusions()
    kept = usable(read_stays(frame(*events), MEDS), MEDS, exclusions, adults=adults)
    return kept["start"].to_list(), {reason: count for reason, count in exclusions.counts.items() if count}


def test_a_sound_stay_is_kept():
    assert reasons(BORN, *stay(1, "2020-01-01", "2020-01-03")) == ([at("2020-01-01", 8)], {})


@pytest.mark.parametrize(
    ("events", "kept", "counted"),
    [
        ([*stay(1, "2020-01-01", None)], 0, {"no discharge": 1}),
        ([*stay(1, "2020-01-03", "2020-01-01")], 0, {"discharge before the admission": 1}),
        (2 * stay(1, "2020-01-01", "2020-01-03"), 1, {"the same stay a second time": 1}),
        (
            [*stay(1, "2020-01-01", "2020-01-03"), *stay(2, "2020-01-01", "2020-01-03")],
            1,
            {"the same stay a second time": 1},
        ),
        ([*stay(1, "2020-01-01", "2020-01-05"), *stay(2, "2020-01-04", "2020-01-06")], 0, {"overlaps another stay": 2}),
        (
            [
                *stay(1, "2020-01-01", "2020-01-09"),
                *stay(2, "2020-01-02", "2020-01-03"),
                *stay(3, "2020-01-05", "2020-01-06"),
            ],
            0,
            {"overlaps another stay": 3},
        ),
        ([*stay(1, "2020-01-01", "2020-01-03"), *stay(2, "2020-01-03", "2020-01-04", hours=(16, 17))], 2, {}),
        (
            [*stay(1, "2020-01-01", "2020-01-03"), (1, at("2020-01-01", 8), "MEDS_DEATH", None)],
            0,
            {"begins at or after the death": 1},
        ),
        ([*stay(1, "2020-01-01", "2020-01-03"), (1, at("2020-01-01", 9), "MEDS_DEATH", None)], 1, {}),
    ],
)
def test_what_is_left_out(events, kept, counted):
    starts, found = reasons(BORN, *events)
    assert (len(starts), found) == (kept, counted)


def test_minors_are_left_out_of_tasks_of_adults():
    born = (1, at("2002-01-02"), "MEDS_BIRTH", None)
    events = [born, *stay(1, "2020-01-01", "2020-01-05"), *stay(2, "2020-02-01", "2020-02-05")]
    assert reasons(*events) == ([at("2020-02-01", 8)], {"younger than 18 years": 1})
    assert len(reasons(*events, adults=False)[0]) == 2


def test_an_unknown_age_counts_as_adult():
    assert len(reasons(*stay(1, "2020-01-01", "2020-01-05"))[0]) == 1


def test_the_first_reason_counts_alone():
    events = [(1, at("2010-01-01"), "MEDS_BIRTH", None), *stay(1, "2020-01-01", None)]
    assert reasons(*events) == ([], {"no discharge": 1})


def test_stays_without_a_number_end_with_the_next_discharge():
    found = read_stays(frame(*stay(None, "2020-01-01", "2020-01-03"), *stay(None, "2020-02-01", None)), MEDS)
    assert found["end"].to_list() == [at("2020-01-03", 16), None]


def test_a_stay_ends_with_the_latest_discharge_of_its_number():
    events = [*stay(1, "2020-01-01", "2020-01-03"), (1, at("2020-01-04"), "HOSPITAL_DISCHARGE//SNF", 1)]
    found = read_stays(frame(*events), MEDS)
    assert found.select("end", "destination").row(0) == (at("2020-01-04"), "HOSPITAL_DISCHARGE//SNF")


def test_other_patients_are_kept_apart():
    events = [*stay(1, "2020-01-01", "2020-01-09", subject=1), *stay(2, "2020-01-02", "2020-01-03", subject=2)]
    events += [(2, at("2020-01-01"), "MEDS_DEATH", None)]
    assert reasons(*events) == ([at("2020-01-01", 8)], {"begins at or after the death": 1})


def test_events_of_a_stay_have_its_number_or_lie_within_it():
    stays = read_stays(frame(*stay(1, "2020-01-01", "2020-01-03")), MEDS).with_row_index("stay")
    events = frame((1, at("2019-12-01"), "A", 1), (1, at("2020-01-02"), "B", None), (1, at("2020-01-04"), "C", None))
    assert of_stay(events, stays)["code"].to_list() == ["A", "B"]


EICU = read_spelling("eicu")


def test_the_first_stay_in_intensive_care_of_a_hospital_stay_counts():
    """Two units at the same time: the one that ends first is the first."""
    codes = [
        "HOSPITAL_ADMISSION//UNK//ER",
        "ICU_ADMISSION//A",
        "ICU_ADMISSION//B",
        "ICU_DISCHARGE//B",
        "ICU_DISCHARGE//A",
    ]
    times = [at("2020-01-01", hour) for hour in (6, 8, 8, 8, 20)]
    events = [(1, time, code, 1) for time, code in zip(times, codes, strict=True)]
    events += [(1, at("2020-01-03"), "HOSPITAL_DISCHARGE//Home", 1)]
    made = frame(*events, icustay_id=[None, 5, 6, 6, 5, None], hospital_expire_flag=[None] * 5 + [0])
    stays = read_stays(made, EICU)
    assert stays.select("icustay_id", "later_unit").rows() == [(6, False), (5, True)]
    assert stays.select("start", "admitted", "end").row(0) == (times[1], times[0], at("2020-01-03"))
    exclusions = Exclusions()
    assert usable(stays, EICU, exclusions, adults=True)["icustay_id"].to_list() == [6]
    assert exclusions.counts["not the first stay in intensive care of its hospital stay"] == 1


def test_stays_of_unknown_survival_are_left_out():
    events = [(1, at("2020-01-01"), "HOSPITAL_ADMISSION//UNK//ER", 1), (1, at("2020-01-01"), "ICU_ADMISSION//A", 1)]
    events += [(1, at("2020-01-03"), "HOSPITAL_DISCHARGE//Home", 1)]
    for flag, left_out in ((0, 0), (None, 1)):
        made = frame(
            *events, icustay_id=[None, 5, None], hospital_expire_flag=pl.Series([None, None, flag], dtype=pl.Int64)
        )
        exclusions = Exclusions()
        assert len(usable(read_stays(made, EICU), EICU, exclusions, adults=True)) == 1 - left_out
        assert exclusions.counts["survival not known"] == left_out


EHRSHOT = read_spelling("ehrshot")


def test_the_end_of_a_visit_of_ehrshot_is_its_discharge():
    events = [(1, at("2020-01-01"), "Visit/IP", 1), (1, at("2020-01-02"), "Visit/OP", 2)]
    made = frame(*events, end=[at("2020-01-09"), at("2020-01-03")])
    whole = with_discharges(made, EHRSHOT)
    assert whole["time"].is_sorted()
    stays = read_stays(whole, EHRSHOT)
    assert stays.select("start", "end").rows() == [(at("2020-01-01"), at("2020-01-09"))]


def test_visits_without_their_ends_are_refused():
    with pytest.raises(InputError, match="published labels"):
        with_discharges(frame((1, at("2020-01-01"), "Visit/IP", 1)), EHRSHOT)


def test_leap_day_births():
    """Who is born on a 29 February is 18 on the 28 February of other years."""
    born = (1, datetime.datetime(2004, 2, 29), "MEDS_BIRTH", None)
    assert reasons(born, *stay(1, "2022-02-27", "2022-03-05"))[1] == {"younger than 18 years": 1}
    assert reasons(born, *stay(1, "2022-02-28", "2022-03-05"))[1] == {}


@pytest.mark.parametrize("number", [7, None], ids=["hadm_id", "no_hadm_id"])
def test_stays_one_after_the_other_keep_their_own_ends(number):
    """The second begins at the very time of the first discharge, which is not its own."""
    times = [at("2020-01-01"), at("2020-01-05"), at("2020-01-05"), at("2020-01-09")]
    codes = ["HOSPITAL_ADMISSION//URGENT//ER", "HOSPITAL_DISCHARGE//HOME"] * 2
    numbers = [None] * 4 if number is None else [number, number, number + 1, number + 1]
    rows = [(1, time, code, stay) for time, code, stay in zip(times, codes, numbers, strict=True)]
    stays = read_stays(pl.DataFrame(rows, schema=SCHEMA, orient="row"), read_spelling("MEDS"))
    assert stays.select("start", "end").rows() == [(times[0], times[1]), (times[2], times[3])]
    assert not stays["overlaps"].any()
