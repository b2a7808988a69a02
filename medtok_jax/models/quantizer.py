"""Vector quantizer: one codebook in three regions, K tokens an embedding (paper section 3.2, eq. 3-5).

The rows `0..N-1` of the codebook are cut into the contiguous regions text | graph | shared; token ids are global row
numbers. Three kinds stand behind one interface:

- `top_k`, the paper's K nearest rows mixed by softmax weights;
- `residual`, K searches that refine one another;
- `pursuit`, the best mixture of the nearest rows, then searches that refine it, each row at a length of its own (after
  Mallat and Zhang 1993, "Matching pursuits with time-frequency dictionaries").
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from medtok_jax.models.outputs import Quantized
from medtok_jax.regions import Regions


def l2_normalize(x: jax.Array, epsilon: float = 1e-12) -> jax.Array:
    """Unit vectors along the last axis, in float32, with a finite gradient at zero."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + epsilon)


def euclidean(squared: jax.Array) -> jax.Array:
    """Distance from a squared distance; the added constant keeps the gradient finite at zero."""
    return jnp.sqrt(jnp.maximum(squared, 0.0) + 1e-12)


def pairwise_distance(x: jax.Array, rows: jax.Array) -> jax.Array:
    """Euclidean distance of `[batch, width]` to `[rows, width]`: `[batch, rows]` by one matmul."""
    squared = jnp.sum(x * x, -1)[:, None] + jnp.sum(rows * rows, -1)[None, :] - 2.0 * x @ rows.T
    return euclidean(squared)


def straight_through(embedding: jax.Array, vector: jax.Array) -> jax.Array:
    """`vector` forward, the gradient of `embedding` unchanged backward."""
    return embedding + jax.lax.stop_gradient(vector - embedding)


def rotation_trick(embedding: jax.Array, vector: jax.Array) -> jax.Array:
    """`vector` forward; backward through the rotation and scaling that carries `embedding` onto it.

    Fifty et al., "Restructuring Vector Quantization with the Rotation Trick" (2024), section 4.
    """
    norm_e = jnp.linalg.norm(embedding, axis=-1, keepdims=True) + 1e-12
    norm_v = jnp.linalg.norm(vector, axis=-1, keepdims=True) + 1e-12
    unit_e, unit_v = jax.lax.stop_gradient((embedding / norm_e, vector / norm_v))
    middle = jax.lax.stop_gradient(l2_normalize(unit_e + unit_v))
    rotated = (
        embedding
        - 2.0 * jnp.sum(embedding * middle, -1, keepdims=True) * middle
        + 2.0 * jnp.sum(embedding * unit_e, -1, keepdims=True) * unit_v
    )
    rotated = rotated * jax.lax.stop_gradient(norm_v / norm_e)
    # Rounding in the reflection must not change the forward value.
    return rotated + jax.lax.stop_gradient(vector - rotated)


def num_nearest(config) -> int:
    """How many of a code's K tokens `pursuit` gives to the nearest rows, by the `model` section of a configuration."""
    return config.num_nearest_tokens or -(-config.num_top_k_tokens // 2)


def mixing_weights(products: jax.Array, rows: jax.Array, ridge: float = 1e-2) -> jax.Array:
    """Weights of the mixture of some rows that comes closest to an embedding; none is negative.

    Least squares with a small ridge, as near rows are nearly alike; what would be negative is 0, and the others are
    scaled so that the mixture is the embedding's projection onto their direction.

    Args:
        products: `[batch, k]`, inner product of the embedding with each row.
        rows: `[batch, k, width]`.
        ridge: added to the diagonal of the rows' inner products.

    Returns:
        `[batch, k]`.
    """
    gram = jnp.einsum("bkd,bld->bkl", rows, rows)
    solved = jnp.linalg.solve(gram + ridge * jnp.eye(rows.shape[1]), products[..., None])[..., 0]
    positive = jnp.maximum(solved, 0.0)
    along = jnp.sum(positive * products, axis=-1, keepdims=True)
    squared = jnp.einsum("bk,bkl,bl->b", positive, gram, positive)[:, None]
    return positive * along / jnp.maximum(squared, 1e-12)


def largest(x: jax.Array, taken: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The largest value of each row of `[batch, n]` and the first place where it stands, `[batch, 1]` each.

    Places of `[batch, t]` `taken` are out of the question. Two plain reductions: on a CPU three times as fast as
    `jax.lax.top_k` of one, which is faster than `jnp.argmax`.
    """
    places = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1)
    for column in range(taken.shape[1]):
        x = jnp.where(places == taken[:, column, None], -jnp.inf, x)
    value = jnp.max(x, axis=-1, keepdims=True)
    return value, jnp.min(jnp.where(x == value, places, x.shape[1]), axis=-1, keepdims=True)


GRADIENT_ESTIMATORS = {"straight_through": straight_through, "rotation": rotation_trick}


class FrozenBasis(nnx.Variable):
    """SimVQ's untrained codebook rows: saved with the model, never given a gradient."""


class EmaState(nnx.Variable):
    """Running statistics of the EMA codebook update."""


class Quantizer(nnx.Module):
    """Region codebook with K tokens an embedding.

    Args:
        regions: sizes of the three regions; `regions.size` is N.
        width: d.
        num_tokens: K.
        num_nearest: how many of them `pursuit` gives to the nearest rows; the others refine.
        kind: `top_k` (paper eq. 3-4), `residual` or `pursuit`.
        normalize: whether embeddings and, but for `residual`, rows are l2-normalized. Residual rows keep their length,
            since what is left after a step is shorter than a unit vector. Rows of `pursuit` are unit vectors always.
        weight_temperature: softmax temperature of eq. 4.
        gradient: `straight_through` or `rotation`.
        simvq: rows = frozen basis x one learned `[d, d]` map (Zhu et al., "SimVQ", 2024).
        shared_search: rows that embeddings of the shared region search: that `region`, or the whole `book`.
        ema_decay: 0 trains the rows by gradient; otherwise they follow the embeddings by an exponential moving average.
        top_k: `(x, k) -> (values, indices)`, as `jax.lax.top_k`; over several devices `sharding.top_k`.
        rngs: parameter initialization.
    """

    def __init__(
        self,
        regions: Regions,
        width: int,
        *,
        num_tokens: int,
        num_nearest: int = 1,
        kind: str = "top_k",
        shared_search: str = "region",
        normalize: bool = True,
        weight_temperature: float = 0.07,
        gradient: str = "straight_through",
        simvq: bool = False,
        ema_decay: float = 0.0,
        top_k: Callable = jax.lax.top_k,
        rngs: nnx.Rngs,
    ):
        self.regions, self.width, self.num_tokens, self.kind = regions, width, num_tokens, kind
        self.shared_search, self.num_nearest = shared_search, num_nearest
        self.normalize, self.weight_temperature = normalize, weight_temperature
        self.estimate_gradient = GRADIENT_ESTIMATORS[gradient]
        self.ema_decay, self.top_k = ema_decay, top_k
        rows = l2_normalize(jax.random.normal(rngs.params(), (regions.size, width)))
        self.projection = nnx.Param(jnp.eye(width)) if simvq else None
        self.rows = FrozenBasis(rows) if simvq else EmaState(rows) if ema_decay else nnx.Param(rows)
        self.ema_count = EmaState(jnp.ones((regions.size,))) if ema_decay else None
        self.ema_sum = EmaState(rows) if ema_decay else None

    def codebook(self) -> jax.Array:
        """All rows as they are searched: `[N, width]` float32."""
        rows = self.rows[...] if self.projection is None else self.rows[...] @ self.projection[...]
        unit = self.kind == "pursuit" or (self.normalize and self.kind == "top_k")
        return l2_normalize(rows) if unit else rows

    def prepare(self, embedding: jax.Array) -> jax.Array:
        """The form in which an embedding is searched and scored: float32, of unit length where `normalize`."""
        return l2_normalize(embedding) if self.normalize else embedding.astype(jnp.float32)

    def searched(self, region: str) -> tuple[int, int]:
        """First row and one past the last row that embeddings of a region may take as tokens."""
        whole = region == "shared" and self.shared_search == "book"
        return (0, self.regions.size) if whole else self.regions.bounds(region)

    def __call__(self, embedding: jax.Array, region: str) -> Quantized:
        """Quantizes prepared embeddings `[batch, width]` with the rows that their region searches."""
        start, stop = self.searched(region)
        rows = self.codebook()[start:stop]
        search = {"top_k": self._top_k, "residual": self._residual, "pursuit": self._pursuit}[self.kind]
        return search(embedding, rows, start)

    def _top_k(self, embedding: jax.Array, rows: jax.Array, start: int) -> Quantized:
        if self.normalize:
            similarity = embedding @ rows.T
            distances = euclidean(2.0 - 2.0 * similarity)
        else:
            distances = pairwise_distance(embedding, rows)
            similarity = -distances
        best, local = self.top_k(jax.lax.stop_gradient(similarity), self.num_tokens)
        nearest = euclidean(2.0 - 2.0 * best) if self.normalize else -best
        weights = jax.nn.softmax(-nearest / self.weight_temperature, axis=-1)
        vector = jnp.einsum("bk,bkd->bd", weights, rows[local])
        output = self.estimate_gradient(embedding, jax.lax.stop_gradient(vector))
        return Quantized((local + start).astype(jnp.int32), weights, vector, output, distances)

    def _residual(self, embedding: jax.Array, rows: jax.Array, start: int) -> Quantized:
        left, ids, vector = jax.lax.stop_gradient(embedding), [], jnp.zeros_like(embedding)
        for _ in range(self.num_tokens):
            chosen = jnp.argmin(pairwise_distance(left, jax.lax.stop_gradient(rows)), axis=-1)
            ids.append(chosen + start)
            vector = vector + rows[chosen]
            left = left - jax.lax.stop_gradient(rows[chosen])
        output = self.estimate_gradient(embedding, jax.lax.stop_gradient(vector))
        ids = jnp.stack(ids, axis=1).astype(jnp.int32)
        weights = jnp.ones(ids.shape, jnp.float32)
        return Quantized(ids, weights, vector, output, pairwise_distance(embedding, rows))

    def _pursuit(self, embedding: jax.Array, rows: jax.Array, start: int) -> Quantized:
        """The nearest rows, mixed as close to the embedding as they come, then one row after another for what is left.

        Each of the latter has the largest inner product with what is left, and that product as its weight, or 0. No row
        is taken twice: it would be one token less.
        """
        fixed = jax.lax.stop_gradient(rows)
        first = self.parts(rows.shape[0])[1]
        left = jax.lax.stop_gradient(embedding)
        products, ids = self.top_k(left @ fixed[:first].T, self.num_nearest)
        weights = mixing_weights(products, fixed[ids])
        left = left - jnp.einsum("bk,bkd->bd", weights, fixed[ids])
        for _ in range(self.num_tokens - self.num_nearest):
            product, local = largest(left @ fixed[first:].T, ids[:, self.num_nearest :] - first)
            product = jnp.maximum(product, 0.0)
            left = left - product * fixed[first:][local[:, 0]]
            ids = jnp.concatenate([ids, local + first], axis=1)
            weights = jnp.concatenate([weights, product], axis=1)
        vector = jnp.einsum("bk,bkd->bd", weights, rows[ids])
        output = self.estimate_gradient(embedding, jax.lax.stop_gradient(vector))
        return Quantized((ids + start).astype(jnp.int32), weights, vector, output, pairwise_distance(embedding, rows))

    def parts(self, size: int) -> tuple[int, ...]:
        """Bounds of the parts that `size` rows are fitted in: that of the nearest rows, then one for each token more.

        Rows are shared out by tokens. `pursuit` looks for the nearest rows in the first part and for those that refine
        in all others together, `residual` everywhere.
        """
        first = self.num_nearest if self.kind == "pursuit" else 1
        tokens = (0, *range(first, self.num_tokens + 1))
        return tuple(size * count // self.num_tokens for count in tokens)

    def ema_update(self, embedding: jax.Array, ids: jax.Array, weights: jax.Array, valid: jax.Array) -> None:
        """Moves the rows in use towards the embeddings assigned to them (van den Oord et al. 2017, appendix A.1).

        Args:
            embedding: `[batch, width]` prepared embeddings.
            ids, weights: `[batch, K]`, their quantization.
            valid: `[batch]` bool; invalid rows move nothing.
        """
        share = (weights * valid[:, None]).reshape(-1)
        targets = jnp.broadcast_to(embedding[:, None], (*ids.shape, self.width))
        if self.kind != "top_k":
            taken = weights[:, :, None] * jax.lax.stop_gradient(self.codebook())[ids]
            targets = targets - (jnp.cumsum(taken, axis=1) - taken)
        count = jax.ops.segment_sum(share, ids.reshape(-1), self.regions.size)
        total = jax.ops.segment_sum(
            share[:, None] * targets.reshape(-1, self.width), ids.reshape(-1), self.regions.size
        )
        used = count > 0
        decay = jnp.where(used, self.ema_decay, 1.0)
        self.ema_count[...] = decay * self.ema_count[...] + (1.0 - decay) * count
        self.ema_sum[...] = decay[:, None] * self.ema_sum[...] + (1.0 - decay[:, None]) * total
        mean = self.ema_sum[...] / jnp.maximum(self.ema_count[...], 1e-6)[:, None]
        self.rows[...] = jnp.where(used[:, None], mean, self.rows[...])

    def set_codebook(self, rows: jax.Array) -> None:
        """Replaces all `[N, width]` rows, forgetting what EMA and SimVQ had learned of the old ones."""
        self.rows[...] = rows
        if self.projection is not None:
            self.projection[...] = jnp.eye(self.width)
        if self.ema_count is not None:
            self.ema_count[...] = jnp.ones((self.regions.size,))
            self.ema_sum[...] = rows
