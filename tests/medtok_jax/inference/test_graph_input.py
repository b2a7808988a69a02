"""Node-link JSON as subgraphs: against the data set's own subgraphs and networkx, and what is hostile in it."""

import json

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtok_jax.inference.graph_input import from_node_link, read_json
from preprocessing.common.errors import InputError
from tests.helpers.small_graph import facts, of_table, small_index


@pytest.fixture(scope="module")
def index(table):
    return small_index(table.graph)


@pytest.mark.parametrize("row", [0, 1, 3, 5, 9, 11])
def test_a_subgraph_of_the_data_set_comes_back(table, index, row):
    found = from_node_link(json.loads(json.dumps(of_table(table, row))), table.key[row], index)
    here = slice(table.node_offsets[row], table.node_offsets[row + 1])
    there = slice(table.edge_offsets[row], table.edge_offsets[row + 1])
    order = np.argsort(table.hops[here], kind="stable")
    np.testing.assert_array_equal(found.node_ids, table.nodes[here][order])
    np.testing.assert_array_equal(found.hops, table.hops[here][order])
    np.testing.assert_array_equal(found.types, table.graph.node_type_ids()[found.node_ids])
    assert found.names == tuple(table.graph.nodes["name"].take(found.node_ids).to_pylist())
    assert found.self_node == table.self_node[row]
    assert found.notes == ()
    place = np.argsort(order)
    edges = zip(table.senders[there], table.receivers[there], table.relations[there], strict=True)
    wanted = {(place[a], place[b], r) for a, b, r in edges}
    assert set(zip(found.senders, found.receivers, found.relations, strict=True)) == wanted
    np.testing.assert_array_equal(found.senders[::2], found.receivers[1::2])
    np.testing.assert_array_equal(found.relations[1::2], index.reverse[found.relations[::2]])


def test_the_graph_may_name_the_node_that_is_the_code(index):
    graph = {"nodes": [{"id": 4}, {"id": 5}], "links": [{"source": 4, "target": 5}]}
    for about, wanted in (({"self_node": 5}, 0), ({"self_node": None}, -1), ({"self_node": 6}, -1), ("text", -1)):
        found = from_node_link(graph | {"graph": about}, "X/99", index)
        assert (found.self_node, found.names[0]) == (wanted, "5" if wanted == 0 else "4")


def test_networkx_writes_what_is_read(index):
    graph = nx.gnp_random_graph(30, 0.06, seed=1)
    nx.set_node_attributes(graph, {node: f"node {node}" for node in graph}, "name")
    nx.set_node_attributes(graph, {7: True}, "self")
    hops = {node: d for node, d in nx.single_source_shortest_path_length(graph, 7).items() if d <= 2}
    for edges in ("links", "edges"):
        found = from_node_link(nx.node_link_data(graph, edges=edges), "Y/1", index)
        assert dict(zip(found.names, found.hops.tolist(), strict=True)) == {f"node {n}": d for n, d in hops.items()}
        pairs = {(found.names[a], found.names[b]) for a, b in zip(found.senders, found.receivers, strict=True)}
        assert pairs == {(f"node {a}", f"node {b}") for a, b in graph.subgraph(hops).to_directed().edges}
        assert f"{30 - len(hops)} nodes farther than 2 hops" in found.notes[0]


def test_what_the_model_never_saw_is_counted(index, table):
    nodes = [{"id": "a", "self": True, "type": "code"}, {"id": "b", "type": "drug"}, {"id": "c", "type": "Phenotype"}]
    links = [{"source": "a", "target": "b", "relation": "treats"}, {"source": "c", "target": "a", "relation": "IS_A"}]
    found = from_node_link({"nodes": nodes, "links": links}, "Y/1", index)
    assert found.types.tolist() == [0, index.unknown_type, 1]
    assert facts(found, index, table.graph.relation_names) == {
        ("self", "?", "b"),
        ("b", "?", "self"),
        ("c", "is_a", "self"),
        ("self", "parent_of", "c"),
    }
    said = " ".join(found.notes)
    assert "1 nodes are of no type" in said
    assert "1 edges are of no relation" in said


def test_the_code_is_found_by_its_id(index):
    nodes = [{"id": "other"}, {"id": "x/e11.9"}]
    found = from_node_link({"nodes": nodes, "links": [{"source": "other", "target": "x/e11.9"}]}, "X/E119", index)
    assert found.names[found.self_node] == "x/e11.9"
    # A number that happens to equal the code is only a number.
    found = from_node_link({"nodes": [{"id": 7}, {"id": 8, "anchor": True}], "links": []}, "X/7", index)
    assert found.self_node == -1
    assert found.names == ("8",)


def test_without_a_mark_the_code_hangs_on_the_node_with_most_edges(index):
    links = [{"source": "hub", "target": name} for name in "abc"]
    found = from_node_link({"nodes": [{"id": n} for n in ("a", "b", "c", "hub")], "links": links}, "Y/1", index)
    assert (found.names[0], found.hops.tolist(), found.self_node) == ("hub", [0, 1, 1, 1], -1)
    assert "'hub'" in found.notes[0]


def test_what_cannot_be_used_is_counted(index):
    nodes = [{"id": "a", "self": True}, {"id": "b"}, {"id": "b", "name": "again"}]
    links = [("a", "b"), ("b", "a"), ("a", "a"), ("a", "z"), ("z", "y")]
    graph = {"nodes": nodes, "links": [{"source": a, "target": b} for a, b in links] + [{}]}
    found = from_node_link(graph, "Y/1", index)
    assert found.names == ("a", "b")
    assert (found.senders.tolist(), found.receivers.tolist()) == ([0, 1], [1, 0])
    said = " ".join(found.notes)
    for text in ("1 nodes repeat an id", "3 edges name a node", "1 edges lead from a node to itself"):
        assert text in said


def test_the_nearest_nodes_are_kept(index):
    far = [{"id": f"far {n}"} for n in range(9_000)]
    near = [{"id": f"near {n}"} for n in range(40)]
    links = [{"source": "me", "target": node["id"]} for node in near]
    links += [{"source": f"near {n % 40}", "target": node["id"]} for n, node in enumerate(far)]
    found = from_node_link({"nodes": [*far, *near, {"id": "me", "self": True}], "links": links}, "Y/1", index)
    assert len(found.names) == index.max_nodes
    assert found.names[0] == "me"
    assert found.hops.tolist() == [0] + [1] * 40 + [2] * 23
    assert "of 9041 nodes within 2 hops the nearest 64 were kept" in found.notes[0]


def test_the_code_itself_is_never_cut(index):
    nodes = [{"id": n, "hop": 0} for n in range(100)] + [{"id": "me", "self": True}]
    found = from_node_link({"nodes": nodes, "links": []}, "Y/1", index)
    assert (found.names[0], found.self_node, len(found.names)) == ("me", 0, 64)


def test_no_nodes_is_no_graph(index):
    assert from_node_link({"nodes": [], "links": []}, "Y/1", index) is None


DEEP = json.loads("[" * 900 + "]" * 900)


@pytest.mark.parametrize(
    "graph",
    [
        {},
        {"nodes": 3, "links": []},
        {"nodes": [{"id": 1}]},
        {"nodes": ["a"], "links": []},
        {"nodes": [{"name": "no id"}], "links": []},
        {"nodes": [{"id": float("nan")}], "links": []},
        {"nodes": [{"id": DEEP}], "links": []},
        {"nodes": [{"id": 1}], "links": [[1, 1]]},
        {"nodes": [{"id": 1}], "links": [{"source": [1], "target": 1}]},
        {"nodes": [{"id": 1, "self": True}, {"id": 2, "self": True}], "links": []},
    ],
)
def test_what_is_no_node_link_json_is_refused(index, graph):
    with pytest.raises(InputError, match=r"Y/1.*[;.]"):
        from_node_link(graph, "Y/1", index)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["X/1.0", "a", 0]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
NODE = st.fixed_dictionaries({"id": VALUES}, optional=dict.fromkeys(("name", "type", "hop", "self", "anchor"), VALUES))
EDGE = st.fixed_dictionaries({}, optional=dict.fromkeys(("source", "target", "relation"), VALUES))


def one_sentence(error: InputError) -> None:
    assert "\n" not in str(error)


@given(st.fixed_dictionaries({}, optional={"nodes": st.lists(NODE, max_size=6), "links": st.lists(EDGE, max_size=6)}))
def test_anything_gives_a_graph_or_a_sentence(index, graph):
    try:
        found = from_node_link(graph, "X/2", index)
    except InputError as error:
        found = one_sentence(error)
    if found is not None:
        assert 0 < len(found.names) == len(found.types) == len(found.hops) == len(found.node_ids)
        assert np.isin(found.hops, (0, 1, 2)).all()
        assert max([-1, *found.senders, *found.receivers]) < len(found.names)


@pytest.mark.parametrize("text", ["", "{", "3", '"x"', "[" * 100_000])
def test_a_file_that_holds_no_graph(tmp_path, text):
    path = tmp_path / "graph.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"graph\.json"):
        read_json(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path / "absent.json")
