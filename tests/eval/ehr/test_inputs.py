"""Histories and what samples see of them, against a plain loop over the events of random patients."""

import datetime
import gc
import random
import weakref

import numpy as np
import polars as pl
import pytest

from eval.ehr.history import open_histories
from eval.ehr.inputs import BEDSIDE, BEFORE, CODED, INPUT_RULES, bags, make_inputs, sequences, statics
from eval.ehr.tasks.spelling import read_spelling
from medtok_jax.records.samples import Labels
from preprocessing.common.errors import InputError
from preprocessing.meds.dataset import MedsDataset
from tests.helpers import small_visits
from tests.helpers.small_visits import at

SPELLING = read_spelling("MEDS")
PROCEDURES_OF_SYSTEMS = ["ICD10PCS/0016070", "CPT4/99213"]
PROCEDURES = [*PROCEDURES_OF_SYSTEMS, "PROCEDURE//dialysis"]
DIAGNOSES = ["ICD10CM/E11.9", "ICD9CM/250.00", "DIAGNOSIS//ICD//10//I10", "DIAGNOSIS//sepsis"]
OTHERS = ["NDC/00002143380", "MEDICATION//HICL//7", "LAB//1//mg", "ICU_ADMISSION//MICU"]
HIDDEN = [
    "MEDS_DEATH",
    "HOSPITAL_DISCHARGE//DIED",
    "ICU_DISCHARGE//MICU",
    "DRG//HCFA//1",
    "TRANSFER_TO//discharge//UNK",
]
SPOKEN = ["TRANSFER_TO//admit//MICU", "HOSPITAL_ADMISSION//URGENT//ER", "DRUGS"]


def random_events(seed: int) -> list:
    """Return events of 12 patients at few distinct hours, so that many are simultaneous."""
    rng = random.Random(seed)
    events = []
    for subject in range(1, 13):
        events += [(subject, None, f"GENDER//{rng.choice('FM')}", None), (subject, None, "RACE//X", None)]
        if subject > 2:
            events.append((subject, at(f"19{rng.randrange(10, 99)}-01-01"), "MEDS_BIRTH", None))
        for _ in range(rng.randrange(1, 40)):
            stay = rng.choice([None, subject * 10, subject * 10 + 1])
            time = at(f"2020-01-0{rng.randrange(1, 5)}", rng.choice([0, 8]))
            events.append((subject, time, rng.choice(DIAGNOSES + OTHERS + PROCEDURES + HIDDEN + SPOKEN), stay))
    return events


def first_event(mine: list, kind: str, stay: int | None) -> datetime.datetime | None:
    """Return the time of the first admission or discharge of a stay, None without any."""
    return min((time for _, time, code, of in mine if code.startswith(kind) and of == stay), default=None)


def stays_of(mine: list) -> list[tuple]:
    """Return admission and discharge of every stay; without a number it ends at the latest where the next begins."""
    numbers = {of for *_, of in mine if of is not None}
    found = [tuple(first_event(mine, f"HOSPITAL_{kind}", of) for kind in ("ADMISSION", "DISCHARGE")) for of in numbers]
    for _, start, code, of in mine:
        if code.startswith("HOSPITAL_ADMISSION") and of is None:
            after = [t for _, t, name, of in mine if name.startswith("HOSPITAL_DISCHARGE") and of is None and t > start]
            after += [
                t for _, t, name, of in mine if name.startswith("HOSPITAL_ADMISSION") and of is None and t > start
            ]
            found.append((start, min(after, default=None)))
    return [(start, end) for start, end in found if start is not None]


def stay_of(mine: list, time: datetime.datetime, stay: int | None) -> tuple:
    """Return whether an event is of a stay, and its discharge; without a number, of the last that has begun."""
    if stay is not None:
        return True, first_event(mine, "HOSPITAL_DISCHARGE", stay)
    never = datetime.datetime.max
    start, end = max(((start, end or never) for start, end in stays_of(mine) if start <= time), default=(None, never))
    if start is None or time > end:
        return False, None
    return True, None if end == never else end


def visible(events: list, subject: int) -> list[tuple]:
    """Return time, whether it is coded, place, code, and stay or day of a patient's events in order."""
    mine = [event for event in events if event[0] == subject and event[1] is not None]
    found = []
    for place, (_, time, code, stay) in enumerate(mine):
        if code in HIDDEN or code == "MEDS_BIRTH":
            continue
        is_of_stay, end = stay_of(mine, time, stay)
        day = time.date() if stay is None else stay
        if code in PROCEDURES_OF_SYSTEMS and is_of_stay:
            if end is None:
                continue
            time = max(time, end)
        coded = code in DIAGNOSES + PROCEDURES and end is not None and time >= end
        found.append((time, coded, place, code, day))
    return sorted(found, key=lambda one: one[:3])


def seen(events: list, subject: int, time: datetime.datetime, rule: str) -> list[tuple]:
    found = visible(events, subject)
    uncoded = time - datetime.timedelta(days=1)
    found = [one for one in found if not (rule != CODED and one[1] and one[0] >= uncoded)]
    return until(found, time, rule)


def until(events: list[tuple], time: datetime.datetime, rule: str) -> list[tuple]:
    return [one for one in events if one[0] < time or (one[0] == time and rule != BEFORE)]


@pytest.fixture(params=[0, 1])
def records(request, tmp_path):
    events = sorted(random_events(request.param), key=lambda one: (one[0], one[1] or datetime.datetime.min))
    root = small_visits.write(tmp_path / "meds", events, files=3)
    histories = open_histories(MedsDataset.open(root), SPELLING, tmp_path / "histories", progress=False)
    times = [at(f"2020-01-0{day}", hour) for day in range(1, 5) for hour in (0, 8)]
    rows = [(subject, time) for subject in range(1, 13) for time in times]
    subject, time = (np.array(column) for column in zip(*rows, strict=True))
    return events, histories, Labels(subject, time.astype("datetime64[us]"), np.zeros(len(rows)))


@pytest.mark.parametrize("rule", INPUT_RULES)
def test_samples_see_what_a_loop_finds(records, rule):
    events, histories, labels = records
    inputs = make_inputs(histories, labels, rule)
    counts = bags(inputs).toarray()
    for sample in range(len(labels)):
        subject, time = int(labels.subject[sample]), labels.time[sample].astype(object)
        # But where all codes are seen, some of the slice is masked.
        sliced = until(visible(events, subject), time, rule)
        part = slice(inputs.start[sample], inputs.stop[sample])
        assert histories.codes[histories.code[part]].tolist() == [one[3] for one in sliced]
        assert histories.time[part].astype(object).tolist() == [one[0] for one in sliced]
        assert histories.coded[part].tolist() == [one[1] for one in sliced]
        codes = [one[3] for one in seen(events, subject, time, rule)]
        assert counts[sample].tolist() == [codes.count(code) for code in histories.codes]
    assert not set(histories.codes) & set(HIDDEN)
    assert {"DRUGS", *SPOKEN} <= set(histories.codes), "names that begin alike stay"


@pytest.mark.parametrize("name", ["code.npy", "time.npy", "codes.parquet"])
@pytest.mark.parametrize("damage", ["truncated", "absent"])
def test_damaged_histories_are_made_anew(tmp_path, name, damage):
    events = sorted(random_events(0), key=lambda one: (one[0], one[1] or datetime.datetime.min))
    dataset = MedsDataset.open(small_visits.write(tmp_path / "meds", events, files=3))
    folder = tmp_path / "histories"
    open_histories(dataset, SPELLING, folder, progress=False)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    if damage == "absent":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(before[name][:-8])
    open_histories(dataset, SPELLING, folder, progress=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_rules_differ_where_codes_are_coded(records):
    _, histories, labels = records
    coded, bedside, before = (bags(make_inputs(histories, labels, rule)) for rule in (CODED, BEDSIDE, BEFORE))
    for fewer in (before, bedside):
        assert (fewer > coded).nnz == 0
        assert fewer.sum() < coded.sum()


STAY = [
    (1, at("2020-01-01"), "HOSPITAL_ADMISSION//URGENT//ER"),
    (1, at("2020-01-01", 9), "ICD10CM/R07.9"),
    (1, at("2020-01-02"), "ICD10PCS/0016070"),
    (1, at("2020-01-04", 15), "HOSPITAL_DISCHARGE//HOME"),
    (1, at("2020-01-04", 15), "ICD10CM/I21.9"),
]


def of_stay(root, source: str, hour: datetime.datetime, rule: str, numbered: bool) -> list[str]:
    """Return the codes that a sample of the patient of `STAY` sees."""
    events = [(*event, 7 if numbered else None) for event in STAY]
    dataset = MedsDataset.open(small_visits.write(root / "meds", events))
    histories = open_histories(dataset, read_spelling(source), root / "histories", progress=False)
    labels = Labels(np.array([1]), np.array([hour], "datetime64[us]"), np.zeros(1))
    seen = bags(make_inputs(histories, labels, rule)).toarray()[0]
    return [code for code, count in zip(histories.codes, seen, strict=True) if count and code.startswith("ICD")]


ENTERED, DONE, CODED_LATER = "ICD10CM/R07.9", "ICD10PCS/0016070", "ICD10CM/I21.9"


@pytest.mark.parametrize("numbered", [True, False], ids=["hadm_id", "no_hadm_id"])
@pytest.mark.parametrize(
    ("source", "hour", "rule", "expected"),
    [
        # A procedure with a date is coded after the discharge all the same, but where procedures are noted at once.
        ("mimic4", at("2020-01-03"), CODED, [ENTERED]),
        ("mimic4", at("2020-01-03"), BEDSIDE, [ENTERED]),
        ("MEDS", at("2020-01-03"), BEDSIDE, [ENTERED]),
        ("eicu", at("2020-01-03"), BEDSIDE, [ENTERED, DONE]),
        ("mimic4", at("2020-01-04", 15), CODED, [CODED_LATER, ENTERED, DONE]),
        ("mimic4", at("2020-01-04", 15), BEDSIDE, [ENTERED]),
        # Nor are codes there at the end of the day, but two days later they are.
        ("mimic4", at("2020-01-04", 23), BEDSIDE, [ENTERED]),
        ("mimic4", at("2020-01-04", 23), CODED, [CODED_LATER, ENTERED, DONE]),
        ("mimic4", at("2020-01-06"), BEDSIDE, [CODED_LATER, ENTERED, DONE]),
        # Times are an order: the next stay begins a second later.
        ("diabetes130", at("2020-01-04", 15), BEDSIDE, [ENTERED, DONE]),
        ("diabetes130", at("2020-01-04", 16), BEDSIDE, [CODED_LATER, ENTERED, DONE]),
    ],
)
def test_the_bedside_does_not_see_what_is_coded_after_the_discharge(tmp_path, source, hour, rule, expected, numbered):
    assert of_stay(tmp_path, source, hour, rule, numbered) == expected


PROCEDURE = "ICD10PCS/0016070"
DAYS = ("2020-01-01", "2020-01-02", "2020-01-20", "2020-01-22")
CASES = {
    "dated on the day before the admission": (
        [("2020-01-01", PROCEDURE, 7), ("2020-01-02", "A", 7), ("2020-01-06", "X", 7)],
        {"2020-01-03": 0, "2020-01-08": 1},
    ),
    "without the number of its stay": (
        [("2020-01-01", "A", 7), ("2020-01-02", PROCEDURE, None), ("2020-01-06", "X", 7)],
        {"2020-01-03": 0, "2020-01-08": 1},
    ),
    "of the second of two stays, one after the other": (
        [(day, what, None) for day, what in (("2020-01-01", "A"), ("2020-01-05", "X"), ("2020-01-05", "A"))]
        + [("2020-01-07", PROCEDURE, None), ("2020-01-09", "X", None)],
        {"2020-01-08": 0, "2020-01-11": 1},
    ),
    "of a stay that is over when the next begins": (
        [(day, what, None) for day, what in zip(DAYS, ("A", PROCEDURE, "A", "X"), strict=True)],
        {"2020-01-10": 0, "2020-01-22": 1},
    ),
    "outside of stays": (
        [("2020-01-01", "A", 7), ("2020-01-06", "X", 7), ("2020-02-01", PROCEDURE, None)],
        {"2020-02-01": 1},
    ),
    "noted in intensive care": (
        [("2020-01-01", "A", 7), ("2020-01-02", "PROCEDURE//START//224385", 7), ("2020-01-06", "X", 7)],
        {"2020-01-03": 1},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_when_a_procedure_is_known(tmp_path, case):
    events, expected = CASES[case]
    spelled = {"A": "HOSPITAL_ADMISSION//URGENT//ER", "X": "HOSPITAL_DISCHARGE//HOME"}
    rows = [(1, at(day), spelled.get(what, what), number) for day, what, number in events]
    dataset = MedsDataset.open(small_visits.write(tmp_path / "meds", rows))
    histories = open_histories(dataset, SPELLING, tmp_path / "histories", progress=False)
    times = np.array(list(expected), "datetime64[us]")
    counts = bags(make_inputs(histories, Labels(np.ones(len(times), int), times, np.zeros(len(times))), BEDSIDE))
    told = [code not in spelled.values() for code in histories.codes]
    assert np.asarray(counts[:, told].sum(1)).ravel().tolist() == list(expected.values())


def test_ends_of_visits_in_a_column_are_discharges(tmp_path):
    """EHRSHOT gives the end of a visit in a column; billing codes stand at it, and labels at the end of the day."""
    end = at("2020-01-04", 15)
    events = [
        (1, at("2020-01-01"), "Visit/IP", 7, end),
        (1, at("2020-01-02"), "CPT4/99213", 7, None),
        (1, end, "ICD10CM/I21.9", 7, None),
    ]
    schema = {**small_visits.SCHEMA, "end": pl.Datetime("us")}
    (tmp_path / "meds" / "data").mkdir(parents=True)
    pl.DataFrame(events, schema=schema, orient="row").write_parquet(tmp_path / "meds" / "data" / "0.parquet")
    dataset = MedsDataset.open(tmp_path / "meds")
    histories = open_histories(dataset, read_spelling("ehrshot"), tmp_path / "histories", progress=False)
    labels = Labels(np.array([1]), np.array([at("2020-01-04", 23)], "datetime64[us]"), np.zeros(1))
    for rule, expected in (
        (CODED, ["CPT4/99213", "ICD10CM/I21.9", "Visit/IP"]),
        (BEDSIDE, ["CPT4/99213", "Visit/IP"]),
    ):
        counts = bags(make_inputs(histories, labels, rule)).toarray()[0]
        assert histories.codes[counts > 0].tolist() == expected


@pytest.mark.parametrize("days", [None, 1.0, 0.5])
def test_bags_count_events(records, days):
    events, histories, labels = records
    hidden = np.ones(len(histories.codes), bool)
    hidden[:2] = False
    counts = bags(make_inputs(histories, labels, CODED).masked(hidden), days).toarray()
    for sample in range(len(labels)):
        time = labels.time[sample].astype(object)
        expected = dict.fromkeys(histories.codes.tolist(), 0)
        for moment, _, _, code, _ in seen(events, int(labels.subject[sample]), time, CODED):
            in_window = days is None or moment >= time - datetime.timedelta(days=days)
            expected[code] += in_window and code not in histories.codes[:2]
        assert counts[sample].tolist() == list(expected.values())


@pytest.mark.parametrize("length", [3, 8, 64])
def test_sequences_hold_the_latest_codes_of_visits(records, length):
    events, histories, labels = records
    made = sequences(make_inputs(histories, labels, BEDSIDE), length)
    for sample in range(len(labels)):
        time = labels.time[sample].astype(object)
        kept, known = [], set()
        for moment, _, _, code, visit in seen(events, int(labels.subject[sample]), time, BEDSIDE):
            if (code, visit) not in known:
                known.add((code, visit))
                kept.append((moment, code, visit))
        kept = kept[-length:]
        mask = made.mask[sample]
        assert mask.tolist() == [place < len(kept) for place in range(length)]
        assert histories.codes[made.code[sample][mask]].tolist() == [code for _, code, _ in kept]
        assert made.days[sample][mask].tolist() == pytest.approx(
            [(time - m).total_seconds() / 86400 for m, _, _ in kept]
        )
        numbers = made.visit[sample][mask]
        by_visit = {}
        for number, (_, _, visit) in zip(numbers.tolist(), kept, strict=True):
            assert by_visit.setdefault(visit, number) == number
        assert list(by_visit.values()) == list(range(len(by_visit)))
        assert not made.code[sample][~mask].any()


def test_drugs_of_the_last_visit_are_hidden(records):
    events, histories, labels = records
    inputs = make_inputs(histories, labels, BEFORE, hide_drugs_of_visit=True)
    counts, all_counts = bags(inputs).toarray(), bags(make_inputs(histories, labels, BEFORE)).toarray()
    drugs = {"NDC/00002143380", "MEDICATION//HICL//7"}
    assert set(histories.codes[histories.is_drug]) == drugs
    for sample in range(len(labels)):
        subject, time = int(labels.subject[sample]), labels.time[sample].astype(object)
        whole = until(visible(events, subject), time, BEFORE)
        begun = min((one[0] for one in whole if one[4] == whole[-1][4]), default=None)
        found = seen(events, subject, time, BEFORE)
        lost = [one[3] for one in found if one[3] in drugs and one[0] >= begun]
        assert (all_counts - counts)[sample].sum() == len(lost)
    assert (all_counts != counts).any()


def test_statics(records):
    events, histories, labels = records
    table = statics(make_inputs(histories, labels, CODED))
    assert table.shape == (len(labels), 4)
    births = {subject: time for subject, time, code, _ in events if code == "MEDS_BIRTH"}
    for row, subject, time in zip(table, labels.subject, labels.time, strict=True):
        birth = births.get(int(subject))
        age = 0 if birth is None else (time.astype(object) - birth).days / 365.2425 / 100
        assert row[0] == pytest.approx(age, abs=1e-4)
        assert row[1] + row[2] == 1
        codes = {one[3] for one in seen(events, int(subject), time.astype(object), CODED)}
        assert row[3] == pytest.approx(np.log1p(len(codes)))


def test_chunks_change_nothing(records, monkeypatch):
    _, histories, labels = records
    inputs = make_inputs(histories, labels, CODED)
    whole, rows = bags(inputs).toarray(), sequences(inputs, 8)
    monkeypatch.setattr("eval.ehr.inputs._CHUNK", 5)
    inputs = make_inputs(histories, labels, CODED)
    np.testing.assert_array_equal(bags(inputs).toarray(), whole)
    for name in ("code", "mask", "age", "days", "visit"):
        np.testing.assert_array_equal(getattr(sequences(inputs, 8), name), getattr(rows, name))


def test_histories_are_kept_and_made_anew_for_other_files(records, tmp_path):
    root = tmp_path / "meds"
    written = {path.name: path.read_bytes() for path in (tmp_path / "histories").iterdir()}
    open_histories(MedsDataset.open(root), SPELLING, tmp_path / "again", progress=False)
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == written
    changed = (tmp_path / "histories" / "code.npy").stat().st_mtime_ns
    open_histories(MedsDataset.open(root), SPELLING, tmp_path / "histories", progress=False)
    assert (tmp_path / "histories" / "code.npy").stat().st_mtime_ns == changed
    path = next((root / "data").iterdir())
    frame = pl.read_parquet(path)
    frame[1:].write_parquet(path)
    open_histories(MedsDataset.open(root), SPELLING, tmp_path / "histories", progress=False)
    assert (tmp_path / "histories" / "code.npy").stat().st_mtime_ns != changed


def test_persons_of_several_subjects(records, tmp_path):
    (tmp_path / "meds" / "metadata").mkdir()
    table = pl.DataFrame({"subject_id": range(1, 13), "person": [f"p{number // 2}" for number in range(12)]})
    table.write_parquet(tmp_path / "meds" / "metadata" / "persons.parquet")
    histories = open_histories(MedsDataset.open(tmp_path / "meds"), SPELLING, tmp_path / "others", progress=False)
    by_subject = dict(zip(histories.subject.tolist(), histories.person.tolist(), strict=True))
    assert len(set(by_subject.values())) == 6
    assert all(by_subject[2 * n + 1] == by_subject[2 * n + 2] for n in range(6))


def test_labels_of_unknown_patients(records):
    _, histories, _ = records
    labels = Labels(np.array([1, 99]), np.array(["2020-01-01"] * 2, "datetime64[us]"), np.zeros(2))
    with pytest.raises(InputError, match="1 of 2 labels are of patients without events"):
        make_inputs(histories, labels, CODED)


def test_nothing_to_see(tmp_path):
    root = small_visits.write(tmp_path / "meds", [(1, at("2020-01-01"), "MEDS_DEATH", None)])
    with pytest.raises(InputError, match="no event with a time that a model may see"):
        open_histories(MedsDataset.open(root), SPELLING, tmp_path / "histories", progress=False)


def test_counts_are_kept_for_as_long_as_the_samples(records):
    _, histories, labels = records
    inputs = make_inputs(histories, labels, CODED)
    assert bags(inputs) is bags(inputs)
    assert bags(inputs, 1.0) is not bags(inputs)
    assert bags(inputs.take(np.arange(3))).shape[0] == 3
    kept = weakref.ref(bags(inputs))
    del inputs
    gc.collect()
    assert kept() is None
