"""The packed code table against what the data set itself yields, on a small real data set."""

import dataclasses
import shutil

import numpy as np
import pytest

from medtok_jax.data import code_table
from medtok_jax.data.code_table import RAGGED, SPLITS, STRINGS, load
from preprocessing import medtok_codes
from preprocessing.common.errors import InputError
from preprocessing.dataset.inputs import sampled
from preprocessing.dataset.name import parse_name
from preprocessing.dataset.sample import sample
from preprocessing.sources.icd import vocabulary
from tests.helpers.small_run import DATA_SET


@pytest.fixture(scope="module")
def builder(data_dir):
    return medtok_codes.open_prepared(DATA_SET, data_dir)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def real(builder, cache_dir):
    return load(builder, cache_dir, progress=False)


def test_the_columns_are_the_examples(builder, real):
    row = 0
    for split in SPLITS:
        first = row
        for example in builder.as_data_source(split):
            for name in STRINGS:
                assert getattr(real, name)[row] == example[name].decode()
            for name in RAGGED:
                offsets = real.node_offsets if name in ("nodes", "hops") else real.edge_offsets
                np.testing.assert_array_equal(getattr(real, name)[offsets[row] : offsets[row + 1]], example[name])
            assert real.self_node[row] == example["self_node"]
            assert real.num_nodes[row] == len(example["nodes"])
            assert real.num_edges[row] == len(example["senders"])
            row += 1
        np.testing.assert_array_equal(real.rows(split), np.arange(first, row))
    assert row == len(real) == len(set(real.key)) > 500


def test_graph_ids_are_equal_where_the_anonymous_subgraphs_are(real):
    seen = {}
    for row in range(len(real)):
        nodes = slice(*real.node_offsets[row : row + 2])
        edges = slice(*real.edge_offsets[row : row + 2])
        anonymous = ["self" if n == real.self_node[row] else node for n, node in enumerate(real.nodes[nodes].tolist())]
        rest = (real.hops[nodes], real.senders[edges], real.receivers[edges], real.relations[edges])
        seen.setdefault(repr((anonymous, *(part.tolist() for part in rest))), []).append(int(real.graph_id[row]))
    assert all(len(set(ids)) == 1 for ids in seen.values())
    assert len({ids[0] for ids in seen.values()}) == len(seen)


def example(**fields) -> dict:
    whole = {
        "nodes": [5, 6],
        "hops": [0, 1],
        "senders": [0, 1],
        "receivers": [1, 0],
        "relations": [0, 1],
        "self_node": 0,
    }
    return whole | fields


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({}, True),
        ({"nodes": [9, 6]}, True),  # Another code, otherwise alike.
        ({"nodes": [5, 7]}, False),
        ({"nodes": [9, 6], "self_node": -1}, False),
        ({"hops": [0, 2]}, False),
        ({"relations": [1, 0]}, False),
        ({"senders": [1, 0]}, False),
        ({"receivers": [0, 1]}, False),
        ({"senders": [0], "receivers": [1, 0, 1]}, False),
    ],
)
def test_the_digest_sees_everything_but_the_self_node(other, same):
    found = code_table._subgraph_digest(example(**other)) == code_table._subgraph_digest(example())
    assert found == same


def test_packed_once(builder, real, cache_dir, monkeypatch):
    monkeypatch.setattr(code_table, "_write_columns", lambda *_: pytest.fail("packed again"))
    again = load(builder, cache_dir, progress=False)
    for field in dataclasses.fields(again):
        if field.name != "graph":
            np.testing.assert_array_equal(getattr(again, field.name), getattr(real, field.name))
    assert len(list(cache_dir.iterdir())) == 1
    assert isinstance(again.nodes, np.memmap)


def test_an_interrupted_packing_leaves_nothing_behind(builder, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(code_table.np, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        load(builder, tmp_path, progress=False)
    assert not [folder for folder in tmp_path.iterdir() if "partial" not in folder.name]
    monkeypatch.undo()
    assert len(load(builder, tmp_path, progress=False)) > 500


def test_another_process_may_pack_first(builder, real, cache_dir, tmp_path, monkeypatch):
    write = code_table.pq.write_table

    def write_late(*arguments):
        write(*arguments)
        (folder,) = cache_dir.iterdir()
        shutil.copytree(folder, tmp_path / folder.name, dirs_exist_ok=True)

    monkeypatch.setattr(code_table.pq, "write_table", write_late)
    assert load(builder, tmp_path, progress=False).key.tolist() == real.key.tolist()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_cache_directory_that_cannot_be_written(builder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written.*data\.cache_dir"):
        load(builder, tmp_path / "file", progress=False)


def test_a_sample_in_training_is_the_sample_of_a_data_set(real):
    """`data.sample_size=120` and `medtok_codes/icd-sample_120` are the same codes: a larger sample contains both."""
    options = parse_name("medtok_codes/icd-sample_120")
    drawn = sampled(vocabulary(), options)[0]
    assert {record.key for record in drawn} == set(real.key[sample(real.key, 120)])
