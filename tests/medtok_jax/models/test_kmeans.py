"""k-means against scikit-learn and against its own definition."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sklearn.cluster import KMeans

from medtok_jax.models import search
from medtok_jax.models.codebook import Quantizer
from medtok_jax.models.kmeans import fit_region, fit_regions, kmeans
from medtok_jax.regions import REGIONS, Regions

WIDTH = 5


def blobs(count: int, seed: int = 0, centers: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(centers, WIDTH))[rng.integers(centers, size=count)] * 3 + rng.normal(size=(count, WIDTH))
    ).astype(np.float32)


def squared(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return ((points[:, None].astype(np.float64) - centroids[None]) ** 2).sum(-1)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_objective_is_that_of_scikit_learn(seed, monkeypatch):
    monkeypatch.setattr(search, "CHUNK", 64)  # The 500 points in chunks, the last one padded.
    points = blobs(500, seed)
    found = kmeans(jax.random.key(seed), jnp.asarray(points), num_centroids=20, iterations=25)
    ours = squared(points, np.asarray(found)).min(1).sum()
    theirs = np.median([KMeans(20, init="random", n_init=1, random_state=s).fit(points).inertia_ for s in range(5)])
    assert ours <= 1.05 * theirs


def test_one_iteration_by_hand():
    points = blobs(60)
    start = kmeans(jax.random.key(0), jnp.asarray(points), num_centroids=7, iterations=0)
    assert all((points == row).all(1).any() for row in np.asarray(start)), "the first centroids are points"
    assert len(np.unique(start, axis=0)) == 7
    nearest = squared(points, np.asarray(start)).argmin(1)
    wanted = np.stack([points[nearest == cluster].mean(0) for cluster in range(7)])
    found = kmeans(jax.random.key(0), jnp.asarray(points), num_centroids=7, iterations=1)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("spherical", [False, True])
def test_no_cluster_is_empty_where_points_suffice(spherical):
    rng = np.random.default_rng(0)
    # Most points sit in two heaps: a random draw puts nearly all centroids there.
    points = np.concatenate([rng.normal(size=(380, WIDTH)) * 1e-3 + 1.0, rng.normal(size=(20, WIDTH))]).astype(
        np.float32
    )
    points = points / np.linalg.norm(points, axis=1, keepdims=True) if spherical else points
    start, found = (
        np.asarray(kmeans(jax.random.key(1), jnp.asarray(points), num_centroids=40, iterations=n, spherical=spherical))
        for n in (0, 10)
    )
    # Emptied centroids move to what is badly served.
    assert squared(points, found).min(1).sum() < 0.5 * squared(points, start).min(1).sum()
    sizes = np.bincount(squared(points, found).argmin(1), minlength=40)
    assert sizes.min() > 0


def test_spherical_rows_are_unit_means():
    points = blobs(200)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    found = np.asarray(kmeans(jax.random.key(0), jnp.asarray(points), num_centroids=9, iterations=40, spherical=True))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    nearest = (points @ found.T).argmax(1)
    for cluster in range(9):  # A fixed point of spherical k-means.
        mean = points[nearest == cluster].mean(0)
        np.testing.assert_allclose(found[cluster], mean / np.linalg.norm(mean), atol=1e-4)


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("iterations", [0, 5])
def test_fewer_points_than_centroids_give_distinct_rows_near_the_points(spherical, iterations):
    points = blobs(6)
    points = points / np.linalg.norm(points, axis=1, keepdims=True) if spherical else points
    found = np.asarray(
        kmeans(jax.random.key(0), jnp.asarray(points), num_centroids=20, iterations=iterations, spherical=spherical)
    )
    assert len(np.unique(found, axis=0)) == 20
    assert squared(found, points).min(1).max() < 1e-3
    assert squared(points, found).min(1).max() < 1e-3
    owners = np.bincount(squared(found, points).argmin(1), minlength=6)
    assert owners.max() - owners.min() <= 1, "the points share the centroids evenly"


def make(kind: str, regions: Regions, num_tokens: int = 3, **options) -> Quantizer:
    return Quantizer(regions, WIDTH, num_tokens=num_tokens, kind=kind, rngs=nnx.Rngs(0), **options)


def test_a_codebook_is_fitted_region_by_region():
    quantizer = make("top_k", Regions(text=6, graph=6, shared=8))
    points = {name: quantizer.prepare(jnp.asarray(blobs(100, seed))) for seed, name in enumerate(REGIONS)}
    rows = np.asarray(fit_regions(jax.random.key(0), points, quantizer))
    assert rows.shape == (20, WIDTH)
    quantizer.set_codebook(jnp.asarray(rows))
    for name in REGIONS:
        own = squared(np.asarray(points[name]), rows[slice(*quantizer.regions.bounds(name))]).min(1).mean()
        other = [
            squared(np.asarray(points[n]), rows[slice(*quantizer.regions.bounds(name))]).min(1).mean() for n in REGIONS
        ]
        assert own == min(other)
        assert len(np.unique(quantizer(points[name], name).ids[:, 0])) == getattr(quantizer.regions, name)


@pytest.mark.parametrize(("size", "levels"), [(25, 4), (3, 3)])
def test_a_residual_fit_refines_level_by_level(size, levels):
    quantizer = make("residual", Regions(text=size, graph=3, shared=3), levels)
    points = np.asarray(quantizer.prepare(jnp.asarray(blobs(300))))
    rows = np.asarray(fit_region(jax.random.key(0), jnp.asarray(points), quantizer, "text", 10))
    assert rows.shape == (size, WIDTH)
    left, errors = points, [(points**2).sum(-1).mean()]
    parts = np.split(rows, [size * level // levels for level in range(1, levels)])
    for part in parts:
        left = left - part[squared(left, part).argmin(1)]
        errors.append((left**2).sum(-1).mean())
    # One row a level is the mean of what is left: nothing, from the second level on.
    assert all(after < before + (1e-6 if size == levels else 0) for before, after in itertools.pairwise(errors))
    assert errors[1] < errors[0]
    quantizer.set_codebook(jnp.asarray(np.concatenate([rows, np.ones((6, WIDTH), np.float32)])))
    searched = np.asarray(quantizer(jnp.asarray(points), "text").vector)
    assert ((points - searched) ** 2).sum(-1).mean() <= 1.3 * errors[-1]
    if size > levels:
        assert errors[-1] < 0.5 * errors[1]


@pytest.mark.parametrize(("levels", "nearest"), [(4, 1), (4, 2), (3, 3)])
def test_a_fit_of_pursuit_refines_what_the_nearest_rows_leave(levels, nearest, monkeypatch):
    monkeypatch.setattr(search, "CHUNK", 64)
    quantizer = make("pursuit", Regions(text=40, graph=8, shared=8), levels, num_nearest=nearest)
    points = quantizer.prepare(jnp.asarray(blobs(300)))
    rows = fit_region(jax.random.key(0), points, quantizer, "text", 10)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    quantizer.set_codebook(jnp.concatenate([rows, jnp.ones((16, WIDTH))]))
    found = quantizer(points, "text")
    bounds = quantizer.parts("text")
    assert bounds == (0, *(40 * count // levels for count in range(nearest, levels + 1)))
    # Every row of every part is some point's token.
    assert set(np.asarray(found.ids).ravel()) == set(range(40))
    taken = np.asarray(found.weights)[..., None] * np.asarray(quantizer.codebook())[np.asarray(found.ids)]
    left = np.asarray(points)[:, None] - np.cumsum(taken, axis=1)[:, nearest - 1 :]
    errors = (left**2).sum(-1).mean(0)
    assert len(errors) == levels - nearest + 1
    assert all(after < before for before, after in itertools.pairwise(errors))
    random = make("pursuit", quantizer.regions, levels, num_nearest=nearest)(points, "text")
    assert errors[-1] < 0.6 * ((np.asarray(points) - np.asarray(random.vector)) ** 2).sum(-1).mean()
