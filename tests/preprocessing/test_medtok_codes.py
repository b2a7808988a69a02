"""The builder on a small sample of the real vocabulary, in this process and in others."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

from preprocessing import medtok_codes
from preprocessing.common.errors import InputError
from preprocessing.graph.icd_graph import EDGE_TYPES, FIRST_KEPT, PRIORITY
from preprocessing.graph.knowledge_graph import KnowledgeGraph
from preprocessing.graph.neighborhoods import neighbor_table, subgraphs
from tests.helpers.forked import run_module
from tests.helpers.paths import ROOT
from tests.helpers.small_run import DATA_SET


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def files(directory):
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def test_examples_are_the_codes_with_their_subgraphs(small, small_examples, vocabulary, facts, graph):
    examples = [example for split in small_examples.values() for example in split]
    records = {record.key: record for record in vocabulary}
    assert 580 < len(examples) <= 600
    table = neighbor_table(graph, hub_cap=16, priority=PRIORITY, first_kept=FIRST_KEPT)
    for example in examples:
        record = records[example["key"].decode()]
        assert example["system"].decode() == record.system
        assert example["code"].decode() == record.code
        assert example["description"].decode() == record.description
        assert example["self_node"] == 0
        (expected,) = subgraphs(table, np.array([[facts.ids[record.key]]], np.int32), max_nodes=64)
        for name in ("nodes", "hops", "senders", "receivers", "relations"):
            assert np.array_equal(example[name], getattr(expected, name))
        assert example["hops"].dtype == np.uint8
        assert {example[name].dtype for name in ("nodes", "senders", "receivers", "relations")} == {np.dtype(np.int32)}


def test_splits_do_not_overlap(small_examples):
    keys = [example["key"] for split in small_examples.values() for example in split]
    assert len(keys) == len(set(keys))
    assert all(small_examples.values())


def test_graph_lies_beside_the_records(small, graph):
    loaded = KnowledgeGraph.load(medtok_codes.graph_path(small))
    assert np.array_equal(loaded.indices, graph.indices)
    assert loaded.nodes.equals(graph.nodes)


def test_tfds_reads_it_by_directory(small):
    builder = tfds.builder_from_directory(small.data_path)
    assert builder.info.features["nodes"].np_dtype == np.int32
    assert len(builder.as_data_source("train")) == small.info.splits["train"].num_examples


@pytest.mark.integration
def test_no_tensorflow():
    code = "import sys, preprocessing.stats; sys.exit(any(m in sys.modules for m in ('tensorflow', 'jax', 'pandas')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    directory = tmp_path_factory.mktemp("elsewhere") / "deep" / "er"
    flags = (f"--codes={DATA_SET}", f"--data_dir={directory}")
    return directory, command("preprocessing.medtok_codes", *flags, PYTHONHASHSEED="77")


@pytest.mark.thorough
@pytest.mark.integration
def test_a_build_in_another_process_and_place_is_byte_identical(small, data_dir, elsewhere):
    directory, result = elsewhere
    assert result.returncode == 0, result.stderr
    assert "train" in result.stdout
    built = Path(small.data_path).relative_to(data_dir)
    assert files(directory / built) == files(data_dir / built)
    other = medtok_codes.prepare(DATA_SET, directory)
    assert medtok_codes.fingerprint(other) == medtok_codes.fingerprint(small)
    assert str(directory) not in (Path(other.data_path) / "dataset_info.json").read_text()


@pytest.mark.thorough
@pytest.mark.integration
def test_fingerprint_sees_records_and_graph(elsewhere):
    directory, _ = elsewhere
    builder = medtok_codes.prepare(DATA_SET, directory)
    before = medtok_codes.fingerprint(builder)
    for file in [next(Path(builder.data_path).glob("*train*")), medtok_codes.graph_path(builder) / "relation.npy"]:
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert medtok_codes.fingerprint(builder) != before
        file.write_bytes(content)
    assert medtok_codes.fingerprint(builder) == before


@pytest.mark.integration
def test_holdout_and_sizes(tmp_path, small):
    builder = medtok_codes.prepare(
        "medtok_codes/icd-holdout_gem_30_eval-nodes_8-hubs_4-sample_60", tmp_path, progress=False
    )
    folder = medtok_codes.graph_path(builder)
    graph, held = KnowledgeGraph.load(folder), pq.read_table(folder / "holdout.parquet").to_pydict()
    number = {key: node for node, key in enumerate(graph.node_keys())}
    gem = [i for i, name in enumerate(graph.relation_names) if name.startswith("gem")]
    stored = np.isin(graph.relation, gem)
    joined = set(zip(graph.sources()[stored].tolist(), graph.indices[stored].tolist(), strict=True))
    pairs = {(number[a], number[b]) for a, b in zip(held["source"], held["target"], strict=True)}
    assert len(pairs) > 20_000
    assert not joined & pairs
    assert not joined & {(b, a) for a, b in pairs}
    whole = KnowledgeGraph.load(medtok_codes.graph_path(small))
    assert whole.num_edges - graph.num_edges == 2 * len(pairs)
    for split in ("train", "validation", "test"):
        assert all(len(example["nodes"]) <= 8 for example in builder.as_data_source(split))


@pytest.mark.thorough
@pytest.mark.integration
def test_several_holdouts_at_once(tmp_path):
    """Each leaves out what it would leave out alone, and the file tells of all."""
    held, counts = {}, {}
    for options in ("gem_30_eval", "note_30_eval", "gem_30_eval-holdout_note_30_eval"):
        name = f"medtok_codes/icd-holdout_{options}-nodes_8-hubs_4-sample_30"
        folder = medtok_codes.graph_path(medtok_codes.prepare(name, tmp_path, progress=False))
        held[options] = [tuple(row.values()) for row in pq.read_table(folder / "holdout.parquet").to_pylist()]
        graph = KnowledgeGraph.load(folder)
        counts[options] = dict(zip(graph.relation_names, np.bincount(graph.relation).tolist(), strict=True))
    gem, note, both = held
    assert sorted(held[both]) == sorted(held[gem] + held[note])
    assert {relation for _, _, relation in held[note]} <= set(EDGE_TYPES["note"])
    for relation, count in counts[both].items():
        assert count == min(counts[gem][relation], counts[note][relation])


@pytest.mark.thorough
@pytest.mark.integration
def test_an_interrupted_build_leaves_nothing_and_can_be_repeated(tmp_path, monkeypatch):
    name = "medtok_codes/icd-sample_30"
    original = medtok_codes.MedtokCodes._generate_examples

    def interrupted(self, *arguments):
        for count, example in enumerate(original(self, *arguments)):
            if count == 3:
                raise KeyboardInterrupt
            yield example

    with monkeypatch.context() as patch:
        patch.setattr(medtok_codes.MedtokCodes, "_generate_examples", interrupted)
        with pytest.raises(KeyboardInterrupt):
            medtok_codes.prepare(name, tmp_path, progress=False)
    assert not medtok_codes.dataset_path(name, tmp_path).exists()
    assert not [path for path in tmp_path.rglob("*") if "incomplete" in path.name or "icd" in path.name]
    builder = medtok_codes.prepare(name, tmp_path, progress=False)
    assert builder.info.splits.total_num_examples >= 20


@pytest.mark.integration
def test_leftovers_of_a_killed_build_are_removed(tmp_path):
    name = "medtok_codes/icd-sample_30"
    path = medtok_codes.dataset_path(name, tmp_path)
    leftover = path.parent / f"incomplete.ABC_{path.name}"
    leftover.mkdir(parents=True)
    (leftover / "half").write_text("x")
    medtok_codes.prepare(name, tmp_path, progress=False)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.integration
def test_sigterm_cleans_up(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "preprocessing.medtok_codes", f"--data_dir={tmp_path}"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.rglob("*incomplete*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "error: interrupted" in errors
    assert "Traceback" not in errors
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and ".config" not in path.parts]


def copy_of(small, tmp_path):
    path = medtok_codes.dataset_path(DATA_SET, tmp_path)
    for file, content in files(Path(small.data_path)).items():
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (path / file).write_bytes(content)
    return path


@pytest.mark.integration
@pytest.mark.parametrize("damaged", ["dataset_info.json", "features.json", "graph/graph.json", "graph/indices.npy"])
@pytest.mark.parametrize("content", [None, b"{broken"])
def test_damaged_directories_are_one_sentence(small, tmp_path, damaged, content):
    path = copy_of(small, tmp_path)
    assert medtok_codes.prepare(DATA_SET, tmp_path)
    (path / damaged).unlink()
    if content is not None:
        (path / damaged).write_bytes(content)
    with pytest.raises(InputError, match="delete"):
        medtok_codes.prepare(DATA_SET, tmp_path)


@pytest.mark.integration
def test_damaged_records_and_foreign_directories(small, tmp_path):
    path = copy_of(small, tmp_path)
    records = next(path.glob("*test*"))
    content = records.read_bytes()
    for damaged in (content[: len(content) // 4], b"x" * 1000, b""):
        records.write_bytes(damaged)
        with pytest.raises(InputError, match="does not hold a complete"):
            medtok_codes.prepare(DATA_SET, tmp_path)
    records.unlink()
    with pytest.raises(InputError, match="does not hold a complete"):
        medtok_codes.prepare(DATA_SET, tmp_path)
    foreign = medtok_codes.dataset_path("medtok_codes/icd", tmp_path)
    foreign.mkdir(parents=True)
    (foreign / "letter.txt").write_text("dear reader")
    with pytest.raises(InputError, match="does not hold a complete"):
        medtok_codes.prepare("medtok_codes/icd", tmp_path)
    assert (foreign / "letter.txt").exists()


@pytest.mark.integration
def test_a_sample_that_leaves_a_split_empty_is_refused(tmp_path):
    with pytest.raises(InputError, match="larger sample"):
        medtok_codes.prepare("medtok_codes/icd-sample_1", tmp_path, progress=False)


@pytest.mark.integration
def test_a_file_in_place_of_the_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        medtok_codes.prepare(DATA_SET, tmp_path / "file")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--codes=medtok_codes/icd-group"], "'groups'"),
        (["--code=x"], "Did you mean: codes"),
        (["extra"], "extra"),
        (["--codes=medtok_codes/icd", "--data_dir=/dev/null/x"], "cannot be written"),
    ],
)
def test_wrong_command_lines_exit_with_2_and_one_sentence(arguments, hint):
    result = run_module("preprocessing.medtok_codes", *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert hint in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.integration
def test_help_is_useful():
    result = run_module("preprocessing.medtok_codes", "--help")
    assert result.returncode == 0
    assert "--data_dir" in result.stdout
    assert "medtok_codes/icd" in result.stdout
