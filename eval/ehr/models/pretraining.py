"""Pretrain embedding and backbone by masked codes: hide 15 % of the codes of a batch and tell which code each was.

The answer is chosen among the hidden codes of the batch, by the product of the state at the position with the
embeddings of the candidates. So the task is over codes, the same for every tokenizer, with whatever parameters a
tokenizer has for them, and costs the same for 100 codes and for 100,000.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from eval.ehr.models.batches import PatientBatch
from eval.ehr.models.embedding import CodeEmbedding, CodeLookup
from eval.ehr.models.layers import Dropout

SHARE = 0.15


class MaskedCodes(nnx.Module):
    """Predict masked codes.

    Args:
        embedding: embeds the codes.
        backbone: encodes embedded codes, see `classifier.MakeBackbone`.
        rngs: initializes the row that stands for a hidden code, and the map of states to embeddings.
    """

    def __init__(self, embedding: CodeEmbedding, backbone: nnx.Module, *, rngs: nnx.Rngs):
        width = embedding.table.shape[1]
        self.embedding = embedding
        self.backbone = backbone
        self.hidden = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (width,), jnp.float32))
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def loss(self, lookup: CodeLookup, batch: PatientBatch, dropout: Dropout) -> jax.Array:
        """Return the mean cross-entropy of the masked codes; their choice is drawn from the key of `dropout`."""
        mask = batch.mask & batch.valid[:, None]
        size = max(int(SHARE * mask.size), 1)
        # Positions in a random order, real ones first; of few real ones still only the share is hidden.
        draw = jax.random.uniform(jax.random.fold_in(dropout.key, 500), mask.shape)
        where = jnp.argsort(jnp.where(mask, draw, 2.0).ravel())[:size]
        counted = jnp.arange(size) < jnp.maximum(SHARE * mask.sum(), 1)
        counted &= mask.ravel()[where]
        is_hidden = jnp.zeros(mask.size, bool).at[where].set(counted).reshape(mask.shape)

        embedded = self.embedding(lookup, batch.code)
        target = embedded.reshape(-1, embedded.shape[-1])[where]
        shown = jnp.where(is_hidden[..., None], self.hidden[...], embedded)
        states, _ = self.backbone(jnp.where(batch.mask[..., None], shown, 0), batch, dropout)
        guess = self.out(self.norm(states.reshape(mask.size, -1)[where]))
        return contrast(guess, target, batch.code.ravel()[where], counted)


def contrast(guess: jax.Array, target: jax.Array, code: jax.Array, counted: jax.Array) -> jax.Array:
    """Return the mean cross-entropy of choosing each code among the distinct codes.

    Args:
        guess: `[n, width]`.
        target: `[n, width]` embeddings of the codes.
        code: `[n]` int32; equal codes are one candidate.
        counted: `[n]` bool, False for codes that are neither asked for nor candidates.
    """
    same = (code[:, None] == code[None, :]) & counted[None, :]
    first = jnp.argmax(same, axis=1)
    candidate = counted & (first == jnp.arange(len(code)))
    logits = jnp.where(candidate[None, :], guess @ target.T, -1e30)
    losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), first[:, None], axis=1)[:, 0]
    return jnp.sum(jnp.where(counted, losses, 0)) / jnp.maximum(counted.sum(), 1)
