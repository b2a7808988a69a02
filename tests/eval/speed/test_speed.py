import json
import os
import time

import networkx as nx
import numpy as np
import pytest

from eval.speed import report as speed_report
from eval.speed.generated_source import power_law_graph
from eval.speed.isolation import in_child
from eval.speed.subgraphs import SCALES, Scale, measure
from eval.speed.timing import Phases, Timing, repeat
from preprocessing.common.errors import UserError
from tests.helpers.forked import run_module

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
    assert [row["name"] for row in report["rows"]] == ["generate the graph", "rank neighbors", "subgraphs"]
    last = report["rows"][-1]
    assert last["items"] == 300
    assert last["per_second"] == pytest.approx(300 / last["median_seconds"])
    assert 10**7 < last["peak_bytes"] < 10**11
    assert 300 <= report["facts"]["nodes_of_all_subgraphs"] <= 300 * 64


def test_phases_count_what_they_are_told():
    phases = Phases(scale="none")
    with phases.phase("a", 10, "things"):
        pass
    with phases.phase("b"):
        pass
    first, second = phases.report()["rows"]
    assert (first["items"], first["unit"]) == (10, "things")
    assert second["items"] == 0


@pytest.mark.integration
def test_command_line(tmp_path):
    done = run_module("eval.speed", "subgraphs", "--scale=icd", "--num_codes=50", f"--output={tmp_path}")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "speed_subgraphs_icd.json").read_text())
    assert report["facts"]["nodes"] == SCALES["icd"].nodes
    assert report["facts"]["codes"] == 50
    assert "codes/s" in done.stdout
    unknown = run_module("eval.speed", "everything")
    assert unknown.returncode == 2
    assert "the benchmarks are: train, tokenize, subgraphs" in unknown.stderr
    assert (tmp_path / "speed_subgraphs_icd.md").read_text().startswith("## subgraphs")


def test_repetitions_leave_the_warm_up_out():
    calls = []
    seconds = repeat(lambda: calls.append(time.sleep(0.05 if not calls else 0.0)), 3, warm_up=1)
    assert len(calls) == 4
    assert len(seconds) == 3
    assert max(seconds) < 0.05


def test_a_timing_is_told_by_its_median():
    report = Timing("x", (1.0, 4.0, 2.0), 10, more={"flops": 8.0}).report(matmul_flops=16.0)
    assert (report["median_seconds"], report["least_seconds"], report["most_seconds"]) == (2.0, 1.0, 4.0)
    assert report["per_second"] == 5.0
    assert report["flops_per_second"] == 4.0
    assert report["share_of_matmul"] == 0.25


def test_reports_say_what_failed_and_leave_empty_columns_out(tmp_path):
    rows = [Timing("fast", (0.5, 0.25), 100).report(), {"name": "none", "failed": "no compiler"}]
    report = {"benchmark": "x", "machine": {"cores": 2}, "facts": {"scale": "icd", "codes": 1000}, "rows": rows}
    path = speed_report.write(report, tmp_path / "new")
    assert json.loads(path.read_text()) == report
    text = path.with_suffix(".md").read_text()
    assert "| fast | 375 ms | 250 ms to 500 ms | 267 codes/s |" in text
    assert "failed: no compiler" in text
    assert "codes 1,000" in text
    assert "FLOP/s" not in text
    (table,) = speed_report.tables(report)
    assert table.row_count == 2


@pytest.mark.integration
def test_a_child_gets_its_environment_and_its_death_is_told():
    assert in_child(os.getenv, "MARK", MARK="x") == "x"
    assert "MARK" not in os.environ
    with pytest.raises(UserError, match="died"):
        in_child(os._exit, 9)
