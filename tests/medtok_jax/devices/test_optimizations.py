"""Few optimizations end with their context, and change no result but by rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtok_jax.devices.optimizations import few_optimizations

FLAG = "jax_disable_most_optimizations"


@pytest.mark.parametrize("before", [False, True])
def test_the_context_ends_as_it_began(before):
    kept = jax.config.read(FLAG)
    jax.config.update(FLAG, before)
    try:
        with few_optimizations():
            assert jax.config.read(FLAG)
        assert jax.config.read(FLAG) == before
        with pytest.raises(ZeroDivisionError), few_optimizations():
            raise ZeroDivisionError
        assert jax.config.read(FLAG) == before
    finally:
        jax.config.update(FLAG, kept)


def test_results_agree():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 8)), jnp.float32)
    with few_optimizations():
        found = jax.jit(lambda x: jax.nn.softmax(x @ x.T))(x)
    logits = np.asarray(x, np.float64) @ np.asarray(x, np.float64).T
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found, weights / weights.sum(axis=1, keepdims=True), atol=1e-5)
