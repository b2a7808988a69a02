"""Regimes divide samples by person and hide codes as they say, whatever the seed."""

import dataclasses
import itertools

import numpy as np
import pytest

from eval.ehr import regimes
from eval.ehr.history import Histories
from eval.ehr.inputs import Inputs, bags, statics
from eval.ehr.regimes import CROSS_VOCABULARY, FEW_PATIENTS, FEW_SHOT, FULL, RARE, REGIMES, UNSEEN, splits
from preprocessing.common.errors import InputError

CODES = np.array(
    sorted(
        [
            *(f"ICD9CM/{number}.0" for number in range(100, 140)),
            *(f"ICD10CM/A{number}.0" for number in range(10, 50)),
            *("LAB//1//mg", "NDC/00002143380", "HOSPITAL_ADMISSION//URGENT//ER", "DIAGNOSIS//sepsis"),
        ]
    )
)
SPLITS = ("train", "tuning", "held_out")


def samples_of(seed: int, persons: int, *, each: int = 2, codes: list[np.ndarray] | None = None) -> Inputs:
    """Return `each` samples of every person, one a subject, with a few random codes or those that are given."""
    rng = np.random.default_rng(seed)
    subjects = persons * each
    if codes is None:
        codes = [rng.choice(len(CODES), rng.integers(0, 8), replace=False) for _ in range(subjects)]
    offsets = np.concatenate([[0], np.cumsum([len(found) for found in codes])]).astype(np.int64)
    events = int(offsets[-1])
    histories = Histories(
        subject=np.arange(subjects),
        offsets=offsets,
        code=np.concatenate(codes).astype(np.int32),
        time=np.full(events, np.datetime64("2020-01-01", "us")),
        visit=np.zeros(events, np.int32),
        coded=np.zeros(events, bool),
        codes=CODES,
        is_drug=np.zeros(len(CODES), bool),
        birth=np.full(subjects, np.datetime64("1950-01-01", "us")),
        sex=np.full(subjects, "F"),
        person=np.arange(subjects) // each + 7_000,
        coding=np.timedelta64(1, "D"),
    )
    row = np.arange(subjects)
    return Inputs(
        histories=histories,
        row=row,
        start=offsets[:-1],
        stop=offsets[1:],
        time=np.datetime64("2020-02-01", "us") + row.astype("timedelta64[D]"),
        seen=np.ones(len(CODES), bool),
        hidden=np.full(subjects, np.datetime64("NaT"), "datetime64[us]"),
    )


def split_of(inputs: Inputs) -> np.ndarray:
    """Return the split of each sample by the person: of six, four train, one tunes and one is held out."""
    return np.array([SPLITS[max(0, int(person) % 6 - 3)] for person in inputs.person])


def outcomes_of(inputs: Inputs, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(len(inputs)) < 0.3


def listed(regime: str, inputs: Inputs, y: np.ndarray, **options) -> list:
    return list(splits(regime, inputs, y, split_of(inputs), **{"seed": 0} | options))


@pytest.mark.parametrize(("regime", "folds"), list(itertools.product(REGIMES, (None, 3))))
def test_no_person_is_in_two_parts_and_rows_name_the_test_samples(regime, folds):
    inputs = samples_of(0, 240)
    y = outcomes_of(inputs)
    for _, part in listed(regime, inputs, y, folds=folds):
        persons = [set(one.person) for one in (part.train, part.tuning, part.test)]
        assert not any(one & other for one, other in itertools.combinations(persons, 2))
        assert (inputs.subject[part.rows] == part.test.subject).all()
        for samples, found in ((part.train, part.y), (part.tuning, part.y_tuning), (part.test, part.y_test)):
            assert (y[samples.subject] == found).all()


def test_full_follows_the_split_of_the_data_set():
    inputs = samples_of(0, 60)
    [(settings, part)] = listed(FULL, inputs, outcomes_of(inputs))
    assert settings == {"setting": "", "fold": 0}
    for name, samples in zip(SPLITS, (part.train, part.tuning, part.test), strict=True):
        assert samples.subject.tolist() == inputs.subject[split_of(inputs) == name].tolist()


def test_folds_test_every_sample_once_and_depend_on_the_person_and_the_seed_alone():
    inputs = samples_of(1, 150)
    y = outcomes_of(inputs)

    def fold_of(inputs: Inputs, seed: int) -> dict[int, int]:
        y = outcomes_of(inputs)
        found = listed(FULL, inputs, y, folds=5, seed=seed)
        rows = np.concatenate([part.rows for _, part in found])
        assert np.sort(rows).tolist() == list(range(len(inputs)))
        return {person: settings["fold"] for settings, part in found for person in part.person.tolist()}

    all_folds = fold_of(inputs, 0)
    sizes = np.bincount(list(all_folds.values()))
    assert len(sizes) == 5
    assert sizes.min() > 15
    fewer = inputs.take(np.arange(200)[::-1])
    assert fold_of(fewer, 0).items() <= all_folds.items()
    assert fold_of(inputs, 1) != all_folds
    for _, part in listed(FULL, inputs, y, folds=5):
        assert 0.1 < len(part.tuning) / (len(part.train) + len(part.tuning)) < 0.3


@pytest.mark.parametrize("seed", range(8))
def test_a_few_persons_are_trained_and_tuned_by_too(seed):
    inputs = samples_of(seed, 7, each=4)
    y = np.arange(len(inputs)) % 2 == 0
    for _, part in listed(FULL, inputs, y, folds=2, seed=seed):
        assert len(set(part.tuning.person)) >= 1


def test_few_shot_draws_as_many_of_each_class_each_of_another_person_and_nested():
    inputs = samples_of(2, 400)
    y = outcomes_of(inputs)
    [(_, whole)] = listed(FULL, inputs, y)
    found = listed(FEW_SHOT, inputs, y)
    assert [settings["setting"] for settings, _ in found] == [f"k={k}" for k in (1, 2, 4, 8, 12, 16, 24)]
    before: tuple[set, set] = (set(), set())
    for settings, part in found:
        k = int(settings["setting"].removeprefix("k="))
        for samples, outcome in ((part.train, part.y), (part.tuning, part.y_tuning)):
            assert np.bincount(outcome).tolist() == [k, k]
            assert len(set(samples.person)) == 2 * k
        now = (set(part.train.subject), set(part.tuning.subject))
        assert all(smaller <= larger for smaller, larger in zip(before, now, strict=True))
        assert (part.test.subject == whole.test.subject).all()
        before = now


def test_few_shot_ends_where_a_class_has_too_few_persons():
    inputs = samples_of(3, 240)
    y = np.zeros(len(inputs), bool)
    roles = split_of(inputs)
    # Five persons have both their samples positive in training, so five is the most.
    y[np.isin(inputs.person, np.unique(inputs.person[roles == "train"])[:5])] = True
    y[np.flatnonzero(roles == "tuning")[:40:2]] = True
    found = listed(FEW_SHOT, inputs, y)
    assert [settings["setting"] for settings, _ in found] == ["k=1", "k=2", "k=4"]


def test_few_shot_samples_differ_by_seed_and_never_repeat():
    inputs = samples_of(4, 300)
    y = outcomes_of(inputs)
    drawn = [set(listed(FEW_SHOT, inputs, y, seed=seed, shots=(16,))[0][1].train.subject) for seed in range(3)]
    assert all(len(found) == 32 for found in drawn)
    assert drawn[0] != drawn[1] != drawn[2]
    again = set(listed(FEW_SHOT, inputs, y, seed=0, shots=(16,))[0][1].train.subject)
    assert again == drawn[0]


def test_few_shot_takes_classes_and_refuses_labels_that_go_together():
    inputs = samples_of(5, 400)
    y = np.random.default_rng(0).integers(0, 3, len(inputs))
    [(_, part)] = listed(FEW_SHOT, inputs, y, shots=(8,))
    assert np.bincount(part.y).tolist() == [8, 8, 8]
    with pytest.raises(InputError, match="exclude one another"):
        listed(FEW_SHOT, inputs, np.stack([y == 0, y == 1], axis=1))


def test_few_patients_are_drawn_with_all_of_their_samples_and_nested():
    inputs = samples_of(11, 1_200)
    y = outcomes_of(inputs)
    [(_, whole)] = listed(FULL, inputs, y)
    found = listed(FEW_PATIENTS, inputs, y)
    assert [settings["setting"] for settings, _ in found] == ["n=100", "n=500"]
    for (settings, part), smaller in zip(found, (None, found[0][1]), strict=True):
        size = int(settings["setting"].removeprefix("n="))
        for samples, all_samples, persons in (
            (part.train, whole.train, size),
            (part.tuning, whole.tuning, size // 4),
        ):
            drawn = set(samples.person)
            assert len(drawn) == persons
            assert set(samples.subject) == set(all_samples.subject[np.isin(all_samples.person, list(drawn))])
        assert (part.test.subject == whole.test.subject).all()
        assert (part.y == y[part.train.row]).all()
        if smaller is not None:
            assert set(smaller.train.person) < set(part.train.person)
            assert set(smaller.tuning.person) < set(part.tuning.person)
    [(_, other), _] = listed(FEW_PATIENTS, inputs, y, seed=1)
    assert set(other.train.person) != set(found[0][1].train.person)


def test_few_patients_take_labels_that_go_together_and_leave_out_sizes_that_teach_nothing():
    inputs = samples_of(12, 1_200)
    y = np.zeros((len(inputs), 2), bool)
    y[::7, 0] = y[::5, 1] = True
    [(settings, part), _] = listed(FEW_PATIENTS, inputs, y)
    assert settings["setting"] == "n=100"
    assert part.y.shape == (200, 2)
    # Only persons beyond the first hundred that are drawn have the outcome.
    rare = np.zeros(len(inputs), bool)
    [(_, _), (_, more)] = listed(FEW_PATIENTS, inputs, y)
    rare[more.train.row[~np.isin(more.train.person, part.train.person)]] = True
    assert [settings["setting"] for settings, _ in listed(FEW_PATIENTS, inputs, rare)] == ["n=500"]


def of_edition(number: int, seed: int = 6, persons: int = 200) -> Inputs:
    """Return random samples whose codes are of one edition of ICD, or of none."""
    rng = np.random.default_rng(seed)
    others = np.flatnonzero(np.isin(regimes.editions(CODES), [0, number]))
    codes = [rng.choice(others, rng.integers(0, 8), replace=False) for _ in range(2 * persons)]
    return samples_of(seed, persons, codes=codes)


def test_unseen_hides_a_third_of_the_codes_of_systems_from_all_but_the_test():
    inputs = of_edition(10)
    [(settings, part)] = listed(UNSEEN, inputs, outcomes_of(inputs))
    assert settings["setting"] == "30% unseen"
    hidden = ~part.train.seen
    assert (part.tuning.seen == part.train.seen).all()
    assert part.test.seen.all()
    assert 0.2 < hidden[np.char.startswith(CODES, "ICD")].mean() < 0.4
    assert not hidden[np.isin(CODES, ["LAB//1//mg", "HOSPITAL_ADMISSION//URGENT//ER", "DIAGNOSIS//sepsis"])].any()
    assert not bags(part.train)[:, hidden].nnz
    assert bags(part.test)[:, hidden].nnz
    [(_, other)] = listed(UNSEEN, inputs, outcomes_of(inputs), seed=1)
    assert (other.train.seen != part.train.seen).any()
    # What states a diagnosis in both editions would tell the hidden code by the other: one of them is left.
    both = samples_of(6, 200)
    [(_, once)] = listed(UNSEEN, both, outcomes_of(both))
    ten = regimes.editions(CODES) == 10
    assert (once.test.seen == ~ten).all()
    assert (once.train.seen == (part.train.seen & ~ten)).all()
    # Patients who were coded in one and later in the other state nothing twice.
    visits = np.where(regimes.editions(CODES)[both.histories.code] == 10, 1, 0).astype(np.int32)
    later = dataclasses.replace(both, histories=dataclasses.replace(both.histories, visit=visits))
    [(_, alone)] = listed(UNSEEN, later, outcomes_of(later))
    assert alone.test.seen.all()
    # A code is hidden or not for its own name, whatever other codes there are.
    assert (regimes.unseen_codes(CODES[::2], 0) == hidden[::2]).all()


def test_editions_are_those_of_diagnoses_and_procedures():
    names = np.array(
        [
            "ICD9CM/250.00",
            "ICD9Proc/00.10",
            "ICD10CM/E11.9",
            "ICD10PCS/0016070",
            "DIAGNOSIS//ICD//10//E119",
            "LAB//1//mg",
        ]
    )
    assert regimes.editions(names).tolist() == [9, 9, 10, 10, 10, 0]


def test_cross_vocabulary_hides_one_vocabulary_where_both_are_written():
    nine, ten = (np.flatnonzero(np.char.startswith(CODES, start)) for start in ("ICD9CM", "ICD10CM"))
    rng = np.random.default_rng(0)
    codes = []
    for _ in range(120):
        some = rng.choice(len(nine), rng.integers(0, 4), replace=False)
        codes.append(np.concatenate([nine[some], ten[some], [len(CODES) - 1]]))
    inputs = samples_of(0, 120, each=1, codes=codes)
    found = listed(CROSS_VOCABULARY, inputs, outcomes_of(inputs))
    headline, alone, wide, control = (
        *("icd9->icd10", "icd9->icd10, codes alone"),
        *("icd9->icd10, all events", "icd9->icd9"),
    )
    assert [settings["setting"] for settings, _ in found] == [headline, alone, wide, control]
    edition = regimes.editions(CODES)
    expected = {headline: ([9], [10]), alone: ([9], [10]), wide: ([0, 9], [0, 10]), control: ([9], [9])}
    for settings, part in found:
        assert len(part.train) + len(part.tuning) + len(part.test) == len(inputs)
        fitted, tested = expected[settings["setting"]]
        assert sorted(set(edition[bags(part.train).indices])) == fitted
        assert sorted(set(edition[bags(part.tuning).indices])) == fitted
        assert sorted(set(edition[bags(part.test).indices])) == tested
        told = [statics(samples).any() for samples in (part.train, part.tuning, part.test)]
        assert told == [settings["setting"] != alone] * 3


def test_cross_vocabulary_takes_patients_by_the_edition_of_their_time():
    nine, ten = (np.flatnonzero(np.char.startswith(CODES, start)) for start in ("ICD9CM", "ICD10CM"))
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 8, 300)
    codes = []
    for number in kind:
        # Most have one edition; one in eight both, and one in eight none.
        some = [*([nine] if number < 4 else []), *([ten] if 3 <= number < 7 else [])]
        codes.append(np.array([rng.choice(edition) for edition in some], np.int64))
    inputs = samples_of(0, 300, each=1, codes=codes)
    (_, across), _, _, (_, control) = listed(CROSS_VOCABULARY, inputs, outcomes_of(inputs))
    roles = split_of(inputs)
    for name, samples, wanted in (
        ("train", across.train, kind < 4),
        ("tuning", across.tuning, kind < 4),
        ("held_out", across.test, (kind >= 3) & (kind < 7)),
        ("held_out", control.test, kind < 4),
    ):
        assert samples.subject.tolist() == np.flatnonzero((roles == name) & wanted).tolist()
    assert (inputs.subject[across.rows] == across.test.subject).all()
    assert (across.y_test == outcomes_of(inputs)[across.rows]).all()


def test_cross_vocabulary_refuses_records_of_one_edition():
    nine = np.flatnonzero(np.char.startswith(CODES, "ICD9CM"))
    inputs = samples_of(0, 60, each=1, codes=[nine[:2]] * 60)
    with pytest.raises(InputError, match="No sample sees a code of ICD-10"):
        listed(CROSS_VOCABULARY, inputs, outcomes_of(inputs))


def test_rare_tests_samples_whose_evidence_few_training_patients_have():
    strong, weak, common, of_no_system = 2, 3, 4, 0
    roles = [SPLITS[max(0, (person + 7_000) % 6 - 3)] for person in range(240)]
    y = np.zeros(240, bool)
    codes, seen = [], 0
    for person, role in enumerate(roles):
        mine = [common]
        y[person] = person % 2
        # Nine training patients have the strong code, all of them positive; half of all have the weak one.
        if role == "train" and y[person] and seen < 9:
            mine += [strong, of_no_system]
            seen += 1
        if person % 5 == 0:
            mine.append(weak)
        codes.append(np.array(mine))
    tested = [person for person, role in enumerate(roles) if role == "held_out"]
    chosen = tested[:6]
    for person in chosen:
        codes[person] = np.array([strong, common])
    # An event outside of code systems tells as much, but is nothing that a tokenizer could say something of.
    codes[tested[6]] = np.array([of_no_system, common])
    inputs = samples_of(0, 240, each=1, codes=codes)
    [(settings, part)] = listed(RARE, inputs, y)
    assert settings["setting"] == "<10 patients"
    assert part.test.subject.tolist() == chosen
    # A tenth patient makes the code as frequent as any, and no sample is left.
    tenth = next(
        place for place, role in enumerate(roles) if role == "train" and y[place] and strong not in codes[place]
    )
    codes[tenth] = np.array([strong, common])
    with pytest.raises(InputError, match="left to test on"):
        listed(RARE, samples_of(0, 240, each=1, codes=codes), y)


def test_evidence_agrees_with_a_count_by_hand():
    inputs = samples_of(8, 90)
    y = outcomes_of(inputs)
    [(_, part)] = listed(FULL, inputs, y)
    codes_of = [set(inputs.histories.code[start:stop]) for start, stop in zip(inputs.start, inputs.stop, strict=True)]
    train = part.train.subject.tolist()
    rate = y[train].mean()
    score, persons = {}, {}
    for code in range(len(CODES)):
        having = [row for row in train if code in codes_of[row]]
        positive = y[having].sum()
        odds = (positive + rate) / (len(having) - positive + 1 - rate)
        score[code] = abs(np.log(odds) - np.log(rate / (1 - rate)))
        persons[code] = len({inputs.person[row] for row in having})
    for row, found in zip(part.test.subject, regimes.rarest_evidence(part), strict=True):
        mine = {code for code in codes_of[row] if CODES[code].startswith(("ICD", "NDC"))}
        if mine:
            best = max(score[code] for code in mine)
            assert found == min(persons[code] for code in mine if np.isclose(score[code], best, rtol=1e-9))
        else:
            assert found >= regimes.RARE_BELOW


def test_multilabel_outcomes_pass_through():
    inputs = samples_of(9, 120)
    y = np.random.default_rng(0).random((len(inputs), 4)) < 0.3
    for regime in (FULL, RARE, UNSEEN, CROSS_VOCABULARY):
        for _, part in listed(regime, inputs, y):
            assert part.y.shape == (len(part.train), 4)
            assert (part.y_test == y[part.rows]).all()


def test_faults_are_refused():
    inputs = samples_of(0, 60)
    y = outcomes_of(inputs)
    with pytest.raises(InputError, match="unknown"):
        listed("zero_shot", inputs, y)
    with pytest.raises(InputError, match="--folds=1"):
        listed(FULL, inputs, y, folds=1)
    with pytest.raises(InputError, match="same outcome"):
        listed(FULL, inputs, np.zeros(len(inputs), bool))
    roles = split_of(inputs)
    with pytest.raises(InputError, match="left to tune on"):
        list(splits(FULL, inputs, y, np.where(roles == "tuning", "other", roles), seed=0))
    torn = roles.copy()
    torn[0] = "held_out" if roles[0] != "held_out" else "train"
    with pytest.raises(InputError, match="< 11 persons have samples both"):
        list(splits(FULL, inputs, y, torn, seed=0))
    # The id of the person is in no message.
    with pytest.raises(InputError) as error:
        list(splits(FULL, inputs, y, torn, seed=0))
    assert "70" not in str(error.value)


def test_masks_of_the_samples_are_kept():
    inputs = samples_of(0, 240)
    seen = np.ones(len(CODES), bool)
    seen[:10] = False
    for regime in REGIMES:
        for _, part in listed(regime, dataclasses.replace(inputs, seen=seen), outcomes_of(inputs)):
            assert not any(one.seen[:10].any() for one in (part.train, part.tuning, part.test))
