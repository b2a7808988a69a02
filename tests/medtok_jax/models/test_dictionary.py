"""Rows that are fitted together: against dense least squares, on mixtures of known rows, and without use."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from medtok_jax.models.codebook import Quantizer
from medtok_jax.models.dictionary import RIDGE, optimal_directions
from medtok_jax.models.kmeans import fit_region
from medtok_jax.regions import Regions

WIDTH, ROWS, FIRST, K, NEAREST = 12, 30, 15, 4, 2
SHAPE = {"first": FIRST, "num_tokens": K, "num_nearest": NEAREST}


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def mixture(point: np.ndarray, rows: np.ndarray) -> np.ndarray:
    positive = np.maximum(np.linalg.solve(rows @ rows.T + 1e-2 * np.eye(len(rows)), rows @ point), 0)
    mixed = positive @ rows
    return positive * (mixed @ point) / (mixed @ mixed)


def choose(point: np.ndarray, rows: np.ndarray, tokens: int = K) -> tuple[list[int], np.ndarray]:
    """The tokens of a point and their weights, by loops."""
    ids = np.argsort(-rows[:FIRST] @ point, kind="stable")[:NEAREST].tolist()
    left = point - mixture(point, rows[ids]) @ rows[ids]
    for _ in range(tokens - NEAREST):
        free = [row for row in range(FIRST, ROWS) if row not in ids]
        ids.append(max(free, key=lambda row: left @ rows[row]))
        left = left - (left @ rows[ids[-1]]) * rows[ids[-1]]
    return ids, mixture(point, rows[ids])


def error(points: np.ndarray, rows: np.ndarray) -> float:
    """Mean squared distance of points to the mixtures of their tokens."""
    left = 0.0
    for point in points.astype(np.float64):
        ids, weights = choose(point, rows)
        left += np.sum((point - weights @ rows[ids]) ** 2)
    return left / len(points)


def test_a_round_solves_the_least_squares_problem():
    rng = np.random.default_rng(0)
    points, rows = unit(rng.normal(size=(400, WIDTH))), unit(rng.normal(size=(ROWS, WIDTH)))
    found = optimal_directions(jnp.asarray(points), jnp.asarray(rows), rounds=1, **SHAPE)
    design = np.zeros((len(points), ROWS))
    for number, point in enumerate(points.astype(np.float64)):
        ids, weights = choose(point, rows)
        design[number, ids] = weights
    ridge = np.sqrt(RIDGE * np.mean(np.sum(design**2, axis=0)))
    stacked = np.concatenate([design, ridge * np.eye(ROWS)]), np.concatenate([points, ridge * rows])
    wanted = np.linalg.lstsq(*stacked, rcond=None)[0]
    np.testing.assert_allclose(found, unit(wanted), atol=1e-4)


def test_the_error_falls_below_that_of_kmeans():
    """On mixtures of known rows, of which k-means finds means."""
    rng = np.random.default_rng(1)
    truth = unit(rng.normal(size=(ROWS, WIDTH)))
    points = np.zeros((1500, WIDTH))
    for point in points:
        ids = [*rng.choice(FIRST, 2, replace=False), *(FIRST + rng.choice(ROWS - FIRST, 2, replace=False))]
        point += rng.uniform([0.6, 0.6, 0.1, 0.1], [1.0, 1.0, 0.4, 0.4]) @ truth[ids]
    points = unit(points)
    quantizer = Quantizer(
        Regions(text=ROWS, graph=0, shared=0),
        WIDTH,
        num_tokens=K,
        num_nearest=NEAREST,
        kind="pursuit",
        rngs=nnx.Rngs(0),
    )
    errors = [
        error(
            points[:300],
            np.asarray(fit_region(jax.random.key(0), jnp.asarray(points), quantizer, "text", 10, rounds=r)),
        )
        for r in (0, 1, 4)
    ]
    assert errors[1] < 0.9 * errors[0]
    assert errors[2] < errors[1]


def test_a_row_without_use_moves_to_what_is_served_worst():
    rng = np.random.default_rng(2)
    points, rows = unit(np.abs(rng.normal(size=(200, WIDTH)))), unit(np.abs(rng.normal(size=(ROWS, WIDTH))))
    # A row that points away from all points, and one that repeats the row before it.
    rows[3], rows[20] = -unit(np.ones(WIDTH)), rows[19]
    found = np.asarray(
        optimal_directions(jnp.asarray(points), jnp.asarray(rows), rounds=1, **(SHAPE | {"num_tokens": 3}))
    )
    chosen = [choose(point, rows, 3) for point in points.astype(np.float64)]
    left = np.array([point - w @ rows[ids] for point, (ids, w) in zip(points, chosen, strict=True)])
    used = {row for ids, weights in chosen for row, weight in zip(ids, weights, strict=True) if weight > 0}
    unused = sorted(set(range(ROWS)) - used)
    assert {3, 20} <= set(unused)
    worst = np.argsort(-np.sum(left**2, axis=1), kind="stable")
    for place, row in enumerate(unused):
        wanted = points[worst[place]] if row < FIRST else left[worst[place]]
        np.testing.assert_allclose(found[row], unit(wanted), atol=1e-3)


def test_no_round_changes_nothing():
    rows = unit(np.random.default_rng(3).normal(size=(ROWS, WIDTH)))
    found = optimal_directions(jnp.asarray(rows), jnp.asarray(rows), rounds=0, **SHAPE)
    np.testing.assert_array_equal(found, rows)
