"""Shorter codes: which tokens a prefix takes, its vectors, and its figures, against loops."""

import dataclasses

import numpy as np
import pytest

from eval.quality import cross_system, identity, prefixes, relations, tree_metrics
from eval.quality.context import Context
from eval.quality.label_building import BACKWARD, FORWARD
from eval.quality.prefixes import scope_of, shortened
from tests.helpers import hand_world

UNEVEN = {
    "embeddings": ("a", "b", "c"),
    "token_bounds": ((0, 1), (1, 4), (4, 6)),
    "region_of_embedding": {"a": "first", "b": "first", "c": "second"},
}


@pytest.fixture(scope="module")
def context() -> Context:
    return Context(hand_world.representation(), hand_world.labels(), "test")


def test_tokens_are_read_level_by_level():
    assert hand_world.representation().reading_order().tolist() == [0, 3, 1, 4, 2, 5]
    assert hand_world.representation(**UNEVEN).reading_order().tolist() == [0, 1, 4, 2, 5, 3]
    single = hand_world.representation(embeddings=(), region_of_embedding={})
    assert single.reading_order().tolist() == list(range(6))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("fields", [{}, UNEVEN, {"embeddings": (), "region_of_embedding": {}}])
def test_a_prefix_by_loops(fields, count):
    whole = hand_world.representation(**fields)
    weights = np.random.default_rng(0).random(whole.tokens.shape).astype(np.float32)
    weights[7] = 0
    whole = dataclasses.replace(whole, weights=weights, vectors=whole.vectors)
    short = shortened(whole, count)
    kept = sorted(whole.reading_order()[:count].tolist())
    np.testing.assert_array_equal(short.tokens, whole.tokens[:, kept])
    np.testing.assert_array_equal(short.weights, weights[:, kept])
    bounds = whole.bounds if whole.embeddings else ((0, 6),)
    for code in (0, 7, 500):
        parts = []
        for start, stop in bounds:
            mine = [c for c in kept if start <= c < stop]
            summed = sum((weights[code, c] * whole.codebook[whole.tokens[code, c]] for c in mine), np.zeros(12))
            parts.append(summed / max(np.linalg.norm(summed), 1e-12))
        np.testing.assert_allclose(short.vectors[code], np.concatenate(parts), atol=1e-5)
    if whole.embeddings:
        taken = [stop - start for start, stop in short.bounds]
        assert sum(taken) == count
        # No embedding has two tokens more than another one that has any left.
        left = [stop - start - own for (start, stop), own in zip(whole.bounds, taken, strict=True)]
        assert all(a <= b + 1 for a in taken for b, more in zip(taken, left, strict=True) if more)


def test_the_whole_code_keeps_its_vector():
    whole = hand_world.representation()
    short = shortened(whole, 6)
    np.testing.assert_array_equal(short.vectors, whole.vectors)
    np.testing.assert_array_equal(short.tokens, whole.tokens)


def test_figures_are_those_of_the_shorter_tokenizer(context):
    found = {one.name: one for one in prefixes.measure(context)}
    four = dataclasses.replace(context, representation=shortened(context.representation, 4))
    wanted = [*cross_system.measure(four), *relations.measure(four), *tree_metrics.measure(four)]
    by_name = {one.name: one for one in wanted}
    for family, metric, scope in (
        (cross_system.FAMILY, "R@1", FORWARD),
        (cross_system.FAMILY, "R@10", BACKWARD),
        (relations.FAMILY, relations.AUC, relations.ALL),
        (tree_metrics.FAMILY, tree_metrics.SAME_CATEGORY, tree_metrics.ALL),
    ):
        for view in ("vectors", "tokens", "unweighted tokens"):
            one = found[prefixes.FAMILY, metric, view, scope_of(scope, 4)]
            np.testing.assert_array_equal(one.values, by_name[family, metric, view, scope].values)
    # Six tokens are fewer than eight.
    assert {one.scope.rsplit(", ", 1)[1] for one in found.values()} == {"4 tokens"}


def test_lengths_are_those_that_the_tokenizer_has(context, monkeypatch):
    monkeypatch.setattr(prefixes, "PREFIX_LENGTHS", (1, 6, 7))
    scopes = {one.scope.rsplit(", ", 1)[1] for one in prefixes.measure(context)}
    assert scopes == {"1 tokens", "6 tokens"}
    ragged = context.representation.tokens.copy()
    ragged[0, 5] = -1
    some = dataclasses.replace(context, representation=dataclasses.replace(context.representation, tokens=ragged))
    assert prefixes.measure(some) == []


def test_collisions_at_a_length(context):
    found = {one.metric: one.values for one in prefixes.measure(context) if one.scope == scope_of("all codes", 4)}
    tokens = shortened(context.representation, 4).tokens
    rows = [tuple(row) for row in tokens.tolist()]
    labels, texts = context.labels, context.representation.descriptions
    for i in range(0, len(rows), 37):
        others = [j for j in range(len(rows)) if j != i and rows[j] == rows[i] and texts[j] != texts[i]]
        within = any(labels.category[j] == labels.category[i] for j in others)
        system = any(labels.systems[j] != labels.systems[i] for j in others)
        across = any(
            labels.systems[j] == labels.systems[i] and labels.category[j] != labels.category[i] for j in others
        )
        assert found[identity.MODEL_MADE][i] == bool(others)
        assert (found[identity.WITHIN][i], found[identity.ACROSS][i], found[identity.OTHER_SYSTEM][i]) == (
            *(within, across, system),
        )
