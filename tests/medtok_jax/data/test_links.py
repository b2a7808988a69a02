"""Links that are to be predicted against the facts of the hand-made data."""

import collections
import dataclasses

import jax
import numpy as np

from medtok_jax.data.input_pipeline import BatchBuilder, Budgets, TrainSource
from medtok_jax.data.links import LinkSampler
from medtok_jax.data.sampling import Sampler
from tests.helpers.small_world import FACTS, REVERSE

RELATIONS = ("is_a", "has_phenotype")
LARGE = Budgets((12,), ((512, 512),))


def true_links() -> dict[int, set[tuple[str, int]]]:
    """The links of each code; codes below 10 are the nodes of their numbers."""
    facts = {(a, name, b) for name in RELATIONS for a, b in FACTS[name]}
    facts |= {(b, REVERSE[name], a) for a, name, b in facts}
    found = collections.defaultdict(set)
    for a, name, b in facts:
        found[a].add((name, b))
    return found


def make_source(data, stacks=1, local_stacks=(0,), **options) -> TrainSource:
    given = {"seed": 0, "batch_size": 16, "link_relations": RELATIONS} | options
    builder = BatchBuilder(data, LARGE, num_stacks=stacks, local_stacks=local_stacks)
    return TrainSource(builder, Sampler(data, data.rows("train"), **given), 40)


def test_links_are_facts_and_each_relation_is_as_likely(data):
    wanted, names = true_links(), data.table.graph.relation_names
    rows = np.repeat([3, 0, 1, 9, 11, 10], 500)
    drawn = LinkSampler(data, RELATIONS).draw(rows, np.random.default_rng(0))
    met = collections.defaultdict(collections.Counter)
    for row, relation, node in zip(rows.tolist(), drawn.relation.tolist(), drawn.node.tolist(), strict=True):
        assert (relation == -1) == (node == -1) == (row in {9, 10, 11})
        if node >= 0:
            met[row][names[relation], node] += 1
    # The phenotype 10 of its parent is none of code 3.
    assert set(met[3]) == {("is_a", 1), ("has_phenotype", 11)}
    for row, counts in met.items():
        assert set(counts) == wanted[row]
        relations = collections.Counter(name for name, _ in wanted[row])
        for (name, node), count in counts.items():
            assert abs(count / 500 - 1 / len(relations) / relations[name]) < 0.08, (row, name, node)


def test_what_is_true_too_is_known(data):
    wanted, names = true_links(), data.table.graph.relation_names
    rows = np.repeat(np.arange(12), 4)
    drawn = LinkSampler(data, RELATIONS).draw(rows, np.random.default_rng(1))
    for row, relation, node, known in zip(rows, drawn.relation, drawn.node, drawn.known, strict=True):
        if node < 0:
            assert not known.any()
            continue
        same = drawn.node == node
        assert known[same].all()
        for other in np.flatnonzero(known & ~same):
            assert (names[relation], int(drawn.node[other])) in wanted[int(row)]
        true = [other for other, b in enumerate(drawn.node) if (names[relation], int(b)) in wanted[int(row)]]
        assert set(np.flatnonzero(known)) == set(true)


def test_nodes_of_one_name_are_no_negatives(data):
    twins = dataclasses.replace(data, node_name=np.where(np.arange(14) == 0, 2, data.node_name).astype(np.int32))
    drawn = LinkSampler(twins, ("is_a",)).draw(np.array([1, 3, 1, 3]), np.random.default_rng(3))
    for i, j in np.argwhere((drawn.node[:, None] == 0) & (drawn.node == 1)):
        assert drawn.known[i, j]
        assert drawn.known[j, i]


def test_a_node_that_is_predicted_is_in_no_subgraph(data):
    hidden = 0
    for step in range(5):
        batch = make_source(data)[step]
        graph = batch.graph
        stops = np.cumsum(graph.n_node[0])
        for slot in np.flatnonzero(batch.links.node >= 0):
            mine = graph.nodes["node_id"][0][stops[slot] - graph.n_node[0][slot] : stops[slot]]
            assert batch.links.node[slot] not in mine
            hidden += 1
    assert hidden > 30


def test_a_step_has_its_links_whatever_came_before_and_the_processes_have_their_parts(data):
    whole = make_source(data, stacks=4, local_stacks=range(4))
    wanted = whole[7]
    whole[3]
    pieces = [make_source(data, stacks=4, local_stacks=part)[7] for part in ([0, 1], [2], [3])]
    jax.tree.map(np.testing.assert_array_equal, whole[7], wanted)
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *pieces)
    jax.tree.map(np.testing.assert_array_equal, joined, wanted)
    assert (whole[8].links.node != wanted.links.node).any()


def test_links_go_along_when_codes_change_their_slots(data):
    drawn = LinkSampler(data, RELATIONS).draw(np.arange(12), np.random.default_rng(0))
    order = np.random.default_rng(0).permutation(12)
    moved = drawn.take(order)
    np.testing.assert_array_equal(moved.node, drawn.node[order])
    for i in range(12):
        for j in range(12):
            assert moved.known[i, j] == drawn.known[order[i], order[j]]
    part = moved.part(np.array([2, 5]))
    np.testing.assert_array_equal(part.known, moved.known[[2, 5]])


def test_without_graphs_there_are_no_links(data):
    drawn = LinkSampler(data.without("graph"), RELATIONS).draw(np.arange(12), np.random.default_rng(0))
    assert (drawn.node == -1).all()
    assert not drawn.known.any()
