"""Quantize points by the quantizer of MedTok with one region: rows fitted by k-means, tokens found by matching pursuit.

Rows are fitted to the points of training codes as training fits those of a region: with the default sizes 6,000 rows
of which a code takes the four nearest, mixed by least squares, and 6,000 rows that refine what these leave over, of
which it takes four more by matching pursuit (`medtok_jax.models.search`).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from eval.baselines import defaults
from eval.baselines.nearest_rows import nearest_rows, quantize_points
from eval.common.representation import Representation
from medtok_jax.models.codebook import Quantizer
from medtok_jax.models.kmeans import fit_region
from medtok_jax.regions import Regions, nearest_of
from preprocessing.common.errors import InputError

PURSUIT, TOP_K = "pursuit", "top_k"


@dataclasses.dataclass(frozen=True)
class PursuitOptions:
    """Hold the settings of the quantizer.

    Attributes:
        codebook_size: number of rows N.
        num_tokens: number of tokens K of each code, half of them (rounded down, at least 1) nearest rows.
        kmeans_samples: number of training codes that rows are fitted to at most, drawn at random.
        kmeans_iterations: Lloyd iterations of k-means.
        joint_fit_rounds: rounds of fitting all rows together afterwards.
    """

    codebook_size: int = defaults.SIZE
    num_tokens: int = defaults.TOKENS
    kmeans_samples: int = defaults.KMEANS_SAMPLES
    kmeans_iterations: int = defaults.KMEANS_ITERATIONS
    joint_fit_rounds: int = defaults.JOINT_FIT_ROUNDS


def sample_codes(is_train: np.ndarray, options: PursuitOptions, *, seed: int) -> np.ndarray:
    """Return the positions of the codes that rows are fitted to, ascending.

    Args:
        is_train: `[n]` bool, training codes.
        options: settings.
        seed: seed of the draw.
    """
    rows = np.flatnonzero(is_train)
    if len(rows) <= options.kmeans_samples:
        return rows
    return rows[np.sort(np.random.default_rng(seed).choice(len(rows), options.kmeans_samples, replace=False))]


def fit_and_quantize(
    points: np.ndarray, sampled: np.ndarray, options: PursuitOptions, *, seed: int
) -> dict[str, np.ndarray]:
    """Fit rows to some points and tokenize all of them.

    Args:
        points: `[n, width]` float32.
        sampled: positions of the points that rows are fitted to, see `sample_codes`.
        options: settings.
        seed: seed of the first centers of k-means.

    Returns:
        The fields of a `Representation`: `tokens` and `weights` `[n, K]`, `vectors`, `unquantized` and `codebook`.
    """
    quantizer = make_quantizer(options.codebook_size, points.shape[1], options.num_tokens)
    prepared = quantizer.prepare(jnp.asarray(points[sampled]))
    rounds = options.joint_fit_rounds
    rows = fit_region(jax.random.key(seed), prepared, quantizer, "text", options.kmeans_iterations, rounds=rounds)
    quantizer.set_codebook(rows)
    return quantize_points(quantizer, points)


def make_quantizer(size: int, width: int, num_tokens: int) -> Quantizer:
    """Return a quantizer by pursuit with `size` rows in one region, `text`."""
    regions = Regions(text=size, graph=0, shared=0)
    counts = {"num_tokens": num_tokens, "num_nearest": nearest_of(num_tokens)}
    return Quantizer(regions, width, **counts, kind=PURSUIT, rngs=nnx.Rngs(0))


def reads_texts(representation: Representation) -> bool:
    """Return whether `tokens_of_texts` can tokenize further texts by a representation."""
    return representation.about.get("quantizer") in (PURSUIT, TOP_K) and representation.projection is not None


def tokens_of_texts(representation: Representation, texts: np.ndarray) -> dict[str, np.ndarray]:
    """Return `tokens`, `weights` `[n, K]` and `vectors` `[n, width]` of further texts by the rows of a baseline.

    Args:
        representation: a baseline that was made of texts, such as `text_pursuit` or `text_crosswalk`.
        texts: `[n, hidden]` float32, frozen text embeddings by the same text encoder.

    Raises:
        InputError: the baseline does not read texts.
    """
    if not reads_texts(representation):
        raise InputError(f"{representation.name} cannot tokenize further texts; use a baseline that is made of texts.")
    rows, points = representation.codebook, texts @ representation.projection
    num_tokens = representation.tokens.shape[1]
    if representation.about["quantizer"] == TOP_K:
        found = nearest_rows(points, rows, num_tokens)
    else:
        quantizer = make_quantizer(len(rows), rows.shape[1], num_tokens)
        quantizer.set_codebook(jnp.asarray(rows))
        found = quantize_points(quantizer, points)
    return {name: found[name] for name in ("tokens", "weights", "vectors")}
