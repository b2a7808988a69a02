"""Create the state of training and its optimizer."""

from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from medtok_jax.batch import InputSizes
from medtok_jax.devices import sharding
from medtok_jax.models.bert import load_bert
from medtok_jax.models.medtok import MedTok
from medtok_jax.training.norms import clip_by_norm


@flax.struct.dataclass
class TrainState:
    """Hold all that a training step changes.

    Attributes:
        step: int32 scalar, number of batches seen.
        params: trained parameters.
        fixed: variables no gradient moves (EMA statistics, SimVQ's basis).
        opt_state: state of the optimizer.
    """

    step: jax.Array
    params: nnx.State
    fixed: nnx.State
    opt_state: optax.OptState


def learning_rate(config: ConfigDict, *, first_step: int, last_step: int) -> optax.Schedule:
    """Return linear warm-up and cosine decay to zero over the updates of steps `first_step` to `last_step`."""
    accumulated = config.train.grad_accum_steps
    first, updates = first_step // accumulated, max((last_step - first_step) // accumulated, 1)
    warmup = min(config.train.warmup_steps, max(updates // 10, 1))
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0, peak_value=config.train.lr, warmup_steps=warmup, decay_steps=max(updates, warmup + 1)
    )
    return lambda count: schedule(count - first)


def _is_matrix(path: tuple, _) -> bool:
    return any(getattr(part, "key", None) == "kernel" for part in path)


def _is_of_text_encoder(path: tuple, _) -> bool:
    return tuple(getattr(part, "key", None) for part in path[:2]) == ("text_encoder", "bert")


def create_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Return clipping and AdamW; only weights of linear maps decay; several batches are summed up where asked.

    A text encoder that is trained too has its own peak learning rate, decay included: AdamW is linear in the rate.
    """
    parts = [
        clip_by_norm(config.train.clip_norm, together=config.train.model_parallel == 1),
        optax.adamw(
            schedule,
            b2=0.98,
            weight_decay=config.train.weight_decay,
            mask=lambda params: jax.tree_util.tree_map_with_path(_is_matrix, params),
        ),
    ]
    if config.model.text_encoder_trainable:
        slower = optax.scale(config.train.text_encoder_lr / config.train.lr)
        parts.append(optax.masked(slower, lambda params: jax.tree_util.tree_map_with_path(_is_of_text_encoder, params)))
    optimizer = optax.chain(*parts)
    if config.train.grad_accum_steps > 1:
        optimizer = optax.MultiSteps(optimizer, config.train.grad_accum_steps)
    return optimizer


def create_state(
    config: ConfigDict, sizes: InputSizes, encoder_dir: Path, optimizer: optax.GradientTransformation, mesh: Mesh
) -> tuple[nnx.GraphDef, TrainState]:
    """Return the structure of a model, and a fresh state that is initialized where it lies on the mesh.

    A text encoder that is trained too starts from its pretrained weights.
    """
    dtype = jnp.bfloat16 if config.train.mixed_precision else jnp.float32
    bert_def, bert_state, top_k = None, None, sharding.top_k(mesh)
    if config.model.text_encoder_trainable:
        bert_def, bert_state = nnx.split(load_bert(encoder_dir, dtype=dtype, gelu=config.model.text_encoder_gelu))

    def build(bert_state) -> MedTok:
        bert = None if bert_def is None else nnx.merge(bert_def, bert_state)
        return MedTok(
            config.model,
            sizes,
            bert=bert,
            dtype=dtype,
            top_k=top_k,
            predicts_links=config.loss.link_weight > 0,
            rngs=nnx.Rngs(config.seed),
        )

    def init(bert_state) -> TrainState:
        _, params, fixed = nnx.split(build(bert_state), nnx.Param, ...)
        return TrainState(jnp.zeros((), jnp.int32), params, fixed, optimizer.init(params))

    graphdef, _, _ = nnx.split(nnx.eval_shape(build, bert_state), nnx.Param, ...)
    laid_out = sharding.layout(mesh, jax.eval_shape(init, bert_state))
    return graphdef, jax.jit(init, out_shardings=laid_out)(bert_state)
