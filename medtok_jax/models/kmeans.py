"""Fit the rows of a codebook: by k-means, Lloyd's iterations as matmuls, and then those of `pursuit` together."""

import functools
import itertools

import jax
import jax.numpy as jnp

from medtok_jax.models.codebook import Quantizer
from medtok_jax.models.dictionary import optimal_directions
from medtok_jax.models.exact import exact
from medtok_jax.models.search import in_chunks, l2_normalize, mixing_weights, pairwise_distance
from medtok_jax.regions import REGIONS


def _assign(points: jax.Array, centroids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the nearest centroid of each point and the squared distance to it."""

    def one(chunk: jax.Array) -> tuple[jax.Array, jax.Array]:
        squared = jnp.sum(centroids * centroids, -1)[None, :] - 2.0 * chunk @ centroids.T
        nearest = jnp.argmin(squared, axis=-1)
        return nearest, jnp.min(squared, axis=-1) + jnp.sum(chunk * chunk, -1)

    return in_chunks(one, points)


def _draw(key: jax.Array, points: jax.Array, count: int) -> jax.Array:
    """Return `count` of the points at random, repeated with a little noise where there are fewer."""
    draw_key, noise_key = jax.random.split(key)
    order = jax.random.permutation(draw_key, points.shape[0])
    drawn = points[order[jnp.arange(count) % points.shape[0]]]
    noise = 1e-3 * jax.random.normal(noise_key, drawn.shape)
    return drawn + jnp.where((jnp.arange(count) >= points.shape[0])[:, None], noise, 0.0)


@exact
@functools.partial(jax.jit, static_argnames=("num_centroids", "iterations", "spherical"))
def kmeans(
    key: jax.Array,
    points: jax.Array,
    *,
    num_centroids: int,
    start: jax.Array | None = None,
    iterations: int = 10,
    spherical: bool = False,
) -> jax.Array:
    """Run Lloyd's k-means.

    An empty cluster is moved, at each iteration, onto one of the points worst served by their centroid.

    Args:
        key: random key of the first draw.
        points: `[points, width]` float32; with fewer points than centroids, points are repeated with a little noise, or
            `start` stays as it is.
        num_centroids: number of centroids.
        start: `[num_centroids, width]` to start from; None for a random draw of the points.
        iterations: Lloyd iterations.
        spherical: whether centroids are kept at unit length (for points of unit length).

    Returns:
        `[num_centroids, width]` float32.
    """
    count = points.shape[0]
    start = _draw(key, points, num_centroids) if start is None else start

    def step(_: int, centroids: jax.Array) -> jax.Array:
        nearest, squared = _assign(points, centroids)
        size = jax.ops.segment_sum(jnp.ones(count), nearest, num_centroids)
        mean = jax.ops.segment_sum(points, nearest, num_centroids) / jnp.maximum(size, 1.0)[:, None]
        mean = l2_normalize(mean) if spherical else mean
        empty = size == 0
        worst = jax.lax.top_k(squared, min(num_centroids, count))[1]
        reseed = points[worst[jnp.minimum(jnp.cumsum(empty) - 1, worst.shape[0] - 1)]]
        return jnp.where(empty[:, None], reseed, mean)

    # With no more points than centroids each point has its own already; iterating would pile the noisy copies up.
    rounds = iterations if count > num_centroids else 0
    return jax.lax.fori_loop(0, rounds, step, l2_normalize(start) if spherical else start)


def fit_region(
    key: jax.Array,
    points: jax.Array,
    quantizer: Quantizer,
    region: str,
    iterations: int,
    *,
    rounds: int = 0,
    present: jax.Array | None = None,
) -> jax.Array:
    """Return the rows of one region fitted to prepared embeddings `[points, width]`.

    Rows of refining tokens are fitted to what the rows before them leave over, and those of `pursuit` then together.

    Args:
        key: of the first draw of rows.
        points: prepared embeddings.
        quantizer: the quantizer that the rows are for.
        region: the region.
        iterations: Lloyd iterations.
        rounds: of fitting the rows of `pursuit` together, see `dictionary`.
        present: `[rows, width]` of the region to start from, so that a row keeps its meaning; None to draw anew.
    """
    unit = quantizer.unit_rows
    parts, left = [], points
    for level, (begin, end) in enumerate(itertools.pairwise(quantizer.parts(region))):
        rows = kmeans(
            jax.random.fold_in(key, level),
            left,
            num_centroids=end - begin,
            start=None if present is None else present[begin:end],
            iterations=iterations,
            spherical=unit,
        )
        rows = l2_normalize(rows) if unit else rows
        parts.append(rows)
        if quantizer.mixes:
            left = _less_mixture(left, rows, count=1 if level else quantizer.num_nearest(region))
        elif quantizer.refines:
            left = _less_nearest(left, rows)
    fitted = jnp.concatenate(parts)
    if not (quantizer.mixes and rounds):
        return fitted
    tokens = {"num_tokens": quantizer.num_tokens(region), "num_nearest": quantizer.num_nearest(region)}
    return optimal_directions(points, fitted, first=quantizer.parts(region)[1], rounds=rounds, **tokens)


@exact
@jax.jit
def _less_nearest(points: jax.Array, rows: jax.Array) -> jax.Array:
    """Return points `[points, width]` less their nearest row."""

    def one(chunk: jax.Array) -> jax.Array:
        return chunk - rows[jnp.argmin(pairwise_distance(chunk, rows), axis=-1)]

    return in_chunks(one, points)


@exact
@functools.partial(jax.jit, static_argnames="count")
def _less_mixture(points: jax.Array, rows: jax.Array, *, count: int) -> jax.Array:
    """Return points `[points, width]` less the closest mixture of their `count` nearest rows."""

    def one(chunk: jax.Array) -> jax.Array:
        # Not `mix_nearest`: where embeddings are nearly alike, as at first, rounding would decide which rows it takes,
        # and two processes would fit other rows than one.
        products, ids = jax.lax.top_k(chunk @ rows.T, count)
        return chunk - jnp.einsum("bk,bkd->bd", mixing_weights(products, rows[ids]), rows[ids])

    return in_chunks(one, points)


def fit_regions(
    key: jax.Array,
    points: dict[str, jax.Array],
    quantizer: Quantizer,
    *,
    iterations: int = 10,
    rounds: int = 0,
    present: jax.Array | None = None,
) -> jax.Array:
    """Return a codebook `[N, width]` fitted region by region.

    Args:
        key: of the first draw of rows.
        points: name of each region -> its prepared embeddings `[points, width]`.
        quantizer: the quantizer that the rows are for.
        iterations: Lloyd iterations.
        rounds: of fitting the rows of `pursuit` together, see `dictionary`.
        present: `[N, width]` rows to start from; None to draw anew.
    """
    fitted = []
    for number, region in enumerate(REGIONS):
        start, stop = quantizer.regions.bounds(region)
        rows = None if present is None else present[start:stop]
        fold = jax.random.fold_in(key, number)
        fitted.append(fit_region(fold, points[region], quantizer, region, iterations, rounds=rounds, present=rows))
    return jnp.concatenate(fitted)
