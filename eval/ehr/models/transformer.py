"""Define the Transformer of the benchmark: a position a code, with its place in the order and its time."""

import jax
import jax.numpy as jnp
from flax import nnx

from eval.ehr.models.batches import PatientBatch
from eval.ehr.models.layers import Dropout, Stack, drop, sinusoids
from medtok_jax.models.cross_attention import masked_mean

# Places are counted from the latest event, up to a few hundred.
_LONGEST_ORDER = 256.0
# Times enter as ten times log(1 + days before the prediction), up to about 100.
_TIME_SCALE = 10.0
_LONGEST_TIME = 100.0


class Transformer(nnx.Module):
    """Encode a patient's codes by attention over all of them; the patient is the mean of the states.

    To each embedded code are added a learned map of the sinusoids of its place, counted from the latest code, and one
    of the sinusoids of the logarithm of its days before the prediction time.

    Args:
        width: width of the states.
        num_layers: number of blocks.
        num_heads: heads of attention.
        inner: width inside the MLPs.
        rngs: initializes the parameters.
    """

    def __init__(self, width: int, *, num_layers: int, num_heads: int, inner: int, rngs: nnx.Rngs):
        self.order = nnx.Linear(width, width, use_bias=False, kernel_init=small, rngs=rngs)
        self.time = nnx.Linear(width, width, use_bias=False, kernel_init=small, rngs=rngs)
        self.stack = Stack(num_layers, width, num_heads=num_heads, inner=inner, rngs=rngs)

    def __call__(
        self, embedded: jax.Array, batch: PatientBatch, dropout: Dropout | None
    ) -> tuple[jax.Array, jax.Array]:
        """Encode embedded codes `[batch, length, width]` to states of the same shape and patients `[batch, width]`."""
        width = embedded.shape[-1]
        place = jnp.cumsum(batch.mask[:, ::-1], axis=1)[:, ::-1] - 1
        states = embedded + self.order(sinusoids(jnp.maximum(place, 0), width, _LONGEST_ORDER))
        states = states + self.time(sinusoids(_TIME_SCALE * jnp.log1p(batch.days), width, _LONGEST_TIME))
        states = self.stack(drop(dropout, states, 100), batch.mask, dropout)
        return states, masked_mean(states, batch.mask)


# Maps of places and times start small beside the codes, which they are added to.
small = nnx.initializers.normal(0.02)
