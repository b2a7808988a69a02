"""Fit the codebook of a model in training by k-means to embeddings of training codes."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from medtok_jax.data.sampling import draw
from medtok_jax.devices import sharding
from medtok_jax.models.kmeans import fit_regions
from medtok_jax.regions import REGIONS, parts_of
from medtok_jax.training.inputs import ModelInputs
from medtok_jax.training.programs import Programs
from medtok_jax.training.state import TrainState


def fit_codebook(
    state: TrainState, programs: Programs, inputs: ModelInputs, *, seed: int, model: ConfigDict, anew: bool
) -> TrainState:
    """Return the state with its codebook fitted to embeddings of training codes, each as often as any other.

    Moments of the optimizer belong to the old rows and are set to zero.

    Args:
        state: of the model as it is trained so far.
        programs: its compiled functions.
        inputs: its data.
        seed: of the run.
        model: the `model` section of the configuration.
        anew: whether rows are drawn anew instead of starting from the present ones, whose meaning then lasts.
    """
    points = embed_training_codes(state, programs, inputs, seed=seed, count=model.kmeans_samples)
    of_region = {region: [] for region in REGIONS}
    for part in parts_of(model):
        of_region[part.region].append(points[part.embedding])
    fitted = programs.structure.model(state.params, state.fixed)
    rows = fit_regions(
        jax.random.key(seed),
        {region: jnp.concatenate(embedded) for region, embedded in of_region.items()},
        fitted.quantizer,
        iterations=model.kmeans_iterations,
        rounds=model.joint_fit_rounds,
        present=None if anew else jnp.asarray(programs.codebook(state)),
    )
    fitted.quantizer.set_codebook(sharding.place_everywhere(np.asarray(rows), programs.mesh))
    _, params, fixed = nnx.split(fitted, nnx.Param, ...)
    opt_state = jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.zeros_like(x) if _belongs_to_rows(path) else x, state.opt_state
    )
    return sharding.lay_out(TrainState(state.step, params, fixed, opt_state), programs.mesh)


def embed_training_codes(
    state: TrainState, programs: Programs, inputs: ModelInputs, *, seed: int, count: int
) -> dict[str, jax.Array]:
    """Return what is quantized of at least `count` training codes, of which nothing is masked, or of all of them."""
    codes, size = inputs.sampler.rows, inputs.batch_size
    parts = []
    for step in range(-(-min(count, len(codes)) // size)):
        rows = codes[draw(seed, step, size, len(codes))]
        batch = inputs.unmasked_builder(rows, np.ones(size, bool), np.full(size, -1))
        placed = sharding.place_batch(batch, inputs.mesh)
        parts.append(programs.encode_step(state.params, state.fixed, placed, inputs.tables))
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)


def _belongs_to_rows(path: tuple) -> bool:
    return any(getattr(part, "key", None) == "rows" for part in path)
