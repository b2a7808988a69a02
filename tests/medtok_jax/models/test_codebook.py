"""The codebook and its searches against loops over rows in NumPy (model.md section 3)."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.optimize import nnls

from medtok_jax.models.codebook import EmaState, FrozenBasis, Quantizer, rotation_trick, straight_through
from medtok_jax.models.search import SHORTEST, SMALLEST_WEIGHT, l2_normalize, largest, mixing_weights
from medtok_jax.regions import REGIONS, Regions

SIZES = Regions(text=7, graph=5, shared=9)
WIDTH, BATCH = 6, 4


def make(**options) -> Quantizer:
    return Quantizer(options.pop("regions", SIZES), WIDTH, **{"num_tokens": 3, "rngs": nnx.Rngs(0)} | options)


def embeddings(quantizer: Quantizer, seed: int = 1) -> np.ndarray:
    return np.asarray(quantizer.prepare(jnp.asarray(np.random.default_rng(seed).normal(size=(BATCH, WIDTH)))))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def reference_top_k(e, book, region, *, k, temperature):
    """Eq. 3-4 by loops: global ids, weights, vector and distances of one embedding."""
    start = {"text": 0, "graph": SIZES.text, "shared": SIZES.text + SIZES.graph}[region]
    rows = range(start, start + getattr(SIZES, region))
    distance = {row: np.sqrt(sum((a - b) ** 2 for a, b in zip(e, book[row], strict=True))) for row in rows}
    ids = sorted(rows, key=lambda row: (distance[row], row))[:k]
    weights = np.exp([-distance[row] / temperature for row in ids])
    weights = weights / weights.sum()
    return ids, weights, sum(w * book[row] for w, row in zip(weights, ids, strict=True)), list(distance.values())


def reference_residual(e, book, region, *, k):
    start = {"text": 0, "graph": SIZES.text, "shared": SIZES.text + SIZES.graph}[region]
    left, ids = e.copy(), []
    for _ in range(k):
        rows = range(start, start + getattr(SIZES, region))
        ids.append(min(rows, key=lambda row: (((left - book[row]) ** 2).sum(), row)))
        left = left - book[ids[-1]]
    return ids, e - left


def reference_mixture(e, rows):
    """Weights of the closest mixture: least squares with a ridge, without negative ones, scaled."""
    positive = np.maximum(np.linalg.solve(rows @ rows.T + 1e-2 * np.eye(len(rows)), rows @ e), 0)
    mixed = positive @ rows
    scale = (mixed @ e) / (mixed @ mixed) if np.any(mixed) else 0.0
    return np.maximum(scale * positive, SMALLEST_WEIGHT)


def reference_pursuit(e, book, region, *, k, nearest):
    """By loops: nearest rows of the first part, then one row after another of all the others, all mixed anew."""
    start, stop = SIZES.bounds(region)
    first = start + (stop - start) * nearest // k
    candidates = sorted(range(start, first), key=lambda row: (-e @ book[row], row))[: max(2 * nearest, 1)]
    ids = candidates[:1]
    while len(ids) < nearest:
        others = [row for row in candidates if row not in ids]
        left = e - book[ids].T @ np.linalg.lstsq(book[ids].T, e, rcond=None)[0]
        ids.append(next((row for row in others if left @ book[row] > SMALLEST_WEIGHT), others[0]))
    ids = sorted(ids, key=candidates.index)
    left = e - reference_mixture(e, book[ids]) @ book[ids]
    for _ in range(k - nearest):
        free = set(range(first, stop)) - set(ids)
        ids.append(max(free, key=lambda row: (left @ book[row], -row)))
        left = left - max(left @ book[ids[-1]], SMALLEST_WEIGHT) * book[ids[-1]]
    weights = reference_mixture(e, book[ids])
    return ids, weights, weights @ book[ids]


def split_loss(quantizer: Quantizer, region: str, loss):
    """`f(params, embedding)` of a loss of the quantized batch, and the parameters."""
    graphdef, params, rest = nnx.split(quantizer, nnx.Param, ...)
    return lambda params, e: loss(nnx.merge(graphdef, params, rest)(e, region)), params


@pytest.mark.parametrize(
    ("size", "text", "graph", "wanted"),
    [(12000, 0.3, 0.3, (3600, 3600, 4800)), (600, 0.3, 0.3, (180, 180, 240)), (10, 0.25, 0.33, (2, 3, 5))],
)
def test_regions_are_contiguous_and_cover_the_codebook(size, text, graph, wanted):
    regions = Regions.from_ratios(size, text, graph)
    assert (regions.text, regions.graph, regions.shared) == wanted
    bounds = [regions.bounds(name) for name in REGIONS]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == regions.size == size
    assert all(left[1] == right[0] for left, right in itertools.pairwise(bounds))


@pytest.mark.parametrize(
    ("region", "normalize", "k", "temperature"),
    [("text", True, 3, 0.07), ("graph", True, 5, 1.0), ("shared", True, 1, 0.07), ("shared", False, 3, 0.07)],
)
def test_top_k_by_brute_force(region, normalize, k, temperature):
    quantizer = make(num_tokens=k, normalize=normalize, weight_temperature=temperature)
    quantizer.set_codebook(jnp.asarray(np.random.default_rng(3).normal(size=(SIZES.size, WIDTH)) * 2))
    book = np.asarray(quantizer.rows[...], np.float64)
    book = unit(book) if normalize else book
    e = embeddings(quantizer)
    found = quantizer(jnp.asarray(e), region)
    for row in range(BATCH):
        ids, weights, vector, distances = reference_top_k(e[row], book, region, k=k, temperature=temperature)
        np.testing.assert_array_equal(found.ids[row], ids)
        np.testing.assert_allclose(found.weights[row], weights, atol=1e-5)
        np.testing.assert_allclose(found.vector[row], vector, atol=1e-5)
        np.testing.assert_allclose(found.output[row], vector, atol=1e-5)
        np.testing.assert_allclose(found.distances[row], distances, atol=1e-5)


@pytest.mark.parametrize("kind", ["top_k", "residual"])
@pytest.mark.parametrize("normalize", [True, False])
def test_ties_go_to_the_lower_id(kind, normalize):
    quantizer = make(kind=kind, normalize=normalize, num_tokens=2)
    # Axes repeat: rows 12, 15 and 18 of the shared region are the same vector, exactly so in floating point.
    book = np.eye(WIDTH, dtype=np.float32)[np.arange(SIZES.size) % 3]
    quantizer.set_codebook(jnp.asarray(book))
    found = quantizer(jnp.eye(WIDTH)[:3], "shared")
    if kind == "top_k":
        np.testing.assert_array_equal(found.ids, [[12, 15], [13, 16], [14, 17]])
        np.testing.assert_allclose(found.weights, 0.5)
    else:
        # Nothing is left after the first token: all rows are equally far from zero, the first of the region is taken.
        np.testing.assert_array_equal(found.ids, [[12, 12], [13, 12], [14, 12]])


@pytest.mark.parametrize(("region", "normalize"), [("text", True), ("shared", True), ("graph", False)])
def test_residual_by_brute_force(region, normalize):
    quantizer = make(kind="residual", normalize=normalize)
    book = np.random.default_rng(3).normal(size=(SIZES.size, WIDTH)) * 0.6
    quantizer.set_codebook(jnp.asarray(book, jnp.float32))
    e = embeddings(quantizer)
    found = quantizer(jnp.asarray(e), region)
    for row in range(BATCH):
        ids, vector = reference_residual(e[row].astype(np.float64), book, region, k=3)
        np.testing.assert_array_equal(found.ids[row], ids)
        np.testing.assert_allclose(found.vector[row], vector, atol=1e-5)
        start, stop = SIZES.bounds(region)
        np.testing.assert_allclose(found.distances[row], np.linalg.norm(e[row] - book[start:stop], axis=1), atol=1e-5)
    np.testing.assert_array_equal(found.weights, 1.0)
    np.testing.assert_allclose(found.output, found.vector, atol=1e-6)


@pytest.mark.parametrize(
    ("region", "k", "nearest"), [("text", 3, 1), ("shared", 3, 2), ("shared", 6, 2), ("graph", 2, 2), ("text", 1, 1)]
)
def test_pursuit_by_brute_force(region, k, nearest):
    quantizer = make(kind="pursuit", num_tokens=k, num_nearest=nearest)
    quantizer.set_codebook(jnp.asarray(np.random.default_rng(3).normal(size=(SIZES.size, WIDTH)), jnp.float32))
    book = unit(np.asarray(quantizer.rows[...], np.float64))
    e = embeddings(quantizer)
    found = quantizer(jnp.asarray(e), region)
    for row in range(BATCH):
        ids, weights, vector = reference_pursuit(e[row].astype(np.float64), book, region, k=k, nearest=nearest)
        np.testing.assert_array_equal(found.ids[row], ids)
        np.testing.assert_allclose(found.weights[row], weights, atol=1e-5)
        np.testing.assert_allclose(found.vector[row], vector, atol=1e-5)
        start, stop = SIZES.bounds(region)
        np.testing.assert_allclose(found.distances[row], np.linalg.norm(e[row] - book[start:stop], axis=1), atol=1e-5)
    np.testing.assert_allclose(found.output, found.vector, atol=1e-6)


def test_the_largest_of_equals_is_the_first():
    x = np.random.default_rng(0).integers(-5, 5, size=(200, 17)).astype(np.float32)
    value, place = largest(jnp.asarray(x), jnp.zeros((200, 0), jnp.int32))
    np.testing.assert_array_equal(place[:, 0], x.argmax(1))
    np.testing.assert_array_equal(value[:, 0], x.max(1))


def test_the_largest_is_not_one_that_is_taken():
    x = np.random.default_rng(0).integers(-5, 5, size=(200, 17)).astype(np.float32)
    taken = np.argsort(-x, axis=1)[:, :3]
    value, place = largest(jnp.asarray(x), jnp.asarray(taken))
    np.put_along_axis(x, taken, -np.inf, axis=1)
    np.testing.assert_array_equal(place[:, 0], x.argmax(1))
    np.testing.assert_array_equal(value[:, 0], x.max(1))


def test_a_nearest_row_without_weight_gives_way_to_the_next():
    """Of rows that nearly repeat one another only the nearest adds anything; the next that does is taken."""
    quantizer = make(kind="pursuit", num_tokens=2, num_nearest=2)
    start, stop = SIZES.bounds("shared")
    book = np.random.default_rng(0).normal(size=(SIZES.size, WIDTH)).astype(np.float32)
    e = np.eye(WIDTH, dtype=np.float32)[:1]
    book[start:stop] = -np.eye(WIDTH, dtype=np.float32)[0]
    near, behind, other = np.zeros((3, WIDTH), np.float32)
    near[:2], behind[:3], other[:2] = (0.9, 0.1), (0.9, 0.1, 0.3), (0.5, -0.5)
    book[start : start + 3] = near, behind, other
    quantizer.set_codebook(jnp.asarray(book))
    found = quantizer(jnp.asarray(e), "shared")
    np.testing.assert_array_equal(found.ids[0], [start, start + 2])
    assert (np.asarray(found.weights) > 0.05).all()


@pytest.mark.parametrize("share", [1, 2])
def test_every_token_of_pursuit_has_a_weight(share):
    counts = {"num_tokens": (4, 1, 4 * share), "num_nearest": (2, 1, 2 * share)}
    quantizer = make(kind="pursuit", **counts, regions=Regions(40, 40, 80))
    rng = np.random.default_rng(0)
    quantizer.set_codebook(jnp.asarray(rng.normal(size=(160, WIDTH)) + 0.5, jnp.float32))
    for region, count in (("text", 4), ("graph", 1), ("shared", 4 * share)):
        found = quantizer(quantizer.prepare(jnp.asarray(rng.normal(size=(200, WIDTH)))), region)
        assert found.ids.shape == (200, count)
        assert np.asarray(found.weights).min() >= SMALLEST_WEIGHT
        assert all(len(set(row)) == count for row in np.asarray(found.ids).tolist())


def test_short_vectors_have_a_bounded_slope():
    for length in (0.0, 1e-6, 1e-3, 1.0):
        x = jnp.full((WIDTH,), length / WIDTH**0.5)
        slope = jnp.linalg.norm(jax.jacobian(l2_normalize)(x), 2)
        assert slope <= 1.01 / max(length, SHORTEST)
    long = np.random.default_rng(0).normal(size=(5, WIDTH)).astype(np.float32)
    wanted = long / np.linalg.norm(long, axis=1, keepdims=True)
    np.testing.assert_allclose(l2_normalize(jnp.asarray(long)), wanted, rtol=1e-6)


def test_mixing_weights_are_those_of_least_squares_that_are_not_negative():
    rng = np.random.default_rng(0)
    rows, e = unit(rng.normal(size=(50, 3, WIDTH)) + 1.5), unit(rng.normal(size=(50, WIDTH)) + 1.5)
    products = np.einsum("bkd,bd->bk", rows, e)
    found = np.asarray(mixing_weights(jnp.asarray(products, jnp.float32), jnp.asarray(rows, jnp.float32), 0.0))
    assert (found >= 0).all()
    exact = 0
    for number in range(50):
        best, _ = nnls(rows[number].T, e[number])
        error = np.linalg.norm(e[number] - found[number] @ rows[number])
        if np.all(np.linalg.lstsq(rows[number].T, e[number], rcond=None)[0] > 0):
            np.testing.assert_allclose(found[number], best, atol=1e-3)
            exact += 1
        assert np.linalg.norm(e[number] - best @ rows[number]) - 1e-5 <= error <= 1.0
        # No scaling of the mixture comes closer.
        left = e[number] - found[number] @ rows[number]
        np.testing.assert_allclose(left @ (found[number] @ rows[number]), 0.0, atol=1e-4)
    assert 5 < exact < 50
    assert not np.any(mixing_weights(jnp.zeros((1, 2)), jnp.zeros((1, 2, WIDTH))))


def test_which_kinds_search_unit_rows():
    rows = 3.0 * np.random.default_rng(0).normal(size=(SIZES.size, WIDTH)).astype(np.float32)
    for kind, normalize, wanted in (
        *(("top_k", True, unit(rows)), ("top_k", False, rows), ("residual", True, rows)),
        *(("pursuit", True, unit(rows)), ("pursuit", False, unit(rows))),
    ):
        quantizer = make(kind=kind, normalize=normalize)
        quantizer.set_codebook(jnp.asarray(rows))
        np.testing.assert_allclose(quantizer.codebook(), wanted, atol=1e-6)
        prepared = quantizer.prepare(jnp.asarray(rows, jnp.bfloat16))
        assert prepared.dtype == jnp.float32
        np.testing.assert_allclose(prepared, unit(rows) if normalize else rows, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("kind", ["top_k", "residual", "pursuit"])
@pytest.mark.parametrize("normalize", [True, False])
def test_the_output_passes_its_gradient_to_the_embedding_unchanged(kind, normalize):
    quantizer = make(kind=kind, normalize=normalize)
    direction = np.random.default_rng(5).normal(size=(BATCH, WIDTH)).astype(np.float32)
    loss, params = split_loss(quantizer, "graph", lambda q: (q.output * direction).sum())
    to_params, to_embedding = jax.grad(loss, argnums=(0, 1))(params, jnp.asarray(embeddings(quantizer)))
    np.testing.assert_allclose(to_embedding, direction, atol=1e-6)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(to_params))


@pytest.mark.parametrize("kind", ["top_k", "residual", "pursuit"])
@pytest.mark.parametrize("normalize", [True, False])
def test_the_vector_passes_its_gradient_to_its_rows_alone(kind, normalize):
    quantizer = make(kind=kind, normalize=normalize)
    book = np.asarray(quantizer.rows[...]) * np.linspace(0.5, 2, SIZES.size)[:, None].astype(np.float32)
    quantizer.set_codebook(jnp.asarray(book))
    e = jnp.asarray(embeddings(quantizer))
    direction = np.random.default_rng(5).normal(size=(BATCH, WIDTH)).astype(np.float32)
    loss, params = split_loss(quantizer, "shared", lambda q: (q.vector * direction).sum())
    to_params, to_embedding = jax.grad(loss, argnums=(0, 1))(params, e)
    assert not np.any(to_embedding)
    found = quantizer(e, "shared")
    wanted = np.zeros((SIZES.size, WIDTH))
    for row in range(BATCH):
        for token, weight in zip(found.ids[row], found.weights[row], strict=True):
            wanted[token] += weight * direction[row]
    if kind == "pursuit" or (normalize and kind == "top_k"):  # Through the normalization r / |r| of each row.
        for token, row in enumerate(book):
            length = np.linalg.norm(row)
            wanted[token] = (np.eye(WIDTH) - np.outer(row, row) / length**2) @ wanted[token] / length
    np.testing.assert_allclose(to_params["rows"][...], wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["top_k", "residual", "pursuit"])
def test_weights_carry_no_gradient_and_distances_do(kind):
    quantizer = make(kind=kind)
    direction = np.random.default_rng(5).normal(size=(BATCH, 3)).astype(np.float32)
    loss, params = split_loss(quantizer, "text", lambda q: (q.weights * direction).sum())
    gradients = jax.grad(loss, argnums=(0, 1))(params, jnp.asarray(embeddings(quantizer)))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))
    loss, params = split_loss(quantizer, "text", lambda q: q.distances.sum())
    gradients = jax.grad(loss, argnums=(0, 1))(params, jnp.asarray(embeddings(quantizer)))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
@pytest.mark.parametrize("kind", ["top_k", "residual", "pursuit"])
@pytest.mark.parametrize("normalize", [True, False])
def test_gradients_are_finite_at_distance_zero(gradient, kind, normalize):
    quantizer = make(gradient=gradient, kind=kind, normalize=normalize)
    book = np.asarray(quantizer.rows[...]).copy()
    book[:2] = np.eye(WIDTH)[:2]
    quantizer.set_codebook(jnp.asarray(book))
    e = jnp.asarray(np.concatenate([book[:3], np.zeros((1, WIDTH), np.float32)]))

    def everything(q):
        return (
            q.distances.sum() + (q.output**3).sum() + (q.vector**3).sum() + jax.nn.log_softmax(-q.distances)[:, 0].sum()
        )

    loss, params = split_loss(quantizer, "text", everything)

    def prepared(params, e):
        return loss(params, quantizer.prepare(e))

    value, gradients = jax.value_and_grad(prepared, argnums=(0, 1))(params, e)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_straight_through():
    e, v = np.random.default_rng(0).normal(size=(2, BATCH, WIDTH)).astype(np.float32)
    output, back = jax.vjp(straight_through, jnp.asarray(e), jnp.asarray(v))
    np.testing.assert_allclose(output, v, atol=1e-6)
    to_e, to_v = back(jnp.asarray(e))
    np.testing.assert_array_equal(to_e, e)
    assert not np.any(to_v)


@pytest.mark.parametrize("lengths", [(1.0, 1.0), (2.5, 0.4)])
def test_rotation_trick_against_its_matrix(lengths):
    rng = np.random.default_rng(0)
    e, v = (length * unit(rng.normal(size=(BATCH, WIDTH))) for length in lengths)
    direction = rng.normal(size=(BATCH, WIDTH))
    output, back = jax.vjp(lambda x: rotation_trick(x, jnp.asarray(v, jnp.float32)), jnp.asarray(e, jnp.float32))
    np.testing.assert_allclose(output, v, atol=1e-6)
    (found,) = back(jnp.asarray(direction, jnp.float32))
    for row in range(BATCH):
        unit_e, unit_v = unit(e[row]), unit(v[row])
        middle = unit(unit_e + unit_v)
        rotation = np.eye(WIDTH) - 2 * np.outer(middle, middle) + 2 * np.outer(unit_v, unit_e)
        scaled = np.linalg.norm(v[row]) / np.linalg.norm(e[row]) * rotation
        # The reference is what the paper means: a rotation and scaling that carries e onto its code.
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(WIDTH), atol=1e-9)
        np.testing.assert_allclose(scaled @ e[row], v[row], atol=1e-9)
        np.testing.assert_allclose(found[row], scaled.T @ direction[row], atol=1e-5)


@pytest.mark.parametrize("case", ["equal", "opposite", "zero embedding", "zero code"])
def test_rotation_trick_is_finite_where_it_degenerates(case):
    e = np.eye(WIDTH, dtype=np.float32)[:1]
    e, v = {"equal": (e, e), "opposite": (e, -e), "zero embedding": (0 * e, e), "zero code": (e, 0 * e)}[case]
    output, back = jax.vjp(lambda x: rotation_trick(x, jnp.asarray(v)), jnp.asarray(e))
    np.testing.assert_allclose(output, v, atol=1e-6)
    assert np.isfinite(back(jnp.ones_like(e))[0]).all()


def test_the_quantizer_uses_the_rotation():
    quantizer = make(gradient="rotation")
    e = jnp.asarray(embeddings(quantizer))
    direction = jnp.asarray(np.random.default_rng(5).normal(size=(BATCH, WIDTH)), jnp.float32)
    vector = quantizer(e, "text").vector
    (wanted,) = jax.vjp(lambda x: rotation_trick(x, vector), e)[1](direction)
    (found,) = jax.vjp(lambda x: quantizer(x, "text").output, e)[1](direction)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert np.abs(found - direction).max() > 0.1


def test_simvq_learns_a_map_of_a_frozen_basis():
    quantizer = make(simvq=True)
    assert isinstance(quantizer.rows, FrozenBasis)
    change = np.random.default_rng(0).normal(size=(WIDTH, WIDTH)).astype(np.float32)
    quantizer.projection[...] = jnp.asarray(change)
    np.testing.assert_allclose(quantizer.codebook(), unit(np.asarray(quantizer.rows[...]) @ change), atol=1e-5)
    loss, params = split_loss(quantizer, "text", lambda q: (q.vector[:, 0]).sum())
    assert list(params) == ["projection"]
    gradient = jax.grad(loss)(params, jnp.asarray(embeddings(quantizer)))["projection"][...]
    assert np.abs(gradient).max() > 1e-3


@pytest.mark.parametrize("kind", ["top_k", "residual", "pursuit"])
def test_ema_update_by_hand(kind):
    quantizer = make(kind=kind, ema_decay=0.9)
    assert isinstance(quantizer.rows, EmaState)
    assert not jax.tree.leaves(nnx.state(quantizer, nnx.Param))
    count, total = np.ones(SIZES.size), np.asarray(quantizer.rows[...], np.float64)
    for step in range(3):
        before = np.asarray(quantizer.rows[...], np.float64)
        e = embeddings(quantizer, seed=step)
        valid = np.array([True, True, False, True])
        found = quantizer(jnp.asarray(e), "shared")
        new_count, new_total = np.zeros(SIZES.size), np.zeros((SIZES.size, WIDTH))
        for row in np.flatnonzero(valid):
            left = e[row].astype(np.float64)
            unit_or_not = unit(before) if kind == "pursuit" else before
            for token, weight in zip(np.asarray(found.ids[row]), np.asarray(found.weights[row]), strict=True):
                new_count[token] += weight
                new_total[token] += weight * left
                left = left - weight * unit_or_not[token] if kind != "top_k" else left
        for token in np.flatnonzero(new_count):
            count[token] = 0.9 * count[token] + 0.1 * new_count[token]
            total[token] = 0.9 * total[token] + 0.1 * new_total[token]
        wanted = np.where((new_count > 0)[:, None], total / count[:, None], before)
        quantizer.ema_update(jnp.asarray(e), found.ids, found.weights, jnp.asarray(valid))
        np.testing.assert_allclose(quantizer.rows[...], wanted, atol=1e-5)
    assert np.all(new_count[: SIZES.text + SIZES.graph] == 0)
    assert np.abs(wanted - before).max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"simvq": True}, {"ema_decay": 0.9}])
def test_set_codebook_replaces_rows_and_forgets(options):
    quantizer = make(**options)
    e = jnp.asarray(embeddings(quantizer))
    if "simvq" in options:
        quantizer.projection[...] = 2.0 * jnp.ones((WIDTH, WIDTH))
    if "ema_decay" in options:
        found = quantizer(e, "text")
        quantizer.ema_update(e, found.ids, found.weights, jnp.ones(BATCH, bool))
    rows = l2_normalize(jnp.asarray(np.random.default_rng(9).normal(size=(SIZES.size, WIDTH))))
    quantizer.set_codebook(rows)
    np.testing.assert_allclose(quantizer.codebook(), rows, atol=1e-6)
    if "ema_decay" in options:
        np.testing.assert_array_equal(quantizer.ema_count[...], 1.0)
        np.testing.assert_array_equal(quantizer.ema_sum[...], rows)


def test_the_whole_book_can_be_searched_by_the_shared_embeddings_alone():
    """The shared embeddings search as in the published code; the specific ones stay in their regions."""
    quantizer = make(shared_search="book")
    e = embeddings(quantizer)
    book = np.asarray(quantizer.codebook())
    found = quantizer(jnp.asarray(e), "shared")
    nearest = np.argsort(-e @ book.T, axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(np.asarray(found.ids), nearest)
    assert found.distances.shape == (BATCH, SIZES.size)
    for region in ("text", "graph"):
        start, stop = SIZES.bounds(region)
        ids = np.asarray(quantizer(jnp.asarray(e), region).ids)
        assert start <= ids.min()
        assert ids.max() < stop
    assert np.asarray(make()(jnp.asarray(e), "shared").ids).min() >= SIZES.text + SIZES.graph
