"""Define BEHRT (Li et al., 2020, "BEHRT: Transformer for Electronic Health Records", figure 2): codes with age, segment
and the position of their visit, and a [CLS] state that stands for the patient.

Two things differ from the paper: no separator stands between visits, as segment and position tell them apart, and
positions count back from the latest visit, so that a long history does not shift what is recent.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from eval.ehr.models.batches import PatientBatch
from eval.ehr.models.layers import Dropout, Stack, drop

OLDEST = 110
MOST_VISITS = 256


class VisitEncoder(nnx.Module):
    """Encode states that carry an age and a visit number, behind a learned [CLS] state.

    Args:
        width: width of the states.
        num_layers: number of blocks.
        num_heads: heads of attention.
        inner: width inside the MLPs.
        rngs: initializes the parameters.
    """

    def __init__(self, width: int, *, num_layers: int, num_heads: int, inner: int, rngs: nnx.Rngs):
        initial = nnx.initializers.normal(0.05)
        self.age = nnx.Embed(OLDEST + 1, width, embedding_init=initial, rngs=rngs)
        self.segment = nnx.Embed(2, width, embedding_init=initial, rngs=rngs)
        self.position = nnx.Embed(MOST_VISITS, width, embedding_init=initial, rngs=rngs)
        self.cls = nnx.Param(initial(rngs.params(), (width,), jnp.float32))
        self.stack = Stack(num_layers, width, num_heads=num_heads, inner=inner, rngs=rngs)

    def __call__(
        self, states: jax.Array, *, mask: jax.Array, age: jax.Array, visit: jax.Array, dropout: Dropout | None
    ) -> tuple[jax.Array, jax.Array]:
        """Encode states of one patient a row.

        Args:
            states: `[batch, length, width]`.
            mask: `[batch, length]` bool.
            age: `[batch, length]` float32, years.
            visit: `[batch, length]` int32, numbers from 0, the latest visit has the largest.
            dropout: dropout in training.

        Returns:
            states `[batch, length, width]` and the [CLS] state `[batch, width]`.
        """
        latest = jnp.max(jnp.where(mask, visit, 0), axis=1, keepdims=True)
        back = jnp.clip(latest - visit, 0, MOST_VISITS - 1)
        years = jnp.clip(jnp.floor(age).astype(jnp.int32), 0, OLDEST)
        states = states + self.age(years) + self.segment(back % 2) + self.position(back)
        cls = jnp.broadcast_to(self.cls[...], (len(states), 1, states.shape[-1]))
        states = drop(dropout, jnp.concatenate([cls, states], axis=1), 200)
        mask = jnp.concatenate([jnp.ones((len(mask), 1), bool), mask], axis=1)
        states = self.stack(states, mask, dropout)
        return states[:, 1:], states[:, 0]


class Behrt(nnx.Module):
    """Encode a patient's codes by BEHRT.

    Args:
        width: width of the states.
        num_layers: number of blocks.
        num_heads: heads of attention.
        inner: width inside the MLPs.
        rngs: initializes the parameters.
    """

    def __init__(self, width: int, *, num_layers: int, num_heads: int, inner: int, rngs: nnx.Rngs):
        self.encoder = VisitEncoder(width, num_layers=num_layers, num_heads=num_heads, inner=inner, rngs=rngs)

    def __call__(
        self, embedded: jax.Array, batch: PatientBatch, dropout: Dropout | None
    ) -> tuple[jax.Array, jax.Array]:
        """Encode embedded codes `[batch, length, width]` to states of the same shape and patients `[batch, width]`."""
        return self.encoder(embedded, mask=batch.mask, age=batch.age, visit=batch.visit, dropout=dropout)
