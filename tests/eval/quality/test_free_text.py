"""Terms as queries for their codes: figures against scikit-learn, and who can encode a description."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.metrics.pairwise import cosine_similarity

from eval.baselines import new_texts
from eval.common.representation import Representation
from eval.quality import free_text
from eval.quality.context import Context
from eval.quality.labels import Labels, Terms
from tests.helpers import hand_world

COUNT = 30


def terms() -> Terms:
    """Return terms for one to three ICD-10-CM codes of a category each."""
    rng = np.random.default_rng(0)
    ten = np.flatnonzero(np.char.startswith(hand_world.KEYS, "ICD10CM/"))
    groups = [np.sort(rng.choice(ten[10 * n : 10 * n + 10], rng.integers(1, 4), replace=False)) for n in range(COUNT)]
    return Terms(
        text=np.array([f"term {n}" for n in range(COUNT)]),
        offsets=np.cumsum([0, *map(len, groups)]),
        targets=np.concatenate(groups).astype(np.int32),
        part=(np.arange(COUNT) % 2).astype(np.int8),
        given="GIVEN: a link",
    )


def codes() -> Representation:
    """Return codes of which no two have the same vector."""
    return hand_world.representation(vectors=hand_world.representation().unquantized)


@pytest.fixture
def queries(monkeypatch):
    """Encode each term as a noisy copy of its first code."""
    rng = np.random.default_rng(1)
    whole, asked = codes(), terms()

    def encode(representation, texts):
        rows = [asked.targets[asked.offsets[asked.text.tolist().index(text)]] for text in texts]
        noise = rng.normal(size=(len(rows), whole.vectors.shape[1])).astype(np.float32)
        return {
            "tokens": whole.tokens[rows],
            "weights": whole.weights[rows],
            "vectors": whole.vectors[rows] + noise,
        }

    monkeypatch.setattr(new_texts, "encode", encode)
    return encode


def test_figures_against_scikit_learn(monkeypatch, queries):
    kept = {}

    def remember(representation, texts):
        kept["texts"], kept["encoded"] = texts, queries(representation, texts)
        return kept["encoded"]

    monkeypatch.setattr(new_texts, "encode", remember)
    labels, whole, asked = hand_world.labels(terms={"kind": terms()}), codes(), terms()
    found = {one.name: one for one in free_text.measure(Context(whole, labels, "test"))}
    assert kept["texts"] == [f"term {n}" for n in range(1, COUNT, 2)]
    ten = np.flatnonzero(labels.systems == "ICD10CM")
    scores = cosine_similarity(kept["encoded"]["vectors"], whole.vectors[ten])
    for number, row in enumerate(scores):
        term = 2 * number + 1
        right = np.isin(ten, asked.targets[asked.offsets[term] : asked.offsets[term + 1]])
        order = np.argsort(-row)
        for depth in (1, 10):
            one = found[free_text.FAMILY, f"R@{depth}", "vectors", "kind"]
            assert one.values[number] == right[order[:depth]].any()
        one = found[free_text.FAMILY, free_text.AP, "vectors", "kind"]
        if right[order[:100]].sum() == right.sum():
            assert one.values[number] == pytest.approx(average_precision_score(right, row))
    assert {name[2] for name in found} == {"vectors", "tokens", "unweighted tokens"}
    assert {one.given for one in found.values()} == {"GIVEN: a link"}
    # A term with the tokens of its code finds it first, unless other codes have these tokens too.
    assert found[free_text.FAMILY, "R@1", "tokens", "kind"].value() > 0.7


def test_nothing_is_measured_where_nothing_can_be_encoded(monkeypatch):
    labels = hand_world.labels(terms={"kind": terms()})
    assert free_text.measure(Context(hand_world.representation(about={"kind": "vqgraph"}), labels)) == []
    # A MedTok without its model: the folder that it was loaded from is unknown.
    assert free_text.measure(Context(hand_world.representation(about={"kind": "medtok"}), labels)) == []
    assert free_text.measure(Context(hand_world.representation(), hand_world.labels())) == []


def test_terms_are_saved_and_follow_their_codes(tmp_path):
    labels = hand_world.labels(terms={"kind": terms()})
    labels.save(tmp_path / "labels")
    again = Labels.load(tmp_path / "labels").terms["kind"]
    for name in ("text", "offsets", "targets", "part"):
        np.testing.assert_array_equal(getattr(again, name), getattr(labels.terms["kind"], name))
    assert again.given == "GIVEN: a link"
    kept = np.setdiff1d(np.arange(len(labels)), labels.terms["kind"].targets[:2])
    some = labels.for_keys(labels.keys[kept]).terms["kind"]
    owner = np.repeat(some.text, np.diff(some.offsets))
    pairs = set(zip(owner.tolist(), labels.keys[kept][some.targets].tolist(), strict=True))
    whole = labels.terms["kind"]
    owner = np.repeat(whole.text, np.diff(whole.offsets))
    wanted = list(zip(owner.tolist(), labels.keys[whole.targets].tolist(), strict=True))[2:]
    assert pairs == set(wanted)
