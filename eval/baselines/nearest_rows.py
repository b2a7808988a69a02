"""Tokens by nearest rows: what MedTok's quantizer does, with any codebook and any number of tokens."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from medtok_jax.models.kmeans import kmeans
from medtok_jax.models.quantizer import Quantizer
from medtok_jax.regions import Regions

CHUNK = 2048


def nearest_rows(
    points: np.ndarray, codebook: np.ndarray, num_tokens: int, *, temperature: float = 0.07
) -> dict[str, np.ndarray]:
    """The nearest rows of each point, weighted and mixed as MedTok does (paper eq. 3-4).

    Args:
        points: `[n, width]`; they and the rows are searched at unit length.
        codebook: `[N, width]`.
        num_tokens: tokens a point.
        temperature: softmax temperature of the weights.

    Returns:
        The fields of a `Representation`: `tokens` and `weights` `[n, num_tokens]`, `vectors` `[n, width]` (mixed rows),
        `unquantized` (the points) and `codebook`, both at unit length.
    """
    regions = Regions(text=len(codebook), graph=0, shared=0)
    quantizer = Quantizer(
        regions, codebook.shape[1], num_tokens=num_tokens, weight_temperature=temperature, rngs=nnx.Rngs(0)
    )
    quantizer.set_codebook(jnp.asarray(codebook))
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
        # Padded, so that there is one shape to compile for.
        padded = np.concatenate([part, np.zeros((CHUNK - len(part), part.shape[1]), part.dtype)])
        parts.append([np.asarray(array)[: len(part)] for array in search(state, padded)])
    names = ("tokens", "weights", "vectors", "unquantized")
    arrays = {name: np.concatenate(column) for name, column in zip(names, zip(*parts, strict=True), strict=True)}
    return arrays | {"codebook": np.array(quantizer.codebook())}


def fit_rows(points: np.ndarray, size: int, *, seed: int, iterations: int = 10, spherical: bool = True) -> np.ndarray:
    """`[size, width]` rows fitted to points by k-means; a random sample of points where there are very many."""
    most = 4 * size
    if len(points) > most:
        points = points[np.random.default_rng(seed).choice(len(points), most, replace=False)]
    key = jax.random.key(seed)
    rows = kmeans(key, jnp.asarray(points), num_centroids=size, iterations=iterations, spherical=spherical)
    return np.asarray(rows)


def residual_rows(points: np.ndarray, fitted: np.ndarray, size: int, levels: int, seed: int) -> dict[str, np.ndarray]:
    """Residual k-means: level after level fits its share of the rows to what the levels before leave over.

    Args:
        points: `[n, width]` of unit length.
        fitted: `[n]` bool, points that rows are fitted to.
        size: rows of all levels together.
        levels: tokens a point, one a level.
        seed: of the first draws.

    Returns:
        As `nearest_rows`, every token of weight one: `vectors` are sums of rows.
    """
    left, tokens, books, start = points.astype(np.float32).copy(), [], [], 0
    for level in range(levels):
        share = size * (level + 1) // levels - size * level // levels
        book = fit_rows(left[fitted], share, seed=seed + level, spherical=False)
        chosen = _assign(left, book)
        left -= book[chosen]
        tokens.append(chosen + start)
        books.append(book)
        start += share
    ids = np.stack(tokens, axis=1).astype(np.int32)
    return {
        "tokens": ids,
        "weights": np.ones(ids.shape, np.float32),
        "vectors": points - left,
        "unquantized": points,
        "codebook": np.concatenate(books),
    }


@jax.jit
def _closest(part: jax.Array, book: jax.Array) -> jax.Array:
    return jnp.argmin(jnp.sum(book * book, -1)[None] - 2.0 * part @ book.T, axis=-1)


def _assign(points: np.ndarray, book: np.ndarray) -> np.ndarray:
    """The nearest row of each point, int32."""
    book = jnp.asarray(book)
    parts = [np.asarray(_closest(points[start : start + CHUNK], book)) for start in range(0, len(points), CHUNK)]
    return np.concatenate(parts).astype(np.int32)
