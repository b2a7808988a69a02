"""Vectorised subgraphs against a plain Python transcription of the same rules, and networkx."""

import networkx as nx
import numpy as np
import pytest

from preprocessing.common.errors import InputError
from preprocessing.common.hashing import mix
from preprocessing.graph.icd_graph import FIRST_KEPT, PRIORITY
from preprocessing.graph.knowledge_graph import from_facts, node_table
from preprocessing.graph.neighborhoods import neighbor_table, subgraphs
from preprocessing.linking.links import link_by_key

REVERSE = {"parent": "child", "gem": "gem_of", "note": "note_of", "same": "same"}
RANKS = ("parent", "gem", "gem_of", "note", "same", "child")  # note_of is left out: it comes last.
FIRST = ("parent", "gem", "gem_of")


def random_graph(seed, nodes=60, hubs=3):
    rng = np.random.default_rng(seed)
    facts = {name: rng.integers(0, nodes, (int(rng.integers(5, 60)), 2)) for name in REVERSE}
    for hub in rng.choice(nodes, hubs, replace=False):
        others = rng.integers(0, nodes, nodes // 2)
        facts["gem"] = np.concatenate([facts["gem"], np.stack([np.full_like(others, hub), others], axis=1)])
    return from_facts(node_table([("t", "n", "S", str(i)) for i in range(nodes)]), facts, REVERSE)


def rank(relation):
    return RANKS.index(relation) if relation in RANKS else len(RANKS)


def offers(graph, hub_cap):
    """node -> its first `hub_cap` neighbors, as {neighbor: relation} in order."""
    names = graph.relation_names
    of_pair = {}
    for u in range(graph.num_nodes):
        for e in range(graph.indptr[u], graph.indptr[u + 1]):
            of_pair.setdefault((u, int(graph.indices[e])), []).append(names[graph.relation[e]])
    back = {names[i]: names[r] for i, r in enumerate(graph.reverse)}

    def best(u, v):
        def order(relation):
            forward = relation if u < v else back[relation]
            return min(rank(relation), rank(back[relation])), names.index(forward)

        return min(of_pair[u, v], key=order)

    result = {}
    for u in range(graph.num_nodes):
        neighbors = sorted({v for a, v in of_pair if a == u})
        scatter = {v: int(mix(np.array([u * 2**32 + v], dtype=np.uint64))[0]) for v in neighbors}
        neighbors.sort(key=lambda v: (rank(best(u, v)), scatter[v]))
        result[u] = {v: best(u, v) for v in neighbors[:hub_cap]}
    return result, back


def reference(offered, back, anchors, max_nodes):
    """(nodes, hops, set of (sender, relation, receiver) as node ids) of one subgraph."""
    lists = {u: list(neighbors) for u, neighbors in offered.items()}
    width = max(map(len, lists.values()))
    one = [(lists[a][j], offered[a][lists[a][j]]) for j in range(width) for a in anchors if j < len(lists[a])]
    one.sort(key=lambda item: item[1] not in FIRST)
    two = [(lists[u][j], None) for j in range(width) for u, _ in one if j < len(lists[u])]
    hops = {}
    for hop, candidates in enumerate(([(a, None) for a in anchors], one, two)):
        for node, _ in candidates:
            if node not in hops and len(hops) < max_nodes:
                hops[node] = hop
    edges = set()
    for u in hops:
        for v, relation in offered[u].items():
            if v in hops:
                edges |= {(u, relation, v), (v, back[relation], u)}
    return list(hops), list(hops.values()), edges


@pytest.mark.parametrize("seed", range(25))
def test_against_brute_force(seed):
    rng = np.random.default_rng(1000 + seed)
    graph = random_graph(seed)
    hub_cap, max_nodes = int(rng.integers(1, 12)), int(rng.integers(3, 30))
    table = neighbor_table(graph, hub_cap=hub_cap, priority=RANKS, first_kept=FIRST)
    anchors = rng.permutation(graph.num_nodes)[:50].astype(np.int32).reshape(-1, 1)
    if seed % 2:
        anchors = np.concatenate([anchors, rng.permutation(graph.num_nodes)[:50, None].astype(np.int32)], axis=1)
        anchors[rng.random(len(anchors)) < 0.3, 1] = -1
    offered, back = offers(graph, hub_cap)
    for row, subgraph in zip(anchors.tolist(), subgraphs(table, anchors, max_nodes=max_nodes), strict=True):
        own = list(dict.fromkeys(a for a in row if a >= 0))
        nodes, hops, edges = reference(offered, back, own, max_nodes)
        assert subgraph.nodes.tolist() == nodes
        assert subgraph.hops.tolist() == hops
        names = [graph.relation_names[r] for r in subgraph.relations]
        ends = subgraph.nodes[subgraph.senders].tolist(), subgraph.nodes[subgraph.receivers].tolist()
        assert set(zip(ends[0], names, ends[1], strict=True)) == edges
        check_pairs(graph, subgraph)


def check_pairs(graph, subgraph):
    senders, receivers = subgraph.senders, subgraph.receivers
    assert len(senders) % 2 == 0
    assert np.array_equal(senders[0::2], receivers[1::2])
    assert np.array_equal(receivers[0::2], senders[1::2])
    assert np.array_equal(np.array(graph.reverse)[subgraph.relations[0::2]], subgraph.relations[1::2])
    assert not (senders == receivers).any()
    assert len(set(zip(senders.tolist(), receivers.tolist(), strict=True))) == len(senders)


@pytest.mark.parametrize("seed", range(5))
def test_without_caps_it_is_the_ball_of_radius_two(seed):
    graph = random_graph(seed, nodes=40)
    table = neighbor_table(graph, hub_cap=40, priority=RANKS)
    whole = nx.Graph(zip(graph.sources().tolist(), graph.indices.tolist(), strict=True))
    whole.add_nodes_from(range(40))
    anchors = np.arange(40, dtype=np.int32).reshape(-1, 1)
    for anchor, subgraph in enumerate(subgraphs(table, anchors, max_nodes=40)):
        distance = nx.single_source_shortest_path_length(whole, anchor, cutoff=2)
        assert dict(zip(subgraph.nodes.tolist(), subgraph.hops.tolist(), strict=True)) == distance
        pairs = zip(subgraph.nodes[subgraph.senders].tolist(), subgraph.nodes[subgraph.receivers].tolist(), strict=True)
        induced = whole.subgraph(distance)
        assert {frozenset(pair) for pair in pairs} == {frozenset(pair) for pair in induced.edges if len(set(pair)) == 2}


def test_an_isolated_and_a_missing_anchor():
    graph = from_facts(node_table([("t", "n", "S", "0")] * 3), {"parent": np.array([[0, 1]])}, REVERSE)
    table = neighbor_table(graph, hub_cap=2, priority=RANKS)
    alone, missing = subgraphs(table, np.array([[2], [-1]], dtype=np.int32), max_nodes=5)
    assert (alone.nodes.tolist(), alone.hops.tolist(), len(alone.senders)) == ([2], [0], 0)
    assert (len(missing.nodes), len(missing.senders)) == (0, 0)


def test_rows_do_not_depend_on_one_another(graph):
    table = neighbor_table(graph, hub_cap=16, priority=PRIORITY, first_kept=FIRST_KEPT)
    anchors = np.random.default_rng(0).permutation(graph.num_nodes)[:300].astype(np.int32).reshape(-1, 1)
    together = list(subgraphs(table, anchors, max_nodes=64))
    for position in (0, 127, 128, 299):
        (single,) = subgraphs(table, anchors[position : position + 1], max_nodes=64)
        for field in ("nodes", "hops", "senders", "receivers", "relations"):
            assert np.array_equal(getattr(single, field), getattr(together[position], field))


def test_real_graph_keeps_parents_and_crosswalks_first(graph, facts):
    table = neighbor_table(graph, hub_cap=16, priority=PRIORITY, first_kept=FIRST_KEPT)
    codes = ["ICD10CM/E11.9", "ICD9CM/250.00", "ICD9CM/V58.89", "ICD10PCS/0016070", "ICD10CM/D66"]
    anchors = np.array([[facts.ids[code]] for code in codes], dtype=np.int32)
    for code, subgraph in zip(codes, subgraphs(table, anchors, max_nodes=64), strict=True):
        assert subgraph.nodes[0] == facts.ids[code]
        own = [graph.relation_names[r] for r in subgraph.relations[subgraph.senders == 0]]
        assert "parent" in own
        assert len(subgraph.nodes) <= 64
        assert (np.diff(subgraph.hops.astype(int)) >= 0).all()
        check_pairs(graph, subgraph)
    hub = next(subgraphs(table, anchors[2:3], max_nodes=64))
    assert (subgraph_row := np.flatnonzero(hub.hops == 1)).size == 16
    assert hub.nodes[subgraph_row[0]] == facts.ids["ICD9CM/V58.8"]


def test_a_hub_is_not_shown_by_its_low_ids():
    nodes = 2000
    facts = {"parent": np.stack([np.arange(1, nodes), np.zeros(nodes - 1, int)], axis=1)}
    graph = from_facts(node_table([("t", "n", "S", str(i)) for i in range(nodes)]), facts, REVERSE)
    table = neighbor_table(graph, hub_cap=100, priority=RANKS)
    offered = table.neighbors[0]
    assert 800 < offered.mean() < 1200
    assert offered.max() > 1900


def test_impossible_sizes_are_refused(graph):
    with pytest.raises(InputError, match="hub_cap"):
        neighbor_table(graph, hub_cap=0, priority=PRIORITY)
    table = neighbor_table(graph, hub_cap=1, priority=PRIORITY)
    with pytest.raises(InputError, match="max_nodes"):
        next(subgraphs(table, np.zeros((1, 2), np.int32), max_nodes=1))


def test_linking_anchors_codes_at_their_own_node(facts, vocabulary):
    records = vocabulary[::1000]
    anchors, self_node = link_by_key(records, facts.ids)
    assert [facts.rows[node][1] for node in anchors[:, 0]] == [record.description for record in records]
    assert (self_node == 0).all()
    anchors, self_node = link_by_key(records[:2], {records[1].key: 7})
    assert anchors.tolist() == [[-1], [7]]
    assert self_node.tolist() == [-1, 0]
