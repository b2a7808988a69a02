"""The JSON layout, as networkx reads it, against the examples of the data set."""

import json

import networkx as nx
import pytest

from preprocessing import medtok_codes
from preprocessing.common.errors import InputError
from preprocessing.graph.knowledge_graph import KnowledgeGraph
from preprocessing.json_export import LISTS, export_json, file_name
from tests.helpers.forked import run_module
from tests.helpers.small_run import DATA_SET


@pytest.fixture(scope="module")
def exported(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("json")
    export_json(small, folder, progress=False)
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_networkx_reads_every_subgraph(small, small_examples, exported):
    graph = KnowledgeGraph.load(medtok_codes.graph_path(small))
    nodes = graph.nodes.to_pylist()
    examples = [example for split in small_examples.values() for example in split]
    lines = (exported / "graphs.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(examples)
    for line, example in zip(lines, examples, strict=True):
        read = nx.node_link_graph(json.loads(line), edges="links")
        assert isinstance(read, nx.MultiDiGraph)
        assert read.graph["key"] == example["key"].decode()
        assert read.graph["description"] == example["description"].decode()
        assert read.graph["self_node"] == example["nodes"][example["self_node"]]
        assert list(read.nodes) == example["nodes"].tolist()
        for node, hop in zip(example["nodes"].tolist(), example["hops"].tolist(), strict=True):
            expected = {field: value for field, value in nodes[node].items() if field != "node_id"}
            assert read.nodes[node] == expected | {"hop": hop}
        ends = example["nodes"][example["senders"]], example["nodes"][example["receivers"]]
        relations = [graph.relation_names[relation] for relation in example["relations"]]
        expected = sorted(zip(*(end.tolist() for end in ends), relations, strict=True))
        assert sorted(read.edges(data="relation")) == expected


def test_it_is_the_layout_that_networkx_writes(exported):
    line = (exported / "graphs.jsonl").read_text(encoding="utf-8").splitlines()[0]
    expected = json.loads(line)
    written = nx.node_link_data(nx.node_link_graph(expected, edges="links"), edges="links")

    def ends(link):
        return (link["source"], link["target"])

    assert sorted(written.pop("links"), key=ends) == sorted(expected.pop("links"), key=ends)
    assert written == expected


def test_lists_hold_the_codes_of_each_split_one_on_a_line(exported, small_examples):
    for split, name in LISTS.items():
        text = (exported / name).read_text(encoding="utf-8")
        listed = json.loads(text)
        assert [entry["key"] for entry in listed] == [example["key"].decode() for example in small_examples[split]]
        assert listed[0].keys() == {"key", "system", "code", "description"}
        assert json.loads(text.splitlines()[1].removesuffix(",")) == listed[0]
    assert sorted(path.name for path in exported.iterdir()) == sorted(["graphs.jsonl", *LISTS.values()])


def test_files_for_each_code_replace_the_lines(small, exported, tmp_path):
    export_json(small, tmp_path, limit=3, progress=False)
    (tmp_path / "notes.txt").write_text("mine")
    export_json(small, tmp_path, per_code=True, limit=5, progress=False)
    assert not (tmp_path / "graphs.jsonl").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    files = list((tmp_path / "graphs").iterdir())
    assert len(files) == 15
    lines = {json.loads(line)["graph"]["key"]: line for line in (exported / "graphs.jsonl").open(encoding="utf-8")}
    listed = [entry["key"] for name in LISTS.values() for entry in json.loads((tmp_path / name).read_text())]
    assert {path.name for path in files} == {file_name(key) for key in listed}
    for key in listed:
        assert (tmp_path / "graphs" / file_name(key)).read_text(encoding="utf-8") == lines[key]


def test_the_same_data_set_gives_the_same_bytes(small, exported, tmp_path):
    export_json(small, tmp_path, progress=False)
    assert contents(tmp_path) == contents(exported)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("ICD10CM/E11.9", "ICD10CM%2FE11.9.json"),
        ("X/../../etc", "X%2F..%2F..%2Fetc.json"),
        ("X/a b:c*é", "X%2Fa%20b%3Ac%2A%C3%A9.json"),
    ],
)
def test_file_names_are_safe(key, name):
    assert file_name(key) == name


def command(*arguments):
    return run_module("preprocessing.json_export", *arguments)


@pytest.mark.integration
def test_command(data_dir, small_examples, tmp_path):
    key = small_examples["test"][0]["key"].decode()
    result = command(f"--codes={DATA_SET}", f"--data_dir={data_dir}", f"--output={tmp_path / 'out'}", f"--keys={key}")
    assert result.returncode == 0, result.stderr
    assert "train 0, validation 0, test 1" in result.stdout
    assert json.loads((tmp_path / "out" / "graphs.jsonl").read_text())["graph"]["key"] == key
    assert json.loads((tmp_path / "out" / "train.json").read_text()) == []


def test_a_code_that_is_not_there_leaves_nothing(small, tmp_path):
    with pytest.raises(InputError, match="'ICD10CM/XX', which is not in the data set"):
        export_json(small, tmp_path, keys=["ICD10CM/XX"], progress=False)
    assert not list(tmp_path.iterdir())
