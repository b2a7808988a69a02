"""Define the functions of a training run that `programs` compiles: pure, at module level, of their arguments alone."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from ml_collections import ConfigDict

from medtok_jax.batch import Batch, Tables, has_both, has_text, join_tiers, split_tiers, with_states
from medtok_jax.models.medtok import MedTok
from medtok_jax.models.outputs import BatchTokens, View
from medtok_jax.regions import Regions, parts_of
from medtok_jax.training import losses
from medtok_jax.training.metrics import (
    CodebookUsage,
    WeightedSums,
    Window,
    quantization_metric_names,
    quantization_metrics,
)
from medtok_jax.training.norms import global_norm
from medtok_jax.training.state import TrainState
from preprocessing.common.errors import UserError

TERMS = ("quantization", "kl", *losses.PACKING_TERMS, *losses.BEYOND_THE_PAPER)
# Figures that must stay finite: a NaN gradient spoils the parameters before it shows in the next loss.
CHECKED = (*TERMS, "gradient_norm")
NORMS = ("learning_rate", "gradient_norm", "parameter_norm", "update_norm")


def metric_names(model: ConfigDict) -> tuple[str, ...]:
    """Return the names of the metrics of a batch, of a model of this `model` section."""
    quantized = quantization_metric_names([part.embedding for part in parts_of(model)])
    totals = ("total_loss", "quantization_loss", "kl_loss", "packing_loss")
    return (*totals, *(f"term/{name}" for name in TERMS), *quantized)


class NonFiniteLoss(UserError):
    """Raised when a loss term or the gradient is NaN or infinite; names the step and the term."""


class Structure(NamedTuple):
    """Hold the static facts that compiled functions are bound to.

    Attributes:
        graphdef: structure of the model.
        optimizer: the gradient transformation.
        schedule: learning rate by optimizer update.
        config: of the run.
    """

    graphdef: nnx.GraphDef
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    config: ConfigDict

    @property
    def regions(self) -> Regions:
        """Return the regions of the codebook."""
        model = self.config.model
        return Regions.from_ratios(model.codebook_size, model.text_specific_ratio, model.graph_specific_ratio)

    def model(self, params: nnx.State, fixed: nnx.State) -> MedTok:
        """Return the model with these variables."""
        return nnx.merge(self.graphdef, params, fixed)


def score(
    model: MedTok, batch: Batch, tables: Tables, key: jax.Array, config: ConfigDict
) -> tuple[dict[str, jax.Array], View]:
    """Return the loss terms of a batch and its clean view; the augmented view is drawn from `key`."""
    batch = with_states(batch, tables)
    view, augmented = model.two_views(batch, tables, augment=config.augment, key=key)
    slots = jnp.arange(batch.partner.shape[0])
    partners = batch.partner[:, None] == slots if len(config.loss.positive_relations) else None
    terms = losses.loss_terms(
        view,
        augmented,
        batch.valid,
        excluded=losses.not_negatives(batch.text_id, batch.graph_id),
        partners=partners,
        teacher=mean_states(batch) if losses.distills(config.loss) else None,
        has_text=has_text(batch),
        has_both=has_both(batch),
        links=batch.links,
        link_scores=functools.partial(score_links, model, batch, tables),
        config=config.loss,
    )
    return terms, view


def score_links(model: MedTok, batch: Batch, tables: Tables, codes: jax.Array) -> jax.Array:
    """Return the score `[batch, batch]` of each code `[batch, width]`, by its relation, and each code's node."""
    names = tables.name_embedding[tables.node_name[jnp.maximum(batch.links.node, 0)]]
    return model.link_head(codes, batch.links.relation, names)


def mean_states(batch: Batch) -> jax.Array:
    """Return `[batch, text width]` float32, means of the frozen encoder's states; 0 where there is no description.

    A batch for a trained encoder brings them, as that encoder's own states move.
    """
    if batch.frozen_means is not None:
        return batch.frozen_means

    def means(states: jax.Array, mask: jax.Array) -> jax.Array:
        weights = mask / jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
        return jnp.einsum("bl,blh->bh", weights.astype(states.dtype), states, preferred_element_type=jnp.float32)

    if batch.small is None:
        return means(batch.text, batch.text_mask)
    tokens, _ = batch.small
    (small, large), (small_mask, large_mask) = split_tiers(batch.text), split_tiers(batch.text_mask)
    return join_tiers(means(small[:, :tokens], small_mask[:, :tokens]), means(large, large_mask))


def train_step(
    state: TrainState, window: Window, batch: Batch, tables: Tables, *, structure: Structure
) -> tuple[TrainState, Window, jax.Array]:
    """Take one step on a batch: gradient, update, metrics.

    Returns:
        The new state, the window with this batch added, and the figures to check, in the order of `CHECKED`.
    """
    config = structure.config
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)

    def loss(params):
        terms, view = score(structure.model(params, state.fixed), batch, tables, key, config)
        return losses.totals(terms)["total_loss"], (terms, view)

    (_, (terms, view)), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
    updates, opt_state = structure.optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    fixed = update_fixed(structure, params, state.fixed, view, batch.valid)
    together = config.train.model_parallel == 1
    norms = {
        "learning_rate": structure.schedule(state.step // config.train.grad_accum_steps),
        "gradient_norm": global_norm(gradients, together=together),
        "parameter_norm": global_norm(params, together=together),
        "update_norm": global_norm(updates, together=together),
    }
    window = window.merge(summarize(terms, view, batch.valid, config.model.codebook_size, norms))
    checked = jnp.stack([(terms | norms)[name] for name in CHECKED])
    return TrainState(state.step + 1, params, fixed, opt_state), window, checked


def update_fixed(structure: Structure, params: nnx.State, fixed: nnx.State, view: View, valid: jax.Array) -> nnx.State:
    """Return the variables that no gradient moves after a step: the EMA codebook, where there is one."""
    if not structure.config.model.ema_decay:
        return fixed
    model = structure.model(params, fixed)
    most = max(q.ids.shape[1] for q in view.quantized)

    def stacked(name: str) -> jax.Array:
        # Missing tokens have the weight 0, so that they move no row.
        arrays = [getattr(q, name) for q in view.quantized]
        return jnp.concatenate([jnp.pad(a, ((0, 0), (0, most - a.shape[1]))) for a in arrays])

    embedding = jnp.concatenate([q.embedding for q in view.quantized])
    model.quantizer.ema_update(embedding, stacked("ids"), stacked("weights"), jnp.tile(valid, len(view.quantized)))
    return nnx.state(model, nnx.Not(nnx.Param))


def summarize(
    terms: dict[str, jax.Array], view: View, valid: jax.Array, codebook_size: int, more: dict[str, jax.Array]
) -> Window:
    """Return the metrics of one batch."""
    scalars = losses.totals(terms) | {f"term/{name}": terms[name] for name in TERMS}
    scalars |= quantization_metrics(view, valid) | more
    return Window(scalars=WeightedSums.of(scalars, valid), usage=CodebookUsage.of(view, valid, codebook_size))


def eval_step(params: nnx.State, fixed: nnx.State, batch: Batch, tables: Tables, *, structure: Structure) -> Window:
    """Return the metrics of one batch without an update; its augmented view is the same in every validation."""
    config = structure.config
    key = jax.random.fold_in(jax.random.key(config.seed), batch.index[0])
    terms, view = score(structure.model(params, fixed), batch, tables, key, config)
    return summarize(terms, view, batch.valid, config.model.codebook_size, {})


def term_gradient_norms(
    state: TrainState, batch: Batch, tables: Tables, *, structure: Structure
) -> dict[str, jax.Array]:
    """Return the norm of the parameters' gradient of each loss term alone."""
    config = structure.config
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)

    def terms_of(params):
        terms, _ = score(structure.model(params, state.fixed), batch, tables, key, config)
        return jnp.stack([terms[name] for name in TERMS])

    _, pull_back = jax.vjp(terms_of, state.params)
    together = config.train.model_parallel == 1
    norms = jax.lax.map(lambda direction: global_norm(pull_back(direction)[0], together=together), jnp.eye(len(TERMS)))
    return {f"gradient_norm/{name}": norms[number] for number, name in enumerate(TERMS)}


def encode_step(
    params: nnx.State, fixed: nnx.State, batch: Batch, tables: Tables, *, structure: Structure
) -> dict[str, jax.Array]:
    """Return what is quantized of each code of a batch, `[batch, width]` each, by name; see `regions.parts_of`."""
    model = structure.model(params, fixed)
    return model.quantized_parts(model.encode(with_states(batch, tables), tables))


def tokenize_step(
    params: nnx.State, fixed: nnx.State, batch: Batch, tables: Tables, *, structure: Structure
) -> tuple[jax.Array, BatchTokens, Window]:
    """Tokenize a batch.

    Returns:
        Table rows `[batch]`, -1 where invalid; the tokens; metrics of quantization.
    """
    view = structure.model(params, fixed)(with_states(batch, tables), tables)
    scalars = WeightedSums.of(quantization_metrics(view, batch.valid), batch.valid)
    usage = CodebookUsage.of(view, batch.valid, structure.config.model.codebook_size)
    return jnp.where(batch.valid, batch.index, -1), view.tokens(), Window(scalars=scalars, usage=usage)
