import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import balanced_accuracy_score

from eval.quality import groups
from eval.quality.bags import bags_of
from eval.quality.context import Context
from tests.helpers import hand_world


@pytest.fixture(scope="module")
def world():
    return hand_world.representation(), hand_world.labels()


def test_categories_are_dealt_whole(world):
    _, labels = world
    part = groups.part_of_category(labels.category, labels.keys, "CCSR")
    for category in np.unique(labels.category):
        assert len(set(part[labels.category == category])) == 1
    assert set(part) == set(groups.PARTS)


def test_parts_depend_on_keys_alone(world):
    _, labels = world
    part = groups.part_of_category(labels.category, labels.keys, "CCSR")
    some = np.arange(0, len(labels), 3)
    renumbered = np.unique(labels.category[some], return_inverse=True)[1]
    assert np.array_equal(groups.part_of_category(renumbered, labels.keys[some], "CCSR"), part[some])
    assert not np.array_equal(groups.part_of_category(labels.category, labels.keys, "CCS"), part)


def test_no_word_of_a_scored_category_was_fitted_on(world):
    representation, labels = world
    part = groups.part_of_category(labels.category, labels.keys, "CCSR")
    for split in ("validation", "test"):
        (figure, *_) = groups.measure(Context(representation, labels, split))
        scored = np.isin(Context(representation, labels).items, figure.items)
        assert set(part[scored]) == {split}


def test_by_hand():
    """One feature tells the group; the code at 0.5 stands with the second."""
    features = np.array([[-1], [-1.1], [1], [1.1], [-1], [1], [-0.5], [0.5], [0.4]], np.float32)
    group = np.array([0, 0, 1, 1, 0, 1, 0, 0, 1])
    right = groups.probe(features, group, np.arange(4), np.arange(4, 6), np.arange(6, 9))
    assert right.tolist() == [1, 0, 1]


@pytest.mark.parametrize("sparse", [False, True])
def test_against_scikit_learn(world, monkeypatch, sparse):
    """The probe equals scikit-learn's ridge classifier with one penalty, and its score the balanced accuracy."""
    representation, labels = world
    monkeypatch.setattr(groups, "PENALTIES", (0.1,))
    part, group = groups.part_of_category(labels.category, labels.keys, "CCSR"), labels.groups["CCSR"]
    fitted, scored = (np.flatnonzero((part == name) & (group >= 0)) for name in ("fit", "test"))
    features = bags_of(representation) if sparse else representation.unquantized
    share = groups.probe(features, group, fitted, fitted, scored)
    dense = features.toarray() if sparse else features - features[fitted].mean(0)
    dense = np.concatenate([dense, np.ones((len(dense), 1))], axis=1)
    penalty = 0.1 * (dense[fitted] ** 2).sum(1).mean()
    model = RidgeClassifier(penalty, fit_intercept=False, class_weight="balanced").fit(dense[fitted], group[fitted])
    predicted = model.predict(dense[scored])
    assert np.array_equal(share, predicted == group[scored])
    found = {(m.view, m.scope): m for m in groups.measure(Context(representation, labels))}
    mine = found["tokens" if sparse else "unquantized", "CCSR"].value()
    assert mine == pytest.approx(balanced_accuracy_score(group[scored], predicted))


def test_groups_are_fitted_on_alike():
    """A group of 90 and one of 10 codes give 10 codes each to a sample of 20."""
    labels, representation = hand_world.labels(), hand_world.representation()
    group = np.where(np.arange(len(labels)) < 90, 0, np.where(np.arange(len(labels)) < 100, 1, -1))
    rows = groups._balanced(Context(representation, labels), group, np.arange(100), 20)
    assert np.bincount(group[rows]).tolist() == [10, 10]


def test_features_that_tell_nothing_share_each_code_among_all_groups():
    group = np.arange(60) % 3
    for features in (np.ones((60, 4), np.float32), sp.csr_array(np.ones((60, 4), np.float32))):
        share = groups.probe(features, group, np.arange(30), np.arange(30, 45), np.arange(45, 60))
        assert share == pytest.approx(1 / 3)


def test_bags_whose_tokens_hang_together():
    """A token of each of many levels: each level sums to the same, which float32 takes for a singular system."""
    rng, codes, levels, rows = np.random.default_rng(0), 40000, 32, 8
    share = 1 / np.arange(1, 41)
    group = rng.choice(40, size=codes, p=share / share.sum())
    tokens = rng.integers(rows, size=(codes, levels))
    tokens[:, 0], tokens[:, 1] = group % rows, group // rows
    columns = (tokens + rows * np.arange(levels)).reshape(-1)
    values = np.full(codes * levels, 1 / levels, np.float32)
    bags = sp.csr_array((values, columns, np.arange(codes + 1) * levels), shape=(codes, rows * levels))
    parts = np.split(np.arange(codes), [30000, 35000])
    assert groups.probe(bags, group, *parts).mean() > 0.99
