import json
import subprocess
import sys

import networkx as nx
import numpy as np
import pytest

from eval.phases import Phases
from eval.speed_subgraphs import SCALES, Scale, measure
from eval.synthetic_graph import power_law_graph

RELATIONS = ("common", "rare", "rarer")


@pytest.fixture(scope="module")
def graph():
    return power_law_graph(3000, 60_000, RELATIONS)


def test_the_generated_graph_has_its_sizes_and_is_symmetric(graph):
    assert (graph.num_nodes, graph.num_edges, graph.relation_names) == (3000, 60_000, RELATIONS)
    forward = graph.sources().astype(np.int64) * 3000 + graph.indices
    assert np.array_equal(np.sort(forward), np.sort(graph.indices.astype(np.int64) * 3000 + graph.sources()))
    assert len(np.unique(forward)) == 60_000
    assert (graph.sources() != graph.indices).all()
    counts = np.bincount(graph.relation)
    assert counts[0] > counts[1] > counts[2] > 0
    assert nx.Graph(zip(graph.sources().tolist(), graph.indices.tolist(), strict=True)).number_of_edges() == 30_000


def test_its_degrees_follow_a_power_law(graph):
    degree = np.sort(np.diff(graph.indptr))[::-1]
    assert degree[0] > 10 * degree.mean()
    assert np.median(degree) < degree.mean()
    # Ids say nothing of degrees.
    assert abs(np.corrcoef(np.arange(3000), np.diff(graph.indptr))[0, 1]) < 0.1


def test_it_is_the_same_every_time(graph):
    again, other = power_law_graph(3000, 60_000, RELATIONS), power_law_graph(3000, 60_000, RELATIONS, seed=1)
    assert np.array_equal(again.indices, graph.indices)
    assert not np.array_equal(other.indices, graph.indices)


def test_measure():
    report = measure("tiny", Scale(500, 4000, 300, 3, RELATIONS, RELATIONS[:1]), progress=False).report()
    assert [phase["name"] for phase in report["phases"]] == ["generate the graph", "rank neighbours", "subgraphs"]
    last = report["phases"][-1]
    assert last["items"] == 300
    assert last["per_second"] == pytest.approx(300 / last["seconds"], rel=0.1)
    assert 10**7 < last["peak_bytes"] < 10**11
    assert 300 <= report["facts"]["nodes_of_all_subgraphs"] <= 300 * 64


def test_phases_count_what_they_are_told():
    phases = Phases(scale="none")
    with phases.phase("a", 10, "things"):
        pass
    with phases.phase("b"):
        pass
    first, second = phases.report()["phases"]
    assert first["unit"] == "things"
    assert "items" not in second
    table = Phases.table({"benchmark": "x", **phases.report()})
    assert table.row_count == 2


def test_command_line(tmp_path):
    command = [sys.executable, "-m", "eval.speed"]
    done = subprocess.run(
        [*command, "subgraphs", "--scale=icd", "--codes=50", f"--output={tmp_path}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "speed_subgraphs_icd.json").read_text())
    assert report["facts"]["nodes"] == SCALES["icd"].nodes
    assert report["facts"]["codes"] == 50
    assert "codes/s" in done.stdout
    unknown = subprocess.run([*command, "everything"], capture_output=True, text=True)
    assert unknown.returncode == 2
    assert "the benchmarks are: subgraphs" in unknown.stderr
