import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score, top_k_accuracy_score
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors

from eval.common.representation import Representation
from eval.quality.labels import Queries
from eval.quality.retrieval import (
    Scorer,
    average_precision,
    cosine_scorer,
    expected_hits,
    expected_reciprocal_rank,
    find,
    nearest_share,
    scorers,
)


def queries_of(pairs: dict[int, list[int]], kinds: list[int] | None = None) -> Queries:
    targets = [target for group in pairs.values() for target in group]
    offsets = np.cumsum([0, *(len(group) for group in pairs.values())])
    kinds = np.array(kinds if kinds is not None else [0] * len(targets), np.int8)
    return Queries(np.array(list(pairs)), offsets, np.array(targets), kinds, ("a", "b"), np.zeros(len(pairs), np.int8))


def in_every_order(above: int, level: int, targets: int) -> np.ndarray:
    """Place of the first target in every order of what is tied."""
    orders = set(itertools.permutations([True] * targets + [False] * level))
    return np.array([above + 1 + order.index(True) for order in orders])


@given(st.integers(0, 4), st.integers(0, 4), st.integers(1, 3), st.integers(1, 9))
def test_ties_are_worth_what_a_random_order_gives(above, level, targets, k):
    places = in_every_order(above, level, targets)
    case = [np.array([value]) for value in (above, level, targets)]
    assert expected_hits(*case, k)[0] == pytest.approx((places <= k).mean(), abs=1e-12)
    assert expected_reciprocal_rank(*case)[0] == pytest.approx((1 / places).mean(), abs=1e-12)


def test_ties_of_many():
    case = [np.array([value]) for value in (0, 99_999, 1)]
    assert expected_hits(*case, 10)[0] == pytest.approx(1e-4, rel=1e-6)
    assert expected_reciprocal_rank(*case)[0] == pytest.approx((1 / np.arange(1, 100_001)).mean(), rel=1e-6)


def test_by_hand():
    """Row 0 looks for 3 and 4 among 1 to 5, which score 0.9, 0.8, 0.7, 0.6 and 0.5."""
    cosines = np.array([1, 0.9, 0.8, 0.7, 0.6, 0.5])
    vectors = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32)
    scorer, candidates = cosine_scorer("v", vectors), np.arange(1, 6)
    both = find(scorer, queries_of({0: [3, 4]}), candidates)
    assert (both.above.tolist(), both.tied.tolist(), both.targets.tolist()) == ([2], [0], [1])
    assert [both.hits(k)[0] for k in (1, 2, 3)] == [0, 0, 1]
    assert both.reciprocal_rank()[0] == pytest.approx(1 / 3)
    # Only 4 is wanted: 3 is neither right nor wrong, and 4 takes its place.
    one = find(scorer, queries_of({0: [3, 4]}, [0, 1]), candidates, wanted=np.array([False, True]))
    assert one.reciprocal_rank()[0] == pytest.approx(1 / 3)
    # Codes of the query's own category are no candidates.
    category = np.array([7, 7, 1, 2, 3, 4])
    assert find(scorer, queries_of({0: [3]}), candidates, category=category).reciprocal_rank()[0] == pytest.approx(
        1 / 2
    )
    # A query among the candidates does not find itself.
    assert find(scorer, queries_of({0: [1]}), np.arange(6)).hits(1)[0] == 1


def test_against_scikit_learn():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 8)).astype(np.float32)
    rows, candidates = np.arange(100), np.arange(100, 300)
    targets = rng.integers(100, 300, 100)
    found = find(cosine_scorer("v", vectors), queries_of({q: [t] for q, t in enumerate(targets.tolist())}), candidates)
    scores = cosine_similarity(vectors[:100], vectors[100:])
    for k in (1, 10):
        wanted = top_k_accuracy_score(targets - 100, scores, k=k, labels=np.arange(200))
        assert found.hits(k).mean() == pytest.approx(wanted)
    right = np.eye(200)[targets - 100]
    wanted = label_ranking_average_precision_score(right, scores)
    # Scores within `TIE` of each other count as tied.
    assert found.reciprocal_rank().mean() == pytest.approx(wanted, rel=1e-3)
    label = rng.integers(5, size=300)
    near = NearestNeighbors(n_neighbors=1, metric="cosine").fit(vectors[100:]).kneighbors(vectors[:100])[1][:, 0]
    share = nearest_share(cosine_scorer("v", vectors), rows, candidates, label)
    assert np.array_equal(share, label[candidates[near]] == label[rows])


def scorer_of(scores: np.ndarray) -> Scorer:
    """Return a scorer by which row q scores the candidates, the first rows, by `scores[q - candidates]`."""
    width = scores.shape[1]
    return Scorer("s", lambda candidates: lambda rows: scores[rows - width][:, candidates].copy(), None)


@given(st.lists(st.integers(0, 2), min_size=4, max_size=6), st.integers(1, 15), st.integers(1, 7))
def test_average_precision_of_ties_is_that_of_a_random_order(levels, mask, depth):
    """Every order of tied candidates is as likely as any other."""
    right = np.array([(mask >> place) & 1 for place in range(len(levels))], bool)
    if not right.any():
        right[0] = True
    scores = np.array(levels, np.float32)
    values = []
    for order in itertools.permutations(range(len(levels))):
        if (np.diff(scores[list(order)]) <= 0).all():
            hits = right[list(order)][:depth]
            precision = np.cumsum(hits) / (np.arange(len(hits)) + 1)
            values.append((precision * hits).sum() / min(right.sum(), depth))
    queries = queries_of({len(levels): np.flatnonzero(right).tolist()})
    found = average_precision(scorer_of(scores[None]), queries, np.arange(len(levels)), depth)
    assert found[0] == pytest.approx(np.mean(values), abs=1e-9)


def test_average_precision_against_scikit_learn():
    rng = np.random.default_rng(0)
    scores = rng.permutation(40 * 60).reshape(40, 60).astype(np.float32)
    right = rng.random((40, 60)) < 0.1
    right[:, 0] = True
    queries = queries_of({60 + q: np.flatnonzero(row).tolist() for q, row in enumerate(right)})
    found = average_precision(scorer_of(scores), queries, np.arange(60), 100)
    wanted = [average_precision_score(truth, row) for truth, row in zip(right, scores, strict=True)]
    assert found == pytest.approx(wanted)
    # Within the first 10, with no more than 10 targets: the others of the ranking count for nothing.
    found = average_precision(scorer_of(scores), queries, np.arange(60), 10)
    for q, (truth, row) in enumerate(zip(right, scores, strict=True)):
        hits = truth[np.argsort(-row)][:10]
        precision = np.cumsum(hits) / np.arange(1, 11)
        assert found[q] == pytest.approx((precision * hits).sum() / min(truth.sum(), 10))


@pytest.mark.parametrize("zero", [False, True])
def test_vectors_that_are_all_the_same_find_nothing_by_their_order(zero):
    vectors = np.zeros((400, 33), np.float32) if zero else np.tile(np.random.default_rng(0).normal(size=33), (400, 1))
    scorer = cosine_scorer("v", vectors.astype(np.float32))
    for target in (100, 399):
        found = find(scorer, queries_of({q: [target] for q in range(100)}), np.arange(100, 400))
        assert found.hits(1) == pytest.approx(1 / 300)
        assert found.hits(10) == pytest.approx(10 / 300)
    label = np.arange(400) % 4
    # 99 of the 399 other codes have the code's own label.
    assert nearest_share(scorer, np.arange(50), np.arange(400), label) == pytest.approx(99 / 399)


def test_vectors_count_by_the_tokens_of_their_embeddings():
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(6, 4)).astype(np.float32)
    fields = {"embeddings": ("a", "b"), "region_of_embedding": {"a": "r", "b": "r"}, "regions": {"r": (0, 9)}}
    representation = Representation(
        name="r",
        keys=np.array([f"S/{row}" for row in range(6)]),
        descriptions=np.array([""] * 6, object),
        tokens=rng.integers(9, size=(6, 4)),
        vectors=vectors,
        unquantized=vectors[::-1].copy(),
        token_bounds=((0, 3), (3, 4)),
        **fields,
    )
    first, second = np.triu_indices(6, 1)
    found = {scorer.name: scorer.pairs(first, second) for scorer in scorers(representation)}
    for name, plain in (("vectors", vectors), ("unquantized", vectors[::-1])):
        weighted = plain * np.sqrt([3, 3, 1, 1])
        unit = weighted / np.linalg.norm(weighted, axis=1, keepdims=True)
        np.testing.assert_allclose(found[name], (unit[first] * unit[second]).sum(1), atol=1e-6)
