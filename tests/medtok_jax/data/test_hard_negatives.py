"""Near texts against a search of all pairs in whole numbers, and hard negatives drawn from them."""

import collections
import dataclasses

import numpy as np
import pytest

from medtok_jax.data import hard_negatives
from medtok_jax.data.hard_negatives import SCALE, HardNegatives, nearest, whole_vectors
from medtok_jax.data.positives import Positives, both_directions
from medtok_jax.data.sampling import Sampler
from tests.helpers.crosswalk_world import PAIRS, divided, make_codes


def reference(vectors: np.ndarray, count: int) -> np.ndarray:
    """The nearest of each by all inner products in whole numbers, ties to the lower position."""
    products = vectors.astype(np.int64) @ vectors.astype(np.int64).T
    np.fill_diagonal(products, -(2**40))
    found = np.argsort(-products, axis=1, kind="stable")[:, :-1][:, :count]
    return np.pad(found, ((0, 0), (0, count - found.shape[1])), constant_values=-1)


@pytest.mark.parametrize(("size", "count"), [(1, 3), (2, 3), (63, 5), (64, 5), (500, 7), (700, 50)])
@pytest.mark.parametrize("block", [2**25, 2**12])
def test_nearest_by_all_products(size, count, block, monkeypatch):
    monkeypatch.setattr(hard_negatives, "BLOCK", block)
    rng = np.random.default_rng(size)
    # Some thirds are alike, so that there are ties within groups and between them.
    vectors = rng.integers(-300, 300, size=(size, 6)).astype(np.int16)
    vectors[rng.integers(size, size=size // 3)] = vectors[0]
    np.testing.assert_array_equal(nearest(vectors, count), reference(vectors, count))


def test_vectors_are_rounded_means(data):
    texts = np.array([3, 0, 5])
    found = whole_vectors(data.cache, texts)
    for vector, text in zip(found, texts, strict=True):
        mean = data.cache.states[data.cache.offsets[text] : data.cache.offsets[text + 1]].astype(float).mean(0)
        np.testing.assert_allclose(vector / SCALE, mean / np.linalg.norm(mean), atol=0.5 / SCALE + 1e-9)


def test_products_of_such_vectors_are_exact_in_float32():
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(200, 384)) + 3 * rng.normal(size=384)
    vectors = np.rint(SCALE * unit / np.linalg.norm(unit, axis=1, keepdims=True)).astype(np.int16)
    products = vectors.astype(np.float32) @ vectors.astype(np.float32).T
    np.testing.assert_array_equal(products, vectors.astype(np.int64) @ vectors.astype(np.int64).T)
    assert products.max() < 2**24


@pytest.fixture(scope="module")
def world():
    """Two systems of 60 codes; codes 0 and 1 of the first have one text, and so have the codes 0 of both systems."""
    data = make_codes(divided()[0]).data
    text_id = data.text_id.copy()
    text_id[1] = text_id[PAIRS] = text_id[0]
    return dataclasses.replace(data, text_id=text_id)


@pytest.fixture(scope="module")
def hard(world, tmp_path_factory):
    return HardNegatives(world, world.rows("train"), tmp_path_factory.mktemp("cache"), progress=False)


def no_positives(data) -> Positives:
    return Positives(data, data.rows("train"), both_directions(data.table.graph, ()))


def test_they_are_near_codes_of_the_same_system_and_another_text(world, hard):
    anchors = np.repeat([0, 1, 7, PAIRS, PAIRS + 9], 3000)
    drawn = hard.draw(anchors, no_positives(world), np.random.default_rng(0))
    vectors = whole_vectors(world.cache, world.text_id)
    met = collections.defaultdict(set)
    for anchor, row in zip(anchors.tolist(), drawn.tolist(), strict=True):
        met[anchor].add(row)
    for anchor, rows in met.items():
        system = range(PAIRS) if anchor < PAIRS else range(PAIRS, 2 * PAIRS)
        others = [row for row in system if world.text_id[row] != world.text_id[anchor]]
        products = {row: int(vectors[anchor].astype(np.int64) @ vectors[row]) for row in others}
        # Two codes of one text count once.
        texts = sorted({world.text_id[row]: product for row, product in products.items()}.items(), key=lambda x: -x[1])
        near = {text for text, _ in texts[: hard_negatives.NEIGHBORS]}
        assert {world.text_id[row] for row in rows} == near
        assert rows <= set(others)


def test_partners_are_none(world, hard):
    relations = both_directions(world.table.graph, ("gem_exact",))
    # Let the crosswalk join codes of one system, whose texts are near one another.
    near = hard.neighbors[hard.item_of_row[7]]
    forbidden = [int(hard.rows[hard.offsets[item]]) for item in near[:45]]

    class Joined(Positives):
        def joined(self, anchors):
            owner, row = np.meshgrid(np.arange(len(anchors)), forbidden, indexing="ij")
            return owner.reshape(-1), row.reshape(-1)

    everything = Joined(world, world.rows("train"), relations)
    drawn = hard.draw(np.full(2000, 7), everything, np.random.default_rng(0))
    assert set(drawn.tolist()) == {int(hard.rows[hard.offsets[item]]) for item in near[45:]}


def test_a_code_without_near_codes_has_none(world, tmp_path):
    rows = np.array([0, PAIRS])
    alone = HardNegatives(world, rows, tmp_path, progress=False)
    assert alone.draw(rows, no_positives(world), np.random.default_rng(0)).tolist() == [-1, -1]


def test_neighbors_are_found_once(world, tmp_path, monkeypatch):
    first = HardNegatives(world, world.rows("train"), tmp_path, progress=False)
    (kept,) = tmp_path.glob("neighbors-*")
    monkeypatch.setattr(hard_negatives, "_find", None)
    again = HardNegatives(world, world.rows("train"), tmp_path, progress=False)
    np.testing.assert_array_equal(first.neighbors, again.neighbors)
    # Other texts are others to find.
    states = world.cache.states[::-1].copy()
    other = dataclasses.replace(world, cache=dataclasses.replace(world.cache, states=states))
    with pytest.raises(TypeError):
        HardNegatives(other, world.rows("train"), tmp_path, progress=False)
    assert list(tmp_path.glob("neighbors-*")) == [kept]


def make_sampler(world, hard, **options) -> Sampler:
    given = {"seed": 3, "batch_size": 40, "positive_relations": ("gem_exact",)} | options
    return Sampler(world, world.rows("train"), hard_negatives=hard, **given)


def test_they_fill_places_that_no_positive_needs(world, hard):
    alone, with_hard = make_sampler(world, None), make_sampler(world, hard, hard_share=0.3)
    changed = 0
    for step in range(20):
        (before, partner), (after, still) = alone.batch_rows(step), with_hard.batch_rows(step)
        np.testing.assert_array_equal(partner, still)
        np.testing.assert_array_equal(before[::2], after[::2])
        different = np.flatnonzero(before != after)
        assert (partner[different] == -1).all()
        assert len(different) <= 6
        changed += len(different)
        # Each comes from an anchor of the batch.
        near = hard.neighbors[hard.item_of_row[after[::2]]]
        assert set(hard.item_of_row[after[different]]) <= set(near.reshape(-1).tolist())
    assert changed > 20 * 3


def test_each_step_has_its_own_whatever_came_before(world, hard):
    sampler, again = (make_sampler(world, hard, hard_share=0.5) for _ in range(2))
    wanted = [sampler.batch_rows(step) for step in range(6)]
    for step in reversed(range(6)):
        np.testing.assert_array_equal(again.batch_rows(step), wanted[step])
    assert any((one[0] != other[0]).any() for one, other in zip(wanted[1:], wanted[:-1], strict=True))


def test_without_positives_every_place_is_free(world, hard):
    rows, partner = make_sampler(world, hard, positive_relations=(), hard_share=1.0).batch_rows(0)
    assert (partner == -1).all()
    near = set(hard.neighbors[hard.item_of_row[rows[::2]]].reshape(-1).tolist())
    assert set(hard.item_of_row[rows[1::2]]) <= near
