"""A step with everything that makes the graph add something: its terms, their gradients, and what an export keeps."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from medtok_jax.devices import sharding
from medtok_jax.inference import model_reader, model_writer
from medtok_jax.inference.trained import TrainedModel
from medtok_jax.training import setup
from medtok_jax.training.steps import CHECKED


@pytest.fixture
def ready(config, data, tmp_path) -> setup.Training:
    """A training with all switches on, on the small world of twelve codes."""
    config.loss.update(cross_covariance_weight=1.0, link_weight=1.0, links=("is_a", "has_phenotype"))
    config.loss.positive_relations = ("maps_to",)
    config.data.update(hard_negatives=0.5, cache_dir=str(tmp_path / "cache"))
    config.train.batch_size = 16
    mesh = sharding.make_mesh(sharding.use_devices(1))
    return setup.assemble(config, data, mesh, Path("none"), source=None, first_step=0, last_step=3)


def test_a_step_with_all_switches(ready, tmp_path):
    inputs, programs = ready.inputs, ready.programs
    host = inputs.train_source(3)[0]
    assert (host.links.node >= 0).any()
    batch = sharding.place_batch(host, inputs.mesh)
    norms = programs.term_gradient_norms(ready.state, batch, inputs.tables)
    state, _, checked = programs.train_step(ready.state, programs.empty_window(), batch, inputs.tables)
    figures = dict(zip(CHECKED, np.asarray(checked).tolist(), strict=True))
    assert np.isfinite(list(figures.values())).all()
    assert figures["link_prediction"] > 0
    assert figures["cross_covariance"] != 0
    for name in ("link_prediction", "cross_covariance"):
        assert 1e-4 < float(norms[f"gradient_norm/{name}"]) < 100
    # The head goes on with a run, and is no part of what is exported.
    assert "link_head" in state.params
    metadata = ready.metadata | {"step": 1, "config": ready.config.to_dict()}
    trained = TrainedModel(tmp_path, ready.config, inputs, programs, state, metadata)
    written = load_file(model_writer.write_model(trained, tmp_path / "tokenizer") / model_reader.VARIABLES)
    assert "params.text_head.kernel" in written
    assert not any("link_head" in name for name in written)
    # Validations predict no links.
    unmasked = inputs.unmasked_builder(np.arange(16) % 12, np.ones(16, bool), np.full(16, -1))
    assert unmasked.links is None


def test_a_switch_that_is_off_leaves_no_trace(config, data):
    mesh = sharding.make_mesh(sharding.use_devices(1))
    config.train.batch_size = 16
    off = setup.assemble(config, data, mesh, Path("none"), source=None, first_step=0, last_step=3)
    assert off.inputs.train_source(3)[0].links is None
    assert "link_head" not in off.state.params
    assert off.inputs.sampler.hard_negatives is None
