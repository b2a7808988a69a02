"""Search a codebook for the K tokens of an embedding (paper section 3.2, eq. 3-4), as plain functions of arrays.

- `search_top_k`, the paper's K nearest rows mixed by softmax weights;
- `search_residual`, K searches that refine one another;
- `search_pursuit`, the nearest rows, then searches that refine what they leave, all mixed by least squares (after
  Mallat and Zhang 1993, "Matching pursuits with time-frequency dictionaries").

Ids are positions in the rows that were given. Choices and weights carry no gradient; vectors pass theirs to the rows.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from medtok_jax.models.exact import exact, solve_positive

# Least weight of a token of `pursuit`: one that a reader of ids alone takes for a token is one.
SMALLEST_WEIGHT = 1e-2
# Number of points that are searched for at once.
CHUNK = 4096


class Match(NamedTuple):
    """Hold the tokens of a batch of embeddings, as positions in the rows that were searched.

    Attributes:
        ids: `[batch, K]` int, nearest (or coarsest) first.
        weights: `[batch, K]` float32, factor of each row in `vector`, not negative; no gradient.
        vector: `[batch, width]` float32, the weighted sum of the rows; gradient to the rows only.
        distances: `[batch, rows]` float32, Euclidean distance to every row.
    """

    ids: jax.Array
    weights: jax.Array
    vector: jax.Array
    distances: jax.Array


# Vectors shorter than this are not brought to unit length but scaled by its inverse, the largest slope there is.
SHORTEST = 1e-3


def l2_normalize(x: jax.Array) -> jax.Array:
    """Return unit vectors along the last axis, in float32; those shorter than `SHORTEST` stay shorter than one."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), SHORTEST**2))


def euclidean(squared: jax.Array) -> jax.Array:
    """Return distances from squared distances; the added constant keeps the gradient finite at zero."""
    return jnp.sqrt(jnp.maximum(squared, 0.0) + 1e-12)


@exact
def pairwise_distance(x: jax.Array, rows: jax.Array) -> jax.Array:
    """Return the Euclidean distances of `[batch, width]` to `[rows, width]`: `[batch, rows]` by one matmul."""
    squared = jnp.sum(x * x, -1)[:, None] + jnp.sum(rows * rows, -1)[None, :] - 2.0 * x @ rows.T
    return euclidean(squared)


@exact
def mixing_weights(products: jax.Array, rows: jax.Array, ridge: float = 1e-2) -> jax.Array:
    """Return the weights of the mixture of some rows that comes closest to an embedding; none is negative.

    Least squares with a small ridge, as near rows are nearly alike; negative weights are set to 0, and the others are
    scaled so that the mixture is the embedding's projection onto their direction.

    Args:
        products: `[batch, k]`, inner product of the embedding with each row.
        rows: `[batch, k, width]`.
        ridge: added to the diagonal of the rows' inner products.

    Returns:
        `[batch, k]`.
    """
    gram = jnp.einsum("bkd,bld->bkl", rows, rows)
    solved = solve_positive(gram + ridge * jnp.eye(rows.shape[1]), products)
    positive = jnp.maximum(solved, 0.0)
    along = jnp.sum(positive * products, axis=-1, keepdims=True)
    squared = jnp.einsum("bk,bkl,bl->b", positive, gram, positive)[:, None]
    return positive * along / jnp.maximum(squared, 1e-12)


@exact
def mix_nearest(
    embedding: jax.Array, rows: jax.Array, count: int, top_k: Callable = jax.lax.top_k
) -> tuple[jax.Array, jax.Array]:
    """Return the nearest rows that add something to those nearer, and their weights in the closest mixture.

    A row whose inner product with what the nearer ones leave is not positive would have no weight: it gives way to the
    next one, out of twice as many as are wanted.

    Args:
        embedding: `[batch, width]`.
        rows: `[n, width]` unit vectors.
        count: number of rows wanted.
        top_k: `(x, k) -> (values, indices)`, as `jax.lax.top_k`.

    Returns:
        Positions `[batch, count]`, nearest first, and weights `[batch, count]`, none below `SMALLEST_WEIGHT`.
    """
    products, ids = top_k(embedding @ rows.T, min(2 * count if count > 1 else 1, rows.shape[0]))
    candidates, places = rows[ids], jnp.arange(ids.shape[1])
    chosen = jnp.zeros((ids.shape[0], 1), ids.dtype)
    # Gram-Schmidt: `left` and `product` are of the candidates less the rows that were chosen.
    left, product = candidates, products
    for _ in range(count - 1):
        direction = l2_normalize(jnp.take_along_axis(left, chosen[:, -1:, None], axis=1))[:, 0]
        along = jnp.einsum("bpd,bd->bp", left, direction)
        product = product - along * jnp.einsum("bd,bd->b", embedding, direction)[:, None]
        left = left - along[..., None] * direction[:, None]
        taken = jnp.any(places == chosen[..., None], axis=1)
        rank = jnp.where(taken, 2 * len(places), jnp.where(product > SMALLEST_WEIGHT, places, len(places) + places))
        chosen = jnp.concatenate([chosen, jnp.argmin(rank, axis=1, keepdims=True).astype(ids.dtype)], axis=1)
    chosen = jnp.sort(chosen, axis=1)
    products, ids = (jnp.take_along_axis(x, chosen, axis=1) for x in (products, ids))
    return ids, jnp.maximum(mixing_weights(products, rows[ids]), SMALLEST_WEIGHT)


def largest(x: jax.Array, taken: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the largest value of each row of `[batch, n]` and its first position, `[batch, 1]` each.

    The positions `[batch, t]` in `taken` are skipped. Two plain reductions: on a CPU three times as fast as
    `jax.lax.top_k` of one, which is faster than `jnp.argmax`.
    """
    places = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1)
    for column in range(taken.shape[1]):
        x = jnp.where(places == taken[:, column, None], -jnp.inf, x)
    value = jnp.max(x, axis=-1, keepdims=True)
    return value, jnp.min(jnp.where(x == value, places, x.shape[1]), axis=-1, keepdims=True)


@exact
def search_top_k(
    embedding: jax.Array,
    rows: jax.Array,
    *,
    num_tokens: int,
    unit_length: bool,
    temperature: float,
    top_k: Callable = jax.lax.top_k,
) -> Match:
    """Take the K nearest rows, weighted by a softmax of their negative distances (paper eq. 3-4).

    Args:
        embedding: `[batch, width]`.
        rows: `[n, width]`.
        num_tokens: K.
        unit_length: whether embeddings and rows are unit vectors; distances and search then share one matmul.
        temperature: of the softmax.
        top_k: `(x, k) -> (values, indices)`, as `jax.lax.top_k`.
    """
    if unit_length:
        similarity = embedding @ rows.T
        distances = euclidean(2.0 - 2.0 * similarity)
    else:
        distances = pairwise_distance(embedding, rows)
        similarity = -distances
    best, ids = top_k(jax.lax.stop_gradient(similarity), num_tokens)
    nearest = euclidean(2.0 - 2.0 * best) if unit_length else -best
    weights = jax.nn.softmax(-nearest / temperature, axis=-1)
    return Match(ids, weights, jnp.einsum("bk,bkd->bd", weights, rows[ids]), distances)


@exact
def search_residual(embedding: jax.Array, rows: jax.Array, *, num_tokens: int) -> Match:
    """Take the nearest row, then K - 1 times the row nearest to what those before leave over; all weights are 1.

    Args:
        embedding: `[batch, width]`.
        rows: `[n, width]`, each at a length of its own.
        num_tokens: K.
    """
    left, ids, vector = jax.lax.stop_gradient(embedding), [], jnp.zeros_like(embedding)
    for _ in range(num_tokens):
        chosen = jnp.argmin(pairwise_distance(left, jax.lax.stop_gradient(rows)), axis=-1)
        ids.append(chosen)
        vector = vector + rows[chosen]
        left = left - jax.lax.stop_gradient(rows[chosen])
    ids = jnp.stack(ids, axis=1)
    return Match(ids, jnp.ones(ids.shape, jnp.float32), vector, pairwise_distance(embedding, rows))


@exact
def search_pursuit(
    embedding: jax.Array,
    rows: jax.Array,
    *,
    num_tokens: int,
    num_nearest: int,
    top_k: Callable = jax.lax.top_k,
) -> Match:
    """Mix the nearest rows as close to the embedding as they come, then add one row after another for what is left.

    Each of the latter has the largest inner product with what is left. The weights of all are those of the closest
    mixture. No row is taken twice, and none has a weight below `SMALLEST_WEIGHT`: it would be one token less.

    Args:
        embedding: `[batch, width]`.
        rows: `[n, width]` unit vectors; the nearest come from the first part of `share_rows`, the others from the rest.
        num_tokens: K.
        num_nearest: how many of the tokens are nearest rows.
        top_k: `(x, k) -> (values, indices)`, as `jax.lax.top_k`.
    """
    fixed = jax.lax.stop_gradient(rows)
    first = share_rows(rows.shape[0], num_tokens, num_nearest)[1]
    left = jax.lax.stop_gradient(embedding)
    ids, weights = mix_nearest(left, fixed[:first], num_nearest, top_k)
    left = left - jnp.einsum("bk,bkd->bd", weights, fixed[ids])
    for _ in range(num_tokens - num_nearest):
        product, local = largest(left @ fixed[first:].T, ids[:, num_nearest:] - first)
        left = left - jnp.maximum(product, SMALLEST_WEIGHT) * fixed[first:][local[:, 0]]
        ids = jnp.concatenate([ids, local + first], axis=1)
    if num_tokens > num_nearest:
        chosen = fixed[ids]
        products = jnp.einsum("bkd,bd->bk", chosen, jax.lax.stop_gradient(embedding))
        weights = jnp.maximum(mixing_weights(products, chosen), SMALLEST_WEIGHT)
    vector = jnp.einsum("bk,bkd->bd", weights, rows[ids])
    return Match(ids, weights, vector, pairwise_distance(embedding, rows))


def in_chunks(function: Callable, points: jax.Array):
    """Apply `function` to all points, `CHUNK` at a time, so that memory stays flat."""
    padded = -(-points.shape[0] // CHUNK) * CHUNK
    chunks = jnp.pad(points, ((0, padded - points.shape[0]), (0, 0))).reshape(-1, CHUNK, points.shape[1])
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[: points.shape[0]], jax.lax.map(function, chunks))


def share_rows(size: int, num_tokens: int, num_nearest: int) -> tuple[int, ...]:
    """Return the bounds of the parts that `size` rows are fitted in, shared out by tokens.

    The first part is for the `num_nearest` rows that are chosen together, and each further token has one of its own.
    `search_pursuit` looks for the nearest rows in the first part and for those that refine in all others together,
    `search_residual` everywhere.
    """
    tokens = (0, *range(num_nearest, num_tokens + 1))
    return tuple(size * count // num_tokens for count in tokens)
