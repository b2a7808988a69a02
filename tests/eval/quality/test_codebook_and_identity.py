import collections
import dataclasses

import numpy as np
import pytest
from scipy import stats

from eval.common.representation import Representation
from eval.quality import codebook_use, identity
from eval.quality.context import Context
from eval.quality.identity import as_sets, collisions
from eval.quality.labels import Labels
from medtok_jax.regions import EMBEDDINGS, REGION_OF_EMBEDDING, REGIONS, Regions
from medtok_jax.training.metrics import describe_usage


def context_of(representation: Representation) -> Context:
    count, systems = len(representation), np.array([key.partition("/")[0] for key in representation.keys])
    zeros = np.zeros(count, np.int32)
    path = np.full((count, 1), -1, np.int32)
    labels = Labels("d", "f", representation.keys, systems, zeros, path, {}, {}, {}, zeros.astype(np.int8))
    return Context(representation, labels)


def figures(measurements) -> dict[tuple[str, str], float]:
    return {(m.metric, m.scope): m.value() for m in measurements}


def plain(tokens, texts=None, systems=None, **fields) -> Representation:
    tokens = np.array(tokens, np.int32)
    systems = systems or ["X"] * len(tokens)
    keys = np.array([f"{system}/{number:03d}" for number, system in enumerate(systems)])
    texts = np.array(texts if texts is not None else [f"text {n}" for n in range(len(tokens))], object)
    return Representation("plain", keys, texts, tokens=tokens, **fields)


def test_codebook_by_hand():
    """Region a has 4 rows; its tokens are 0 four times and 1 and 2 twice each. Region b has 2 rows, one in use."""
    tokens = [[0, 1, 4], [0, 1, 4], [0, 2, 4], [0, 2, 4]]
    found = figures(codebook_use.measure(context_of(plain(tokens, regions={"a": (0, 4), "b": (4, 6)}))))
    assert found["utilization", "a"] == 0.75
    assert found["utilization", "b"] == 0.5
    assert found["perplexity", "a"] == pytest.approx(np.exp(stats.entropy([4, 2, 2])))
    assert found["perplexity", "b"] == pytest.approx(1)
    assert found["share of the most frequent token", "a"] == 0.5
    assert codebook_use.dead_rows(plain(tokens, regions={"a": (0, 4), "b": (4, 6)})) == {"a": 1, "b": 1}


def test_codes_with_fewer_tokens_count_for_fewer():
    tokens = [[0, 1, 2, -1], [0, -1, -1, -1], [3, 3, -1, -1]]
    found = figures(codebook_use.measure(context_of(plain(tokens))))
    assert found["perplexity", "all"] == pytest.approx(np.exp(stats.entropy([2, 1, 1, 2])))
    assert found["share of the most frequent token", "all"] == pytest.approx(2 / 6)
    assert found["utilization", "all"] == 1


def test_codebook_against_what_training_reports():
    rng = np.random.default_rng(0)
    regions, k = Regions(text=12, graph=10, shared=14), 2
    parts = [regions.bounds(REGION_OF_EMBEDDING[name]) for name in EMBEDDINGS]
    tokens = np.concatenate([(a + (b - a) * rng.beta(1, 3, (50, k))).astype(int) for a, b in parts], axis=1)
    bounds = {name: regions.bounds(name) for name in REGIONS}
    found = figures(codebook_use.measure(context_of(plain(tokens, regions=bounds))))
    wanted = describe_usage(np.bincount(tokens.reshape(-1), minlength=regions.size), regions)
    for region in REGIONS:
        assert found["utilization", region] == pytest.approx(float(wanted[f"codebook_utilization_{region}"]))
        assert found["perplexity", region] == pytest.approx(float(wanted[f"codebook_perplexity_{region}"]), rel=1e-5)


def test_loss_of_quantization_by_hand():
    """Embedding a is turned by 60 degrees, b is halved."""
    before = np.array([[1, 0, 2, 0], [0, 1, 0, 2]], np.float32)
    after = np.array([[0.5, np.sqrt(0.75), 1, 0], [np.sqrt(0.75), 0.5, 0, 1]], np.float32)
    fields = {"embeddings": ("a", "b"), "region_of_embedding": {"a": "r", "b": "r"}, "regions": {"r": (0, 2)}}
    one = plain([[0, 1], [1, 0]], vectors=after, unquantized=before, **fields)
    found = figures(codebook_use.measure(context_of(one)))
    assert found["cosine(e, ê)", "a"] == pytest.approx(0.5)
    assert found["cosine(e, ê)", "b"] == pytest.approx(1)
    assert found["reconstruction error", "a"] == pytest.approx(1)
    assert found["reconstruction error", "b"] == pytest.approx(0.25)


def test_collisions_by_hand():
    """Codes 0 and 1 share tokens and text, 2 shares them with another text; 3 and 4 share tokens and text alone."""
    tuples = np.array([[1, 2], [1, 2], [1, 2], [5, 6], [5, 6], [2, 1]])
    text = np.array([0, 0, 1, 2, 2, 3])
    made, duplicates = collisions(tuples, text)
    assert made.tolist() == [True, True, True, False, False, False]
    assert duplicates.tolist() == [False, False, False, True, True, False]
    made, _ = collisions(as_sets(tuples), text)
    assert made.tolist() == [True, True, True, False, False, True]


def test_a_set_forgets_order_and_repeats():
    rows = as_sets(np.array([[3, 1, 3, -1], [1, 3, -1, -1], [1, 1, 1, 3], [1, 2, 3, 4]]))
    assert len(np.unique(rows[:3], axis=0)) == 1
    assert rows[3].tolist() == [1, 2, 3, 4]


def test_identity_by_system_and_by_first_tokens():
    fields = {"embeddings": ("a", "b"), "region_of_embedding": {"a": "r", "b": "r"}, "regions": {"r": (0, 9)}}
    tokens = [[1, 2, 5, 6], [1, 3, 5, 7], [1, 2, 5, 6], [4, 2, 5, 6]]
    one = plain(tokens, texts=["p", "q", "r", "s"], systems=["X", "X", "Y", "Y"], **fields)
    found = figures(identity.measure(context_of(one)))
    assert found[identity.MODEL_MADE, "ordered tuple"] == 0.5
    assert found[identity.MODEL_MADE, "ordered tuple, X"] == 0.5
    assert found[identity.MODEL_MADE, "top-1"] == 0.75
    assert found[identity.DUPLICATES, "top-1"] == 0
    assert found[identity.MODEL_MADE, "top-1, Y"] == 0.5


def entropy_bits(rows) -> float:
    """Return the entropy of rows in bits, with the correction of Miller and Madow."""
    counts = np.array(list(collections.Counter(map(tuple, rows.tolist())).values()))
    return stats.entropy(counts, base=2) + (len(counts) - 1) / (2 * len(rows) * np.log(2))


def test_entropy_of_tokens_one_after_another_by_counting_prefixes():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 5, (300, 4))
    tokens[:, 2] = tokens[:, 0] // 2 + (rng.random(300) < 0.2)
    values = codebook_use.conditional_bits(tokens)
    before = 0.0
    for length in range(1, 5):
        joint = entropy_bits(tokens[:, :length])
        assert values[:, length - 1].mean() == pytest.approx(joint - before)
        before = joint
    assert values[:, 2].mean() < values[:, 1].mean()


def test_a_token_that_the_others_tell_costs_nothing():
    tokens = np.arange(64)[:, None] // [16, 4, 1, 1]
    assert codebook_use.conditional_bits(tokens[:, [2, 3]]).mean(0)[1] == 0
    plug_in = codebook_use.conditional_bits(tokens).mean(0) - np.array([3, 12, 48, 0]) / (128 * np.log(2))
    assert plug_in == pytest.approx([2, 2, 2, 0])


def test_the_entropy_is_that_of_the_reading_order():
    """Of two embeddings the first token of the second one is read second."""
    fields = {"embeddings": ("a", "b"), "region_of_embedding": {"a": "r", "b": "r"}, "regions": {"r": (0, 9)}}
    tokens = np.array([[0, 2, 4, 6], [1, 2, 5, 6], [0, 2, 4, 7], [1, 3, 5, 8]])
    found = figures(codebook_use.measure(context_of(plain(tokens, **fields))))
    wanted = codebook_use.conditional_bits(tokens[:, [0, 2, 1, 3]])
    assert [found[codebook_use.BITS, f"token {n}"] for n in (1, 2, 3, 4)] == pytest.approx(wanted.mean(0).tolist())
    assert found[codebook_use.TOTAL_BITS, "code"] == pytest.approx(wanted.sum(1).mean())
    assert found[codebook_use.TOTAL_BITS, "code"] == pytest.approx(entropy_bits(tokens))


def test_collisions_by_where_the_other_code_is():
    """Codes 0 and 1 share a category, 2 is in another one, 3 in another system; 4 has the text of 0."""
    tokens = [[1]] * 5 + [[2], [2], [3]]
    texts = ["p", "q", "r", "s", "p", "t", "t", "u"]
    category = np.array([0, 0, 1, 2, 3, 4, 5, 6], np.int32)
    systems = np.array(["X"] * 3 + ["Y"] + ["X"] * 4)
    labels = dataclasses.replace(context_of(plain(tokens)).labels, category=category, systems=systems)
    _, text = np.unique(texts, return_inverse=True)
    found = identity.colliding_with(np.array(tokens), text, labels)
    assert found[identity.WITHIN].tolist() == [True, True, *[False] * 6]
    assert found[identity.ACROSS].tolist() == [True, True, True, False, True, False, False, False]
    assert found[identity.OTHER_SYSTEM].tolist() == [True] * 5 + [False] * 3
