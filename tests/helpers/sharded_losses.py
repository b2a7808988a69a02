"""Compute the losses that compare a whole batch on one device and on four, in a process that a test starts.

Prints JSON: each value and the norm of its gradient, by the number of devices.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np

from medtok_jax.batch import CodeLinks
from medtok_jax.devices import sharding
from medtok_jax.training import losses

BATCH, WIDTH = 16, 6


def values(num_devices: int) -> dict[str, list[float]]:
    """Return value and gradient norm of each loss of a batch that is split over some devices."""
    mesh = sharding.make_mesh(jax.devices()[:num_devices])
    split = sharding.split_over_data(mesh)
    rng = np.random.default_rng(0)
    node = np.where(rng.random(BATCH) < 0.8, rng.integers(9, size=BATCH), -1).astype(np.int32)
    known = (node[:, None] == node) & (node >= 0)[:, None]
    # The devices have unlike numbers of rows that count.
    valid = np.arange(BATCH) % 7 > np.arange(BATCH) // 6
    arrays = {
        "first": rng.normal(size=(BATCH, WIDTH)).astype(np.float32) + np.arange(BATCH)[:, None] / 8,
        "second": rng.normal(size=(BATCH, WIDTH)).astype(np.float32),
        "valid": valid,
        "links": CodeLinks(node, np.zeros(BATCH, np.int32), known),
    }
    placed = jax.device_put(arrays, split)

    def cross_covariance(first, batch):
        return losses.cross_covariance(first, batch["second"] + first, batch["valid"])

    def link_prediction(first, batch):
        return losses.link_prediction(first @ batch["second"].T, batch["links"], batch["valid"], temperature=0.3)

    found = {}
    for loss in (cross_covariance, link_prediction):
        value, gradient = jax.jit(jax.value_and_grad(loss), in_shardings=(split, split))(placed["first"], placed)
        found[loss.__name__] = [float(value), float(jnp.linalg.norm(gradient))]
    return found


if __name__ == "__main__":
    print(json.dumps({number: values(number) for number in (1, 2, 4)}))
