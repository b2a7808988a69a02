"""Tokenize codes by the quantizer of MedTok on the frozen text embedding alone: no graph and no training.

Rows are fitted by k-means to the text embeddings of training codes as training fits those of a region: with the default
sizes 6,000 rows of which a code takes the four nearest, mixed by least squares, and 6,000 rows that refine what these
leave over, of which it takes four more by matching pursuit (`medtok_jax.models.search`). A code has as many tokens as
one embedding of MedTok. What MedTok adds beside this is the graph, its crosswalks and contrasts.

Rows are as wide as the text embedding: reduced to 128 of 384 components, the width of MedTok's rows, they serve worse
(ICD-9-CM to ICD-10-CM on eICU, AUROC .68 instead of .71), and a baseline that is beaten must not be hobbled.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from eval.baselines.data import Codes
from eval.baselines.nearest_rows import quantize_points
from eval.common.representation import Representation
from medtok_jax.models.codebook import Quantizer
from medtok_jax.models.kmeans import fit_region
from medtok_jax.regions import Regions


@dataclasses.dataclass(frozen=True)
class TextPursuitOptions:
    """Hold the settings of the quantizer of texts.

    Attributes:
        codebook_size: number of rows N.
        num_tokens: number of tokens K of each code, half of them (rounded up) nearest rows.
        width: width d of the rows, to which text embeddings are reduced by their principal components; 0, or a width
            that is not below theirs, leaves them as they are.
        kmeans_samples: number of texts of training codes that rows are fitted to at most, drawn at random.
        kmeans_iterations: Lloyd iterations of k-means.
    """

    codebook_size: int = 12_000
    num_tokens: int = 8
    width: int = 0
    kmeans_samples: int = 65_536
    kmeans_iterations: int = 10


def text_pursuit(codes: Codes, options: TextPursuitOptions, *, seed: int, progress: bool = True) -> Representation:
    """Fit rows to the texts of training codes and tokenize all codes.

    Args:
        codes: codes of a data set.
        options: settings.
        seed: seed of the sample and of the first centers of k-means.
        progress: whether to show a progress bar.
    """
    texts = codes.text_vectors(progress)
    fitted = texts[codes.is_train()]
    if len(fitted) > options.kmeans_samples:
        drawn = np.random.default_rng(seed).choice(len(fitted), options.kmeans_samples, replace=False)
        fitted = fitted[np.sort(drawn)]
    projection = principal_axes(fitted, options.width)
    quantizer = _quantizer(options.codebook_size, projection.shape[1], options.num_tokens)
    points = quantizer.prepare(jnp.asarray(fitted @ projection))
    rows = fit_region(jax.random.key(seed), points, quantizer, "text", options.kmeans_iterations)
    quantizer.set_codebook(rows)
    arrays = quantize_points(quantizer, texts @ projection)
    about = dataclasses.asdict(options) | {"width": projection.shape[1], "seed": seed}
    return codes.representation("text_pursuit", about, projection=projection, **arrays)


def tokens_of_texts(representation: Representation, texts: np.ndarray) -> dict[str, np.ndarray]:
    """Return `tokens`, `weights` `[n, K]` and `vectors` `[n, width]` of further texts by the rows of this baseline.

    Args:
        representation: what `text_pursuit` returned.
        texts: `[n, hidden]` float32, frozen text embeddings by the same text encoder.
    """
    rows = representation.codebook
    quantizer = _quantizer(len(rows), rows.shape[1], representation.tokens.shape[1])
    quantizer.set_codebook(jnp.asarray(rows))
    found = quantize_points(quantizer, texts @ representation.projection)
    return {name: found[name] for name in ("tokens", "weights", "vectors")}


def principal_axes(points: np.ndarray, width: int) -> np.ndarray:
    """Return the directions of largest second moment of points as columns: float32 `[hidden, width]`.

    The mean is not subtracted, so that inner products, by which rows are searched, change as little as possible.

    Args:
        points: `[n, hidden]`.
        width: number of directions; 0, or a number that is not below `hidden`, gives the identity.
    """
    hidden = points.shape[1]
    if not 0 < width < hidden:
        return np.eye(hidden, dtype=np.float32)
    wide = points.astype(np.float64)
    _, vectors = np.linalg.eigh(wide.T @ wide)
    axes = vectors[:, ::-1][:, :width]
    # The sign of an axis is arbitrary; its largest component decides.
    signs = np.sign(axes[np.abs(axes).argmax(0), np.arange(width)])
    return np.ascontiguousarray(axes * signs, dtype=np.float32)


def _quantizer(size: int, width: int, num_tokens: int) -> Quantizer:
    regions = Regions(text=size, graph=0, shared=0)
    return Quantizer(
        regions, width, num_tokens=num_tokens, num_nearest=-(-num_tokens // 2), kind="pursuit", rngs=nnx.Rngs(0)
    )
