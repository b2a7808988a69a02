"""Encode the description of a code (paper section 3.1) to token states and one pooled vector."""

import jax
import jax.numpy as jnp
from flax import nnx

from medtok_jax.models.bert import Bert, masked_softmax

POOLINGS = ("default", "weighted_pooling")
# Standard deviation of the learned state of a missing text when it is drawn.
NO_TEXT_SCALE = 0.1


class AttentionPooling(nnx.Module):
    """Pool by attention over real positions: Linear(hidden, 128) -> tanh -> Linear(128, 1) -> masked softmax."""

    def __init__(self, hidden: int, *, attention_width: int = 128, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        self.inner = nnx.Linear(hidden, attention_width, dtype=dtype, rngs=rngs)
        # A bias would move all scores alike, which a softmax does not see.
        self.score = nnx.Linear(attention_width, 1, use_bias=False, dtype=dtype, rngs=rngs)

    def weights(self, states: jax.Array, mask: jax.Array, *, score_bias: jax.Array | None = None) -> jax.Array:
        """Return attention weights [batch, length] float32; `score_bias` [length] favors positions as such."""
        scores = self.score(jnp.tanh(self.inner(states)))[..., 0].astype(jnp.float32)
        if score_bias is not None:
            scores = scores + score_bias
        return masked_softmax(scores, mask)

    def __call__(self, states: jax.Array, mask: jax.Array, *, score_bias: jax.Array | None = None) -> jax.Array:
        """Pool [batch, length, hidden] by a mask [batch, length] to [batch, hidden]; zeros where all is masked."""
        weights = self.weights(states, mask, score_bias=score_bias)
        return jnp.einsum("bl,blh->bh", weights.astype(states.dtype), states)


def cls_pooling(states: jax.Array, mask: jax.Array) -> jax.Array:
    """Return the state of the first token, [CLS]: [batch, length, hidden] -> [batch, hidden]; zeros if masked."""
    return jnp.where(mask[:, :1], states[:, 0], 0)


class TextEncoder(nnx.Module):
    """Return token states and their pooled vector, from cached states of a frozen BERT or through a trainable one.

    A learned state stands for a text that is not given or is concealed, as its only token.

    Args:
        hidden: width of the token states.
        pooling: "default" (the [CLS] state) or "weighted_pooling" (learned attention over real tokens).
        bert: the encoder to train along, or None where the batches bring its cached states.
        dtype: dtype of the activations.
        rngs: initializes the pooling.

    Raises:
        ValueError: unknown `pooling`, or a `bert` of another width than `hidden`.
    """

    def __init__(self, hidden: int, *, pooling: str, bert: Bert | None, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        if pooling not in POOLINGS:
            raise ValueError(f"text pooling must be one of {POOLINGS}, not {pooling!r}")
        if bert is not None and bert.config.hidden_size != hidden:
            raise ValueError(f"the BERT gives states of width {bert.config.hidden_size}, not {hidden}")
        self.dtype = dtype
        self.bert = bert
        self.no_text = nnx.Param(NO_TEXT_SCALE * jax.random.normal(rngs.params(), (hidden,)))
        self.pooling = AttentionPooling(hidden, dtype=dtype, rngs=rngs) if pooling == "weighted_pooling" else None

    def __call__(self, text: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Encode a batch of descriptions.

        The learned state is put in place after pooling and, by cross-attention, after its projection: among the frozen
        states, it would make them ask for a gradient, which took a fifth of a training step.

        Args:
            text: token ids [batch, length] int32 if there is a BERT, else its cached states [batch, length, hidden].
            mask: [batch, length] bool, False at padding; all False where there is no text.

        Returns:
            states [batch, length, hidden], of any value where there is no text, and pooled [batch, hidden], the learned
            state there; floats in `dtype`.
        """
        states = (text if self.bert is None else self.bert(text, mask)).astype(self.dtype)
        pooled = cls_pooling(states, mask) if self.pooling is None else self.pooling(states, mask)
        return states, jnp.where(jnp.any(mask, axis=1, keepdims=True), pooled, self.no_text[...].astype(self.dtype))
