"""Norms over arrays laid end to end agree with those of optax, array by array."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medtok_jax.training import norms


@pytest.fixture
def tree(monkeypatch):
    """Some arrays on both sides of the limit."""
    monkeypatch.setattr(norms, "SMALL", 8)
    rng = np.random.default_rng(0)
    shapes = {"bias": (3,), "matrix": (2, 4), "scalar": (), "rows": (5, 7), "kernel": (3, 3)}
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


def test_the_norm_is_that_of_optax(tree):
    np.testing.assert_allclose(norms.global_norm(tree), optax.tree.norm(tree), rtol=1e-6)
    only_large = {"rows": tree["rows"]}
    np.testing.assert_allclose(norms.global_norm(only_large), optax.tree.norm(only_large), rtol=1e-6)
    assert float(norms.global_norm({})) == 0.0


@pytest.mark.parametrize("limit", [0.5, 1e3])
def test_clipping_is_that_of_optax(tree, limit):
    found, wanted = (
        jax.jit(lambda t, clip=clip: clip.update(t, clip.init(t))[0])(tree)
        for clip in (norms.clip_by_norm(limit), optax.clip_by_global_norm(limit))
    )
    for name in tree:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-6)
    assert float(norms.global_norm(found)) == pytest.approx(min(limit, float(norms.global_norm(tree))), rel=1e-6)


def test_a_norm_that_is_not_finite_stays_so(tree):
    assert np.isnan(norms.global_norm(tree | {"bias": jnp.array([1.0, jnp.nan, 0.0])}))


def test_small_arrays_are_summed_up_together(tree):
    program = jax.make_jaxpr(norms.global_norm)(tree)
    sums = [equation for equation in program.eqns if equation.primitive.name == "reduce_sum"]
    assert len(sums) == 3  # rows, kernel, and one of the others


def test_sharded_arrays_are_summed_up_each_by_itself(tree):
    program = jax.make_jaxpr(lambda arrays: norms.global_norm(arrays, together=False))(tree)
    assert not [equation for equation in program.eqns if equation.primitive.name == "concatenate"]
    apart = norms.global_norm(tree, together=False)
    np.testing.assert_allclose(apart, norms.global_norm(tree), rtol=1e-6)
