"""Bring vectors to the width of another model: by an isometry if it is wider, else by principal components.

An isometry is a fixed random map that keeps all angles and relative lengths. Principal components keep the largest
share of the variance that a linear map to that width can keep; `Projected.share` states it.
"""

from typing import NamedTuple

import numpy as np

from preprocessing.common.errors import InputError


class Projected(NamedTuple):
    """Hold vectors at the width of a model, `[rows, width]` float32, and the share of their variance that is kept."""

    vectors: np.ndarray
    share: float


def projection(dim: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Draw a random isometry `[width, dim]` float64; its columns are orthonormal, so `x @ P.T` keeps inner products.

    It is drawn uniformly (QR of a Gaussian matrix, signs fixed by the diagonal of R) and depends only on `seed`.

    Raises:
        ValueError: `width` is smaller than `dim`, so no such map exists.
    """
    if width < dim:
        raise ValueError(f"There is no isometry from {dim} to {width} dimensions.")
    gaussian = np.random.default_rng(seed).standard_normal((width, dim))
    q, r = np.linalg.qr(gaussian)
    return q * np.where(np.diag(r) < 0, -1.0, 1.0)


def principal(vectors: np.ndarray, width: int) -> Projected:
    """Return the first `width` principal components of `[rows, dim]` vectors, the largest first, in float32.

    The mean of the vectors is subtracted. The sign of a component is that which makes its largest loading positive.
    """
    centered = np.asarray(vectors, np.float64)
    centered = centered - centered.mean(0)
    variances, axes = np.linalg.eigh(centered.T @ centered)
    axes = axes[:, ::-1][:, :width]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    components = centered @ axes
    total = float(np.maximum(variances, 0).sum())
    share = float((components**2).sum()) / total if total > 0 else 1.0
    return Projected(components.astype(np.float32), min(share, 1.0))


def project(vectors: np.ndarray, width: int, *, seed: int = 0, std: float | None = None) -> Projected:
    """Bring vectors to a width, and scale them by one factor to the standard deviation `std`.

    Args:
        vectors: `[rows, dim]`, finite. If `dim` exceeds `width`, their principal components are taken first; the
            isometry then spreads the variance evenly over the coordinates.
        width: of the model that uses them.
        seed: of the isometry.
        std: standard deviation of all entries together, such as the 0.02 of GPT-2's embeddings; None keeps lengths.

    Raises:
        InputError: the vectors are all equal and cannot be scaled.
    """
    share = 1.0
    if vectors.shape[1] > width:
        vectors, share = principal(vectors, width)
    projected = np.asarray(vectors, np.float64) @ projection(vectors.shape[1], width, seed=seed).T
    if std is not None:
        spread = projected.std()
        if not spread > 0:
            raise InputError("The vectors to project are all equal and have no spread to scale; check the tokenizer.")
        projected *= std / spread
    return Projected(projected.astype(np.float32), share)


def kept_variance(dim: int, width: int, share: float) -> str:
    """Return a sentence on vectors that were brought from `dim` to `width` numbers and keep `share` of the variance."""
    if width >= dim:
        return f"Vectors of {dim} numbers are mapped to {width} with all angles kept."
    return f"Vectors of {dim} numbers are reduced to {width} by PCA, which keeps {share:.1%} of their variance."
