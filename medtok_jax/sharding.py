"""The mesh, and where things lie on it: batches over `data`, everything else on every device."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from medtok_jax.batch import Batch
from preprocessing.errors import InputError


def use_devices(num_devices: int) -> list[jax.Device]:
    """The devices of a run: all, or the first `num_devices`.

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


def make_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """A `("data", "model")` mesh of all given devices along `data`, with axes that XLA is free to use."""
    return jax.make_mesh((len(devices), 1), ("data", "model"), devices=devices, axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def spread(mesh: Mesh) -> NamedSharding:
    """The leading axis cut over the `data` axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def local_stacks(mesh: Mesh) -> list[int]:
    """Positions along the `data` axis whose devices belong to this process."""
    indices = spread(mesh).addressable_devices_indices_map((mesh.shape["data"],)).values()
    return sorted({index[0].start or 0 for index in indices})


def place_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Puts this process's part of a host batch on its devices, as part of a global batch."""
    sharding, share = spread(mesh), mesh.shape["data"] // len(local_stacks(mesh))
    if share == 1:
        return jax.device_put(batch, sharding)
    place = lambda x: jax.make_array_from_process_local_data(sharding, x, (x.shape[0] * share, *x.shape[1:]))  # noqa: E731
    return jax.tree.map(place, batch)


def place_everywhere(tree, mesh: Mesh):
    """Puts host arrays, the same in every process, on every device."""
    sharding = replicated(mesh)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def top_k(mesh: Mesh) -> Callable:
    """`jax.lax.top_k` along rows of `[batch, n]` whose batch is cut over `data`.

    XLA cannot cut the operation itself: it would gather the whole matrix on every device.
    """
    if mesh.shape["data"] == 1:
        return jax.lax.top_k
    rows = PartitionSpec("data")
    return lambda x, k: jax.shard_map(lambda part: jax.lax.top_k(part, k), mesh=mesh, in_specs=rows, out_specs=rows)(x)
