"""Start a run from the weights of a finished one, on another data set if wanted (`config.init_from`)."""

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from medtok_jax.training import checkpoints
from medtok_jax.training.state import TrainState
from preprocessing.common.errors import InputError

# Embedding tables whose rows are named by the data set, and the list in a checkpoint's metadata that names them.
NAMED_ROWS = {"type": "node_types", "relation": "relation_names"}


def start_from(path: str, state: TrainState, names: dict[str, list[str]], model: ConfigDict) -> TrainState:
    """Return a fresh state with the parameters of a checkpoint.

    Rows of node types and relations go by name; those the checkpoint does not know keep their fresh values, and so does
    a table of node ids, which belong to one knowledge graph.

    Args:
        path: a work directory or checkpoint; the best one is taken.
        state: the fresh state.
        names: `node_types` and `relation_names` of the new data set.
        model: the `model` section of the new run's configuration.

    Raises:
        InputError: where the checkpoint's model differs.
    """
    found = checkpoints.find(path, prefer="best")
    metadata = found.metadata()
    before, now = metadata["config"]["model"], model.to_dict()
    changed = [f"model.{name}: {before.get(name)} -> {now[name]}" for name in now if before.get(name) != now[name]]
    changed = [change for change in changed if not change.startswith(("model.kmeans", "model.text_encoder_trainable"))]
    if changed:
        raise InputError(f"config.init_from={path} holds another model ({'; '.join(changed)}); use its model settings.")
    saved = found.restore_variables()
    params = _merge(nnx.to_pure_dict(state.params), saved["params"], metadata, names)
    fixed = _merge(nnx.to_pure_dict(state.fixed), saved["fixed"], metadata, names)
    new = jax.tree.map(lambda x: x, state)
    nnx.replace_by_pure_dict(new.params, params)
    nnx.replace_by_pure_dict(new.fixed, fixed)
    return new


def _merge(fresh: dict, saved: dict, metadata: dict, names: dict[str, list[str]]) -> dict:
    merged = {}
    for key, value in fresh.items():
        old = saved.get(key, saved.get(str(key)))
        if isinstance(value, dict):
            merged[key] = _merge(value, old or {}, metadata, names)
        elif old is None:
            merged[key] = value
        else:
            merged[key] = _by_name(value, np.asarray(old), metadata, names)
    return merged


def _by_name(fresh: jax.Array, old: np.ndarray, metadata: dict, names: dict[str, list[str]]) -> jax.Array:
    """Return the old array, its rows matched by their names where both have lists of names."""
    for kind in NAMED_ROWS.values():
        before, now = metadata[kind], names[kind]
        if before != now and fresh.ndim == 2 and (len(before), len(now)) == (old.shape[0], fresh.shape[0]):
            rows = np.array(fresh)
            for row, name in enumerate(now):
                if name in before:
                    rows[row] = old[before.index(name)]
            return jax.device_put(rows, fresh.sharding)
    if old.shape != fresh.shape:
        return fresh
    return jax.device_put(old.astype(fresh.dtype), fresh.sharding)
