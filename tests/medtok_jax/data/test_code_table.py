"""The packed code table against what the data set itself yields, on a small real data set."""

import dataclasses
import shutil

import numpy as np
import pytest

from medtok_jax.data import code_table
from medtok_jax.data.code_table import RAGGED, SPLITS, STRINGS, load, sample
from preprocessing import medtok_codes
from preprocessing.common.errors import InputError

NAME = "medtok_codes/icd-sample_600"


@pytest.fixture(scope="module")
def builder(data_dir):
    return medtok_codes.open_prepared(NAME, data_dir)


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
    monkeypatch.setattr(code_table, "_pack", lambda *_: pytest.fail("packed again"))
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


def families(table, rows) -> dict[str, int]:
    names, counts = np.unique([f"{table.system[r]}/{table.code[r][:3]}" for r in rows], return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def test_a_sample_is_stable_and_rising(real):
    found = sample(real, 120, ())
    assert len(found) == 120
    assert (np.diff(found) > 0).all()
    np.testing.assert_array_equal(found, sample(real, 120, ()))
    assert set(sample(real, 60, ())) < set(found), "a larger sample holds the smaller"
    # The choice hangs on keys alone, not on their order.
    order = np.random.default_rng(0).permutation(len(real))
    names = ("key", "system", "code")
    shuffled = dataclasses.replace(real, **{name: getattr(real, name)[order] for name in names})
    assert set(shuffled.key[sample(shuffled, 120, ())]) == set(real.key[found])
    whole, sampled = families(real, range(len(real))), families(real, found)
    assert sum(count < whole[name] for name, count in sampled.items()) <= 1, "whole families, but for the last"


@pytest.mark.parametrize("size", [0, 10_000])
def test_no_sample(real, size):
    np.testing.assert_array_equal(sample(real, size, ()), np.arange(len(real)))


@pytest.mark.parametrize("dots", [True, False])
def test_include(real, dots):
    prefix = next(key for key in real.key if "." in key).rsplit(".", 1)[0]
    dotted = next(key for key in real.key if key.startswith(prefix) and "." in key)
    given = dotted if dots else dotted.replace(".", "")
    wanted = [row for row, key in enumerate(real.key) if key.replace(".", "").startswith(dotted.replace(".", ""))]
    found = sample(real, 50, (given,))
    assert len(found) == 50
    assert set(wanted) <= set(found)


def test_include_that_cannot_be(real):
    with pytest.raises(InputError, match=r"data\.include names 'NO/SUCH'.*ICD10CM/E11\.9"):
        sample(real, 50, ("NO/SUCH",))
    system = real.system[0]
    count = (real.system == system).sum()
    with pytest.raises(InputError, match=rf"data\.include matches {count} codes, more than data\.sample_size=5\."):
        sample(real, 5, (f"{system}/",))
