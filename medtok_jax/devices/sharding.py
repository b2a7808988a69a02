"""Lay arrays out on a mesh of devices.

Batches are sharded over `data`; the codebook and the table of node ids are sharded over `model` where that is more than
one device; everything else is replicated.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from medtok_jax.batch import Batch
from preprocessing.common.errors import InputError

# Last keys of the paths of arrays that are sharded over `model`.
CODEBOOK = (["rows"], ["ema_count"], ["ema_sum"])
NODE_IDS = ["ids", "embedding"]


def use_devices(num_devices: int) -> list[jax.Device]:
    """Return the devices of a run: all, or the first `num_devices`.

    Raises:
        InputError: where fewer are there, or several processes are asked for less than all of theirs.
    """
    devices = jax.devices()
    if not num_devices or num_devices == len(devices):
        return devices
    if num_devices > len(devices):
        raise InputError(f"train.num_devices={num_devices}, but only {len(devices)} devices are there.")
    if jax.process_count() > 1:
        raise InputError(f"train.num_devices={num_devices} leaves processes without a device; start fewer processes.")
    return devices[:num_devices]


def make_mesh(devices: Sequence[jax.Device], model_parallel: int = 1) -> Mesh:
    """Return a `("data", "model")` mesh of all given devices, with axes that XLA is free to use.

    Args:
        devices: all in use.
        model_parallel: devices along `model`, a divisor of their number.
    """
    shape = (len(devices) // model_parallel, model_parallel)
    return jax.make_mesh(shape, ("data", "model"), devices=devices, axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding that replicates an array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def layout(mesh: Mesh, tree):
    """Return the shardings of a training state: rows of the codebook and of the table of node ids over `model`.

    Moments of the optimizer lie as their parameters do. A table whose rows cannot be shared out evenly is replicated.

    Args:
        mesh: devices.
        tree: arrays or their shapes.
    """
    parts = mesh.shape["model"]
    cut = NamedSharding(mesh, PartitionSpec("model"))

    def place(path: tuple, leaf) -> NamedSharding:
        names = [part.key for part in path if hasattr(part, "key")]
        is_table = names[-1:] in CODEBOOK or names[-2:] == NODE_IDS
        return cut if is_table and parts > 1 and leaf.ndim and leaf.shape[0] % parts == 0 else replicated(mesh)

    return jax.tree_util.tree_map_with_path(place, tree)


def lay_out(tree, mesh: Mesh):
    """Move a training state to the devices that `layout` gives."""
    return jax.jit(lambda x: x, out_shardings=layout(mesh, tree))(tree)


def gather(tree, mesh: Mesh):
    """Replicate a training state on every device, to be read by the host. All processes must call it."""
    if mesh.shape["model"] == 1:
        return tree
    return jax.jit(lambda x: x, out_shardings=replicated(mesh))(tree)


def split_over_data(mesh: Mesh) -> NamedSharding:
    """Return the sharding that splits the leading axis over the `data` axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def local_stacks(mesh: Mesh) -> list[int]:
    """Return the positions along the `data` axis whose devices belong to this process."""
    indices = split_over_data(mesh).addressable_devices_indices_map((mesh.shape["data"],)).values()
    return sorted({index[0].start or 0 for index in indices})


def place_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Put this process's part of a host batch on its devices, as part of a global batch."""
    sharding = split_over_data(mesh)
    share = mesh.shape["data"] // len(local_stacks(mesh))
    if share == 1:
        return jax.device_put(batch, sharding)

    def place(x: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, x, (x.shape[0] * share, *x.shape[1:]))

    return jax.tree.map(place, batch)


def place_everywhere(tree, mesh: Mesh):
    """Replicate host arrays, the same in every process, on every device."""
    sharding = replicated(mesh)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def top_k(mesh: Mesh) -> Callable:
    """Return `jax.lax.top_k` along rows of `[batch, n]` whose batch is split over `data`.

    XLA cannot split the operation itself: it would gather the matrix on every device.
    """
    if mesh.devices.size == 1:
        return jax.lax.top_k
    rows = PartitionSpec("data")
    return lambda x, k: jax.shard_map(lambda part: jax.lax.top_k(part, k), mesh=mesh, in_specs=rows, out_specs=rows)(x)
