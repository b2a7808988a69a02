"""Batches against loops over the events of each sample: positions, expanded tokens and the graphs of visits."""

import dataclasses

import numpy as np
import pytest

from eval.ehr.inputs import Sequences, sequences, statics
from eval.ehr.models import batches
from eval.ehr.models.batches import Patients, Shape, fit_shape, read_sequences, standardized_statics
from eval.ehr.models.windows import scale_of_statics
from tests.helpers.planted_patients import patients, single_codes, some_tokens

INPUTS, Y = patients(9, signal="order")


def make(shape: Shape, made: Sequences | None = None) -> Patients:
    made = sequences(INPUTS, 256) if made is None else made
    return Patients(made, statics(INPUTS), Y[:, None].astype(np.float32), shape)


def test_the_shape_is_the_least_that_holds_all():
    made = sequences(INPUTS, 256)
    assert fit_shape([made], graphs=True) == Shape(16, 4)
    assert fit_shape([made], graphs=False) == Shape(16, 0)
    longer = dataclasses.replace(made, mask=np.ones_like(made.mask))
    assert fit_shape([made, longer], graphs=False).length == 256


def test_expanded_tokens_take_positions_in_the_order_of_codes():
    matrix = some_tokens(expanded=True)
    plain, found = sequences(INPUTS, 256), read_sequences(INPUTS, matrix, 256)
    for row in range(len(INPUTS)):
        expected = []
        for place in np.flatnonzero(plain.mask[row]):
            features = matrix.weights[plain.code[row, place]].indices
            expected += [(feature, plain.visit[row, place], plain.days[row, place]) for feature in features]
        kept = found.mask[row]
        assert kept[: kept.sum()].all()
        values = zip(found.code[row][kept], found.visit[row][kept], found.days[row][kept], strict=True)
        assert list(values) == expected


def test_of_many_tokens_the_latest_are_kept():
    matrix = some_tokens(expanded=True)
    found, short = (read_sequences(INPUTS, matrix, length) for length in (256, 8))
    for row in range(len(INPUTS)):
        assert short.mask[row].all()
        np.testing.assert_array_equal(short.code[row], found.code[row][found.mask[row]][-8:])
    assert read_sequences(INPUTS, single_codes(), 8).code.shape == (9, 8)


def edges_of(graphs, patient: int, length: int, visits: int, count: int) -> set[tuple]:
    """Return the edges of a patient's graphs as pairs of `("code", position)` or `("visit", number)`."""

    def name(node: int) -> tuple[str, int] | None:
        if node < count * length:
            return ("code", node % length) if node // length == patient else None
        node -= count * length
        return ("visit", node % visits) if node // visits == patient else None

    pairs = zip(graphs.senders[graphs.edge_mask], graphs.receivers[graphs.edge_mask], strict=True)
    return {(name(a), name(b)) for a, b in pairs if name(a) and name(b)}


@pytest.mark.parametrize(("visits", "most"), [(4, 64), (2, 64), (4, 2)])
def test_graphs_join_the_codes_of_a_visit_and_its_readout(visits, most, monkeypatch):
    monkeypatch.setattr(batches, "MOST_NODES", most)
    made = make(Shape(32, visits))
    rows = np.array([4, 0, 7])
    edges = made.edges_of(rows[None])
    batch = made.batch(rows, np.ones(3, bool), edges)
    total = 0
    for place in range(3):
        expected = set()
        for visit in range(visits):
            where = np.flatnonzero(batch.mask[place] & (batch.visit[place] == visit))[-most:]
            assert batch.graphs.visit_mask[place, visit] == bool(len(where))
            nodes = [("code", int(one)) for one in where] + [("visit", visit)] * bool(len(where))
            expected |= {(a, b) for a in nodes for b in nodes}
        assert edges_of(batch.graphs, place, batch.mask.shape[1], visits, 3) == expected
        total += len(expected)
    assert batch.graphs.edge_mask.sum() == total == made.num_edges[rows].sum()
    assert len(batch.graphs.senders) == edges[batch.mask.shape[1]] >= total


def test_the_latest_visits_are_kept():
    whole, two = make(Shape(32, 4)), make(Shape(32, 2))
    for row in range(len(INPUTS)):
        last = whole.arrays["visit"][row].max()
        kept = whole.arrays["mask"][row] & (whole.arrays["visit"][row] >= last - 1)
        np.testing.assert_array_equal(two.arrays["mask"][row], kept)
        assert set(two.arrays["visit"][row][kept]) == {0, 1}


def test_batches_by_length_hold_each_sample_once():
    made = make(Shape(32, 0))
    found = list(made.by_length(4))
    assert [len(batch.valid) for _, batch in found] == [4, 4, 4]
    rows = np.concatenate([rows[batch.valid] for rows, batch in found])
    assert sorted(rows) == list(range(9))
    assert (np.diff(made.sizes[rows]) >= 0).all()
    outcome = np.concatenate([batch.outcome[batch.valid] for _, batch in found])
    np.testing.assert_array_equal(outcome[:, 0], Y[rows])


def test_a_batch_has_the_positions_that_its_longest_sample_needs():
    long = sequences(INPUTS, 256)
    long.mask[:] = np.arange(256) < np.array([3, 16, 17, 40, 1, 2, 200, 5, 0])[:, None]
    made = make(Shape(256, 4), dataclasses.replace(long, visit=np.zeros_like(long.visit)))
    for rows, length in (([0, 4], 16), ([1, 8], 16), ([2, 0], 32), ([3], 64), ([6, 8], 256)):
        rows = np.array(rows)
        edges = made.edges_of(rows[None])
        batch = made.batch(rows, np.ones(len(rows), bool), edges)
        assert batch.code.shape == batch.mask.shape == (len(rows), length)
        assert batch.mask.sum() == long.mask[rows].sum()
        assert list(edges) == [length]
        assert edges[length] >= batch.graphs.edge_mask.sum() == made.num_edges[rows].sum()


@pytest.mark.parametrize("visits", [4, 1])
def test_batches_of_a_fixed_shape_hold_the_same_padded_further(visits):
    made = make(Shape(32, visits))
    # One visit of many codes has more edges than several of few.
    fixed = make(Shape(32, visits, is_fixed=True))
    rows = np.array([4, 0, 7])
    plain, padded = (one.batch(rows, np.ones(3, bool), one.edges_of(rows[None])) for one in (made, fixed))
    length = plain.code.shape[1]
    assert padded.code.shape == (3, 32)
    assert not padded.mask[:, length:].any()
    for name in ("code", "mask", "age", "days", "visit"):
        np.testing.assert_array_equal(getattr(padded, name)[:, :length], getattr(plain, name))
    for patient in range(3):
        found = edges_of(padded.graphs, patient, 32, visits, 3)
        assert found == edges_of(plain.graphs, patient, length, visits, 3)
    np.testing.assert_array_equal(padded.graphs.visit_mask, plain.graphs.visit_mask)


@pytest.mark.parametrize("fill", [0, 5, 32])
def test_a_fixed_shape_has_room_for_all_edges(fill):
    """All shapes agree, whatever the samples, and the most edges of 32 codes fit: those of a single visit."""
    full = sequences(INPUTS, 32)
    one_visit = dataclasses.replace(full, mask=np.arange(32) < np.full((9, 1), fill), visit=np.zeros_like(full.visit))
    fixed = make(Shape(32, 4, is_fixed=True), one_visit)
    shapes = set()
    for _, batch in fixed.by_length(4):
        assert batch.graphs.edge_mask.sum() == (4 * (fill + 1) ** 2 if fill else 0)
        shapes.add(tuple(array.shape for array in (*batch[:-1], *batch.graphs)))
        assert len(batch.graphs.senders) == 4 * 33**2
    assert len(shapes) == 1


def test_statics_are_standardized_by_the_training_samples():
    train, rest = INPUTS.take(np.arange(5)), INPUTS.take(np.arange(5, 9))
    known = statics(INPUTS).astype(np.float64)
    found = standardized_statics(train, [rest])
    np.testing.assert_allclose(found[0].mean(axis=0), 0, atol=1e-5)
    spread = known[:5].std(axis=0)
    np.testing.assert_allclose(found[1], (known[5:] - known[:5].mean(axis=0)) / spread, atol=1e-5)


def test_statics_that_only_rounding_moves_are_constant():
    known = np.full((50, 4), 0.7, np.float32)
    known[::2, 1] += 1e-7
    known[::2, 2] += 0.5
    center, spread = scale_of_statics(known)
    np.testing.assert_allclose(spread, [1, 1, 0.25, 1], rtol=1e-6)
    assert np.abs((known - center) / spread)[:, [0, 1, 3]].max() < 1e-6
