"""A projection is an isometry, the same for the same seed, and refused where there is none."""

import numpy as np
import pytest

from medtok_jax.convert.ehr_models.projection import project, projection
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
    kept = project(vectors, 10)
    np.testing.assert_allclose(kept @ kept.T, vectors @ vectors.T, rtol=1e-4, atol=1e-5)
    scaled = project(vectors, 10, std=0.02)
    assert scaled.dtype == np.float32
    assert scaled.std() == pytest.approx(0.02, rel=1e-5)
    ratio = np.linalg.norm(scaled, axis=1) / np.linalg.norm(kept, axis=1)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)


def test_refuses():
    with pytest.raises(InputError, match="at least 8"):
        projection(8, 7)
    with pytest.raises(InputError, match="no spread"):
        project(np.ones((3, 2)) * 0, 2, std=0.02)
