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
from medtok_jax.records.samples import Labels
from preprocessing.common.errors import InputError
from preprocessing.meds.dataset import MedsDataset
from tests.helpers import small_visits
from tests.helpers.small_visits import at

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
            events.append((subject, time, rng.choice(DIAGNOSES + OTHERS + HIDDEN + SPOKEN), stay))
    return events


def visible(events: list, subject: int) -> list[tuple]:
    """Return time, code, stay or day, and whether it is coded, of a patient's events in order."""
    mine = [event for event in events if event[0] == subject and event[1] is not None]
    left = {}
    for _, time, code, stay in mine:
        if code.startswith("HOSPITAL_DISCHARGE") and stay is not None:
            left[stay] = min(time, left.get(stay, time))
    found = []
    for place, (_, time, code, stay) in enumerate(mine):
        if code in HIDDEN or code == "MEDS_BIRTH":
            continue
        coded = code in DIAGNOSES and left.get(stay) == time
        found.append((time, coded, place, code, time.date() if stay is None else stay))
    return sorted(found, key=lambda one: one[:3])


def seen(events: list, subject: int, time: datetime.datetime, rule: str) -> list[tuple]:
    found = visible(events, subject)
    if rule == BEFORE:
        return [one for one in found if one[0] < time]
    return [one for one in found if one[0] < time or (one[0] == time and not (rule == BEDSIDE and one[1]))]


@pytest.fixture(params=[0, 1])
def records(request, tmp_path):
    events = sorted(random_events(request.param), key=lambda one: (one[0], one[1] or datetime.datetime.min))
    root = small_visits.write(tmp_path / "meds", events, files=3)
    histories = open_histories(MedsDataset.open(root), tmp_path / "histories", progress=False)
    times = [at(f"2020-01-0{day}", hour) for day in range(1, 5) for hour in (0, 8)]
    rows = [(subject, time) for subject in range(1, 13) for time in times]
    subject, time = (np.array(column) for column in zip(*rows, strict=True))
    return events, histories, Labels(subject, time.astype("datetime64[us]"), np.zeros(len(rows)))


@pytest.mark.parametrize("rule", INPUT_RULES)
def test_samples_see_what_a_loop_finds(records, rule):
    events, histories, labels = records
    inputs = make_inputs(histories, labels, rule)
    for sample in range(len(labels)):
        expected = seen(events, int(labels.subject[sample]), labels.time[sample].astype(object), rule)
        part = slice(inputs.start[sample], inputs.stop[sample])
        assert histories.codes[histories.code[part]].tolist() == [one[3] for one in expected]
        assert histories.time[part].astype(object).tolist() == [one[0] for one in expected]
        assert histories.coded[part].tolist() == [one[1] for one in expected]
    assert not set(histories.codes) & set(HIDDEN)
    assert {"DRUGS", *SPOKEN} <= set(histories.codes), "names that begin alike stay"


@pytest.mark.parametrize("name", ["code.npy", "time.npy", "codes.parquet"])
@pytest.mark.parametrize("damage", ["truncated", "absent"])
def test_damaged_histories_are_made_anew(tmp_path, name, damage):
    events = sorted(random_events(0), key=lambda one: (one[0], one[1] or datetime.datetime.min))
    dataset = MedsDataset.open(small_visits.write(tmp_path / "meds", events, files=3))
    folder = tmp_path / "histories"
    open_histories(dataset, folder, progress=False)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    if damage == "absent":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(before[name][:-8])
    open_histories(dataset, folder, progress=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_rules_differ_where_diagnoses_are_coded(records):
    _, histories, labels = records
    coded, bedside, before = (make_inputs(histories, labels, rule).stop for rule in (CODED, BEDSIDE, BEFORE))
    for fewer, more in ((before, bedside), (bedside, coded)):
        assert (fewer <= more).all()
        assert (fewer < more).any()


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
        found = seen(events, int(labels.subject[sample]), labels.time[sample].astype(object), BEFORE)
        lost = [one[3] for one in found if one[3] in drugs and one[4] == found[-1][4]]
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
    open_histories(MedsDataset.open(root), tmp_path / "again", progress=False)
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == written
    changed = (tmp_path / "histories" / "code.npy").stat().st_mtime_ns
    open_histories(MedsDataset.open(root), tmp_path / "histories", progress=False)
    assert (tmp_path / "histories" / "code.npy").stat().st_mtime_ns == changed
    path = next((root / "data").iterdir())
    frame = pl.read_parquet(path)
    frame[1:].write_parquet(path)
    open_histories(MedsDataset.open(root), tmp_path / "histories", progress=False)
    assert (tmp_path / "histories" / "code.npy").stat().st_mtime_ns != changed


def test_persons_of_several_subjects(records, tmp_path):
    (tmp_path / "meds" / "metadata").mkdir()
    table = pl.DataFrame({"subject_id": range(1, 13), "person": [f"p{number // 2}" for number in range(12)]})
    table.write_parquet(tmp_path / "meds" / "metadata" / "persons.parquet")
    histories = open_histories(MedsDataset.open(tmp_path / "meds"), tmp_path / "others", progress=False)
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
        open_histories(MedsDataset.open(root), tmp_path / "histories", progress=False)


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
