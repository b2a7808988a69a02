"""The input pipeline against slow, code-by-code references on the hand-made data."""

import collections
import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtok_jax.batch import MISSING, ORDINARY, SELF, TIER, join_tiers, split_tiers, with_states
from medtok_jax.data.dataset import by_length
from medtok_jax.data.input_pipeline import (
    BatchBuilder,
    Budgets,
    EvalSource,
    TrainSource,
    eval_batches,
    train_batches,
)
from medtok_jax.data.masking import Masked
from medtok_jax.data.sampling import CodeSizes, Sampler, draw
from preprocessing.common.ragged import offsets_of
from tests.helpers.small_world import FACTS

ONE_SHAPE = Budgets((12,), ((256, 256),))


def assert_equal(found, wanted):
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@given(st.integers(0, 99), st.integers(1, 9), st.integers(1, 30))
def test_each_pass_sees_each_code_once(seed, batch_size, count):
    passes = 3
    steps = -(-passes * count // batch_size)
    seen = np.concatenate([draw(seed, step, batch_size, count) for step in range(steps)])
    for number in range(passes):
        assert sorted(seen[number * count : (number + 1) * count]) == list(range(count))


def test_a_draw_depends_on_seed_and_step_alone():
    wanted = [draw(1, step, 7, 50).tolist() for step in range(20)]
    for step in reversed(range(20)):
        draw(2, step, 7, 13)
        assert draw(1, step, 7, 50).tolist() == wanted[step]
    assert draw(2, 0, 7, 50).tolist() != wanted[0]
    assert len({tuple(part) for part in wanted}) == 20
    # Batches of another size (another number of accumulation steps) cut the same sequence.
    assert np.concatenate(wanted)[:100].tolist() == np.concatenate([draw(1, s, 10, 50) for s in range(10)]).tolist()


def resized(data, nodes: list[int], edges: list[int]):
    """The data with subgraphs of other sizes; only the sizes are right."""
    rows = len(nodes)
    table = dataclasses.replace(
        data.table, key=np.arange(rows).astype(str), node_offsets=offsets_of(nodes), edge_offsets=offsets_of(edges)
    )
    return dataclasses.replace(data, table=table, selected=np.arange(rows), text_id=np.arange(rows) % 11)


@given(
    sizes=st.lists(st.tuples(st.integers(0, 64), st.integers(0, 400)), min_size=1, max_size=20),
    a_device=st.integers(1, 24),
    seed=st.integers(0, 9),
)
def test_the_ladder_holds_any_batch(data, sizes, a_device, seed):
    nodes, edges = (np.array(column) for column in zip(*sizes, strict=True))
    budgets = Budgets.fit(resized(data, nodes.tolist(), edges.tolist()), 2 * a_device, 2, (16, 32))
    assert list(budgets.graphs) == sorted(set(budgets.graphs)), "rising, each shape once"
    rng = np.random.default_rng(seed)
    batches = [rng.integers(len(nodes), size=a_device) for _ in range(5)]
    batches += [np.full(a_device, np.argmax(nodes)), np.full(a_device, np.argmax(edges))]
    for rows in batches:
        in_nodes, in_edges = np.maximum(nodes[rows], 1).sum(), edges[rows].sum()
        shape = budgets.graph(int(in_nodes), int(in_edges))
        assert shape[0] > in_nodes, "padding needs a node of its own"
        assert shape[1] >= in_edges
        smaller = [g for g in budgets.graphs if g < shape]
        assert not any(n > in_nodes and e >= in_edges for n, e in smaller)
    assert budgets.length(16) == 16
    assert budgets.length(17) == 32


@pytest.mark.parametrize(
    ("nodes", "edges", "shape"), [(63, 64, (64, 64)), (64, 10, (128, 128)), (10, 65, (128, 128)), (1, 0, (64, 64))]
)
def test_a_shape_has_a_node_to_spare(nodes, edges, shape):
    assert Budgets((4,), ((64, 64), (128, 128))).graph(nodes, edges) == shape


def reference_code(data, row: int) -> dict:
    """One code's part of a batch, read from the table entry by entry."""
    table, text = data.table, data.text_id[row]
    nodes = range(table.node_offsets[row], table.node_offsets[row + 1])
    edges = range(table.edge_offsets[row], table.edge_offsets[row + 1])
    kinds = [SELF if place == table.self_node[row] else ORDINARY for place in range(len(nodes))]
    return {
        "states": [data.cache.states[i] for i in range(data.cache.offsets[text], data.cache.offsets[text + 1])],
        "node_id": [int(table.nodes[i]) for i in nodes] or [0],
        "hop": [int(table.hops[i]) for i in nodes] or [0],
        "kind": kinds or [MISSING],
        "edges": [(int(table.senders[i]), int(table.receivers[i]), int(table.relations[i])) for i in edges],
    }


def read_code(batch, slot: int) -> dict:
    """The same, out of a batch."""
    graph = batch.graph
    a_stack = graph.n_node.shape[1] - 1
    stack, place = slot // a_stack, slot % a_stack
    node, edge = graph.n_node[stack][:place].sum(), graph.n_edge[stack][:place].sum()
    nodes = slice(node, node + graph.n_node[stack][place])
    edges = slice(edge, edge + graph.n_edge[stack][place])
    ends = zip(
        graph.senders[stack][edges] - node, graph.receivers[stack][edges] - node, graph.edges[stack][edges], strict=True
    )
    return {
        "states": list(batch.text[slot][batch.text_mask[slot]]),
        **{name: graph.nodes[name][stack][nodes].tolist() for name in ("node_id", "hop", "kind")},
        "edges": [tuple(map(int, end)) for end in ends],
    }


@pytest.mark.parametrize("stacks", [1, 2, 3])
@pytest.mark.parametrize("small", [None, (8, 9)])
def test_a_batch_holds_what_the_table_holds(data, stacks, small):
    rng = np.random.default_rng(stacks)
    rows = rng.permutation(np.tile(np.arange(12), 2))
    if small:  # The large codes are few enough for every eighth slot.
        fits = (data.num_tokens(rows) <= small[0]) & (data.table.num_nodes[rows] <= small[1])
        rows = rng.permutation(np.concatenate([np.resize(rows[fits], 22), rows[~fits][:2]]))
    partner = np.where(rng.random(24) < 0.5, rng.integers(24, size=24), -1)
    valid = rng.random(24) < 0.8
    budgets = Budgets((4, 12), ((32, 32), (64, 64), (256, 256)), small)
    batch = BatchBuilder(data, budgets, num_stacks=stacks, local_stacks=range(stacks))(rows, valid, partner)
    assert batch.small == small

    # A code may have been given another slot; its partner and its validity went along.
    def triple(rows, valid, partner):
        return collections.Counter(
            (int(r), bool(v), int(rows[p]) if p >= 0 else -1) for r, v, p in zip(rows, valid, partner, strict=True)
        )

    assert triple(batch.index, batch.valid, batch.partner) == triple(rows, valid, partner)
    if not small:
        np.testing.assert_array_equal(batch.index, rows)
    for slot, row in enumerate(batch.index):
        found, wanted = read_code(batch, slot), reference_code(data, row)
        np.testing.assert_array_equal(found.pop("states"), wanted.pop("states"))
        assert found == wanted
        assert batch.text_id[slot] == data.text_id[row]
        assert batch.graph_id[slot] == data.table.graph_id[row]
        if small and slot % TIER != TIER - 1:
            assert len(found["node_id"]) <= small[1]
            assert batch.text_mask[slot].sum() <= small[0]
    graph = batch.graph
    np.testing.assert_array_equal(graph.n_node.sum(1), graph.nodes["hop"].shape[1])
    np.testing.assert_array_equal(graph.n_edge.sum(1), graph.edges.shape[1])
    for stack in range(stacks):  # Padding edges touch padding nodes alone.
        padding = slice(graph.n_edge[stack][:-1].sum(), None)
        first_spare = graph.n_node[stack][:-1].sum()
        assert graph.n_node[stack][-1] >= 1
        assert (graph.senders[stack][padding] >= first_spare).all()
        assert (graph.receivers[stack][padding] >= first_spare).all()
    assert not batch.text[~batch.text_mask].any()


def test_too_many_large_codes_stay_where_they_are(data):
    rows, order = np.arange(8), np.full(8, -1)
    budgets = dataclasses.replace(ONE_SHAPE, small=(2, 1))
    batch = BatchBuilder(data, budgets, num_stacks=1, local_stacks=[0])(rows, np.ones(8, bool), order)
    assert batch.small is None
    np.testing.assert_array_equal(batch.index, rows)


def test_tiers_are_split_and_joined():
    x = np.arange(48).reshape(24, 2)
    small, large = split_tiers(x)
    np.testing.assert_array_equal(large, x[[7, 15, 23]])
    np.testing.assert_array_equal(small, np.delete(x, [7, 15, 23], axis=0))
    np.testing.assert_array_equal(join_tiers(small, large), x)


def test_the_smallest_shapes_that_hold_a_batch(data):
    shortest = int(np.argmin(data.num_tokens(np.arange(12))))
    budgets = Budgets((4, 12, 20), ((16, 16), (64, 64), (256, 256)))
    builder = BatchBuilder(data, budgets, num_stacks=1, local_stacks=[0])
    batch = builder(np.array([shortest]), np.ones(1, bool), np.array([-1]))
    assert batch.text.shape[1] == 4
    batch = builder(np.arange(12), np.ones(12, bool), np.full(12, -1))
    assert batch.text.shape[1] == 12
    assert batch.graph.nodes["hop"].shape == (1, 256 if data.table.num_nodes.sum() >= 63 else 64)


def test_wordpieces_in_place_of_states(data):
    batch = BatchBuilder(data, ONE_SHAPE, num_stacks=1, local_stacks=[0], token_ids=True)(
        np.array([3, 4]), np.ones(2, bool), np.full(2, -1)
    )
    assert batch.text.dtype == np.int32
    for slot, row in enumerate((3, 4)):
        text = data.text_id[row]
        wanted = data.cache.token_ids[data.cache.offsets[text] : data.cache.offsets[text + 1]]
        np.testing.assert_array_equal(batch.text[slot][batch.text_mask[slot]], wanted)


@pytest.mark.parametrize("small", [None, (8, 9)])
@pytest.mark.parametrize("parts", [[[0, 1], [2, 3]], [[0], [1, 2], [3]]])
def test_the_parts_of_the_processes_are_the_whole(data, parts, small):
    rows = np.random.default_rng(0).integers(12, size=32)
    if small:
        rows = np.where((data.num_tokens(rows) <= 8) & (data.table.num_nodes[rows] <= 9), rows, 9)
    arguments = rows, np.arange(32) < 30, np.full(32, -1)
    budgets = dataclasses.replace(ONE_SHAPE, small=small)
    whole = BatchBuilder(data, budgets, num_stacks=4, local_stacks=range(4))(*arguments)
    pieces = [BatchBuilder(data, budgets, num_stacks=4, local_stacks=part)(*arguments) for part in parts]
    assert_equal(jax.tree.map(lambda *leaves: np.concatenate(leaves), *pieces), whole)


def make_source(data, relations=(), **options) -> TrainSource:
    builder = BatchBuilder(data, ONE_SHAPE, num_stacks=1, local_stacks=[0], positive_relations=relations)
    options = {"seed": 0, "batch_size": 4, "positive_relations": relations} | options
    steps = options.pop("steps", 9)
    return TrainSource(builder, Sampler(data, data.rows("train"), **options), steps)


def test_random_access_is_iteration(data):
    source = make_source(data)
    assert len(source) == 9
    for start in (0, 4):
        found = list(train_batches(source, start))
        assert len(found) == 9 - start
        for step, batch in enumerate(found, start):
            assert_equal(batch, source[step])


def test_training_sees_training_codes_alone(data):
    source = make_source(data)
    seen = collections.Counter(int(row) for step in range(9) for row in source[step].index)
    assert set(seen) == set(data.rows("train")) == {0, 1, 2, 3, 4, 5, 6, 8, 9, 11}
    assert set(data.rows("validation")) == {7}
    assert max(seen.values()) - min(seen.values()) <= 1
    assert all(batch.valid.all() and (batch.partner == -1).all() for batch in train_batches(source, 0))


def test_a_sample_leaves_the_other_codes_out(data):
    sampled = dataclasses.replace(data, selected=np.array([1, 2, 7]))
    np.testing.assert_array_equal(sampled.rows("train"), [1, 2])
    np.testing.assert_array_equal(sampled.rows("validation"), [7])


@pytest.mark.parametrize("relations", [("is_a", "maps_to"), ("parent_of",), ("maps_to", "no such relation")])
def test_partners_are_joined_by_a_relation_that_counts(data, relations):
    source = make_source(data, relations, batch_size=8, steps=60)
    train = set(data.rows("train").tolist())
    both = {"parent_of": "is_a"}
    facts = {fact for name in relations for fact in FACTS.get(both.get(name, name), [])}
    joined = {row: {b for a, b in facts | {(b, a) for a, b in facts} if a == row} & train for row in train}
    assert joined[9] == joined[11] == set(), "11 is no node of the graph"
    if "maps_to" not in relations:
        assert joined[2] == {0, 6}, "7 is held out"
    met = collections.defaultdict(set)
    for step in range(60):
        rows, partner = source.sampler.batch_rows(step)
        assert set(rows.tolist()) <= train
        np.testing.assert_array_equal(rows[::2], source.sampler.rows[draw(0, step, 4, len(source.sampler.rows))])
        for anchor in range(0, 8, 2):
            row = int(rows[anchor])
            if not joined[row]:
                assert partner[anchor] == partner[anchor + 1] == -1
                continue
            assert (partner[anchor], partner[anchor + 1]) == (anchor + 1, anchor)
            met[row].add(int(rows[anchor + 1]))
    assert {row: found for row, found in joined.items() if found} == met, (
        "all neighbors, sooner or later, and no others"
    )
    again = make_source(data, relations, batch_size=8, steps=60)
    np.testing.assert_array_equal(again.sampler.batch_rows(7)[0], source.sampler.batch_rows(7)[0])


def test_what_is_masked_is_not_in_the_batch(data):
    """Whole batches against the table; what is left of a subgraph is tested in test_subgraphs.py."""
    rows = np.arange(12)
    hidden = Masked.none(12)._replace(graph=rows % 3 == 0, text=rows % 3 == 1)
    for small in (None, (8, 9)):
        rows = np.arange(12) if small is None else np.resize(np.array([8, 9]), 12)
        budgets = dataclasses.replace(ONE_SHAPE, small=small)
        builder = BatchBuilder(data, budgets, num_stacks=2, local_stacks=range(2))
        batch = builder(np.resize(rows, 16), np.ones(16, bool), np.full(16, -1), hidden.take(np.resize(rows, 16)))
        for slot, row in enumerate(batch.index):
            found, wanted = read_code(batch, slot), reference_code(data, row)
            if hidden.graph[row]:
                wanted |= {"node_id": [0], "hop": [0], "kind": [MISSING], "edges": []}
            if hidden.text[row]:
                wanted["states"] = []
            np.testing.assert_array_equal(found.pop("states"), wanted.pop("states"))
            assert found == wanted
            assert (batch.text_id[slot] == -1) == hidden.text[row]
            assert (batch.graph_id[slot] == -1) == hidden.graph[row]


def test_states_on_the_device_make_the_same_batch(data):
    sampler = make_source(data, ("maps_to",), batch_size=12, mask_positives=0.6, modality_dropout=0.3).sampler
    arguments = (sampler.batch_rows(5)[0], np.ones(12, bool), np.full(12, -1), sampler.masked(5))
    assert arguments[-1].text.any()

    def make(on_device):
        return BatchBuilder(data, ONE_SHAPE, num_stacks=1, local_stacks=[0], states_on_device=on_device)(*arguments)

    whole, places = make(False), make(True)
    assert places.text.dtype == np.int32
    assert places.text.shape == whole.text.shape[:2]
    looked_up = with_states(places, data.tables(with_states=True))
    assert_equal(looked_up, whole)
    assert with_states(whole, data.tables(with_states=True)) is whole
    assert with_states(places, data.tables()) is places


def test_sizes_are_those_of_what_is_shown(data):
    sampler = make_source(data, ("maps_to",), batch_size=12, mask_positives=0.6, modality_dropout=0.2).sampler
    rows, hidden = sampler.batch_rows(5)[0], sampler.masked(5)
    sizes = CodeSizes.visible(data, rows, hidden, sampler.relations)
    whole = CodeSizes.unmasked(data, rows)
    assert (sizes.nodes < whole.nodes).any()
    batch = BatchBuilder(data, ONE_SHAPE, num_stacks=1, local_stacks=[0], positive_relations=("maps_to",))(
        rows, np.ones(12, bool), np.full(12, -1), hidden
    )
    np.testing.assert_array_equal(batch.graph.n_node[0, :-1], np.maximum(sizes.nodes, 1))
    np.testing.assert_array_equal(batch.graph.n_edge[0, :-1], sizes.edges)
    np.testing.assert_array_equal(whole.nodes, data.table.num_nodes[rows])
    several = sampler.sizes()
    np.testing.assert_array_equal(several.nodes[60:72], sizes.nodes)
    alike = make_source(data).sampler.sizes()
    np.testing.assert_array_equal(alike.edges, data.table.num_edges)


def test_how_much_is_masked(data):
    source = make_source(data, ("maps_to",), batch_size=4000, mask_positives=0.7, modality_dropout=0.1)
    positives, graph, text, link = source.sampler.masked(3)
    assert (link == -1).all()
    assert abs(positives.mean() - 0.7) < 0.03
    assert abs(graph.mean() - 0.1) < 0.02
    assert abs(text.mean() - 0.1) < 0.02
    assert not (graph & text).any()
    np.testing.assert_array_equal(source.sampler.masked(3), (positives, graph, text, link))
    assert (source.sampler.masked(4).positives != positives).any()
    assert not np.any(make_source(data).sampler.masked(3)[:3])


@pytest.mark.parametrize("batch_size", [5, 6, 16])
def test_evaluation_passes_once_and_fills_up_with_invalid_rows(data, batch_size):
    builder = BatchBuilder(data, ONE_SHAPE, num_stacks=1, local_stacks=[0])
    rows = np.arange(12)[::-1]
    source = EvalSource(builder, rows, batch_size)
    batches = list(eval_batches(source))
    assert len(batches) == len(source) == -(-12 // batch_size)
    assert all(len(batch.index) == batch_size for batch in batches)
    valid = np.concatenate([batch.valid for batch in batches])
    np.testing.assert_array_equal(np.concatenate([batch.index for batch in batches])[valid], rows)
    assert valid.sum() == 12


def test_by_length(data):
    rows = by_length(data, np.arange(12))
    assert sorted(rows) == list(range(12))
    lengths = [len(reference_code(data, row)["states"]) for row in rows]
    assert lengths == sorted(lengths)
