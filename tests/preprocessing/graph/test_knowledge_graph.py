import json

import numpy as np
import pytest

from preprocessing.common.errors import InputError
from preprocessing.graph.knowledge_graph import KnowledgeGraph, from_facts, node_table

REVERSE = {"parent": "child", "same": "same"}
NODES = node_table([("t", f"name {i}", "S", str(i)) for i in range(5)])


@pytest.fixture
def tiny():
    facts = {"parent": np.array([[1, 0], [2, 0], [1, 0], [3, 3]]), "same": np.array([[1, 2], [2, 1]])}
    return from_facts(NODES, facts, REVERSE)


def triples(graph):
    relations = [graph.relation_names[r] for r in graph.relation]
    return list(zip(graph.sources().tolist(), relations, graph.indices.tolist(), strict=True))


def test_facts_are_stored_both_ways_once_and_in_order(tiny):
    assert triples(tiny) == [
        (0, "child", 1),
        (0, "child", 2),
        (1, "parent", 0),
        (1, "same", 2),
        (2, "parent", 0),
        (2, "same", 1),
    ]
    assert tiny.indptr.tolist() == [0, 2, 4, 6, 6, 6]
    assert [tiny.relation_names[r] for r in tiny.reverse] == ["child", "parent", "same"]


def test_dtypes(tiny):
    assert (tiny.indptr.dtype, tiny.indices.dtype, tiny.relation.dtype) == (np.int64, np.int32, np.uint8)


def test_save_and_load(tiny, tmp_path):
    tiny.save(tmp_path / "a")
    loaded = KnowledgeGraph.load(tmp_path / "a")
    assert triples(loaded) == triples(tiny)
    assert loaded.nodes.equals(tiny.nodes)
    assert loaded.node_keys() == ["S/0", "S/1", "S/2", "S/3", "S/4"]
    assert loaded.node_type_ids().tolist() == [0] * 5
    assert isinstance(loaded.indices, np.memmap)
    loaded.save(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


@pytest.mark.parametrize("damage", ["indices.npy", "nodes.parquet", "graph.json"])
def test_damage_is_one_sentence(tiny, tmp_path, damage):
    tiny.save(tmp_path)
    (tmp_path / damage).write_bytes(b"not this")
    with pytest.raises(InputError, match="build the data set again"):
        KnowledgeGraph.load(tmp_path)
    (tmp_path / damage).unlink()
    with pytest.raises(InputError):
        KnowledgeGraph.load(tmp_path)


def test_parts_of_different_graphs_are_refused(tiny, tmp_path):
    tiny.save(tmp_path)
    np.save(tmp_path / "relation.npy", tiny.relation[:-1])
    with pytest.raises(InputError, match="differ in length"):
        KnowledgeGraph.load(tmp_path)


def test_other_format_version_is_refused(tiny, tmp_path):
    tiny.save(tmp_path)
    meta = json.loads((tmp_path / "graph.json").read_text())
    (tmp_path / "graph.json").write_text(json.dumps(meta | {"format_version": 99}))
    with pytest.raises(InputError, match="version 99"):
        KnowledgeGraph.load(tmp_path)


def test_the_icd_graph_has_every_edge_reversed(graph):
    reverse = np.array(graph.reverse)
    source, target, relation = graph.sources().astype(np.int64), graph.indices.astype(np.int64), graph.relation
    there = (source * 2**8 + relation) * 2**28 + target
    back = (target * 2**8 + reverse[relation]) * 2**28 + source
    assert np.array_equal(np.sort(there), np.sort(back))
    assert (np.diff(there) > 0).all()
    assert not (source == target).any()
    assert all(reverse[r] == i for i, r in enumerate(reverse))
