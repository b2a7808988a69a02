"""Similarities of codes whose embeddings have different numbers of tokens, against plain sums."""

import numpy as np
import pytest

from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.lookup.similarity import Similarity, scales
from tests.helpers import small_tokenizer


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return TokenizerDirectory.read(small_tokenizer.write(tmp_path_factory.mktemp("tokenizer") / "tok"))


def test_embeddings_count_by_their_tokens():
    assert scales(((0, 4), (4, 5), (5, 8))) ** 2 == pytest.approx([1.5, 0.375, 1.125])
    assert scales(((0, 2), (2, 4))).tolist() == [1, 1], "equal numbers change nothing"


def test_cosines_and_overlaps_of_uneven_embeddings(directory):
    width = directory.ids.shape[1]
    bounds = ((0, 1), (1, width - 2), (width - 2, width))
    similarity = Similarity(directory.tokens, bounds)
    rows = np.arange(len(directory.ids))
    vectors = similarity.quantized(rows)
    counts = [stop - start for start, stop in bounds]
    flat = np.concatenate([vectors[:, e] * np.sqrt(count) for e, count in enumerate(counts)], axis=1)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    shares = similarity.shares(directory.weights)
    for start, stop in bounds:
        assert shares[:, start:stop].sum(1) == pytest.approx(stop - start)
    for row in rows:
        assert similarity.cosine(vectors[row]) == pytest.approx(flat @ flat[row], abs=1e-5)
        found, scores = similarity.overlap(directory.ids[row], shares[row])
        for other, score in zip(found, scores, strict=True):
            bags = np.zeros((2, len(directory.codebook)))
            for bag, one in zip(bags, (row, other), strict=True):
                np.add.at(bag, directory.ids[one], shares[one])
            assert score == pytest.approx(np.minimum(*bags).sum() / np.maximum(*bags).sum(), abs=1e-5)
