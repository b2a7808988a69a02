"""Measure and clip the norm of a tree of arrays, with few kernels.

`optax.tree.norm` sums up each array by itself: a kernel or two for every bias of a model, more than the rest of an
optimizer's step takes.
"""

import jax
import jax.numpy as jnp
import optax

# Arrays of up to so many elements are summed up end to end. The others are few.
SMALL = 2**18


def global_norm(tree, *, together: bool = True) -> jax.Array:
    """Return the Euclidean norm of all elements of a tree of float32 arrays, a scalar; 0 of a tree without arrays.

    Args:
        tree: the arrays.
        together: whether to sum small arrays up end to end. Where some are sharded over devices this must be False: all
            would be gathered, and with gradients the activations that they are made of.
    """
    leaves = jax.tree.leaves(tree)
    small = [leaf.reshape(-1) for leaf in leaves if together and leaf.size <= SMALL]
    parts = [leaf for leaf in leaves if not together or leaf.size > SMALL]
    parts += [jnp.concatenate(small)] if small else []
    return jnp.sqrt(sum((jnp.sum(part * part) for part in parts), jnp.zeros(())))


def clip_by_norm(limit: float, *, together: bool = True) -> optax.GradientTransformation:
    """Return `optax.clip_by_global_norm` with the norm of `global_norm`."""

    def clip(updates, _):
        norm = global_norm(updates, together=together)
        return jax.tree.map(lambda x: jnp.where(norm < limit, x, x / norm * limit), updates)

    return optax.stateless(clip)
