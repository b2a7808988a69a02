"""Project vectors onto maps in two dimensions by t-SNE, UMAP or principal components."""

import numpy as np

from preprocessing.common import extras
from preprocessing.common.errors import InputError

METHODS = ("tsne", "umap", "pca")
# Fewer distinct points have no neighborhoods to preserve; their principal components are shown.
FEWEST = 5
# Number of principal components in which neighbors are searched.
COMPONENTS = 50
# Up to this many points, neighbors are searched exactly, by one thread: a second one brings no speed.
MANY = 20_000
# Above this many points, interpolating forces is faster than a tree.
INTERPOLATED = 1000


def project(vectors: np.ndarray, method: str) -> np.ndarray:
    """Project vectors onto a plane so that neighbors stay neighbors; the result is the same in every run.

    Args:
        vectors: `[n, width]` float, finite.
        method: `tsne` (van der Maaten and Hinton 2008, by openTSNE), `umap` (McInnes et al. 2018) or `pca`.

    Returns:
        `[n, 2]` float32.

    Raises:
        InputError: `method` is none of these, or its package is not installed.
    """
    if method not in METHODS:
        raise InputError(f"--method={method} is unknown; it must be one of {', '.join(METHODS)}.")
    reduced = _principal_components(np.asarray(vectors, np.float64), COMPONENTS)
    if method == "pca" or len(np.unique(reduced, axis=0)) < FEWEST:
        points = reduced[:, :2]
    else:
        points = {"tsne": _tsne, "umap": _umap}[method](reduced)
    return np.ascontiguousarray(points, np.float32)


def _principal_components(vectors: np.ndarray, count: int) -> np.ndarray:
    """Return the coordinates on the first `count` principal axes, `[n, max(2, components)]`; missing axes are 0."""
    decomposition = extras.load("sklearn.decomposition")
    count = min(count, *vectors.shape)
    if np.ptp(vectors, axis=0).max(initial=0) == 0:
        return np.zeros((len(vectors), max(2, count)))
    found = decomposition.PCA(count, svd_solver="full" if min(vectors.shape) < 100 else "covariance_eigh")
    return np.pad(found.fit_transform(vectors), ((0, 0), (0, max(0, 2 - count))))


def _tsne(vectors: np.ndarray) -> np.ndarray:
    # 250 iterations after 250 exaggerated ones keep neighborhoods nearly as well as 500 do (trustworthiness .927 and
    # .931 of 10,000 codes) in half the time.
    mapping = extras.load("openTSNE").TSNE(
        perplexity=min(30.0, (len(vectors) - 1) / 3),
        n_iter=250,
        neighbors="exact" if len(vectors) <= MANY else "approx",
        negative_gradient_method="fft" if len(vectors) > INTERPOLATED else "bh",
        n_jobs=1 if len(vectors) <= MANY else -1,
        random_state=0,
    )
    return np.asarray(mapping.fit(vectors))


def _umap(vectors: np.ndarray) -> np.ndarray:
    neighbors = min(15, len(vectors) - 1)
    return extras.load("umap").UMAP(n_neighbors=neighbors, init="pca", n_jobs=1, random_state=0).fit_transform(vectors)
