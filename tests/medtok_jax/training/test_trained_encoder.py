"""A text encoder that is trained: its own learning rate, and distillation from the states it had when it was frozen."""

from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from medtok_jax.devices import sharding
from medtok_jax.models.bert import Bert
from medtok_jax.training import setup
from medtok_jax.training import state as training_state
from medtok_jax.training.losses import distills
from medtok_jax.training.state import create_optimizer, learning_rate
from medtok_jax.training.steps import TERMS, score
from tests.helpers.small_world import TEXT_WIDTH, VOCABULARY
from tests.helpers.tiny_bert import tiny_bert

STEPS = 10
BERT = tiny_bert(VOCABULARY, TEXT_WIDTH, layers=2)


@pytest.fixture
def config(config):
    """The configuration of the small world, with a trained encoder."""
    config.model.text_encoder_trainable = True
    config.loss.positive_relations = ()
    config.augment.modality_dropout = 0.25
    config.train.batch_size = 16
    return config


@pytest.fixture
def assemble(config, data, monkeypatch):
    """Makes a training of this configuration on the small world, with a random BERT."""
    monkeypatch.setattr(
        training_state, "load_bert", lambda _, dtype, gelu: Bert(BERT.with_gelu(gelu), dtype=dtype, rngs=nnx.Rngs(1))
    )

    def make(last_step: int = STEPS) -> setup.Training:
        mesh = sharding.make_mesh(sharding.use_devices(1))
        return setup.assemble(config, data, mesh, Path("none"), source=None, first_step=0, last_step=last_step)

    return make


def is_of_encoder(path: tuple) -> bool:
    return jax.tree_util.keystr(path).startswith("['text_encoder']['bert']")


def adamw(gradients: np.ndarray, start: np.ndarray, rates: list[float], *, decay: float) -> np.ndarray:
    """Where AdamW (Loshchilov and Hutter 2019, algorithm 2) leads from `start` by one gradient after another."""
    first, second, value = np.zeros_like(start), np.zeros_like(start), start
    for count, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.98 * second + 0.02 * gradient**2
        direction = first / (1 - 0.9**count) / (np.sqrt(second / (1 - 0.98**count)) + 1e-8)
        value = value - rate * (direction + decay * value)
    return value


def test_each_part_moves_by_adam_at_its_own_rate(config, assemble):
    """The schedule has the same shape for both: warm-up from 0 to its peak, and decay."""
    params = assemble().state.params
    config.train.update(lr=3e-3, text_encoder_lr=2e-5, weight_decay=0.1, warmup_steps=1)
    schedule = learning_rate(config, first_step=0, last_step=4)
    shape = [float(schedule(count)) / 3e-3 for count in range(3)]
    assert shape[0] == 0
    assert shape[1] == pytest.approx(1)
    assert 0.5 < shape[2] < 1
    optimizer = create_optimizer(config, schedule)
    rng = np.random.default_rng(0)
    # Small enough not to be clipped.
    drawn = [jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) * 1e-4, params) for _ in shape]
    opt_state, moved = optimizer.init(params), params
    for gradients in drawn:
        updates, opt_state = optimizer.update(gradients, opt_state, moved)
        moved = jax.tree.map(lambda x, update: x + update, moved, updates)
    found = jax.tree_util.tree_leaves_with_path(jax.tree.map(lambda now, before: now - before, moved, params))
    starts, columns = jax.tree.leaves(params), list(zip(*map(jax.tree.leaves, drawn), strict=True))
    kinds = set()
    for (path, change), start, gradients in zip(found, starts, columns, strict=True):
        peak = 2e-5 if is_of_encoder(path) else 3e-3
        decays = "['kernel']" in jax.tree_util.keystr(path)
        start = np.asarray(start, np.float64)
        rates = [peak * share for share in shape]
        wanted = adamw(np.array(gradients, np.float64), start, rates, decay=0.1 * decays) - start
        scale = np.abs(wanted).max()
        # What float32 loses where a small change is added to a parameter.
        np.testing.assert_allclose(change, wanted, atol=1e-3 * scale + 3e-7 * np.abs(start).max(), err_msg=str(path))
        kinds.add((is_of_encoder(path), decays))
    assert len(kinds) == 4


def test_a_frozen_encoder_has_no_second_rate(config, assemble):
    config.model.text_encoder_trainable = False
    frozen = create_optimizer(config, lambda count: 1e-3)
    params = {"text_encoder": {"pooling": np.ones(3, np.float32)}}
    assert len(frozen.init(params)) == 2, "clipping and AdamW, as in every checkpoint without a trained encoder"


def test_the_teacher_is_the_frozen_encoder(config, assemble, data):
    """The cached states of this world are random: nothing that the encoder computes comes near to them."""
    source = assemble().inputs.train_source(STEPS)
    hidden = 0
    for batch in (source[step] for step in range(3)):
        assert batch.text.ndim == 2
        for slot, row in enumerate(batch.index):
            text = data.text_id[row]
            states = data.cache.states[data.cache.offsets[text] : data.cache.offsets[text + 1]]
            wanted = states.mean(0) if batch.text_mask[slot].any() else np.zeros(TEXT_WIDTH)
            np.testing.assert_allclose(batch.frozen_means[slot], wanted, atol=1e-6)
            hidden += not batch.text_mask[slot].any()
    assert hidden


def test_the_teacher_gets_no_gradient_and_the_encoder_does(config, assemble):
    ready = assemble()
    batch, structure = ready.inputs.train_source(STEPS)[1], ready.programs.structure
    key = jax.random.key(0)

    def distilled(params, means):
        model = structure.model(params, ready.state.fixed)
        return score(model, batch.replace(frozen_means=means), ready.inputs.tables, key, config)[0]["distillation"]

    value, (own, teacher) = jax.jit(jax.value_and_grad(distilled, argnums=(0, 1)))(
        ready.state.params, batch.frozen_means
    )
    assert value > 0
    assert not np.any(teacher)
    of_encoder = [g for path, g in jax.tree_util.tree_leaves_with_path(own) if is_of_encoder(path)]
    assert len(of_encoder) > 20
    assert max(np.abs(gradient).max() for gradient in of_encoder) > 1e-5
    other = jax.jit(distilled)(ready.state.params, np.roll(batch.frozen_means, 1, axis=0))
    assert other != value, "the term asks what the batch brings"


def test_without_distillation_a_batch_brings_no_means(config, assemble):
    for name in ("distillation_weight", "shared_distillation_weight", "text_distillation_weight"):
        config.loss[name] = 0.0
    assert not distills(config.loss)
    ready = assemble()
    batch = ready.inputs.train_source(STEPS)[0]
    assert batch.frozen_means is None
    terms, _ = jax.eval_shape(
        lambda: score(
            ready.programs.structure.model(ready.state.params, ready.state.fixed),
            batch,
            ready.inputs.tables,
            jax.random.key(0),
            config,
        )
    )
    assert set(terms) == set(TERMS)


def neighbors(ready: setup.Training, params: nnx.State, texts: np.ndarray) -> np.ndarray:
    """The ten texts nearest to each by the encoder's mean state, `[texts, 10]`."""
    model = ready.programs.structure.model(params, ready.state.fixed)
    mask = np.ones(texts.shape, bool)
    means = np.asarray(nnx.jit(lambda bert, ids: bert(ids, mask).mean(1))(model.text_encoder.bert, texts))
    unit = means / np.linalg.norm(means, axis=1, keepdims=True)
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, -2)
    return np.argsort(-likeness, axis=1)[:, :10]


def kept(config, assemble, rate: float) -> float:
    """The share of the ten nearest neighbors of 100 texts that are neighbors still after ten steps."""
    config.train.text_encoder_lr = rate
    ready = assemble()
    texts = np.random.default_rng(0).integers(1, VOCABULARY, (100, 6)).astype(np.int32)
    before = neighbors(ready, ready.state.params, texts)
    inputs, programs, state, window = ready.inputs, ready.programs, ready.state, ready.programs.empty_window()
    first = inputs.train_source(STEPS)[0].frozen_means
    for step in range(STEPS):
        batch = sharding.place_batch(inputs.train_source(STEPS)[step], inputs.mesh)
        state, window, _ = programs.train_step(state, window, batch, inputs.tables)
        # What is distilled from stays where it was while the encoder moves.
        np.testing.assert_array_equal(inputs.train_source(STEPS)[0].frozen_means, first)
    after = neighbors(ready, state.params, texts)
    return np.mean([len(set(a) & set(b)) for a, b in zip(before.tolist(), after.tolist(), strict=True)]) / 10


@pytest.mark.integration
def test_what_is_near_stays_near(config, assemble):
    at_own_rate, at_usual_rate = kept(config, assemble, 2e-5), kept(config, assemble, 1e-3)
    assert at_own_rate > 0.97
    assert at_usual_rate < 0.92
