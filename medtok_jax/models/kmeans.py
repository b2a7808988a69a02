"""Fit the rows of a codebook to embeddings by k-means: Lloyd's iterations as matmuls."""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from medtok_jax.models.codebook import Quantizer
from medtok_jax.models.search import l2_normalize, mixing_weights, pairwise_distance
from medtok_jax.regions import REGIONS

CHUNK = 4096


def _assign(points: jax.Array, centroids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the nearest centroid of each point and the squared distance to it."""

    def one(chunk: jax.Array) -> tuple[jax.Array, jax.Array]:
        squared = jnp.sum(centroids * centroids, -1)[None, :] - 2.0 * chunk @ centroids.T
        nearest = jnp.argmin(squared, axis=-1)
        return nearest, jnp.min(squared, axis=-1) + jnp.sum(chunk * chunk, -1)

    return _in_chunks(one, points)


def _in_chunks(function: Callable, points: jax.Array):
    """Apply `function` to all points, `CHUNK` at a time, so that memory stays flat."""
    padded = -(-points.shape[0] // CHUNK) * CHUNK
    chunks = jnp.pad(points, ((0, padded - points.shape[0]), (0, 0))).reshape(-1, CHUNK, points.shape[1])
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[: points.shape[0]], jax.lax.map(function, chunks))


@functools.partial(jax.jit, static_argnames=("num_centroids", "iterations", "spherical"))
def kmeans(
    key: jax.Array, points: jax.Array, *, num_centroids: int, iterations: int = 10, spherical: bool = False
) -> jax.Array:
    """Run Lloyd's k-means from a random draw of the points.

    An empty cluster is moved, at each iteration, onto one of the points worst served by their centroid.

    Args:
        key: random key of the first draw.
        points: `[points, width]` float32; with fewer points than centroids, points are repeated with a little noise.
        num_centroids: number of centroids.
        iterations: Lloyd iterations.
        spherical: whether centroids are kept at unit length (for points of unit length).

    Returns:
        `[num_centroids, width]` float32.
    """
    draw_key, noise_key = jax.random.split(key)
    count = points.shape[0]
    order = jax.random.permutation(draw_key, count)
    start = points[order[jnp.arange(num_centroids) % count]]
    noise = 1e-3 * jax.random.normal(noise_key, start.shape)
    start = start + jnp.where((jnp.arange(num_centroids) >= count)[:, None], noise, 0.0)

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


def fit_region(key: jax.Array, points: jax.Array, quantizer: Quantizer, region: str, iterations: int) -> jax.Array:
    """Return the rows of one region fitted to prepared embeddings `[points, width]`.

    Rows of refining tokens are fitted to what the rows before them leave over.
    """
    start, stop = quantizer.regions.bounds(region)
    size, unit = stop - start, quantizer.unit_rows
    if not quantizer.refines:
        return kmeans(key, points, num_centroids=size, iterations=iterations, spherical=unit)
    parts, left = [], points
    for level, (begin, end) in enumerate(itertools.pairwise(quantizer.parts(size))):
        fold = jax.random.fold_in(key, level)
        rows = kmeans(fold, left, num_centroids=end - begin, iterations=iterations, spherical=unit)
        rows = l2_normalize(rows) if unit else rows
        if quantizer.mixes:
            left = _less_mixture(left, rows, count=1 if level else quantizer.num_nearest)
        else:
            left = _less_nearest(left, rows)
        parts.append(rows)
    return jnp.concatenate(parts)


@jax.jit
def _less_nearest(points: jax.Array, rows: jax.Array) -> jax.Array:
    """Return points `[points, width]` less their nearest row."""

    def one(chunk: jax.Array) -> jax.Array:
        return chunk - rows[jnp.argmin(pairwise_distance(chunk, rows), axis=-1)]

    return _in_chunks(one, points)


@functools.partial(jax.jit, static_argnames="count")
def _less_mixture(points: jax.Array, rows: jax.Array, *, count: int) -> jax.Array:
    """Return points `[points, width]` less the closest mixture of their `count` nearest rows."""

    def one(chunk: jax.Array) -> jax.Array:
        products, ids = jax.lax.top_k(chunk @ rows.T, count)
        return chunk - jnp.einsum("bk,bkd->bd", mixing_weights(products, rows[ids]), rows[ids])

    return _in_chunks(one, points)


def fit_regions(
    key: jax.Array, points: dict[str, jax.Array], quantizer: Quantizer, *, iterations: int = 10
) -> jax.Array:
    """Return a codebook `[N, width]` fitted region by region; `points` maps each region to its prepared embeddings."""
    return jnp.concatenate(
        [
            fit_region(jax.random.fold_in(key, number), points[region], quantizer, region, iterations)
            for number, region in enumerate(REGIONS)
        ]
    )
