"""The codebook in the width of another model: a fixed linear map that keeps all angles and relative lengths."""

import numpy as np

from preprocessing.common.errors import InputError


def projection(dim: int, width: int, *, seed: int = 0) -> np.ndarray:
    """A random isometry `[width, dim]` float64: columns are orthonormal, so `x @ projection.T` keeps inner products.

    Drawn uniformly (QR of a Gaussian matrix, signs fixed by the diagonal of R) from `seed` alone.

    Raises:
        InputError: `width` is smaller than `dim`, so no such map exists.
    """
    if width < dim:
        raise InputError(
            f"Vectors of width {dim} cannot be projected to width {width} without loss; give the model a width of at"
            f" least {dim}, or train a tokenizer with --config.model.embedding_dim={width} or less."
        )
    gaussian = np.random.default_rng(seed).standard_normal((width, dim))
    q, r = np.linalg.qr(gaussian)
    return q * np.where(np.diag(r) < 0, -1.0, 1.0)


def project(vectors: np.ndarray, width: int, *, seed: int = 0, std: float | None = None) -> np.ndarray:
    """`[rows, dim]` vectors as `[rows, width]` float32, all scaled by one factor so that entries deviate by `std`.

    Args:
        vectors: finite numbers.
        width: of the model that takes them, at least `dim`.
        seed: of the projection.
        std: standard deviation of all entries together, such as the 0.02 of GPT-2's embeddings; None keeps lengths.

    Raises:
        InputError: `width` is smaller than `dim`, or the vectors cannot be scaled, being equal.
    """
    projected = np.asarray(vectors, np.float64) @ projection(vectors.shape[1], width, seed=seed).T
    if std is not None:
        spread = projected.std()
        if not spread > 0:
            raise InputError("The vectors to project are all equal and have no spread to scale; check the tokenizer.")
        projected *= std / spread
    return projected.astype(np.float32)
