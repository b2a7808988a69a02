"""The signal of a world is where it must be, and nowhere else: logistic regression finds it there and only there."""

import numpy as np
import pytest
import scipy.sparse as sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from preprocessing.codes import ICD9CM, CodeRecord, category_of
from preprocessing.common.errors import InputError
from preprocessing.meds.planted import world as worlds
from preprocessing.meds.planted.conditions import GROUPS, OUTCOME_PROXY
from preprocessing.meds.planted.draw import DAY, Patients, draw
from preprocessing.meds.planted.world import (
    GRAPH_ONLY,
    GROUP,
    LEAK,
    NONE,
    ORDER,
    RANDOM,
    SIGNALS,
    TEXT_ONLY,
    make_world,
)
from preprocessing.sources import icd

PATIENTS, TRAINING = 6000, 4000
# More than four standard errors of an AUROC of 2,000 patients, 600 of them positive.
CHANCE = 0.055


def codes_of(patients: Patients, world: worlds.World) -> sparse.csr_matrix:
    """Return how often each patient has each disease."""
    one = np.ones(len(patients.diagnoses["person"]))
    pairs = (patients.diagnoses["person"], patients.diagnoses["condition"])
    return sparse.csr_matrix((one, pairs), shape=(len(patients.people["person"]), len(world.conditions.group)))


def sets_of(sets: np.ndarray) -> sparse.csr_matrix:
    return sparse.csr_matrix((np.ones(len(sets)), (np.arange(len(sets)), sets)))


def auroc(features, label: np.ndarray, *, patients: int = TRAINING, strength: float = 0.1) -> float:
    """Return the AUROC of a logistic regression on patients that it was not fitted on."""
    model = LogisticRegression(C=strength, max_iter=300).fit(features[:patients], label[:patients])
    return roc_auc_score(label[TRAINING:], model.decision_function(features[TRAINING:]))


@pytest.fixture(scope="module", params=SIGNALS)
def drawn(request):
    world = make_world(request.param, 3)
    patients = world.patients(0, PATIENTS)
    risk = world.risk(patients)
    return world, patients, risk, patients.people["luck"] < risk


def test_prevalence_and_oracle_are_as_planned(drawn):
    world, _, risk, label = drawn
    assert abs(risk.mean() - worlds.PREVALENCE) < 0.02
    assert abs(label.mean() - worlds.PREVALENCE) < 0.03
    wanted = 0.5 if world.signal == NONE else worlds.ORACLE_AUROC
    assert abs(worlds.expected_auroc(risk) - wanted) < 0.015
    assert abs(worlds.observed_auroc(risk, label) - wanted) < 0.03


def test_age_sex_stays_drugs_and_number_of_diseases_say_nothing(drawn):
    world, patients, _, label = drawn
    people = patients.people
    drugs = np.zeros((PATIENTS, 30))
    np.add.at(drugs, (patients.drugs["person"], patients.drugs["drug"]), 1)
    number = np.asarray((codes_of(patients, world) > 0).sum(1)).ravel()
    plain = np.stack([people["age"] / 100, people["is_woman"], people["stays"], np.log1p(number)], axis=1)
    assert abs(auroc(plain, label) - 0.5) < CHANCE
    assert abs(auroc(drugs, label) - 0.5) < CHANCE


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_having_more_diseases_does_not_raise_the_risk(seed):
    world = make_world(GROUP, seed)
    patients = draw(seed, world.conditions, 0, 16384, stream=9)
    assert abs(np.corrcoef(worlds.diseases_of(patients), world.risk(patients))[0, 1]) < 0.035


def test_the_planted_sets_tell_the_risk_and_groups_only_where_they_are_planted(drawn):
    world, patients, _, label = drawn
    codes = (codes_of(patients, world) > 0).astype(float)
    by_set, by_group = (
        auroc((codes @ sets_of(sets)) > 0, label) for sets in (world.risk_group, world.conditions.group)
    )
    if world.signal in (NONE, ORDER):
        assert abs(by_set - 0.5) < CHANCE
        assert abs(auroc(codes, label) - 0.5) < CHANCE
        return
    assert by_set > worlds.ORACLE_AUROC - 0.04
    if world.signal == RANDOM:
        assert by_group < 0.6
    else:
        # Groups need fewer patients than codes do.
        assert by_set - auroc(codes, label) > 0.02
        few = auroc((codes @ sets_of(world.risk_group)) > 0, label, patients=500), auroc(codes, label, patients=500)
        assert few[0] - few[1] > 0.03


def test_random_sets_are_as_large_and_as_frequent_as_the_groups():
    world = make_world(RANDOM, 3)
    conditions = world.conditions
    assert np.bincount(world.risk_group).tolist() == np.bincount(conditions.group).tolist()
    assert (world.risk_group == conditions.group).mean() < 0.1
    mass = np.bincount(world.risk_group, conditions.share)
    assert np.abs(mass - 1).max() < 0.35


def test_worlds_of_one_seed_have_the_same_patients_whatever_their_risk():
    tables = [make_world(signal, 3).patients(0, 500) for signal in (GROUP, RANDOM, NONE, LEAK)]
    for other in tables[1:]:
        for one, two in zip(tables[0], other, strict=True):
            assert all((one[name] == two[name]).all() for name in one)


@pytest.mark.parametrize("signal", SIGNALS)
def test_every_disease_has_a_code_of_its_own_in_both_vocabularies(signal):
    world = make_world(signal, 3)
    diseases = world.conditions.diseases
    assert len({one.icd9 for one in diseases}) == len({one.icd10 for one in diseases}) == len(diseases)
    assert {(one.icd9, one.icd10) for one in diseases} <= {pair[:2] for pair in icd.read_gem().pairs}
    assert not {one.icd9 for one in diseases} & {OUTCOME_PROXY[0]}
    assert len(world.conditions.names) == GROUPS
    sizes = np.bincount(world.conditions.group)
    assert sizes.min() >= 5
    assert sizes.max() <= 16
    assert np.allclose(np.bincount(world.conditions.group, world.conditions.share), 1)


def test_ccs_groups_are_those_of_the_classification():
    world = make_world(GROUP, 3)
    labels = {code: label for code, _, label in icd.read_ccs()}
    for disease, group in zip(world.conditions.diseases, world.conditions.group, strict=True):
        assert labels[disease.icd9] == world.conditions.names[group]


def test_graph_groups_share_a_category_and_no_word():
    conditions = make_world(GRAPH_ONLY, 3).conditions
    for group, name in enumerate(conditions.names):
        mine = [conditions.diseases[place] for place in np.flatnonzero(conditions.group == group)]
        assert {category_of(CodeRecord(ICD9CM, one.icd9, "")) for one in mine} == {name}
        words = [word for one in mine for word in one.words]
        assert len(words) == len(set(words))


def test_word_groups_share_a_word_and_no_category():
    conditions = make_world(TEXT_ONLY, 3).conditions
    for group, name in enumerate(conditions.names):
        mine = [conditions.diseases[place] for place in np.flatnonzero(conditions.group == group)]
        assert all(name in one.shared_words for one in mine)
        assert len({category_of(CodeRecord(ICD9CM, one.icd9, "")) for one in mine}) == len(mine)
        assert len({one.icd10[0] for one in mine}) >= 4


def test_codes_follow_the_law_of_zipf(drawn):
    world, patients, _, _ = drawn
    counts = np.asarray((codes_of(patients, world) > 0).sum(0)).ravel()
    ranks = np.arange(len(counts)) - world.conditions.starts[world.conditions.group]
    by_rank = np.bincount(ranks, counts) / np.bincount(ranks)
    assert (np.diff(by_rank[:5]) < 0).all()
    assert (counts[ranks >= 10] > 0).mean() > 0.9 or world.signal == GRAPH_ONLY


def test_stays_follow_one_another_and_hold_their_events(drawn):
    _, patients, _, _ = drawn
    stays = patients.stays
    assert (stays["end"] > stays["start"]).all()
    same = stays["person"][1:] == stays["person"][:-1]
    assert (stays["start"][1:] > stays["end"][:-1])[same].all()
    assert (stays["number"][1:] == stays["number"][:-1] + 1)[same].all()
    last = np.append(~same, True)
    assert (stays["end"][last] == patients.people["discharge"]).all()
    for table in (patients.diagnoses, patients.drugs):
        place = np.searchsorted(stays["stay"], table["stay"])
        assert (stays["stay"][place] == table["stay"]).all()
        assert (stays["person"][place] == table["person"]).all()
        assert (stays["start"][place] < table["time"]).all()
        assert (table["time"] < stays["end"][place]).all()


def test_the_ordered_pair_is_told_by_its_order_alone():
    world = make_world(ORDER, 3)
    patients = world.patients(0, 2000)
    diagnoses = patients.diagnoses
    group = world.conditions.group[diagnoses["condition"]]
    times = {}
    for which in (0, 1):
        mine = group == which
        # Everyone has one disease of each of both groups, coded once.
        assert (np.bincount(diagnoses["person"][mine], minlength=2000) == 1).all()
        times[which] = diagnoses["time"][mine][np.argsort(diagnoses["person"][mine])]
        assert (patients.people["discharge"] - times[which] < 30 * DAY).all()
    assert ((times[1] < times[0]) == patients.people["is_reversed"].astype(bool)).all()
    risk = world.risk(patients)
    assert len(np.unique(risk)) == 2
    assert (risk[times[0] < times[1]] > 0.3).all()


def test_a_patient_is_the_same_in_any_range():
    world = make_world(GROUP, 3)
    whole, part = world.patients(0, 2200), world.patients(900, 1500)
    for one, two in zip(whole, part, strict=True):
        kept = (one["person"] >= 900) & (one["person"] < 1500)
        assert all((one[name][kept] == two[name]).all() for name in one)
    other = draw(4, world.conditions, 900, 1500)
    assert (other.people["luck"] != part.people["luck"]).all()


def test_another_seed_is_another_world():
    one, other = make_world(GROUP, 3), make_world(GROUP, 4)
    assert one.conditions.names != other.conditions.names
    assert not np.allclose(one.weight, other.weight)


def test_auroc_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    risk = rng.integers(0, 10, 500) / 10
    label = rng.random(500) < risk
    assert worlds.observed_auroc(risk, label) == pytest.approx(roc_auc_score(label, risk), abs=1e-12)
    assert np.isnan(worlds.observed_auroc(risk, np.zeros(500, bool)))
    # Of many labels drawn from a risk, the mean AUROC is what is expected.
    found = [roc_auc_score(rng.random(500) < risk, risk) for _ in range(200)]
    assert worlds.expected_auroc(risk) == pytest.approx(np.mean(found), abs=0.005)


def test_an_unknown_signal_is_refused():
    with pytest.raises(InputError, match="graph_only"):
        make_world("groups", 0)
