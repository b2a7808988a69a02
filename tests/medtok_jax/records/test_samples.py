"""Samples of prediction tasks: against patients worked out by hand, a plain loop over events, and records cut short."""

import datetime
import itertools
import random

import numpy as np
import polars as pl
import pytest

from medtok_jax.records.event_codes import CodeMapper
from medtok_jax.records.samples import Labels, make_samples, read_labels, task_labels
from medtok_jax.records.visits import read_visits
from preprocessing.common.errors import InputError
from preprocessing.meds.dataset import MedsDataset
from tests.helpers import small_tokenizer, small_visits
from tests.helpers.small_visits import at, stay

CODE, OTHER, DRUG = "ICD10CM/E11.9", "ICD10CM/E10.9", "NDC/00002143380"


def read(root):
    return read_visits(MedsDataset.open(root), CodeMapper(small_tokenizer.KEYS), progress=False)


def labels_of(*rows):
    """Labels of (subject, time, value)."""
    subject, time, value = zip(*rows, strict=True)
    return Labels(np.array(subject), np.array(time, "datetime64[us]"), np.array(value))


def story(found, sample):
    """All that a sample holds of its visits, in words that do not depend on other patients."""
    visits, days = found.visits, found.days_since_previous
    told = []
    for place in range(found.offsets[sample], found.offsets[sample + 1]):
        row = found.row[place]
        codes = visits.key[visits.codes_of(row)].tolist()
        times = (visits.start[row], visits.end[row], visits.birth[row])
        told.append((str(visits.name[row]), *map(str, times), str(visits.admission_type[row]), int(days[place]), codes))
    return told


def codes_of(found, sample):
    return [(name, codes) for name, *_, codes in story(found, sample)]


@pytest.fixture(scope="module")
def visits(small_meds):
    return read(small_meds)


def test_each_visit_that_another_one_follows_is_a_sample(visits):
    mortality = task_labels(visits, "mortality")
    # Patients 1 (three stays, the last deadly), 2 (two) and 3 (days). The stays of patient 4 overlap: none follows.
    assert mortality.subject.tolist() == [1, 1, 2, 3]
    times = ["2020-01-05T16", "2020-03-21T16", "2021-05-01T16", "2022-02-02T11"]
    assert mortality.time.tolist() == np.array(times, "datetime64[us]").tolist()
    assert mortality.value.tolist() == [False, True, False, False]
    # After 56 days; 9 days and 16 hours; 61 days; 2 days and 22 hours.
    assert task_labels(visits, "readmission").value.tolist() == [False, True, False, True]
    found = make_samples(visits, mortality, coded=True)
    assert [[name for name, _ in codes_of(found, s)] for s in range(4)] == [
        ["11"],
        ["11", "12"],
        ["21"],
        ["3-20220202"],
    ]
    assert codes_of(found, 1)[1][1] == [*small_visits.ALL_KINDS, OTHER]
    assert found.left_out == 0


@pytest.mark.parametrize(("day", "hour", "readmitted"), [("20", 16, True), ("20", 17, False), ("05", 18, True)])
def test_a_readmission_is_within_fifteen_days_from_the_discharge(tmp_path, day, hour, readmitted):
    events = [*stay(1, 1, "2020-01-01", "2020-01-05", CODE), (1, at(f"2020-01-{day}", hour), CODE, 2)]
    labels = task_labels(read(small_visits.write(tmp_path / "meds", events)), "readmission")
    assert labels.value.tolist() == [readmitted]


def test_stays_that_overlap_are_one_and_no_one_comes_back_from_death(tmp_path):
    events = [
        # The second stay lies in the first, the third begins on the day on which the first ends, before its end.
        *stay(1, 11, "2020-01-01", "2020-01-20", CODE),
        *stay(1, 12, "2020-01-05", "2020-01-06", OTHER),
        *stay(1, 13, "2020-01-20", "2020-01-22", OTHER),
        *stay(1, 14, "2020-01-31", "2020-02-01", CODE),
        # The records of a dead patient go on, as those of organ donors do.
        *stay(2, 21, "2020-01-01", "2020-01-05", CODE),
        *stay(2, 22, "2020-01-10", "2020-01-12", CODE, to="DIED"),
        *stay(2, 23, "2020-01-13", "2020-01-14", CODE),
    ]
    labels = task_labels(read(small_visits.write(tmp_path / "meds", events)), "readmission")
    assert labels.subject.tolist() == [1, 2]
    assert labels.time.tolist() == np.array(["2020-01-22T16", "2020-01-05T16"], "datetime64[us]").tolist()
    assert labels.value.tolist() == [True, True]


def test_what_is_coded_at_the_discharge_is_seen_after_it(tmp_path):
    events = [
        *stay(1, 1, "2020-01-01", "2020-01-10", CODE, "ICD10PCS/0016070", DRUG, kind="ELECTIVE"),
        (1, at("2020-01-03"), OTHER, 1),  # A diagnosis with a time of its own, as in eICU.
        (1, at("2019-12-31"), "LAB//1", 1),
    ]
    visits = read(small_visits.write(tmp_path / "meds", events))
    left = at("2020-01-10", 16)
    moments = [at("2020-01-02"), at("2020-01-03"), left - datetime.timedelta(seconds=1), left]
    # Nor are codes there an hour later, but they are on the day after the next.
    moments += [left + datetime.timedelta(hours=1), left + datetime.timedelta(days=1, microseconds=1)]
    labels = labels_of(*((1, moment, True) for moment in moments))
    bedside, coded = (make_samples(visits, labels, coded=coded) for coded in (False, True))
    every = [OTHER, CODE, "ICD10PCS/0016070", DRUG]
    not_coded = [OTHER, DRUG]
    assert [codes_of(bedside, s)[0][1] for s in range(5)] == [[OTHER], [OTHER], not_coded, not_coded, every]
    assert [codes_of(coded, s)[0][1] for s in range(5)] == [[OTHER], [OTHER], every, every, every]
    assert bedside.left_out == coded.left_out == 1
    assert bedside.labels.time.tolist() == labels.time[1:].tolist()
    # Of a stay that goes on the end is not known, and its days are those until the last code.
    assert bedside.visits.days[bedside.row].tolist() == [1, 1, 9, 9, 9]
    assert set(bedside.visits.admission_type[bedside.row]) == {"ELECTIVE"}


@pytest.mark.parametrize("coded", [False, True])
def test_procedures_are_known_from_the_discharge_whatever_their_date(tmp_path, coded):
    """MIMIC-IV dates procedures within the stay, but they are coded after it as diagnoses are."""
    events = [*stay(1, 1, "2020-01-01", "2020-01-10", CODE), (1, at("2020-01-01"), "ICD10PCS/0016070", 1)]
    # Of a stay without a discharge it is never known; outside of stays it is what is done.
    events += [(1, at("2020-03-01"), "HOSPITAL_ADMISSION//URGENT//ER", 2), (1, at("2020-03-02"), OTHER, 2)]
    events += [(1, at("2020-03-02"), "ICD10PCS/0016070", 2), (1, at("2020-02-01"), "CPT4/99213", None)]
    visits = read(small_visits.write(tmp_path / "meds", events))
    moments = [at("2020-01-05"), at("2020-01-20"), at("2020-02-01"), at("2020-06-01")]
    samples = make_samples(visits, labels_of(*((1, moment, True) for moment in moments)), coded=coded)
    assert samples.left_out == 1
    whole = ("1", ["ICD10PCS/0016070", CODE])
    assert codes_of(samples, 0) == [whole]
    assert codes_of(samples, 1) == [whole, ("1-20200201", ["CPT4/99213"])]
    assert codes_of(samples, 2)[2] == ("2", [OTHER])


def random_events(draw, subjects):
    """Events of patients whose stays overlap, lack an admission or a discharge, and go on after it."""
    kinds = [
        *small_tokenizer.KEYS,
        "ICD9CM/999.99",
        "LAB//1",
        "HOSPITAL_ADMISSION//URGENT//X",
        "HOSPITAL_DISCHARGE//HOME",
    ]
    events = []
    for subject in subjects:
        events.append((subject, at("1950-06-15"), "MEDS_BIRTH", None))
        for _ in range(60):
            number = draw.choice([None, *range(4)])
            time = at("2020-01-01") + datetime.timedelta(hours=draw.randrange(200) + 150 * (number or 0))
            events.append((subject, time, draw.choice(kinds), None if number is None else subject * 10 + number))
    return sorted(events, key=lambda event: event[:2])


def random_labels(draw, events, count=300):
    """Labels at and between the times of events."""
    times = [event[1] for event in events if event[1].year > 2000]
    rows = [(draw.choice(events)[0], draw.choice(times) + datetime.timedelta(hours=draw.choice([0, 0, 1])), True)]
    for _ in range(count - 1):
        subject, time, *_ = draw.choice([event for event in events if event[1].year > 2000])
        rows.append((subject, time + datetime.timedelta(minutes=draw.choice([-1, 0, 0, 1, 600])), draw.random() < 0.5))
    return labels_of(*rows)


def plain_story(events, subject, time, coded):
    """Return what is seen of a patient, by a plain loop: stay -> its codes."""
    mine = [event for event in events if event[0] == subject and event[1] <= time]
    left = {}
    for _, when, code, number in mine:
        if code.startswith("HOSPITAL_DISCHARGE") and number is not None:
            left.setdefault(number, when)
    seen = {}
    for _, when, code, number in mine:
        if "//" in code or code == "MEDS_BIRTH":
            continue
        name = f"{subject}-{when:%Y%m%d}" if number is None else str(number)
        system = code.split("/")[0]
        is_drug, is_procedure = system in ("NDC", "RxNorm", "ATC"), system in ("ICD9Proc", "ICD10PCS", "CPT4", "HCPCS")
        found = seen.setdefault(name, {})
        known = when
        if is_procedure and number is not None:
            known = max(when, left[number]) if number in left else None
        recent = known is not None and known >= time - datetime.timedelta(days=1)
        hidden = known is None or (not coded and recent and number in left and known >= left[number] and not is_drug)
        # A code that appeared before the discharge is known from then on.
        found.setdefault(code, not hidden)
    return {
        name: [code for code, is_seen in found.items() if is_seen]
        for name, found in seen.items()
        if any(found.values())
    }


@pytest.mark.parametrize("coded", [False, True])
def test_random_events_against_a_plain_loop(tmp_path, coded):
    draw = random.Random(1)
    events = random_events(draw, range(1, 9))
    visits = read(small_visits.write(tmp_path / "meds", events, files=2))
    labels = random_labels(draw, events)
    found = make_samples(visits, labels, coded=coded)
    wanted = [
        (subject, time, value, told)
        for subject, time, value in zip(
            labels.subject.tolist(), labels.time.tolist(), labels.value.tolist(), strict=True
        )
        if (told := plain_story(events, subject, time, coded))
    ]
    assert len(found) == len(wanted)
    assert found.left_out == len(labels) - len(wanted) > 0
    for sample, (subject, time, value, told) in enumerate(wanted):
        about = found.labels
        assert (about.subject[sample], about.time[sample].item(), about.value[sample]) == (subject, time, value)
        # Codes of one hour may stand in any order.
        assert {name: sorted(codes) for name, codes in codes_of(found, sample)} == {
            n: sorted(c) for n, c in told.items()
        }
        starts = found.visits.start[found.rows_of(sample)]
        assert (np.diff(starts).astype(int) >= 0).all()
        assert (found.visits.end[found.rows_of(sample)] <= np.datetime64(time)).all()


@pytest.mark.parametrize("coded", [False, True])
def test_nothing_after_the_prediction_time_reaches_a_sample(tmp_path, coded):
    """Later events are deleted, replaced by another patient's, or outcomes: what is seen stays equal."""
    draw = random.Random(2)
    events = random_events(draw, range(1, 5))
    labels = random_labels(draw, events, 40)
    whole = make_samples(read(small_visits.write(tmp_path / "whole", events)), labels, coded=coded)
    assert any(len(whole.rows_of(s)) > 3 for s in range(len(whole)))
    for sample in range(len(whole)):
        subject, time = whole.labels.subject[sample], whole.labels.time[sample].item()
        before = [event for event in events if event[0] != subject or event[1] <= time]
        other = [event for event in events if event[0] == subject % 4 + 1]
        stolen = [(subject, max(when, time + datetime.timedelta(seconds=1)), *rest) for _, when, *rest in other]
        # The same stays, so that they go on in another way.
        stolen = [(*event[:3], event[3] and subject * 10 + event[3] % 10) for event in stolen]
        died = [
            (subject, time + datetime.timedelta(seconds=1), code, subject * 10)
            for code in ("MEDS_DEATH", "HOSPITAL_DISCHARGE//DIED")
        ]
        one = labels_of((subject, time, True))
        for number, changed in enumerate((before, before + stolen, before + died, before + stolen + died)):
            root = small_visits.write(tmp_path / f"{sample}-{number}", changed)
            found = make_samples(read(root), one, coded=coded)
            assert story(found, 0) == story(whole, sample)


def write_labels(path, **columns):
    frame = {"subject_id": [1, 2], "prediction_time": [at("2020-02-01"), at("2021-06-01")], **columns}
    pl.DataFrame(frame).write_parquet(path)
    return path


@pytest.mark.parametrize(
    ("columns", "value"),
    [
        ({"boolean_value": [True, False]}, [True, False]),
        ({"integer_value": [3, -1]}, [3, -1]),
        ({"float_value": pl.Series([0.5, 2.0], dtype=pl.Float32)}, [0.5, 2.0]),
        ({"categorical_value": ["late", "early"]}, ["late", "early"]),
        # As ACES writes them: all columns, one with values.
        (
            {"boolean_value": [True, False], "integer_value": [None, None], "categorical_value": [None, None]},
            [True, False],
        ),
        (
            {"prediction_time": pl.Series([at("2020-02-01")] * 2, dtype=pl.Datetime("ns")), "integer_value": [1, 2]},
            [1, 2],
        ),
    ],
)
def test_labels_of_every_type_are_read(tmp_path, columns, value):
    labels = read_labels(write_labels(tmp_path / "labels.parquet", **columns))
    assert labels.value.tolist() == value
    assert labels.subject.tolist() == [1, 2]
    assert labels.time[0] == np.datetime64("2020-02-01")


def test_labels_as_the_package_meds_writes_them(tmp_path):
    meds = pytest.importorskip("meds")
    rows = {"subject_id": [1], "prediction_time": [at("2020-02-01")], "boolean_value": [True]}
    table = meds.LabelSchema.align(pl.DataFrame(rows).to_arrow())
    pl.from_arrow(table).write_parquet(tmp_path / "labels.parquet")
    assert read_labels(tmp_path / "labels.parquet").value.tolist() == [True]


def test_a_folder_of_shards_is_one_list_of_labels(tmp_path):
    (tmp_path / "labels" / "train").mkdir(parents=True)
    write_labels(tmp_path / "labels" / "train" / "0.parquet", boolean_value=[True, False])
    write_labels(tmp_path / "labels" / "train" / "1.parquet", boolean_value=[False, False], subject_id=[7, 8])
    labels = read_labels(tmp_path / "labels")
    assert labels.subject.tolist() == [1, 2, 7, 8]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({}, "has no column of values"),
        ({"boolean_value": [None, None]}, "but none has values"),
        ({"boolean_value": [True, None]}, "1 labels without boolean_value"),
        ({"boolean_value": [True, False], "integer_value": [1, 2]}, "boolean_value and integer_value have values"),
        ({"boolean_value": [True, False], "prediction_time": ["2020-02-01", "2021"]}, "is no date and time"),
        (
            {"boolean_value": [True, False], "prediction_time": [None, at("2021-06-01")]},
            "1 labels without prediction_time",
        ),
        ({"boolean_value": [True, False], "subject_id": ["x4711", "2"]}, "subject_id of .* cannot become Int64"),
        ({"boolean_value": [True, False], "subject_id": [None, 2]}, "1 labels without subject_id"),
        ({"integer_value": ["4711 days", "2"]}, "integer_value of .* cannot become Int64"),
    ],
)
def test_files_that_are_no_labels_are_refused(tmp_path, columns, words):
    path = write_labels(tmp_path / "labels.parquet", **columns)
    with pytest.raises(InputError, match=words) as told:
        read_labels(path)
    assert "4711" not in str(told.value)
    assert "2021" not in str(told.value)


def test_files_that_cannot_be_read_are_refused(tmp_path, visits):
    (tmp_path / "no.parquet").write_text("no")
    for path in (tmp_path / "no.parquet", tmp_path / "absent.parquet"):
        with pytest.raises(InputError, match=r"cannot be read|is missing"):
            read_labels(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no labels"):
        read_labels(tmp_path / "empty")
    early = labels_of((1, at("1990-01-01"), True), (99, at("2020-01-01"), True))
    with pytest.raises(InputError, match="No label has a medical code"):
        make_samples(visits, early, coded=True)


def test_patients_of_one_visit_have_no_next(tmp_path):
    visits = read(small_visits.write(tmp_path / "meds", stay(1, 1, "2020-01-01", "2020-01-02", CODE)))
    with pytest.raises(InputError, match="No patient has two visits"):
        task_labels(visits, "mortality")
    assert len(make_samples(visits, labels_of((1, at("2020-01-04"), True)), coded=False)) == 1


def test_a_death_in_any_of_the_stays_that_are_the_next_visit_counts(tmp_path):
    """Stays that overlap are one visit: its second stay ends in death, and another one after it is not of it."""
    events = [
        *stay(1, 11, "2020-01-01", "2020-01-05", CODE),
        *stay(1, 12, "2020-02-01", "2020-02-03", CODE),
        *stay(1, 13, "2020-02-02", "2020-02-20", CODE, to="DIED"),
        *stay(2, 21, "2020-01-01", "2020-01-05", CODE),
        *stay(2, 22, "2020-02-01", "2020-02-03", CODE),
        *stay(2, 23, "2020-02-10", "2020-02-20", CODE, to="DIED"),
        # The last patient: nobody comes after the last visit of all.
        *stay(3, 31, "2020-01-01", "2020-01-05", CODE),
        *stay(3, 32, "2020-01-05", "2020-01-05", CODE),
    ]
    labels = task_labels(read(small_visits.write(tmp_path / "meds", events)), "mortality")
    assert list(zip(labels.subject.tolist(), labels.value.tolist(), strict=True)) == [
        (1, True),
        (2, False),
        (2, True),
    ]


def test_the_next_visit_of_random_stays_against_a_plain_loop(tmp_path):
    draw = random.Random(3)
    stays = []
    for subject in range(1, 40):
        for number in range(draw.randrange(1, 6)):
            start, days = draw.randrange(1, 25), draw.randrange(4)
            last, place = min(start + days, 28), draw.choice(["HOME", "HOME", "HOME", "Died"])
            stays.append((subject, subject * 10 + number, f"2020-01-{start:02}", f"2020-01-{last:02}", place))
    events = [event for *about, place in stays for event in stay(*about, CODE, to=place)]
    visits = read(small_visits.write(tmp_path / "meds", events, files=3))
    wanted = {}
    for subject in {one[0] for one in stays}:
        groups = []
        for _, _, start, end, place in sorted((s for s in stays if s[0] == subject), key=lambda s: (s[2], s[1])):
            dead = place == "Died"
            if groups and start <= groups[-1][1]:  # Stays begin at 8 and end at 16 o'clock.
                groups[-1] = (groups[-1][0], max(groups[-1][1], end), groups[-1][2] or dead)
            else:
                groups.append((start, end, dead))
        for place, (one, following) in enumerate(itertools.pairwise(groups)):
            if not any(dead for *_, dead in groups[: place + 1]):
                wanted[subject, one[1]] = following[2]
    labels = task_labels(visits, "mortality")
    found = zip(labels.subject.tolist(), labels.time.astype("datetime64[D]").astype(str), labels.value, strict=True)
    assert {(subject, day): bool(value) for subject, day, value in found} == wanted
    assert 0 < sum(wanted.values()) < len(wanted)


@pytest.mark.parametrize("values", [[2, 0], [1.0, 0.5], [1.0, float("nan")]])
def test_truths_are_no_other_numbers(tmp_path, values):
    with pytest.raises(InputError, match=r"boolean_value of .* cannot become Boolean"):
        read_labels(write_labels(tmp_path / "labels.parquet", boolean_value=values))
    labels = read_labels(write_labels(tmp_path / "labels.parquet", boolean_value=[type(values[0])(1), 0]))
    assert labels.value.tolist() == [True, False]


def test_labels_of_several_tasks_are_no_list(tmp_path):
    """The folder `labels` of a converted data set holds a folder for each task, whose labels would be mixed."""
    for task in ("guo_los", "guo_icu"):
        (tmp_path / "labels" / task).mkdir(parents=True)
        write_labels(tmp_path / "labels" / task / "labels.parquet", boolean_value=[True, False])
    with pytest.raises(InputError, match=r"holds the labels of 2 tasks; give the folder of one, such as .*guo_icu"):
        read_labels(tmp_path / "labels")
    assert len(read_labels(tmp_path / "labels" / "guo_los")) == 2
