"""Fit the rows of `pursuit` together, by the method of optimal directions.

K-means fits the rows of each token to what the tokens before leave over, and knows nothing of those after. Here the
tokens of all points are chosen by the present rows; the rows by which the mixtures come closest to the points are then
the solution of one least-squares problem; and so on, from what k-means found (Engan, Aase and Husøy 1999, "Method of
optimal directions for frame design").
"""

import functools

import jax
import jax.numpy as jnp

from medtok_jax.models.exact import exact
from medtok_jax.models.search import in_chunks, l2_normalize, largest, mixing_weights

# Share of the mean use of a row by which rows are held where they are: it keeps rows that few points use.
RIDGE = 1e-3


@exact
@functools.partial(jax.jit, static_argnames=("first", "num_tokens", "num_nearest", "rounds"))
def optimal_directions(
    points: jax.Array, rows: jax.Array, *, first: int, num_tokens: int, num_nearest: int, rounds: int
) -> jax.Array:
    """Return rows by which mixtures of tokens come closer to the points.

    A row that no point uses is moved onto what is left of one of the points that are served worst. The least-squares
    problem takes memory and time of a dense `[n, n]` matrix.

    Args:
        points: `[points, width]` float32.
        rows: `[n, width]` float32 unit vectors to start from.
        first: number of the rows that may be nearest rows; the others refine.
        num_tokens, num_nearest: number of tokens of a point, and how many of them are nearest rows.
        rounds: how often tokens are chosen and rows are solved for.

    Returns:
        `[n, width]` float32 unit vectors.
    """
    count = rows.shape[0]

    def one_round(_: int, rows: jax.Array) -> jax.Array:
        ids, weights, left = _choose(points, rows, first, num_tokens, num_nearest)
        gram = (
            jnp.zeros((count, count))
            .at[ids[:, :, None], ids[:, None, :]]
            .add(weights[:, :, None] * weights[:, None, :])
        )
        wanted = jax.ops.segment_sum(
            (weights[:, :, None] * points[:, None]).reshape(-1, points.shape[1]), ids.reshape(-1), count
        )
        use = jnp.diagonal(gram)
        ridge = RIDGE * jnp.mean(use)
        factor = jax.scipy.linalg.cho_factor(gram + ridge * jnp.eye(count))
        solved = l2_normalize(jax.scipy.linalg.cho_solve(factor, wanted + ridge * rows))
        return jnp.where((use == 0)[:, None], _worst_served(points, left, use == 0, first), solved)

    return jax.lax.fori_loop(0, rounds, one_round, rows)


def _choose(
    points: jax.Array, rows: jax.Array, first: int, num_tokens: int, num_nearest: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return tokens `[points, K]`, their weights, and what they leave over of each point, a chunk at a time."""

    def one(chunk: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        # As k-means does, and not by `mix_nearest`, whose threshold would let rounding decide where points are alike.
        products, ids = jax.lax.top_k(chunk @ rows[:first].T, num_nearest)
        weights = mixing_weights(products, rows[ids])
        left = chunk - jnp.einsum("bk,bkd->bd", weights, rows[ids])
        for _ in range(num_tokens - num_nearest):
            product, local = largest(left @ rows[first:].T, ids[:, num_nearest:] - first)
            left = left - product * rows[first:][local[:, 0]]
            ids = jnp.concatenate([ids, local + first], axis=1)
        weights = mixing_weights(jnp.einsum("bkd,bd->bk", rows[ids], chunk), rows[ids])
        return ids, weights, chunk - jnp.einsum("bk,bkd->bd", weights, rows[ids])

    return in_chunks(one, points)


def _worst_served(points: jax.Array, left: jax.Array, unused: jax.Array, first: int) -> jax.Array:
    """Return for each unused row the point that is served worst, or what is left of it where the row refines."""
    count = unused.shape[0]
    worst = jax.lax.top_k(jnp.sum(left * left, axis=-1), min(count, points.shape[0]))[1]
    point = worst[jnp.minimum(jnp.cumsum(unused) - 1, worst.shape[0] - 1)]
    refines = jnp.arange(count)[:, None] >= first
    return l2_normalize(jnp.where(refines, left[point], points[point]))
