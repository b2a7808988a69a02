import dataclasses

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from eval.quality import seed_stability
from eval.quality.context import Context
from eval.quality.retrieval import cosine_scorer
from eval.quality.seed_stability import membership, shared_neighbors, token_agreement
from preprocessing.common.errors import InputError
from tests.helpers import hand_world


def test_mates_by_hand():
    """Code 0 keeps one of its two token_agreement; 3 and 4 stay together; 5 stays alone."""
    first, second = np.array([7, 7, 7, 8, 8, 9]), np.array([1, 1, 2, 3, 3, 4])
    # Of five other codes one has the token of code 0: chance is 1/5 of its two token_agreement.
    assert token_agreement(first, second) == pytest.approx([(1 / 2 - 1 / 5) / (4 / 5)] * 2 + [0, 1, 1, 1])
    assert token_agreement(second, first)[2] == 0


def test_ids_have_no_meaning_of_their_own():
    first = np.random.default_rng(0).integers(9, size=100)
    assert token_agreement(first, (first + 4) % 9) == pytest.approx(1)


def test_membership_by_hand():
    scores = np.array([[0.9, 0.5, 0.5, 0.5, 0.1]])
    assert membership(scores, 2)[0] == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3, 0])
    assert membership(np.zeros((1, 5)), 2)[0] == pytest.approx([0.4] * 5)


def test_shared_neighbors_against_scikit_learn():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(200, 5)).astype(np.float32)
    other = (one + 0.3 * rng.normal(size=one.shape)).astype(np.float32)
    near = [NearestNeighbors(n_neighbors=11, metric="cosine").fit(v).kneighbors(v)[1][:, 1:] for v in (one, other)]
    wanted = [len(set(a) & set(b)) / 10 for a, b in zip(*(part[:50].tolist() for part in near), strict=True)]
    found = shared_neighbors(cosine_scorer("a", one), cosine_scorer("b", other), np.arange(50), 200)
    assert found == pytest.approx(wanted, abs=0.06)
    assert found.mean() == pytest.approx(np.mean(wanted), abs=0.005)


def test_seeds_of_one_meaning_agree_more_than_those_of_different_ones():
    labels = hand_world.labels()
    one = hand_world.representation(seed=0)
    # The same codes, quantized with other rows: near the same meaning, other ids.
    rng = np.random.default_rng(5)
    near = dataclasses.replace(one, vectors=one.vectors + 0.1 * rng.normal(size=one.vectors.shape).astype(np.float32))
    context = Context(one, labels)
    values = {
        name: {(m.metric, m.view): m.value() for m in seed_stability.measure(context, others)}
        for name, others in {"near": [near], "far": [hand_world.representation(seed=1)]}.items()
    }
    key = ("shared neighbors among 10", "vectors")
    # The chapters and categories of other seeds mean something else, so only the tree is left in common.
    assert values["near"][key] > 0.5
    assert values["near"][key] > values["far"][key] + 0.2
    both = seed_stability.measure(context, [near, hand_world.representation(seed=1)])
    mean = {(m.metric, m.view): m.value() for m in both}[key]
    assert mean == pytest.approx((values["near"][key] + values["far"][key]) / 2)


def test_other_codes_are_refused():
    one = hand_world.representation()
    with pytest.raises(InputError, match="different codes"):
        seed_stability.measure(Context(one, hand_world.labels()), [one.take(np.arange(50))])
