import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from eval.quality import cross_system, relations
from eval.quality.context import Context
from eval.quality.retrieval import cosine_scorer
from tests.helpers import hand_world


@pytest.fixture(scope="module")
def world():
    return hand_world.representation(), hand_world.labels()


@pytest.mark.parametrize("relation", ["excludes1", "code_first"])
def test_auc_of_one_edge_against_scikit_learn(world, relation):
    """Wrong codes are never of the query's category and never known to be right."""
    representation, labels = world
    queries = labels.relations[relation].of_split("test")
    right, wrong = relations._sample(queries, labels.category, np.random.default_rng(0))
    scorer = cosine_scorer("v", representation.unquantized)
    wins = relations._wins(scorer, queries, right, wrong)
    for number, query in enumerate(queries.query.tolist()):
        own = queries.targets[queries.offsets[number] : queries.offsets[number + 1]]
        drawn = wrong[number][wrong[number] >= 0]
        assert right[number] in own
        assert not set(drawn) & set(own)
        assert (labels.category[drawn] != labels.category[query]).all()
        codes = np.concatenate([[right[number]], drawn])
        scores = scorer.pairs(np.full(len(codes), query), codes)
        assert wins[number] == pytest.approx(roc_auc_score([1] + [0] * len(drawn), scores), abs=1e-9)


def test_hits_by_hand(world):
    """A query whose vector is that of a wanted code finds it; its own category, which is as near, is left out."""
    representation, labels = world
    vectors = representation.unquantized.copy()
    queries = labels.relations["excludes1"].of_split("test")
    vectors[queries.query] = vectors[queries.targets[queries.offsets[:-1]]]
    moved = dataclasses.replace(representation, tokens=None, weights=None, vectors=vectors, unquantized=None)
    found = {(m.metric, m.scope): m.value() for m in relations.measure(Context(moved, labels))}
    assert found[relations.HITS, "excludes1"] == 1
    assert found[relations.AUC, "excludes1"] > 0.99


def test_all_edges_count_alike_in_the_sum(world):
    found = {(m.metric, m.view, m.scope): m for m in relations.measure(Context(*world))}
    both = [found[relations.AUC, "vectors", name] for name in ("excludes1", "code_first")]
    together = found[relations.AUC, "vectors", relations.ALL]
    assert together.value() == pytest.approx(np.mean(np.concatenate([one.values for one in both])))
    assert len(set(together.items.tolist())) == len(together.items)


def test_given_is_said(world):
    representation, labels = world
    leaky = {name: dataclasses.replace(queries, given="GIVEN: so") for name, queries in labels.relations.items()}
    for measurement in relations.measure(Context(representation, dataclasses.replace(labels, relations=leaky))):
        assert measurement.given == "GIVEN: so"
    # Not of what read no graph, and not known of what was made from another data set.
    for about, said in (({"graph": False}, ""), ({"data_set": {"name": "x", "fingerprint": "1"}}, "UNKNOWN")):
        other = dataclasses.replace(representation, about=about)
        for measurement in relations.measure(Context(other, dataclasses.replace(labels, relations=leaky))):
            assert measurement.given.startswith(said)
            assert bool(measurement.given) == bool(said)


def test_what_is_trained_on_is_said(world):
    """Relations of the kind that is scored count, whether their labels are held out or not."""
    representation, labels = world
    for used, notes, crosswalks in (
        ([], "", ""),
        (["code_also", "gem_exact"], "code_also", "gem_exact"),
        (["gem_exact", "gem_approximate"], "", "gem_exact, gem_approximate"),
    ):
        context = Context(dataclasses.replace(representation, about={"graph": False, "trained_on": used}), labels)
        for measured, said in ((relations.measure(context), notes), (cross_system.measure(context), crosswalks)):
            wanted = f"TRAINED on other pairs of this kind: {said}" if said else ""
            assert measured
            assert {one.trained for one in measured} == {wanted}
            assert {one.given for one in measured} == {""}


def test_crosswalks_that_were_trained_on_are_given_where_the_graph_contains_them(world):
    representation, labels = world
    leaky = {name: dataclasses.replace(queries, given="GIVEN: so") for name, queries in labels.crosswalk.items()}
    shown = dataclasses.replace(labels, crosswalk=leaky)
    for used, said in (([], ""), (["gem_exact"], "GIVEN: so")):
        other = dataclasses.replace(representation, about={"graph": False, "trained_on": used})
        assert {one.given for one in cross_system.measure(Context(other, shown))} == {said}
