"""A training step stays on the device, and leaves no NaN in the state or the metrics."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medtok_jax.devices import sharding
from medtok_jax.training import setup


@pytest.fixture
def ready(config, data) -> setup.Training:
    """A training on the small world of twelve codes, in batches of eight."""
    config.train.batch_size = 8
    mesh = sharding.make_mesh(sharding.use_devices(1))
    return setup.assemble(config, data, mesh, Path("none"), source=None, first_step=0, last_step=3)


def test_a_step_moves_nothing_between_host_and_device(ready):
    inputs, programs, state = ready.inputs, ready.programs, ready.state
    window, host = programs.empty_window(), inputs.train_source(3)[0]
    batch = sharding.place_batch(host, inputs.mesh)
    programs.train_step.compile(state, window, batch, inputs.tables)
    with jax.transfer_guard("disallow"):
        for _ in range(2):
            state, window, checked = programs.train_step(state, window, batch, inputs.tables)
        # The guard sees what would be moved.
        with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
            programs.train_step(state, window, host, inputs.tables)
    assert np.isfinite(np.asarray(checked)).all()
    assert int(state.step) == 2


def test_a_step_leaves_no_nan(ready):
    inputs, programs, state = ready.inputs, ready.programs, ready.state
    batch = sharding.place_batch(inputs.train_source(3)[0], inputs.mesh)
    with jax.debug_nans(True):
        for _ in range(2):
            state, window, _ = programs.train_step(state, programs.empty_window(), batch, inputs.tables)
        jax.block_until_ready(window)
        # The switch sees those that infinite parameters make; what it raises for a compiled program has no public name.
        broken = state.replace(params=jax.tree.map(lambda x: jnp.full_like(x, jnp.inf), state.params))
        with pytest.raises(Exception, match="nan"):
            programs.train_step(broken, programs.empty_window(), batch, inputs.tables)
