"""Measure and clip the norm of a tree of arrays, with few kernels.

`optax.tree.norm` sums up each array by itself: a kernel or two for every bias of a model, more than the rest of an
optimizer's step takes.
"""

import jax
import jax.numpy as jnp
import optax

# Arrays of up to so many elements are summed up end to end. The others are few, and may be sharded over devices.
SMALL = 2**18


def global_norm(tree) -> jax.Array:
    """Return the Euclidean norm of all elements of a tree of float32 arrays, a scalar; 0 of a tree without arrays."""
    leaves = jax.tree.leaves(tree)
    small = [leaf.reshape(-1) for leaf in leaves if leaf.size <= SMALL]
    parts = [leaf for leaf in leaves if leaf.size > SMALL] + ([jnp.concatenate(small)] if small else [])
    return jnp.sqrt(sum((jnp.sum(part * part) for part in parts), jnp.zeros(())))


def clip_by_norm(limit: float) -> optax.GradientTransformation:
    """Return `optax.clip_by_global_norm` with the norm of `global_norm`."""

    def clip(updates, _):
        norm = global_norm(updates)
        return jax.tree.map(lambda x: jnp.where(norm < limit, x, x / norm * limit), updates)

    return optax.stateless(clip)
