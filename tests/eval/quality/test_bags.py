import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from eval.common.representation import Representation, from_tokenizer
from eval.quality.bags import OverlapBlocks, bags_of, overlaps
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.lookup.similarity import Similarity
from tests.helpers import small_tokenizer


def plain(tokens, weights=None, **fields) -> Representation:
    tokens = np.array(tokens, np.int32)
    keys = np.array([f"X/{number:04d}" for number in range(len(tokens))])
    weights = None if weights is None else np.array(weights, np.float32)
    return Representation("plain", keys, keys.astype(object), tokens=tokens, weights=weights, **fields)


def test_by_hand():
    """Bags {1: 0.75, 2: 0.25} and {1: 0.5, 3: 0.5}: 0.5 of 1.5."""
    bags = bags_of(plain([[1, 2], [1, 3], [4, 5]], [[0.75, 0.25], [0.5, 0.5], [1, 0]]))
    assert overlaps(bags, np.array([0, 0, 0]), np.array([1, 2, 0])) == pytest.approx([0.5 / 1.5, 0, 1])
    assert OverlapBlocks(bags, np.array([1, 2]))(np.array([0])) == pytest.approx(np.array([[0.5 / 1.5, 0]]))


def test_a_code_may_have_fewer_tokens_and_hold_one_twice():
    bags = bags_of(plain([[1, 1, 2, -1], [1, 2, -1, -1], [-1, -1, -1, -1]])).toarray()
    assert bags.tolist() == [[0, 2, 1], [0, 1, 1], [0, 0, 0]]
    assert overlaps(bags_of(plain([[1, 1, 2, -1], [-1] * 4])), np.array([0, 1]), np.array([1, 1])).tolist() == [0, 0]


def test_each_embedding_counts_as_its_tokens_do():
    """Residual tokens all have weight 1; top-K weights sum to one."""
    fields = {"embeddings": ("a", "b"), "region_of_embedding": {"a": "r", "b": "r"}, "regions": {"r": (0, 9)}}
    for weights in ([[1, 1, 1, 1]], [[0.5, 0.5, 3, 3]]):
        bags = bags_of(plain([[1, 2, 2, 3]], weights, **fields))
        assert bags.toarray()[0, :4].tolist() == [0, 1, 2, 1]
    uneven = bags_of(plain([[1, 2, 3, 4]], [[0.2, 0.2, 0.4, 7]], token_bounds=((0, 3), (3, 4)), **fields))
    assert uneven.toarray()[0, 1:5] == pytest.approx([0.75, 0.75, 1.5, 1])


def test_sets_against_scikit_learn():
    rng = np.random.default_rng(0)
    tokens = np.stack([rng.permutation(12)[:5] for _ in range(40)])
    bags = bags_of(plain(tokens))
    held = bags.toarray() > 0
    first, second = rng.integers(40, size=(2, 100))
    wanted = [jaccard_score(held[a], held[b]) for a, b in zip(first, second, strict=True)]
    assert overlaps(bags, first, second) == pytest.approx(wanted)


@pytest.mark.parametrize("weighted", [True, False])
def test_overlaps_of_a_tokenizer_against_those_of_the_library(tmp_path, weighted):
    directory = TokenizerDirectory.read(small_tokenizer.write(tmp_path / "tok"))
    bags = bags_of(from_tokenizer(directory, "small"), weighted=weighted)
    everything = np.arange(directory.config.codes)
    similarity = Similarity(directory.tokens, directory.config.bounds)
    found = OverlapBlocks(bags, everything)(everything)
    for row in everything:
        weights = similarity.shares(directory.weights[row : row + 1])[0] if weighted else None
        rows, scores = similarity.overlap(directory.ids[row], weights)
        wanted = np.zeros(len(everything))
        wanted[rows] = scores
        assert found[row] == pytest.approx(wanted, abs=1e-6)
        assert overlaps(bags, np.full(len(everything), row), everything) == pytest.approx(wanted, abs=1e-6)
