"""A masked subgraph equals the one that networkx leaves."""

import networkx as nx
import numpy as np
import pytest

from medtok_jax.batch import has_both, has_text
from medtok_jax.data.input_pipeline import BatchBuilder, Budgets
from medtok_jax.data.masking import Masked, Subgraphs
from medtok_jax.data.positives import both_directions

ROWS = np.array([3, 8, 0, 10, 4, 11, 1, 9])


def read(part: Subgraphs, code: int) -> dict:
    """One code's subgraph with knowledge-graph ids: nodes with hops, edges in order, and the code's own node."""
    mine = part.of_node == code
    edges = part.of_edge == code
    assert (part.of_node[part.senders[edges]] == code).all()
    assert (part.of_node[part.receivers[edges]] == code).all()
    ends = part.nodes[part.senders[edges]], part.nodes[part.receivers[edges]], part.relations[edges]
    own = part.self_node[code]
    return {
        "hops": dict(zip(part.nodes[mine].tolist(), part.hops[mine].tolist(), strict=True)),
        "edges": list(zip(*(end.tolist() for end in ends), strict=True)),
        "self": int(part.nodes[own]) if own >= 0 else None,
    }


def from_table(table, row: int) -> dict:
    nodes = table.nodes[table.node_offsets[row] : table.node_offsets[row + 1]]
    hops = table.hops[table.node_offsets[row] : table.node_offsets[row + 1]]
    edges = range(table.edge_offsets[row], table.edge_offsets[row + 1])
    ends = [(int(nodes[table.senders[e]]), int(nodes[table.receivers[e]]), int(table.relations[e])) for e in edges]
    own = int(nodes[table.self_node[row]]) if table.self_node[row] >= 0 else None
    return {"hops": dict(zip(nodes.tolist(), hops.tolist(), strict=True)), "edges": ends, "self": own}


def test_they_are_those_of_the_table(table):
    part = Subgraphs.of(table, ROWS)
    for code, row in enumerate(ROWS):
        assert read(part, code) == from_table(table, row)


@pytest.mark.parametrize("names", [("maps_to",), ("is_a",), ("parent_of", "has_phenotype")])
def test_masked_relations_and_what_only_they_lead_to_are_gone(table, names):
    relations = both_directions(table.graph, names)
    rng = np.random.default_rng(0)
    hidden = {"positives": rng.random(len(ROWS)) < 0.6, "graph": np.arange(len(ROWS)) == 4}
    masked = Masked.none(len(ROWS))._replace(**hidden)
    assert masked.positives.any()
    assert not masked.positives.all()
    part = Subgraphs.of(table, ROWS).without(masked, relations)
    for code, row in enumerate(ROWS):
        found, whole = read(part, code), from_table(table, row)
        if masked.graph[code]:
            assert found == {"hops": {}, "edges": [], "self": None}
        elif not (masked.positives[code] and any(relations[edge[2]] for edge in whole["edges"])):
            assert found == whole
        else:
            shown = [edge for edge in whole["edges"] if not relations[edge[2]]]
            graph = nx.Graph([edge[:2] for edge in shown])
            # A code that is no node itself hangs on others.
            anchors = [node for node, hop in whole["hops"].items() if hop == 0]
            graph.add_nodes_from(anchors)
            wanted = {}
            for anchor in anchors:
                lengths = nx.single_source_shortest_path_length(graph, anchor, max(whole["hops"].values()))
                wanted = {n: min(lengths.get(n, 99), wanted.get(n, 99)) for n in lengths.keys() | wanted.keys()}
            assert found["hops"] == wanted
            assert found["edges"] == [edge for edge in shown if edge[0] in wanted and edge[1] in wanted]
            assert found["self"] == whole["self"]


def test_a_node_that_is_to_be_predicted_is_gone_with_all_that_it_leads_to(table):
    """Code 3 loses its parent, code 1 a child, code 0 a node that it does not have, code 4 nothing."""
    rows, nodes = np.array([1, 3, 0, 4]), np.array([3, 1, 9, -1])
    masked = Masked.none(4)._replace(link=nodes)
    assert masked.cuts_graphs
    part = Subgraphs.of(table, rows).without(masked, both_directions(table.graph, ()))
    for code, (row, hidden) in enumerate(zip(rows, nodes, strict=True)):
        found, whole = read(part, code), from_table(table, row)
        graph = nx.Graph([edge[:2] for edge in whole["edges"] if hidden not in edge[:2]])
        graph.add_node(row)
        wanted = nx.single_source_shortest_path_length(graph, row, 2)
        assert found["hops"] == wanted
        assert found["edges"] == [edge for edge in whole["edges"] if edge[0] in wanted and edge[1] in wanted]
        assert (len(wanted) < len(whole["hops"])) == (hidden in whole["hops"])


def test_a_code_that_hangs_on_a_node_keeps_it(table):
    everything = Masked.none(1)._replace(positives=np.ones(1, bool))
    part = Subgraphs.of(table, np.array([11])).without(everything, both_directions(table.graph, ("has_phenotype",)))
    assert read(part, 0) == {"hops": {12: 0}, "edges": [], "self": None}


def test_both_directions(table):
    def named(*names):
        return [
            name
            for name, counts in zip(table.graph.relation_names, both_directions(table.graph, names), strict=True)
            if counts
        ]

    assert sorted(named("is_a")) == sorted(named("parent_of")) == ["is_a", "parent_of"]
    assert named("maps_to", "none") == ["maps_to"]
    assert named() == []


@pytest.mark.parametrize("stacks", [1, 2])
def test_codes_that_are_shown_with_both_modalities(data, stacks):
    rows = np.arange(12)
    masked = Masked.none(12)._replace(graph=rows == 2, text=rows == 5)
    budgets = Budgets((12,), ((256, 256),))
    builder = BatchBuilder(data, budgets, num_stacks=stacks, local_stacks=range(stacks))
    batch = builder(rows, np.ones(12, bool), np.full(12, -1), masked)
    # Code 10 has no subgraph.
    assert np.flatnonzero(~np.asarray(has_both(batch))).tolist() == [2, 5, 10]
    assert np.flatnonzero(~np.asarray(has_text(batch))).tolist() == [5]
