"""Measure batches, and sum their metrics up over many (those of the codebook included)."""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics as clu_metrics

from medtok_jax.models.outputs import View
from medtok_jax.regions import REGIONS, Regions
from medtok_jax.training.losses import masked_mean


def quantization_metric_names(embeddings: Sequence[str]) -> tuple[str, ...]:
    """Return the names of what `quantization_metrics` measures of some embeddings."""
    suffixes = ("", *(f"_{name}" for name in embeddings))
    return tuple(metric + suffix for metric in ("reconstruction_error", "cosine", "spread") for suffix in suffixes)


@flax.struct.dataclass
class WeightedSums(clu_metrics.Metric):
    """Sum up named scalars to means, weighted by the number of valid codes of each batch.

    Attributes:
        total: `[names]` float32, one array, so that a step adds all of them at once.
        weight: scalar float32, the number of codes.
        names: of the scalars, sorted.
    """

    total: jax.Array
    weight: jax.Array
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)

    @classmethod
    def of(cls, scalars: dict[str, jax.Array], valid: jax.Array) -> "WeightedSums":
        weight = jnp.sum(valid).astype(jnp.float32)
        names = tuple(sorted(scalars))
        return cls(jnp.stack([scalars[name] for name in names]) * weight, weight, names)

    def merge(self, other: "WeightedSums") -> "WeightedSums":
        if self.names != other.names:
            raise ValueError(f"sums of {self.names} cannot be added to those of {other.names}")
        return type(self)(self.total + other.total, self.weight + other.weight, self.names)

    def sums(self) -> dict[str, np.ndarray]:
        """Return the sums by name, on the host."""
        return dict(zip(self.names, np.asarray(self.total), strict=True))

    def compute(self) -> dict[str, float]:
        weight = max(float(self.weight), 1.0)
        return {name: float(value) / weight for name, value in self.sums().items()}


@flax.struct.dataclass
class CodebookUsage(clu_metrics.Metric):
    """Count how often each row of the codebook was a token: `[N]` float32."""

    counts: jax.Array

    @classmethod
    def of(cls, view: View, valid: jax.Array, size: int) -> "CodebookUsage":
        """Count the tokens of the valid codes."""
        ids = view.tokens().ids
        once = jnp.broadcast_to(valid[:, None], ids.shape).astype(jnp.float32)
        return cls(jax.ops.segment_sum(once.reshape(-1), ids.reshape(-1), size))

    def merge(self, other: "CodebookUsage") -> "CodebookUsage":
        return type(self)(self.counts + other.counts)

    def compute(self) -> np.ndarray:
        return np.asarray(self.counts)


@flax.struct.dataclass
class Window:
    """Hold all metrics of a window of batches, summed up."""

    scalars: WeightedSums
    usage: CodebookUsage

    def merge(self, other: "Window") -> "Window":
        return Window(self.scalars.merge(other.scalars), self.usage.merge(other.usage))


def empty_window(names: Sequence[str], codebook_size: int) -> Window:
    """Return a host window without batches, of scalars of these names."""
    return Window(
        scalars=WeightedSums(np.zeros(len(names), np.float32), np.zeros((), np.float32), tuple(sorted(names))),
        usage=CodebookUsage(np.zeros(codebook_size, np.float32)),
    )


def describe_usage(counts: np.ndarray, regions: Regions) -> dict[str, float]:
    """Return utilization (share of rows used) and perplexity (exp of the entropy of use), of all rows and by region.

    Args:
        counts: `[N]` times each row was a token.
        regions: of the codebook.
    """
    described = {}
    parts = {"": counts} | {f"_{name}": counts[slice(*regions.bounds(name))] for name in REGIONS}
    for suffix, part in parts.items():
        share = part / max(part.sum(), 1.0)
        entropy = -np.sum(share[share > 0] * np.log(share[share > 0]))
        described[f"codebook_utilization{suffix}"] = float(np.mean(part > 0))
        described[f"codebook_perplexity{suffix}"] = float(np.exp(entropy))
    return described


def quantization_metrics(view: View, valid: jax.Array) -> dict[str, jax.Array]:
    """Return reconstruction error E||e - ê||^2 / E||e||^2, cosine(e, ê) and spread of each embedding, and their means.

    The spread is sqrt(E||e - E e||^2 / E||e||^2): 0 where all embeddings have collapsed to one point.
    """
    found: dict[str, jax.Array] = {}
    for name, quantized in zip(view.names, view.quantized, strict=True):
        embedding, vector = quantized.embedding, quantized.vector
        power = masked_mean(jnp.sum(embedding**2, -1), valid)
        error = masked_mean(jnp.sum((embedding - vector) ** 2, -1), valid)
        norms = jnp.linalg.norm(embedding, axis=-1) * jnp.linalg.norm(vector, axis=-1)
        mean = jnp.sum(jnp.where(valid[:, None], embedding, 0.0), 0) / jnp.maximum(jnp.sum(valid), 1)
        found[f"reconstruction_error_{name}"] = error / jnp.maximum(power, 1e-12)
        found[f"cosine_{name}"] = masked_mean(jnp.sum(embedding * vector, -1) / jnp.maximum(norms, 1e-12), valid)
        found[f"spread_{name}"] = jnp.sqrt(jnp.maximum(1.0 - jnp.sum(mean**2) / jnp.maximum(power, 1e-12), 0.0))
    for metric in ("reconstruction_error", "cosine", "spread"):
        found[metric] = sum(found[f"{metric}_{name}"] for name in view.names) / len(view.names)
    return found
