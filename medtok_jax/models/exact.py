"""Compute in float32 what decides which tokens a code gets, on every device alike.

A TPU multiplies float32 matrices in bfloat16 unless it is told otherwise, and recent GPUs in TensorFloat-32.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp


def exact(function: Callable) -> Callable:
    """Return the function with all of its matmuls, and those of its gradient, in float32 on every device.

    The token states and weights of encoders are not meant: they may be in bfloat16.
    """

    @functools.wraps(function)
    def in_float32(*args, **kwargs):
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return in_float32


def solve_positive(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """Solve small systems of equations by Gauss-Jordan elimination, without a call of a linear algebra library.

    Such a call cannot be cut over devices: XLA would gather all systems and solve them everywhere. Each of the k
    steps here is elementwise in the batch. Elimination without a choice of pivots is stable for positive definite
    matrices (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 9.4 and 14.4).

    Args:
        matrix: `[..., k, k]` float32, symmetric and positive definite.
        right: `[..., k]` float32.

    Returns:
        `[..., k]` float32.
    """
    size = matrix.shape[-1]
    system = jnp.concatenate([matrix, right[..., None]], axis=-1)
    for pivot in range(size):
        row = system[..., pivot, :] / system[..., pivot, pivot, None]
        others = system - system[..., :, pivot, None] * row[..., None, :]
        system = jnp.where((jnp.arange(size) == pivot)[:, None], row[..., None, :], others)
    return system[..., -1]
