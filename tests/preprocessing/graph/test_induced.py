"""Induced subgraphs against networkx."""

import networkx as nx
import numpy as np
import pytest

from preprocessing.common.errors import InputError
from preprocessing.graph.knowledge_graph import from_facts, node_table
from preprocessing.graph.neighborhoods import induced, pair_table

REVERSE = {"parent": "child", "gem": "gem_of", "same": "same"}


def random_graph(seed, nodes=50):
    rng = np.random.default_rng(seed)
    # Low ids are hubs.
    facts = {name: (rng.random((120, 2)) ** 3 * nodes).astype(np.int64) for name in REVERSE}
    return from_facts(node_table([("t", "n", "S", str(i)) for i in range(nodes)]), facts, REVERSE)


def ragged(lists):
    return np.array([n for members in lists for n in members]), np.cumsum([0, *map(len, lists)])


def whole(graph):
    result = nx.Graph()
    result.add_nodes_from(range(graph.num_nodes))
    result.add_edges_from(zip(graph.sources().tolist(), graph.indices.tolist(), strict=True))
    return result


def edges_of(graph, subgraph):
    """{(sender, receiver): relation name}, checking the order in which edges stand."""
    low, high = subgraph.senders[0::2].tolist(), subgraph.receivers[0::2].tolist()
    assert subgraph.receivers[1::2].tolist() == low
    assert subgraph.senders[1::2].tolist() == high
    pairs = list(zip(low, high, strict=True))
    assert pairs == sorted(set(pairs))
    assert all(a < b for a, b in pairs)
    names = [graph.relation_names[r] for r in subgraph.relations]
    ends = zip(subgraph.nodes[subgraph.senders].tolist(), subgraph.nodes[subgraph.receivers].tolist(), strict=True)
    return dict(zip(ends, names, strict=True))


@pytest.mark.parametrize("most_hubs", [0, 1, 7, 100])
@pytest.mark.parametrize("seed", range(6))
def test_against_networkx(seed, most_hubs):
    rng = np.random.default_rng(seed)
    graph = random_graph(seed)
    network = whole(graph)
    lists = [rng.integers(-1, 50, rng.integers(0, 30)).tolist() for _ in range(300)]
    lists += lists[:40]
    max_nodes = int(rng.integers(4, 40))
    anchors = rng.integers(-1, 50, (len(lists), 3)).astype(np.int32) if seed % 2 else None
    table = pair_table(graph, priority=("gem", "same"), most_hubs=most_hubs)
    found = list(induced(table, *ragged(lists), max_nodes=max_nodes, anchors=anchors))
    assert len(found) == len(lists)
    for row, (members, subgraph) in enumerate(zip(lists, found, strict=True)):
        own = members[:1] if anchors is None else anchors[row].tolist()
        own = list(dict.fromkeys(n for n in own if n >= 0))
        kept = list(dict.fromkeys([*own, *(n for n in members if n >= 0)]))[:max_nodes]
        assert subgraph.nodes.tolist() == kept
        reach = {n for a in own for n in network[a]}
        assert subgraph.hops.tolist() == [0 if n in own else 1 if n in reach else 2 for n in kept]
        pairs = {frozenset(pair) for pair in network.subgraph(kept).edges}
        edges = edges_of(graph, subgraph)
        assert {frozenset(pair) for pair in edges} == pairs
        for (a, b), name in edges.items():
            there = graph.indices[graph.indptr[a] : graph.indptr[a + 1]] == b
            names = {graph.relation_names[r] for r in graph.relation[graph.indptr[a] : graph.indptr[a + 1]][there]}
            assert name in names
            if names & {"gem", "gem_of"}:
                assert name in ("gem", "gem_of")


def test_types_are_those_of_neighborhoods():
    table = pair_table(random_graph(0), priority=())
    (subgraph,) = induced(table, np.arange(10), np.array([0, 10]), max_nodes=10)
    types = [getattr(subgraph, name).dtype for name in ("nodes", "hops", "senders", "receivers", "relations")]
    assert types == [np.int32, np.uint8, np.int32, np.int32, np.int32]


def test_equal_lists_share_a_subgraph_and_different_anchors_do_not():
    table = pair_table(random_graph(1), priority=())
    lists = [[1, 2, 3], [2, 1, 3], [1, 2, 3], [1, 2, 3]]
    anchors = np.array([[1], [1], [1], [2]], np.int32)
    a, b, c, d = induced(table, *ragged(lists), max_nodes=5, anchors=anchors)
    assert a is c
    assert a is not b
    assert d.nodes.tolist() == [2, 1, 3]


def test_hubs_are_a_matter_of_speed_only():
    graph = random_graph(3)
    lists = [np.random.default_rng(i).permutation(50)[:20].tolist() for i in range(20)]
    for one, other in zip(
        induced(pair_table(graph, priority=("same",), most_hubs=0), *ragged(lists), max_nodes=20),
        induced(pair_table(graph, priority=("same",), most_hubs=50), *ragged(lists), max_nodes=20),
        strict=True,
    ):
        for field in ("nodes", "hops", "senders", "receivers", "relations"):
            assert np.array_equal(getattr(one, field), getattr(other, field))


def test_what_cannot_be_is_refused():
    table = pair_table(random_graph(0), priority=())
    with pytest.raises(InputError, match="node id 50 is not in the graph"):
        next(induced(table, np.array([1, 50]), np.array([0, 2]), max_nodes=5))
    with pytest.raises(InputError, match="max_nodes"):
        next(induced(table, np.array([1]), np.array([0, 1]), max_nodes=2**15))
    assert list(induced(table, np.array([], int), np.array([0]), max_nodes=5)) == []
