"""Label functions at the very boundaries of their windows, on one or two stays each."""

import datetime

import polars as pl
import pytest

from eval.ehr.tasks.functions import FUNCTIONS
from eval.ehr.tasks.outcomes import class_of_days
from eval.ehr.tasks.shard import Shard
from eval.ehr.tasks.spelling import read_spelling
from eval.ehr.tasks.stays import Exclusions, read_stays, usable
from tests.helpers.small_visits import SCHEMA

MEDS = read_spelling("MEDS")
START = datetime.datetime(2020, 1, 1, 8)
SECOND = datetime.timedelta(seconds=1)
DAY = datetime.timedelta(days=1)
LAST_MINUTE = datetime.datetime(2020, 1, 1, 23, 59)


def value(function: str, end: datetime.datetime, *others: tuple, to: str = "HOME"):
    """Return the label of a stay from `START` to an end, or the reason for which it is left out."""
    rows = [
        (1, START, "HOSPITAL_ADMISSION//X//Y", 1),
        (1, end, f"HOSPITAL_DISCHARGE//{to}", 1),
        *((1, time, code, stay) for time, code, stay in others),
    ]
    events = pl.DataFrame(rows, schema=SCHEMA, orient="row").sort("subject_id", "time", maintain_order=True)
    events = events.with_columns(text_value=pl.lit(None, pl.String))
    shard = Shard(events, read_stays(events, MEDS).with_row_index("stay"), MEDS)
    exclusions = Exclusions()
    samples = FUNCTIONS[function](shard, usable(shard.stays, MEDS, exclusions, adults=True), exclusions)
    mine = samples.filter(pl.col("hadm_id") == 1)
    if len(mine):
        return mine["value"].to_list()[0]
    return next(reason for reason, count in exclusions.counts.items() if count)


def again(time: datetime.datetime) -> list[tuple]:
    return [(time, "HOSPITAL_ADMISSION//X//Y", 2), (time + 40 * DAY, "HOSPITAL_DISCHARGE//HOME", 2)]


SHORT = "24 hours or less in hospital"


@pytest.mark.parametrize(
    ("function", "end", "others", "expected"),
    [
        ("died_in_stay", START + DAY, [], SHORT),
        ("died_in_stay", START + DAY + SECOND, [], False),
        ("died_in_stay", START + 3 * DAY, [(START + DAY, "MEDS_DEATH", None)], SHORT),
        ("died_in_stay", START + 3 * DAY, [(START + DAY + SECOND, "MEDS_DEATH", None)], True),
        ("died_in_stay", START + 3 * DAY, [(START + 3 * DAY, "MEDS_DEATH", None)], True),
        ("died_in_stay", START + 3 * DAY, [(START + 3 * DAY + SECOND, "MEDS_DEATH", None)], False),
        ("long_stay", START + 7 * DAY, [], False),
        ("long_stay", START + 7 * DAY + SECOND, [], True),
        ("stay_classes", START + 2 * DAY - SECOND, [], 1),
        ("stay_classes", START + 2 * DAY, [], 2),
        ("stay_classes", START + 8 * DAY, [], 8),
        ("stay_classes", START + 15 * DAY - SECOND, [], 8),
        ("stay_classes", START + 15 * DAY, [], 9),
        ("entered_icu", LAST_MINUTE, [], "discharged or dead on the day of admission"),
        ("entered_icu", START + 3 * DAY, [], False),
        (
            "entered_icu",
            START + 3 * DAY,
            [(LAST_MINUTE, "ICU_ADMISSION//A", 1)],
            "in intensive care on the day of admission",
        ),
        ("entered_icu", START + 3 * DAY, [(LAST_MINUTE + SECOND, "ICU_ADMISSION//A", 1)], True),
        ("entered_icu", START + 3 * DAY, [(START + 3 * DAY, "ICU_ADMISSION//A", 1)], True),
        ("entered_icu", START + 3 * DAY, [(START + 3 * DAY + SECOND, "ICU_ADMISSION//A", 1)], False),
        ("entered_icu", START + 3 * DAY, [(LAST_MINUTE + SECOND, "ICU_ADMISSION//A", 2)], False),
        ("readmitted", START + DAY, again(START + 31 * DAY), True),
        ("readmitted", START + DAY, again(START + 31 * DAY + SECOND), False),
        ("readmitted", START + DAY, again(START + DAY), "admitted again on the day of the discharge"),
        (
            "readmitted",
            START + DAY,
            again(datetime.datetime(2020, 1, 2, 23, 59)),
            "admitted again on the day of the discharge",
        ),
        ("readmitted", START + DAY, again(datetime.datetime(2020, 1, 3)), True),
        ("readmitted", START + DAY, [(START + DAY, "MEDS_DEATH", None)], "died in hospital"),
        (
            "readmitted",
            START + DAY,
            [(START + 31 * DAY, "MEDS_DEATH", None)],
            "died within 30 days after the discharge",
        ),
        ("readmitted", START + DAY, [(START + 31 * DAY + SECOND, "MEDS_DEATH", None)], False),
        ("readmitted_or_dead", START + DAY, [(START + 31 * DAY, "MEDS_DEATH", None)], False),
    ],
)
def test_boundaries(function, end, others, expected):
    assert value(function, end, *others) == expected


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("DIED", "died in hospital"),
        ("DEAD/EXPIRED", "died in hospital"),
        ("HOSPICE-HOME", "discharged to a hospice"),
        ("SHORT TERM HOSPITAL", "transferred to another hospital"),
        ("DISC-TRAN CANCER/CHLDRN H", "transferred to another hospital"),
        ("ACUTE HOSPITAL", "transferred to another hospital"),
        ("REHAB/DISTINCT PART HOSP", False),
        ("LONG TERM CARE HOSPITAL", False),
        ("SNF", False),
    ],
)
def test_destinations(place, expected):
    assert value("readmitted", START + DAY, to=place) == expected


@pytest.mark.parametrize(
    ("hours", "expected"),
    [([24], False), ([25], True), ([24, 25], False), ([-1, 25], False), ([48], True), ([49], False)],
)
def test_a_drug_counts_if_it_is_first_ordered_after_a_day(hours, expected):
    """The stay lasts 48 hours; an order of the stay before its admission counts as early."""
    others = [(START + datetime.timedelta(hours=hour), "MEDICATION//START//Heparin", 1) for hour in hours]
    assert value("first_orders", START + 2 * DAY, *others) == [False, False, expected, False, False]


def test_an_order_without_a_time_of_day_is_not_after_a_time_of_its_day():
    """It stands at the end of its day, or at a discharge of that day."""
    heparin = "MEDICATION//START//Heparin"
    day = datetime.datetime.combine((START + DAY).date(), datetime.time())
    bare = day + datetime.timedelta(hours=23, minutes=59, seconds=59)
    timed = (START + DAY + datetime.timedelta(hours=1), heparin, 1)
    assert not any(value("first_orders", START + 3 * DAY, (bare, heparin, 1)))
    assert not any(value("first_orders", START + 3 * DAY, (bare, heparin, 1), timed))
    assert any(value("first_orders", START + 3 * DAY, timed))
    assert any(value("first_orders", START + 3 * DAY, (bare + DAY, heparin, 1)))
    leaves = START + DAY + datetime.timedelta(hours=2)
    assert leaves.date() == day.date()
    assert not any(value("first_orders", leaves, (leaves, heparin, 1)))


def test_phenotypes_of_earlier_stays_are_not_new():
    """Shock was there before; hypertension is coded at the very admission, which is not before it."""
    later = [(START + 10 * DAY, "HOSPITAL_ADMISSION//X//Y", 2), (START + 12 * DAY, "HOSPITAL_DISCHARGE//HOME", 2)]
    codes = [
        (START + DAY, "ICD9CM/785.51", 1),
        *((START + 12 * DAY, code, 2) for code in ("ICD9CM/785.52", "ICD9CM/401.9")),
    ]
    rows = [(1, time, code, stay) for time, code, stay in [(START, "HOSPITAL_ADMISSION//X//Y", 1), *codes, *later]]
    rows += [(1, START + DAY, "HOSPITAL_DISCHARGE//HOME", 1), (1, START + 10 * DAY, "ICD9CM/401.9", None)]
    events = pl.DataFrame(rows, schema=SCHEMA, orient="row").sort("subject_id", "time", maintain_order=True)
    shard = Shard(events, read_stays(events, MEDS).with_row_index("stay"), MEDS)
    found = {}
    for name in ("phenotypes", "new_phenotypes"):
        samples = FUNCTIONS[name](shard, usable(shard.stays, MEDS, Exclusions(), adults=True), Exclusions())
        assert samples["prediction_time"].to_list() == [START + 10 * DAY]
        found[name] = {place for place, is_true in enumerate(samples["value"].to_list()[0]) if is_true}
    # Shock is the last of the 25, essential hypertension the fourteenth.
    assert found == {"phenotypes": {13, 24}, "new_phenotypes": {13}}


def test_classes_of_days():
    days = pl.DataFrame({"days": range(17)}).select(class_of_days(pl.col("days"))).to_series().to_list()
    assert days == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8, 8, 8, 9, 9]
