"""Contradictions in MIMIC, each in a patient made by hand, and times of events of random stays."""

import json
import random
from datetime import datetime, time, timedelta

import polars as pl
import pytest

from preprocessing.common.errors import InputError
from preprocessing.meds import convert as converter
from preprocessing.meds.contradictions import LISTED, RULES, Contradictions
from preprocessing.meds.conversion import faults, refuse_faults
from tests.helpers import mimic_copies
from tests.helpers.meds_events import events_of

LAST = time(23, 59, 59)
# Two rows of admissions, the diagnosis of a stay without any time, and an admission without time beside its discharge.
STRICT = (
    r"^4 rows or values were rejected or repaired, most of all 1 of ADMISSIONS\.csv \(no hadm_id\), and --strict"
    r" does not allow that; convert without it to see all\.$"
)


def run(source, output, **options):
    return converter.convert(converter.MedsRequest(source, output, progress=False, **options))


def stay(subject, hadm, admitted, left, died="", flag=0, **others):
    """A row of admissions; times are given without the month 2150-01."""
    times = {"admittime": admitted, "dischtime": left, "deathtime": died}
    times = {name: f"2150-01-{value}:00" if value else "" for name, value in times.items()}
    return {
        **{"subject_id": subject, "hadm_id": hadm, "admission_type": "URGENT", "hospital_expire_flag": flag},
        **{**times, **others},
    }


def patient(subject, dod="", **others):
    dod = f"2150-01-{dod} 00:00:00" if dod else ""
    return {"subject_id": subject, "gender": "F", "dob": "2100-01-01 00:00:00", "dod": dod, **others}


# Of each patient the number is that of the stay, and with it 1 of the second stay.
HAND = {
    "PATIENTS": [
        *(patient(1, "05"), patient(2, "06"), patient(3, "09"), patient(4, "05"), patient(5, "03"), patient(6, "05")),
        *(
            patient(7),
            patient(8),
            patient(9),
            patient(10, "02"),
            patient(11),
            patient(12, "07"),
            patient(13, gender=""),
        ),
        *(patient(14, dob=""), patient(15, "03"), patient(16, "04"), patient(17), patient(18), patient(19, "06")),
        *(patient(20, "05", dob="2150-01-20 00:00:00"), patient(21, gender="", dob=""), patient(22)),
    ],
    "ADMISSIONS": [
        stay(1, 100, "01 08:00", "05 00:00", "05 21:30", 1),
        stay(2, 200, "01 08:00", "05 23:00", "06 01:00", 1),
        stay(3, 300, "01 08:00", "05 10:00", "09 10:00", 1),
        stay(4, 400, "01 08:00", "05 15:00", "", 1),  # The day of dod ends after the discharge.
        stay(5, 500, "01 08:00", "05 15:00", "", 1),
        stay(6, 600, "01 08:00", "05 15:00", "05 15:00", 0),
        stay(7, 700, "05 12:00", "05 09:00"),  # Its last event is the end of a stay in intensive care.
        stay(8, 800, "01 08:00", "", discharge_location="DEAD/EXPIRED"),  # Nothing tells when it ended.
        stay(9, 900, "01 08:00", ""),  # Its last event is a service of a day.
        stay(10, 1000, "01 08:00", "02 10:00", "02 10:00", 1),
        stay(10, 1001, "02 11:00", "03 12:00", "02 10:00", 1),  # Organs are donated after death.
        stay(11, 1100, "01 08:00", "02 08:00"),
        stay(11, "", "03 08:00", "03 10:00", "03 10:00", 1),
        stay(12, 1200, "01 08:00", "05 15:00", "05 15:00", 1),
        stay(15, 1500, "01 08:00", "05 15:00"),
        stay(16, 1600, "01 08:00", "04 15:00", "04 15:00", 1),
        stay(16, 1601, "05 08:00", "06 15:00", "06 15:00", 1),
        stay(17, 1700, "", "04 15:00"),
        stay(18, 1800, "", ""),
        stay(19, 1900, "01 08:00", "08 15:00", "05 15:00", 1),
        stay(20, 2000, "01 08:00", "05 15:00", "05 15:00", 1),
        stay(22, 2200, "01 08:00", "", edouttime="2150-01-02 03:00:00"),
    ],
    "DIAGNOSES_ICD": [
        {"subject_id": hadm // 100, "hadm_id": hadm, "seq_num": 1, "icd9_code": "25000"}
        for hadm in (100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1001, 1200, 1700, 1800, 2200)
    ],
    "ICUSTAYS": [
        {
            **{"subject_id": 7, "hadm_id": 700, "icustay_id": 7, "first_careunit": "MICU", "last_careunit": "MICU"},
            **{"intime": "2150-01-05 12:30:00", "outtime": "2150-01-06 10:00:00"},
        }
    ],
    "CPTEVENTS": [{"subject_id": 9, "hadm_id": 900, "chartdate": "2150-01-04 00:00:00", "cpt_cd": "99232"}],
    "LABEVENTS": [
        {"subject_id": 7, "hadm_id": 700, "itemid": 1, "charttime": "2150-01-06 11:00:00"},  # After its stay.
        {"subject_id": 9, "hadm_id": 900, "itemid": 1, "charttime": "2150-01-04 08:00:00"},
        {"subject_id": 9, "hadm_id": 900, "itemid": 1, "charttime": "2149-12-31 08:00:00"},  # Before its stay.
        {"subject_id": 1, "hadm_id": 100, "itemid": 1, "charttime": "2150-01-06 08:00:00"},  # After stay and death.
    ],
}


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hand")
    return run(mimic_copies.write(folder / "in", "mimic3", rows=HAND), folder / "out")


def times(frame, code, key="subject_id"):
    """The times of all events that begin with a code, by patient or stay, without the month."""
    found = frame.filter(pl.col("code").str.starts_with(code)).select(key, "time").iter_rows()
    return {number: f"{moment:%d %H:%M:%S}" for number, moment in found}


def test_stays_end_and_patients_die_by_the_stated_rules(by_hand):
    frame = events_of(by_hand.output)
    ends = {
        **{100: "05 21:30:00", 200: "06 01:00:00", 300: "09 10:00:00", 400: "05 15:00:00", 500: "05 15:00:00"},
        **{600: "05 15:00:00", 700: "06 10:00:00", 1000: "02 10:00:00", 1001: "03 12:00:00", 1200: "05 15:00:00"},
        1700: "04 15:00:00",
    }
    discharges = times(frame, "HOSPITAL_DISCHARGE", "hadm_id")
    assert {hadm: discharges[hadm] for hadm in ends} == ends
    assert discharges.keys().isdisjoint({800, 900, 1800, 2200})  # No discharge is recorded.
    assert discharges[1900] == "08 15:00:00"
    assert times(frame, "ICD9CM/", "hadm_id") == ends | {800: "01 23:59:59", 900: "04 23:59:59", 2200: "02 03:00:00"}
    assert times(frame, "MEDS_DEATH") == {
        **{1: "05 21:30:00", 2: "06 01:00:00", 3: "09 10:00:00", 4: "05 15:00:00", 5: "03 23:59:59", 6: "05 15:00:00"},
        **{10: "02 10:00:00", 11: "03 10:00:00", 12: "05 15:00:00", 15: "03 23:59:59", 16: "04 15:00:00"},
        **{19: "05 15:00:00", 20: "05 15:00:00"},
    }
    first = frame.filter((pl.col("subject_id") == 1) & (pl.col("time") == datetime(2150, 1, 5, 21, 30)))
    assert first["code"].to_list() == ["MEDS_DEATH", "HOSPITAL_DISCHARGE//UNK", "ICD9CM/250.00"]


def test_nobody_who_died_in_hospital_is_discharged_before(by_hand):
    frame = events_of(by_hand.output)
    deaths = frame.filter(pl.col("code") == "MEDS_DEATH").select("subject_id", died="time")
    flagged = frame.with_row_index().filter(pl.col("hospital_expire_flag") == 1).join(deaths, on="subject_id")
    assert len(flagged) == 12
    assert (flagged["time"] >= flagged["died"]).all()


def test_contradictions_are_counted_with_their_lines_and_the_rule(by_hand):
    found = {entry["kind"]: entry for entry in by_hand.about["contradictions"]}
    assert {kind: entry["count"] for kind, entry in found.items()} == {
        "deathtime after dischtime, on the same day": 1,
        "deathtime after dischtime, up to 24 hours": 1,
        "deathtime after dischtime, more than 24 hours": 1,
        "deathtime more than 24 hours before dischtime": 2,
        "deathtime before admittime": 1,
        "deathtime in a row without hadm_id": 1,
        "deathtime without hospital_expire_flag": 1,
        "hospital_expire_flag without deathtime": 2,
        "discharge_location of a death without hospital_expire_flag": 1,
        "dischtime before admittime": 1,
        "no dischtime": 4,
        "end of the stay from its last event": 3,
        "end of the stay from its day of admission": 1,
        "no end of the stay": 1,
        "no admittime": 2,
        "stay begins after death": 2,
        "several deathtimes": 1,
        "deathtime without dod": 1,
        "dod and deathtime differ by one day": 1,
        "dod and deathtime differ by more than one day": 1,
        "dod during a stay that was survived": 1,
        "no gender": 2,
        "no birth": 2,
        "birth after an admission or death": 1,
        "events before their stay": 1,
        "events after their stay": 2,
        "events after death": 4,
    }
    assert found.keys() == RULES.keys()
    assert all(entry["rule"] == RULES[kind].done for kind, entry in found.items())
    assert found["no dischtime"]["lines"] == [9, 10, 20, 23]
    assert found["no gender"]["lines"] == [14, 22]
    # A laboratory value of patient 1, the admissions of the dead patients 10 and 16, and the birth of patient 20.
    assert found["events after death"]["tables"] == {"admissions": 2, "labevents": 1, "patients": 1}
    stored = json.loads((by_hand.output / "metadata" / "conversion.json").read_text())
    assert stored["contradictions"] == by_hand.about["contradictions"]


def test_every_row_is_accounted_for(by_hand):
    rows = {name: counts for name, counts in by_hand.about["tables"].items() if counts["rows"]}
    names = ("rows", "with_events", "rejected", "absorbed", "unaccounted")
    assert {name: [counts[column] for column in names] for name, counts in rows.items()} == {
        "admissions": [22, 20, 2, 0, 0],  # One names no stay, one has no time.
        "patients": [22, 21, 0, 1, 0],  # Of one nothing is known.
        "diagnoses_icd": [15, 14, 1, 0, 0],  # Its stay has no time.
        "icustays": [1, 1, 0, 0, 0],
        "cptevents": [1, 1, 0, 0, 0],
        "labevents": [4, 4, 0, 0, 0],
    }


def test_patients_of_mimic4_without_an_anchor_have_no_birth(tmp_path):
    source = mimic_copies.write(tmp_path / "in", "mimic4")
    path = source / "hosp" / "patients.csv"
    path.write_text(path.read_text().replace(",52,2180,", ",,2180,").replace(",M,30,", ",,30,"))
    done = run(source, tmp_path / "out")
    found = {entry["kind"]: entry["lines"] for entry in done.about["contradictions"]}
    assert (found["no birth"], found["no gender"]) == ([2], [4])
    births = events_of(done.output).filter(pl.col("code") == "MEDS_BIRTH")["subject_id"]
    assert births.to_list() == [10000022, 10000023]
    assert done.about["patients"] == 3


def test_faults_are_worded_one_by_one():
    tables = {"labevents": {"file": "LABEVENTS.csv", "unaccounted": 3}, "omr": {"file": "OMR.csv", "unaccounted": 0}}
    about = {"tables": tables, "rejected": 0, "contradictions": [], "checksums": None}
    assert faults(about) == ["LABEVENTS.csv has 3 rows that were not accounted for."]
    with pytest.raises(
        InputError, match=r"^LABEVENTS\.csv has 3 rows that were not accounted for, and --strict does not"
    ):
        refuse_faults(about)
    about["checksums"] = {"list": "SHA256SUMS.txt", "differ": [f"{number}.csv" for number in range(10)]}
    assert faults(about)[1].endswith(": 0.csv, 1.csv, 2.csv, 3.csv, 4.csv, 5.csv, 6.csv, 7.csv and 2 more.")


def test_a_table_whose_rows_are_all_rejected_is_accounted_for(tmp_path):
    bad = {"LABEVENTS": [{"subject_id": 999, "hadm_id": 100, "itemid": 1, "charttime": "2150-01-01 00:00:00"}]}
    bad["DIAGNOSES_ICD"] = [{"subject_id": 1, "hadm_id": 5555, "seq_num": 1, "icd9_code": "25000"}]
    done = run(mimic_copies.write(tmp_path / "in", "mimic3", rows={**HAND, **bad}), tmp_path / "out")
    for name in ("labevents", "diagnoses_icd"):
        counts = done.about["tables"][name]
        assert [counts[column] for column in ("rows", "with_events", "rejected", "unaccounted")] == [1, 0, 1, 0]
    kinds = {(entry["file"], entry["kind"]) for entry in done.about["rejected_kinds"]}
    assert {("LABEVENTS.csv", "no such patient"), ("DIAGNOSES_ICD.csv", "no such stay")} <= kinds


def test_lines_of_a_kind_are_listed_up_to_a_number():
    found = Contradictions()
    for first in (2, 32):
        found.add_rows("admissions", pl.DataFrame({"line": range(first, first + 30)}), {"no admittime": pl.lit(True)})
    (entry,) = found.summary()
    assert (entry["count"], entry["lines"]) == (60, list(range(2, 2 + LISTED)))


@pytest.mark.parametrize("version", ["mimic3", "mimic4"])
@pytest.mark.parametrize("lab_time", ["store", "chart"])
def test_no_event_is_earlier_than_the_time_of_its_row(version, lab_time, tmp_path):
    """Random stays, half of them with an end before their admission, none, or a death; an oracle in plain Python."""
    random_rows = _RandomRows(version, random.Random(version + lab_time))
    source = mimic_copies.write(tmp_path / "in", version, rows=random_rows.tables)
    done = run(source, tmp_path / "out", lab_time=lab_time)
    frame = events_of(done.output)
    ends, events = {}, {}
    for hadm, code, moment in frame.select("hadm_id", "code", "time").iter_rows():
        events.setdefault(hadm, []).append((code, moment))
        if code == "ICD9CM/250.00":
            ends[hadm] = moment
    assert ends.keys() == random_rows.stays.keys()
    moved = 0
    for hadm, (admitted, left, died) in random_rows.stays.items():
        known = max((moment for moment in (left, died) if moment), default=None)
        if known and known >= admitted:
            assert ends[hadm] == known
        elif left is None:
            assert ends[hadm] >= max(moment for code, moment in events[hadm]) >= admitted
        else:  # Tables of orders and values do not tell how long such a stay lasted.
            assert ends[hadm] == datetime.combine(admitted, LAST)
    for hadm, code, kind, carried in random_rows.carried:
        found = [moment for name, moment in events[hadm] if name == code]
        assert len(found) == 1, code
        if kind == "moment":
            assert found == [carried]
        elif kind == "lab":
            charted, stored = carried
            assert found == [max(charted, stored) if lab_time == "store" else charted]
        else:
            end_of_day = datetime.combine(carried, LAST)
            bounded = ends[hadm] if ends[hadm].date() == carried else end_of_day
            assert found == [bounded]
            moved += bounded != end_of_day
    assert moved > 10
    assert all(counts["unaccounted"] == 0 for counts in done.about["tables"].values())
    assert done.about["rejected"] == 0


class _RandomRows:
    """Tables of random stays of a version, and the times that their rows carry."""

    def __init__(self, version, draw, count=150):
        self.draw = draw
        self.stays, self.carried = {}, []
        third = version == "mimic3"
        folder = "" if third else "hosp/"
        tables = {name: [] for name in ("patients", "admissions", "diagnoses_icd", "prescriptions", "labevents")}
        services = "cptevents" if third else "hcpcsevents"
        tables[services] = []
        for number in range(1, count + 1):
            subject, hadm = {"subject_id": number}, {"subject_id": number, "hadm_id": number}
            admitted = datetime(2150, 1, 1) + timedelta(minutes=draw.randrange(10_000))
            left = draw.choice([None, *[admitted + timedelta(minutes=draw.randrange(-2000, 9000))] * 4])
            died = draw.choice([None, *[admitted + timedelta(minutes=draw.randrange(0, 9000))]])
            self.stays[number] = (admitted, left, died)
            ages = {"dob": "2100-01-01 00:00:00"} if third else {"anchor_age": 50, "anchor_year": 2150}
            tables["patients"].append({**subject, "gender": "F", **ages})
            row = {"admittime": admitted, "dischtime": left or "", "deathtime": died or ""}
            tables["admissions"].append({**hadm, **row, "hospital_expire_flag": int(bool(died))})
            code = {"icd9_code": "25000", "icd_code": "25000", "icd_version": 9}
            tables["diagnoses_icd"].append({**hadm, "seq_num": 1, **code})
            for item in range(3):
                starts = self.around(admitted)
                if third:
                    starts = starts.replace(hour=0, minute=0)
                self.expect(number, f"MEDICATION//START//d{item}", starts, is_date=third)
                drug = {"drug": f"d{item}", "startdate": starts, "starttime": starts}
                tables["prescriptions"].append({**hadm, **drug})
                billed = self.around(admitted).date()
                self.expect(number, f"CPT4/9923{item}", billed, is_date=True)
                tables[services].append(
                    {**hadm, "chartdate": billed, "cpt_cd": f"9923{item}", "hcpcs_cd": f"9923{item}"}
                )
                charted = self.around(admitted)
                stored = charted + timedelta(minutes=draw.randrange(-60, 3000))
                lab = {"itemid": item, "charttime": charted, "storetime": stored}
                # MIMIC-III does not tell when a value was stored.
                known = (charted, charted if third else stored)
                self.carried.append((number, f"LAB//{item}//UNK", "lab", known))
                tables["labevents"].append({**hadm, **lab})
        names = {name: name.upper() if third else f"{folder}{name}" for name in tables}
        self.tables = {names[name]: rows for name, rows in tables.items()}

    def around(self, admitted):
        return admitted + timedelta(minutes=self.draw.randrange(-3000, 9000))

    def expect(self, hadm, code, moment, *, is_date):
        day = moment.date() if isinstance(moment, datetime) else moment
        self.carried.append((hadm, code, "date" if is_date else "moment", day if is_date else moment))


def test_exact_times_in_a_column_of_dates_stay(tmp_path):
    rows = {
        **{"PATIENTS": [patient(1)], "ADMISSIONS": [stay(1, 100, "01 08:00", "05 10:00")]},
        "DIAGNOSES_ICD": [{"subject_id": 1, "hadm_id": 100, "seq_num": 1, "icd9_code": "25000"}],
        "PRESCRIPTIONS": [
            {"subject_id": 1, "hadm_id": 100, "startdate": "2150-01-05 18:00:00", "drug": "exact"},
            {"subject_id": 1, "hadm_id": 100, "startdate": "2150-01-05 00:00:00", "drug": "day"},
        ],
    }
    frame = events_of(run(mimic_copies.write(tmp_path / "in", "mimic3", rows=rows), tmp_path / "out").output)
    assert times(frame, "MEDICATION//START//exact") == {1: "05 18:00:00"}
    assert times(frame, "MEDICATION//START//day") == {1: "05 10:00:00"}


def test_the_last_second_of_a_day_is_a_time_like_others_in_mimic4(tmp_path):
    source = mimic_copies.write(tmp_path / "in", "mimic4")
    path = source / "hosp" / "prescriptions.csv"
    path.write_text(path.read_text().replace("2150-03-03 18:30:00", "2150-03-03 23:59:59"))
    frame = events_of(run(source, tmp_path / "out").output).filter(pl.col("code") == "MEDICATION//START//NS")
    assert frame["time"].to_list() == [datetime(2150, 3, 1, 11), datetime(2150, 3, 3, 23, 59, 59)]


def test_the_order_of_rows_changes_nothing(by_hand, tmp_path):
    backwards = {table: rows[::-1] for table, rows in HAND.items()}
    done = run(mimic_copies.write(tmp_path / "in", "mimic3", rows=backwards), tmp_path / "out", subjects_per_shard=4)
    order = ["subject_id", "time", "code", "hadm_id"]
    assert events_of(done.output).sort(order).equals(events_of(by_hand.output).sort(order))
    counts = [{entry["kind"]: entry["tables"] for entry in each.about["contradictions"]} for each in (done, by_hand)]
    assert counts[0] == counts[1]


def test_strict_writes_nothing_and_says_why(tmp_path):
    source = mimic_copies.write(tmp_path / "in", "mimic3", rows=HAND)
    with pytest.raises(InputError, match=STRICT):
        run(source, tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()
    sound = {**HAND, "ADMISSIONS": [row for row in HAND["ADMISSIONS"] if row["hadm_id"] in (100, 200)]}
    sound["PATIENTS"] = [row for row in HAND["PATIENTS"] if row["subject_id"] in (1, 2)]
    sound |= {"DIAGNOSES_ICD": HAND["DIAGNOSES_ICD"][:2], "ICUSTAYS": [], "CPTEVENTS": [], "LABEVENTS": []}
    source = mimic_copies.write(tmp_path / "in", "mimic3", rows=sound)
    assert run(source, tmp_path / "out", strict=True).about["rejected"] == 0  # Both contradictions are resolved.
    sound["PATIENTS"] = [{**row, "gender": ""} for row in sound["PATIENTS"]]
    source = mimic_copies.write(tmp_path / "in", "mimic3", rows=sound)
    assert not run(source, tmp_path / "out").done_already
    with pytest.raises(InputError, match=r"have no resolution: no gender \(2\), and --strict does not allow that"):
        run(source, tmp_path / "out", strict=True)
    assert run(source, tmp_path / "out").done_already


def test_a_discharge_to_death_without_the_flag_is_counted(tmp_path):
    """The place alone says it, in the spelling of either version; a deathtime or the flag makes it no contradiction."""
    rows = {
        "PATIENTS": [patient(number) for number in range(1, 6)],
        "ADMISSIONS": [
            stay(1, 100, "01 08:00", "05 15:00", discharge_location="DEAD/EXPIRED"),
            stay(2, 200, "01 08:00", "05 15:00", discharge_location="Died", hospital_expire_flag=""),
            stay(3, 300, "01 08:00", "05 15:00", "05 15:00", 0, discharge_location="DIED"),
            stay(4, 400, "01 08:00", "05 15:00", "", 1, discharge_location="DIED"),
            stay(5, 500, "01 08:00", "05 15:00", discharge_location="HOME"),
        ],
    }
    done = run(mimic_copies.write(tmp_path / "in", "mimic3", rows=rows), tmp_path / "out")
    found = {entry["kind"]: entry["lines"] for entry in done.about["contradictions"]}
    assert found["discharge_location of a death without hospital_expire_flag"] == [2, 3]
    assert set(times(events_of(done.output), "MEDS_DEATH")) == {3, 4}
