"""What decides tokens is computed in float32 on every device, and small systems are solved."""

import contextlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from medtok_jax.models.codebook import Quantizer
from medtok_jax.models.exact import exact, solve_positive
from medtok_jax.models.kmeans import fit_regions
from medtok_jax.regions import Regions
from tests.helpers.matmuls import as_on_tpu, is_exact, matmuls

WIDTH = 16


@pytest.mark.parametrize("size", [1, 2, 5, 8, 32])
def test_small_systems_are_solved(size):
    rng = np.random.default_rng(size)
    rows = rng.normal(size=(50, size, WIDTH))
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    # As the quantizer has them, also where two rows are alike.
    rows[:25, -1] = rows[:25, 0]
    matrix, right = rows @ rows.transpose(0, 2, 1) + 1e-2 * np.eye(size), rng.normal(size=(50, size))
    found = solve_positive(jnp.asarray(matrix, jnp.float32), jnp.asarray(right, jnp.float32))
    np.testing.assert_allclose(found, np.linalg.solve(matrix, right[..., None])[..., 0], rtol=2e-3, atol=2e-3)


def test_no_library_is_called_for_them():
    systems = jnp.broadcast_to(jnp.eye(4), (3, 4, 4)), jnp.ones((3, 4))
    compiled = jax.jit(solve_positive).lower(*systems).compile().as_text()
    assert "custom-call" not in compiled
    assert "custom-call" in jax.jit(jnp.linalg.solve).lower(systems[0], systems[1][..., None]).compile().as_text()


@pytest.mark.parametrize("options", [{"kind": "pursuit", "num_nearest": 2}, {"kind": "top_k"}, {"kind": "residual"}])
@pytest.mark.parametrize("more", [{}, {"simvq": True}, {"normalize": False}])
def test_searches_are_exact(options, more):
    regions = Regions(text=20, graph=10, shared=12)
    quantizer = Quantizer(regions, WIDTH, num_tokens=3, **options, **more, rngs=nnx.Rngs(0))

    def distance(points):
        found = quantizer(quantizer.prepare(points), "text")
        return jnp.sum(found.output) + jnp.sum(quantizer.distances(points, "shared"))

    found = matmuls(jax.value_and_grad(distance), jnp.ones((4, WIDTH)))
    assert found
    assert all(map(is_exact, found))


def test_fits_are_exact():
    quantizer = Quantizer(Regions(text=9, graph=6, shared=6), WIDTH, num_tokens=3, kind="pursuit", rngs=nnx.Rngs(0))
    points = dict.fromkeys(("text", "graph", "shared"), jax.random.normal(jax.random.key(0), (40, WIDTH)))
    found = matmuls(lambda points: fit_regions(jax.random.key(0), points, quantizer, rounds=1), points)
    assert len(found) > 20
    assert all(map(is_exact, found))


@pytest.mark.parametrize("options", [{"kind": "pursuit", "num_nearest": 2}, {"kind": "top_k"}])
def test_a_tpu_gives_the_same_tokens(options, monkeypatch):
    quantizer = Quantizer(Regions(text=600, graph=10, shared=12), 64, num_tokens=4, **options, rngs=nnx.Rngs(0))
    points = jax.random.normal(jax.random.key(1), (500, 64))

    def tokens() -> Callable:
        # Another one each time, as JAX remembers what it traced.
        return lambda points: quantizer(quantizer.prepare(points), "text").ids

    wanted = np.asarray(tokens()(points))
    np.testing.assert_array_equal(as_on_tpu(tokens())(points), wanted)
    # Without a word about precision some would be others.
    monkeypatch.setattr(jax, "default_matmul_precision", lambda precision: contextlib.nullcontext())
    share = np.mean(np.asarray(as_on_tpu(tokens())(points)) != wanted)
    assert 0.001 < share < 0.2


def test_others_are_found():
    assert [is_exact(found) for found in matmuls(jnp.matmul, jnp.eye(2), jnp.eye(2))] == [False]
    assert [is_exact(found) for found in matmuls(jax.jit(exact(jnp.matmul)), jnp.eye(2), jnp.eye(2))] == [True]
