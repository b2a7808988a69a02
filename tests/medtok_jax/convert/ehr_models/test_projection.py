"""Vectors keep their angles in a wider space, and as much of their variance as possible in a narrower one."""

import numpy as np
import pytest

from medtok_jax.convert.ehr_models.projection import kept_variance, principal, project, projection
from preprocessing.common.errors import InputError


@pytest.mark.parametrize(("dim", "width"), [(4, 4), (4, 16), (64, 108)])
def test_columns_are_orthonormal(dim, width):
    matrix = projection(dim, width)
    assert matrix.shape == (width, dim)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(dim), atol=1e-12)


def test_seed_alone_decides():
    np.testing.assert_array_equal(projection(8, 12, seed=3), projection(8, 12, seed=3))
    assert not np.allclose(projection(8, 12, seed=3), projection(8, 12, seed=4))


def test_inner_products_and_spread():
    vectors = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    kept, share = project(vectors, 10)
    assert share == 1.0
    np.testing.assert_allclose(kept @ kept.T, vectors @ vectors.T, rtol=1e-4, atol=1e-5)
    scaled = project(vectors, 10, std=0.02).vectors
    assert scaled.dtype == np.float32
    assert scaled.std() == pytest.approx(0.02, rel=1e-5)
    ratio = np.linalg.norm(scaled, axis=1) / np.linalg.norm(kept, axis=1)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)


def test_refuses():
    with pytest.raises(ValueError, match="from 8 to 7"):
        projection(8, 7)
    with pytest.raises(InputError, match="no spread"):
        project(np.ones((3, 2)) * 0, 2, std=0.02)


@pytest.mark.parametrize("rows", [200, 6])
def test_principal_components_against_the_singular_values(rows):
    """By the theorem of Eckart and Young: the best approximation of rank 3 keeps the three largest singular values."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(rows, 8)) * np.array([9, 7, 5, 3, 1, 1, 0.5, 0.1]) + 40
    found, share = principal(vectors, 3)
    u, s, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(found), np.abs(u[:, :3] * s[:3]), rtol=1e-4, atol=1e-5)
    assert share == pytest.approx((s[:3] ** 2).sum() / (s**2).sum())
    projected = project(vectors, 3, std=0.02)
    assert projected.share == share
    assert projected.vectors.std() == pytest.approx(0.02, rel=1e-5)
    # Turned as a whole, the components keep their inner products.
    gram = projected.vectors @ projected.vectors.T
    expected = found @ found.T
    np.testing.assert_allclose(gram / gram[0, 0], expected / expected[0, 0], rtol=1e-3, atol=1e-4)


def test_vectors_in_a_subspace_lose_nothing():
    """Vectors of rank 2 fit into 4 of 9 dimensions: all distances are kept."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 2)) @ rng.normal(size=(2, 9))
    found, share = project(vectors, 4)
    assert share == pytest.approx(1.0)
    between = np.linalg.norm(vectors[:, None] - vectors, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(found[:, None] - found, axis=-1), between, atol=1e-4)


def test_the_sentence_states_the_share():
    assert kept_variance(128, 108, 0.973) == (
        "Vectors of 128 numbers are reduced to 108 by PCA, which keeps 97.3% of their variance."
    )
    assert "all angles" in kept_variance(64, 64, 1.0)
