"""Checkpoints come back as they were saved; a damaged one is refused in one sentence."""

import dataclasses
import os
import resource
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from medtok_jax.training import checkpoints
from medtok_jax.training.state import TrainState
from preprocessing.common.errors import InputError
from tests.helpers.paths import ROOT


@pytest.fixture
def state() -> TrainState:
    """Large enough that its arrays lie in a file of their own."""
    params = nnx.state(nnx.Linear(100, 100, rngs=nnx.Rngs(0)), nnx.Param)
    return TrainState(step=jnp.int32(7), params=params, fixed=nnx.State({}), opt_state=(jnp.ones(3),))


def test_the_state_and_what_is_said_of_it_come_back(tmp_path, state):
    checkpoints.save(tmp_path, "last", state, {"best_total_loss": 1.5})
    found = checkpoints.find(tmp_path)
    assert found.step == 7
    assert found.metadata() == {"best_total_loss": 1.5}
    back = found.restore(state)
    np.testing.assert_array_equal(back.params["kernel"].get_value(), state.params["kernel"].get_value())
    np.testing.assert_array_equal(back.opt_state[0], state.opt_state[0])


def test_the_optimizer_is_saved_by_name(tmp_path):
    params = nnx.state(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), nnx.Param)
    optimizer = optax.MultiSteps(optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)), 2)
    state = TrainState(step=jnp.int32(1), params=params, fixed=nnx.State({}), opt_state=optimizer.init(params))
    checkpoints.save(tmp_path, "last", state, {})
    back = checkpoints.find(tmp_path).restore(state)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, back, state)
    saved = ocp.StandardCheckpointer().restore(tmp_path / "checkpoints/last/1/state")["opt_state"]
    assert saved["inner_opt_state"]["1"]["0"]["mu"]["kernel"]["value"].shape == (3, 2)


def test_the_writer_remembers_the_best_loss(tmp_path, state):
    writer = checkpoints.CheckpointWriter(tmp_path, {"best_total_loss": None})
    writer.save_best(state, 2.5)
    writer.save_last(state)
    assert writer.best_total_loss == 2.5
    assert checkpoints.find(tmp_path).metadata() == {"best_total_loss": 2.5, "step": 7, "logged": 0}
    assert checkpoints.find(tmp_path / "checkpoints/last/7").step == 7


def test_a_full_disk_is_one_sentence_and_keeps_the_checkpoint_before(tmp_path, state):
    checkpoints.save(tmp_path, "last", state, {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(InputError, match=r"cannot be written to \S+last \(File too large\); make room there"):
            checkpoints.save(tmp_path, "last", dataclasses.replace(state, step=jnp.int32(8)), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert checkpoints.find(tmp_path).step == 7
    checkpoints.save(tmp_path, "last", dataclasses.replace(state, step=jnp.int32(8)), {})
    assert checkpoints.find(tmp_path).step == 8


def test_an_unfinished_checkpoint_is_not_found(tmp_path, state):
    checkpoints.save(tmp_path, "last", state, {})
    # Orbax writes under such a name and renames the folder last.
    (tmp_path / "checkpoints/last/7").rename(tmp_path / "checkpoints/last/7.orbax-checkpoint-tmp")
    with pytest.raises(InputError, match="There is no checkpoint"):
        checkpoints.find(tmp_path)


def test_damaged_arrays_are_one_sentence(tmp_path, state):
    checkpoints.save(tmp_path, "last", state, {})
    for path in (tmp_path / "checkpoints/last/7/state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:10])
    for read in (lambda found: found.restore(state), lambda found: found.restore_variables()):
        with pytest.raises(InputError, match=r"last/7 is damaged \(.*\); delete it") as raised:
            read(checkpoints.find(tmp_path))
        assert "\n" not in str(raised.value)


def test_a_changed_bit_is_one_sentence(tmp_path, state):
    checkpoints.save(tmp_path, "last", state, {})
    for path in (tmp_path / "checkpoints/last/7/state").rglob("d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"last/7 is damaged \(state/\S+ is not what files\.json describes\)"):
        checkpoints.find(tmp_path).restore(state)


def test_the_best_checkpoint_without_its_listing_does_not_give_way_to_the_last(tmp_path, state):
    for kind in ("best", "last"):
        checkpoints.save(tmp_path, kind, state, {})
    (tmp_path / "checkpoints/best/7/files.json").unlink()
    with pytest.raises(InputError, match=r"best/7 is damaged \(files\.json is missing\)"):
        checkpoints.find(tmp_path, prefer="best").metadata()


def test_what_killed_and_earlier_writers_left_is_removed(tmp_path, state):
    checkpoints.save(tmp_path, "last", state, {})
    (tmp_path / "checkpoints/last/.partial-8").mkdir()
    checkpoints.save(tmp_path, "last", dataclasses.replace(state, step=jnp.int32(9)), {})
    assert [path.name for path in (tmp_path / "checkpoints/last").iterdir()] == ["9"]


def test_damaged_metadata_is_one_sentence(tmp_path, state):
    checkpoints.save(tmp_path, "last", state, {"step": 7})
    for path in (tmp_path / "checkpoints/last/7/metadata").rglob("metadata"):
        path.write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        checkpoints.find(tmp_path).metadata()


@pytest.mark.integration
def test_variables_are_read_where_the_devices_that_saved_them_are_not(tmp_path):
    command = [sys.executable, "-m", "tests.helpers.sharded_checkpoint", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, check=True)
    found = checkpoints.find(tmp_path).restore_variables()
    assert isinstance(found["params"]["kernel"], np.ndarray)
    np.testing.assert_array_equal(found["params"]["kernel"], np.arange(64.0).reshape(8, 8))
