"""k-means initialization of the codebook, by Lloyd's iterations as matmuls."""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from medtok_jax.models.quantizer import Quantizer, l2_normalize, mixing_weights, pairwise_distance
from medtok_jax.regions import REGIONS

CHUNK = 4096


def _assign(points: jax.Array, centroids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Nearest centroid of each point and the squared distance to it."""

    def one(chunk: jax.Array) -> tuple[jax.Array, jax.Array]:
        squared = jnp.sum(centroids * centroids, -1)[None, :] - 2.0 * chunk @ centroids.T
        nearest = jnp.argmin(squared, axis=-1)
        return nearest, jnp.min(squared, axis=-1) + jnp.sum(chunk * chunk, -1)

    return _in_chunks(one, points)


def _in_chunks(function: Callable, points: jax.Array):
    """`function` of all points, so many at a time that memory stays flat."""
    padded = -(-points.shape[0] // CHUNK) * CHUNK
    chunks = jnp.pad(points, ((0, padded - points.shape[0]), (0, 0))).reshape(-1, CHUNK, points.shape[1])
    together = lambda x: x.reshape(-1, *x.shape[2:])[: points.shape[0]]  # noqa: E731
    return jax.tree.map(together, jax.lax.map(function, chunks))


@functools.partial(jax.jit, static_argnames=("num_centroids", "iterations", "spherical"))
def kmeans(
    key: jax.Array, points: jax.Array, *, num_centroids: int, iterations: int = 10, spherical: bool = False
) -> jax.Array:
    """Lloyd's k-means from a random draw of the points.

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
    """Rows of one region fitted to prepared embeddings `[points, width]`.

    Rows of refining tokens are fitted to what the rows before them leave over.
    """
    start, stop = quantizer.regions.bounds(region)
    size = stop - start
    if quantizer.kind == "top_k":
        return kmeans(key, points, num_centroids=size, iterations=iterations, spherical=quantizer.normalize)
    pursuit = quantizer.kind == "pursuit"
    bounds = quantizer.parts(size)
    parts, left = [], points
    for level, (begin, end) in enumerate(itertools.pairwise(bounds)):
        fold = jax.random.fold_in(key, level)
        rows = kmeans(fold, left, num_centroids=end - begin, iterations=iterations, spherical=pursuit)
        rows = l2_normalize(rows) if pursuit else rows
        left = _left_over(left, rows, quantizer.num_nearest if pursuit and not level else 1, pursuit)
        parts.append(rows)
    return jnp.concatenate(parts)


def _left_over(points: jax.Array, rows: jax.Array, count: int, mixed: bool) -> jax.Array:
    """Points `[points, width]` less their nearest row, or less the mixture of their `count` nearest, where `mixed`."""

    def one(chunk: jax.Array) -> jax.Array:
        if not mixed:
            return chunk - rows[jnp.argmin(pairwise_distance(chunk, rows), axis=-1)]
        products, ids = jax.lax.top_k(chunk @ rows.T, count)
        return chunk - jnp.einsum("bk,bkd->bd", mixing_weights(products, rows[ids]), rows[ids])

    return _in_chunks(one, points)


def fit_codebook(
    key: jax.Array, points: dict[str, jax.Array], quantizer: Quantizer, *, iterations: int = 10
) -> jax.Array:
    """A whole codebook `[N, width]` fitted region by region; `points` maps each region to its prepared embeddings."""
    return jnp.concatenate(
        [
            fit_region(jax.random.fold_in(key, number), points[region], quantizer, region, iterations)
            for number, region in enumerate(REGIONS)
        ]
    )
