"""The PyTorch step that speed is compared with computes the loss and the gradients that the Flax step does."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import jax  # noqa: E402
from flax import nnx  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from configs import paper  # noqa: E402
from eval.speed import torch as speed_torch  # noqa: E402
from eval.speed.setup import Setting, open_run  # noqa: E402
from eval.speed.torch_objective import Objective, to_arrays  # noqa: E402
from medtok_jax.convert.pytorch import weights  # noqa: E402
from medtok_jax.devices import sharding  # noqa: E402
from medtok_jax.inference.model_writer import flatten  # noqa: E402
from medtok_jax.training import steps  # noqa: E402
from medtok_jax.training.losses import totals  # noqa: E402
from tests.helpers import small_run  # noqa: E402


@pytest.fixture(scope="module", params=["default", "paper"])
def ready(request, data_dir, tmp_path_factory):
    config = ConfigDict(small_run.small_config(data_dir, model__graph_encoder_type="hierarchical").to_dict())
    if request.param == "paper":
        config.model.update(quantizer_kind="top_k", shared_embedding="two", text_token_share=0.25)
        config.model.graph_token_share = 0.25
        weights = [f"{of}{term}_weight" for of in ("", "shared_", "text_") for term in ("joint", "distillation")]
        for field in ("contrasted", *weights):
            config.loss[field] = paper.get_config().loss[field]
        config.loss.positive_relations = ()
        # Of what is masked all rows are equally far at first.
        config.augment.modality_dropout = 0.0
    # What is drawn at random differs between the two.
    config.augment.update(token_dropout=0.0, feature_dropout=0.0, fact_dropout=0.0)
    setting = Setting(config, "icd", tmp_path_factory.mktemp("speed")).prepared()
    opened = open_run(setting, progress=False)
    # So few codes have no small shape of their own.
    builder = opened.inputs.builder
    builder.budgets = dataclasses.replace(builder.budgets, small=(40, 48))
    return opened


@pytest.fixture(scope="module")
def flax_side(ready):
    """The batch, the loss and the gradients by Flax."""
    inputs, structure = ready.inputs, ready.programs.structure
    batch = inputs.train_source(1)[0]
    placed = sharding.place_batch(batch, inputs.mesh)

    def loss(params):
        model = structure.model(params, ready.state.fixed)
        terms, _ = steps.score(model, placed, inputs.tables, jax.random.key(0), ready.config)
        return totals(terms)["total_loss"]

    # Run once: well optimized code would take longer to make than it saves.
    quickly = {"xla_llvm_disable_expensive_passes": True, "xla_backend_optimization_level": 0}
    params = ready.state.params
    value, gradients = jax.jit(jax.value_and_grad(loss)).lower(params).compile(quickly)(params)
    named = flatten({"params": nnx.to_pure_dict(gradients)})
    return batch, float(value), weights.to_torch({name: np.asarray(x) for name, x in named.items()})


@pytest.mark.thorough
@pytest.mark.parametrize("tiers", [False, True])
def test_loss_and_gradients(ready, flax_side, tiers):
    batch, value, gradients = flax_side
    assert batch.small == (40, 48)
    model = speed_torch.build(ready, with_encoder=False)
    data = ready.inputs.data
    tables, most = data.tables(), data.sizes().max_nodes
    arrays = to_arrays(batch, tables, most, torch.device("cpu"))
    loss = Objective(model, ready.config, tiers=tiers)(arrays)
    loss.backward()
    assert loss.item() == pytest.approx(value, rel=1e-4)
    own = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert own.keys() <= gradients.keys()
    for name, gradient in own.items():
        np.testing.assert_allclose(gradient, gradients[name], atol=2e-4 * np.abs(gradients[name]).max() + 1e-6)
    for name in gradients.keys() - own.keys():
        assert not gradients[name].any(), name


def test_padded_batch_holds_wordpieces(ready):
    batch = ready.inputs.train_source(1)[0]
    wide = speed_torch.padded(ready.inputs, batch, 8)
    assert wide.text.shape == (8, 512)
    assert (wide.index == batch.index[:8]).all()
    assert (wide.text_mask.sum(1) == ready.inputs.data.num_tokens(batch.index[:8])).all()
    assert wide.small is None


def test_what_it_does_not_know_is_not_compared(ready, tmp_path):
    setting = Setting(ready.config, "icd", tmp_path)
    assert speed_torch.EAGER in speed_torch.variants(setting)
    other = ConfigDict(ready.config.to_dict())
    other.model.quantizer_kind = "residual"
    assert speed_torch.variants(dataclasses.replace(setting, config=other)) == []
