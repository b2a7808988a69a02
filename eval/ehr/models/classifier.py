"""Put a sequence model together: codes are embedded, a backbone encodes the patient, a linear head predicts."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from eval.ehr.models.batches import PatientBatch
from eval.ehr.models.embedding import CodeEmbedding, CodeLookup
from eval.ehr.models.layers import Dropout, drop
from eval.ehr.results import MULTICLASS

NUM_STATICS = 4
# Builds a backbone: `(width, num_layers=, num_heads=, inner=, rngs=)` to a module that encodes embedded codes,
# `(embedded, batch, dropout) -> (states, patients)`.
MakeBackbone = Callable[..., nnx.Module]


class Classifier(nnx.Module):
    """Predict outcomes of patients.

    Args:
        embedding: embeds the codes.
        backbone: encodes embedded codes, see `MakeBackbone`.
        prior: `[outputs]` float32, the logits that the head predicts at first for everyone.
        kind: kind of the task.
        rngs: initializes norm and head.
    """

    def __init__(self, embedding: CodeEmbedding, backbone: nnx.Module, prior: np.ndarray, *, kind: str, rngs: nnx.Rngs):
        width = embedding.table.shape[1]
        self.kind = kind
        self.embedding = embedding
        self.backbone = backbone
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width + NUM_STATICS, len(prior), kernel_init=nnx.initializers.normal(0.02), rngs=rngs)
        self.head.bias[...] = jnp.asarray(prior, jnp.float32)

    def __call__(self, lookup: CodeLookup, batch: PatientBatch, dropout: Dropout | None) -> jax.Array:
        """Return logits `[batch, outputs]`."""
        embedded = jnp.where(batch.mask[..., None], self.embedding(lookup, batch.code), 0)
        _, patients = self.backbone(embedded, batch, dropout)
        patients = drop(dropout, self.norm(patients), 400)
        return self.head(jnp.concatenate([patients, batch.statics], axis=-1))

    def probabilities(self, lookup: CodeLookup, batch: PatientBatch) -> jax.Array:
        """Return the probabilities of a batch `[batch, outputs]`; over the classes they sum to 1 if multiclass."""
        logits = self(lookup, batch, None)
        return jax.nn.softmax(logits) if self.kind == MULTICLASS else jax.nn.sigmoid(logits)

    def loss(self, lookup: CodeLookup, batch: PatientBatch, dropout: Dropout | None) -> jax.Array:
        """Return the mean cross-entropy over the valid samples of a batch, and over classes if multilabel."""
        logits = self(lookup, batch, dropout)
        if self.kind == MULTICLASS:
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.outcome)
        else:
            losses = optax.sigmoid_binary_cross_entropy(logits, batch.outcome).mean(axis=-1)
        return jnp.sum(losses * batch.valid) / jnp.maximum(jnp.sum(batch.valid), 1)
