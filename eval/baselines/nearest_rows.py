"""Tokenize points by their nearest rows, as the quantizer of MedTok does, with any codebook and number of tokens."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from medtok_jax.models.codebook import Quantizer
from medtok_jax.models.kmeans import kmeans
from medtok_jax.regions import Regions

CHUNK = 2048


def nearest_rows(
    points: np.ndarray, codebook: np.ndarray, num_tokens: int, *, temperature: float = 0.07
) -> dict[str, np.ndarray]:
    """Return the nearest rows of each point, weighted and averaged as by MedTok (paper, equations 3 and 4).

    Args:
        points: `[n, width]` float32, scaled to unit length for the search, as are the rows.
        codebook: `[N, width]` float32.
        num_tokens: number of tokens of each point.
        temperature: softmax temperature of the weights.

    Returns:
        The fields of a `Representation`: `tokens` and `weights` `[n, num_tokens]`, `vectors` `[n, width]` (weighted
        sums of rows), `unquantized` (the points) and `codebook`, both at unit length.
    """
    regions = Regions(text=len(codebook), graph=0, shared=0)
    quantizer = Quantizer(
        regions, codebook.shape[1], num_tokens=num_tokens, weight_temperature=temperature, rngs=nnx.Rngs(0)
    )
    quantizer.set_codebook(jnp.asarray(codebook))
    return quantize_points(quantizer, points)


def quantize_points(quantizer: Quantizer, points: np.ndarray) -> dict[str, np.ndarray]:
    """Return the tokens of each point by a quantizer with one region, `text`.

    Args:
        quantizer: quantizer with its rows.
        points: `[n, width]` float32, scaled to unit length for the search.

    Returns:
        The fields of a `Representation`, see `nearest_rows`.
    """
    graphdef, state = nnx.split(quantizer)

    @jax.jit
    def search(state, part):
        model = nnx.merge(graphdef, state)
        prepared = model.prepare(part)
        found = model(prepared, "text")
        return found.ids, found.weights, found.vector, prepared

    parts = []
    for start in range(0, len(points), CHUNK):
        part = points[start : start + CHUNK]
        # Padding leaves only one shape to compile.
        padded = np.concatenate([part, np.zeros((CHUNK - len(part), part.shape[1]), part.dtype)])
        parts.append([np.asarray(array)[: len(part)] for array in search(state, padded)])
    names = ("tokens", "weights", "vectors", "unquantized")
    arrays = {name: np.concatenate(column) for name, column in zip(names, zip(*parts, strict=True), strict=True)}
    return arrays | {"codebook": np.array(quantizer.codebook())}


def fit_rows(points: np.ndarray, size: int, *, seed: int, iterations: int = 10, spherical: bool = True) -> np.ndarray:
    """Fit rows to points by k-means: float32 `[size, width]`.

    Args:
        points: `[n, width]` float32; more than 4 for each row are sampled at random.
        size: number of rows.
        seed: seed of the sample and of the first centers.
        iterations: number of iterations of k-means.
        spherical: whether rows are scaled to unit length.
    """
    most = 4 * size
    if len(points) > most:
        points = points[np.random.default_rng(seed).choice(len(points), most, replace=False)]
    key = jax.random.key(seed)
    rows = kmeans(key, jnp.asarray(points), num_centroids=size, iterations=iterations, spherical=spherical)
    return np.asarray(rows)


def residual_rows(points: np.ndarray, fitted: np.ndarray, size: int, levels: int, seed: int) -> dict[str, np.ndarray]:
    """Tokenize points by residual k-means: each level fits its share of the rows to the residual of the levels before.

    Args:
        points: `[n, width]` float32 of unit length.
        fitted: `[n]` bool, mask of the points that rows are fitted to.
        size: number of rows of all levels.
        levels: number of levels, which is the number of tokens of each point.
        seed: seed of the first level, incremented for each following one.

    Returns:
        The fields of a `Representation`, see `nearest_rows`, with weights of one, so that `vectors` are sums of rows.
    """
    residual = points.astype(np.float32).copy()
    tokens = []
    books = []
    start = 0
    for level in range(levels):
        share = size * (level + 1) // levels - size * level // levels
        book = fit_rows(residual[fitted], share, seed=seed + level, spherical=False)
        chosen = _assign(residual, book)
        residual -= book[chosen]
        tokens.append(chosen + start)
        books.append(book)
        start += share
    ids = np.stack(tokens, axis=1).astype(np.int32)
    return {
        "tokens": ids,
        "weights": np.ones(ids.shape, np.float32),
        "vectors": points - residual,
        "unquantized": points,
        "codebook": np.concatenate(books),
    }


@jax.jit
def _closest(part: jax.Array, book: jax.Array) -> jax.Array:
    return jnp.argmin(jnp.sum(book * book, -1)[None] - 2.0 * part @ book.T, axis=-1)


def _assign(points: np.ndarray, book: np.ndarray) -> np.ndarray:
    """Return the nearest row of each point: int32 `[n]`."""
    book = jnp.asarray(book)
    parts = [np.asarray(_closest(points[start : start + CHUNK], book)) for start in range(0, len(points), CHUNK)]
    return np.concatenate(parts).astype(np.int32)
