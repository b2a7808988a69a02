"""Codes given by their neighbors: found as they were meant, and with the subgraph that training would have drawn."""

import numpy as np
import pytest

from medtok_jax.inference.neighbor_lists import from_neighbors
from preprocessing.common.errors import InputError
from preprocessing.graph.knowledge_graph import from_facts, node_table
from tests.helpers.small_graph import facts, small_index


@pytest.fixture(scope="module")
def index(table):
    return small_index(table.graph)


def given(graph, node: int) -> list[dict]:
    """A node's neighbors with their relations."""
    here = slice(graph.indptr[node], graph.indptr[node + 1])
    keys = graph.node_keys()
    pairs = zip(graph.indices[here], graph.relation[here], strict=True)
    return [{"node": keys[other], "relation": graph.relation_names[relation]} for other, relation in pairs]


@pytest.mark.parametrize("row", range(9))
def test_a_known_code_by_its_neighbors_has_its_own_subgraph(table, index, row):
    found = from_neighbors(given(table.graph, row), f"X/{row}", index)
    here = slice(table.node_offsets[row], table.node_offsets[row + 1])
    assert found.self_node == 0
    assert dict(zip(found.node_ids[1:], found.hops[1:], strict=True)) == {
        node: hop for node, hop in zip(table.nodes[here], table.hops[here], strict=True) if node != row
    }
    there = slice(table.edge_offsets[row], table.edge_offsets[row + 1])
    names = table.graph.nodes["name"].to_pylist()
    local = ["self" if node == row else names[node] for node in table.nodes[here]]
    edges = zip(table.senders[there], table.relations[there], table.receivers[there], strict=True)
    words = table.graph.relation_names
    assert facts(found, index, words) == {(local[a], words[r], local[b]) for a, r, b in edges}
    assert found.types[0] == table.graph.node_types.index("code")


def resolved(found) -> list[int]:
    return found.node_ids[found.hops == 1].tolist()


@pytest.mark.parametrize("neighbor", ["X/3", "x/3", "3", "code 3", "Code 3.", {"node": "X/3", "relation": "is_a"}])
def test_spellings_of_a_neighbor(index, neighbor):
    assert resolved(from_neighbors([neighbor, neighbor], "X/77", index)) == [3]


def test_relations_by_kind_where_none_is_given(index, table):
    found = from_neighbors(["X/3", "HPO/11"], "X/77", index)
    words = facts(found, index, table.graph.relation_names)
    assert ("self", "is_a", "code 3") in words
    assert ("code 3", "parent_of", "self") in words
    assert ("self", "has_phenotype", "phenotype 11") in words


def test_a_name_that_is_no_node_counts_by_itself(index, table):
    found = from_neighbors(["X/3", "wibble", {"node": "HIV/AIDS", "relation": "is_a"}], "Y/1", index)
    words = facts(found, index, table.graph.relation_names)
    assert {("self", "?", "wibble"), ("self", "is_a", "HIV/AIDS")} <= words
    assert found.types[[0, found.names.index("wibble")]].tolist() == [index.unknown_type] * 2
    assert [note for note in found.notes if "'wibble' is no node" in note]


def test_without_a_knowledge_graph_names_are_all_there_is(table):
    index = small_index(table.graph, with_graph=False)
    found = from_neighbors(["X/3", "wibble"], "X/77", index)
    assert found.names[1:] == ("X/3", "wibble")
    assert found.node_ids.tolist() == [-1, -1, -1]
    assert found.hops.tolist() == [0, 1, 1]


def test_names_of_several_nodes():
    rows = [
        ("code", "Asthma", "X", "1"),
        ("code", "asthma", "Y", "1"),
        ("code", "ASTHMA", "Y", "2"),
        ("code", "b", "X", "2"),
    ]
    facts_given = {"is_a": np.array([[0, 3]])}
    index = small_index(from_facts(node_table(rows), facts_given, {"is_a": "parent_of"}), priority=("is_a",))
    assert resolved(from_neighbors(["asthma"], "Z/1", index)) == [1], "spelled exactly so"
    assert resolved(from_neighbors(["asthmas"], "X/9", index)) == [0], "of the code's own system"
    with pytest.raises(InputError, match=r"'asthmas' is the name of 3 nodes.*X/1, Y/1, Y/2"):
        from_neighbors(["asthmas"], "Z/1", index)


def test_hubs_are_capped(table):
    index = small_index(table.graph, hub_cap=2, max_nodes=4)
    found = from_neighbors(["HPO/11", "X/1", "X/2", "X/3"], "X/77", index)
    assert resolved(found) == [1, 2], "relations that come first are kept"
    assert len(found.names) == 4
    assert "of 4 neighbors 2 were kept" in found.notes[0]


def test_the_code_itself_and_its_own_node_stay_out(index):
    found = from_neighbors(["X/4", "X/3"], "X/3", index)
    assert 3 not in found.node_ids
    assert "the code itself" in found.notes[0]
    assert from_neighbors([], "X/3", index) is None


def test_a_code_that_is_its_only_neighbor_has_its_own_neighborhood(table, index):
    found = from_neighbors(["X/3"], "X/3", index)
    assert "X/3 is a node of the knowledge graph" in found.notes[0]
    assert (found.self_node, found.names[0], found.hops[0]) == (0, "X/3", 0)
    by_neighbors = from_neighbors(given(table.graph, 3), "X/3", index)
    words = table.graph.relation_names
    assert facts(found, index, words) == facts(by_neighbors, index, words)
    assert dict(zip(found.node_ids[1:], found.hops[1:], strict=True)) == dict(
        zip(by_neighbors.node_ids[1:], by_neighbors.hops[1:], strict=True)
    )
    np.testing.assert_array_equal(found.types[0], by_neighbors.types[0])
    # A key that is no node has no neighborhood.
    with pytest.raises(InputError, match="is no node of the knowledge graph"):
        from_neighbors(["X/77"], "X/77", index)


def test_codes_that_only_hang_on_nodes(table):
    index = small_index(table.graph, codes_are_nodes=False)
    found = from_neighbors(["phenotype 12", "wibble"], "Y/1", index)
    assert found.self_node == -1
    assert found.names[:2] == ("phenotype 12", "wibble")
    assert dict(zip(found.names, found.hops.tolist(), strict=True)) == {
        **{"phenotype 12": 0, "wibble": 0, "code 5": 1, "phenotype 13": 1, "code 1": 2},
    }


@pytest.mark.parametrize(
    "neighbor", [None, 3, float("nan"), "", " ", ["X/3"], {"node": None}, {}, {"node": "X/3", "relation": 4}]
)
def test_what_is_no_neighbor(index, neighbor):
    with pytest.raises(InputError, match="A neighbor of Y/1 is"):
        from_neighbors([neighbor], "Y/1", index)


def test_a_key_that_is_no_node(index):
    with pytest.raises(InputError, match="'X/99' of Y/1 is no node"):
        from_neighbors(["X/99"], "Y/1", index)
