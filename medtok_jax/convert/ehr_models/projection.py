"""Project the codebook to the width of another model by a fixed linear map that keeps angles and relative lengths."""

import numpy as np

from preprocessing.common.errors import InputError


def projection(dim: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Draw a random isometry `[width, dim]` float64; its columns are orthonormal, so `x @ P.T` keeps inner products.

    It is drawn uniformly (QR of a Gaussian matrix, signs fixed by the diagonal of R) and depends only on `seed`.

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
    """Project vectors to `[rows, width]` float32 and scale them by one factor to the standard deviation `std`.

    Args:
        vectors: `[rows, dim]`, finite.
        width: of the model that uses them, at least `dim`.
        seed: of the projection.
        std: standard deviation of all entries together, such as the 0.02 of GPT-2's embeddings; None keeps lengths.

    Raises:
        InputError: `width` is smaller than `dim`, or the vectors are all equal and cannot be scaled.
    """
    projected = np.asarray(vectors, np.float64) @ projection(vectors.shape[1], width, seed=seed).T
    if std is not None:
        spread = projected.std()
        if not spread > 0:
            raise InputError("The vectors to project are all equal and have no spread to scale; check the tokenizer.")
        projected *= std / spread
    return projected.astype(np.float32)
