"""The authors' release: its columns in every form they may have, and the data set built from it."""

import csv

import networkx as nx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing import medtok_codes
from preprocessing.common.errors import InputError
from preprocessing.common.rejects import Rejects
from preprocessing.dataset.known_codes import read_known_codes
from preprocessing.dataset.release import read_release, system_of
from preprocessing.graph.knowledge_graph import KnowledgeGraph
from tests.helpers.forked import run_module
from tests.helpers.published import EDGES, NODES, release_rows, write_release

NAME = "medtok_codes/release"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The data set, and the rows it was built from."""
    folder = write_release(tmp_path_factory.mktemp("release"))
    data_dir = tmp_path_factory.mktemp("data")
    return medtok_codes.prepare(NAME, data_dir, progress=False, source_dir=folder), folder


def all_examples(builder):
    return {
        example["key"].decode(): example
        for split in ("train", "validation", "test")
        for example in builder.as_data_source(split)
    }


def read(tmp_path, columns, name="all_codes_mappings.parquet"):
    """Reads a file of these columns; returns what was read and the rejects as dictionaries."""
    pq.write_table(pa.table(columns), tmp_path / name)
    with Rejects(tmp_path / "rejects.csv") as rejects:
        found = read_release(tmp_path / name, rejects, progress=False)
    with (tmp_path / "rejects.csv").open(encoding="utf-8", newline="") as file:
        return found, list(csv.DictReader(file))


@pytest.mark.integration
def test_examples_are_the_induced_subgraphs_of_the_node_lists(built):
    builder, _ = built
    examples = all_examples(builder)
    rows = release_rows()
    assert len(examples) == len(rows)
    graph = KnowledgeGraph.load(medtok_codes.graph_path(builder))
    assert graph.nodes["name"].to_pylist() == [name for _, _, name, _ in NODES]
    reference = nx.Graph()
    reference.add_nodes_from(range(len(NODES)))
    reference.add_edges_from((a, b, {"relation": relation}) for relation, _, a, b in EDGES)
    by_text = {example["description"].decode(): example for example in examples.values()}
    for row in rows:
        example = by_text[row["desc"]]
        nodes = example["nodes"].tolist()
        assert set(nodes) == set(row["pkg_index_list"])
        anchor = row["med_code_node_mapping"]
        assert nodes[:1] == ([anchor] if anchor is not None else row["pkg_index_list"][:1])
        stored = {
            (nodes[a], nodes[b], graph.relation_names[r])
            for a, b, r in zip(example["senders"], example["receivers"], example["relations"], strict=True)
        }
        induced = reference.subgraph(nodes).edges(data="relation")
        assert stored == {edge for a, b, name in induced for edge in ((a, b, name), (b, a, name))}
        reach = nx.single_source_shortest_path_length(reference.subgraph(nodes), nodes[0]) if nodes else {}
        assert example["hops"].tolist() == [min(reach.get(node, 2), 2) for node in nodes]


@pytest.mark.integration
def test_keys_are_those_of_the_vocabularies(built):
    systems = {key.split("/")[0] for key in all_examples(built[0])}
    assert systems == {"ICD10CM", "ICD9CM", "ICD10PCS", "ATC", "NDC", "CPT4", "RxNorm", "LOCAL"}
    assert "ICD9CM/101.1" in all_examples(built[0])


@pytest.mark.integration
def test_it_knows_its_codes_and_the_categories_that_they_spell(built):
    known = {row["key"]: row["kind"] for row in read_known_codes(built[0]).to_pylist()}
    examples = all_examples(built[0])
    assert {key for key, kind in known.items() if kind == "code"} == examples.keys()
    spelled = {key for key, kind in known.items() if kind == "category"}
    assert all(any(key.startswith(category) for key in examples) for category in spelled)
    assert "ICD9CM/101" in spelled
    assert known.keys() == examples.keys() | spelled


@pytest.mark.integration
def test_lists_are_cut_at_the_cap_with_the_own_node_first(built, tmp_path):
    builder = medtok_codes.prepare(f"{NAME}-nodes_2", tmp_path, progress=False, source_dir=built[1])
    whole, cut = all_examples(built[0]), all_examples(builder)
    assert cut.keys() == whole.keys()
    for key, example in cut.items():
        assert example["nodes"].tolist() == whole[key]["nodes"][:2].tolist()
    assert medtok_codes.report_of(builder)["counts"]["node_lists_cut_at_the_cap"] > 0


@pytest.mark.parametrize(
    "lists",
    [
        pa.array([[1, 2, 3], [4], [], None], pa.list_(pa.int64())),
        pa.array([[1, 2, 3], [4], [], None], pa.large_list(pa.int32())),
        pa.array([[1.0, 2.0, 3.0], [4.0], [], None], pa.list_(pa.float64())),
        pa.array([["1", "2", "3"], ["4"], [], None], pa.list_(pa.string())),
        pa.array(["[1, 2, 3]", "[4]", "[]", None]),
        pa.array(["[1 2\n 3]", "4", "", "nan"]),
        pa.array(["(1, 2, 3,)", "{4}", "set()", "None"]),
        pa.array(["array([1, 2, 3])", "[np.int64(4)]", "[]", "[]"]),
        pa.array([b"1,2,3", b"[4.0]", b"", None], pa.binary()),
    ],
)
def test_node_lists_in_every_form(tmp_path, lists):
    codes = {"med_code": ["a", "b", "c", "d"], "desc": ["A", "B", "C", "D"], "pkg_index_list": lists}
    found, rejected = read(tmp_path, codes)
    assert [numbers.tolist() for numbers in found.index] == [[1, 2, 3], [4], [], []]
    assert found.anchors.tolist() == [0, 0, 0, 0]
    assert {row["reason"] for row in rejected} == {"repaired"}
    assert {record.system for record in found.records} == {"Unknown"}


@pytest.mark.parametrize(
    "own", [pa.array([7, None, 2]), pa.array([7.0, None, 2.0]), pa.array(["[7]", "", "2"]), pa.array([[7], [], [2]])]
)
def test_own_nodes_come_first(tmp_path, own):
    codes = {
        "med_code": ["a", "b", "c"],
        "desc": ["A", "B", "C"],
        "pkg_index_list": [[1, 2], [3], [1, 2, 2]],
        "med_code_node_mapping": own,
    }
    found, _ = read(tmp_path, codes)
    assert [numbers.tolist() for numbers in found.index] == [[7, 1, 2], [3], [2, 1]]
    assert found.anchors.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("spelling", "code", "system"),
    [
        ("ICD10CM", "E11.9", "ICD10CM"),
        ("ICD-10-CM", "E11.9", "ICD10CM"),
        ("icd10", "E11.9", "ICD10CM"),
        ("ICD-10-PCS", "0016070", "ICD10PCS"),
        ("ICD9", "250.00", "ICD9CM"),
        ("ICD9", "00.10", "ICD9Proc"),
        ("icd-9", "V10.1", "ICD9CM"),
        ("ICD9PROC", "0010", "ICD9Proc"),
        ("SNOMED CT", "73211009", "SNOMED"),
        ("SNOMEDCT_US", "73211009", "SNOMED"),
        ("NDC", "00002143380", "NDC"),
        ("CPT", "99213", "CPT4"),
        ("rxnorm", "860975", "RxNorm"),
        ("atc", "A10BA02", "ATC"),
        ("LOINC", "4548-4", None),
    ],
)
def test_systems(spelling, code, system):
    assert system_of(spelling, code) == system


def test_malformed_rows_are_counted_and_lose_no_neighbor(tmp_path):
    rows = [
        ("E119", "Type 2 diabetes", "[1, x, 3]", "ICD10CM"),
        (None, "no code", "[1]", "ICD10CM"),
        ("E11.9", "Type 2 diabetes", "[4]", "icd10cm"),
        ("E11.9", "Another text", "[5]", "ICD10CM"),
        ("250.00", "  ", "[2]", "ICD9CM"),
        ("4548-4", "a\0b", "[2]", "LOINC"),
        ("E1190000", "too long", "[2]", "ICD10CM"),
        ("ICD10CM/E10.9", "Type 1", "[99999999999999999999, 6]", None),
    ]
    names = ("med_code", "desc", "pkg_index_list", "code_system")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    found, rejected = read(tmp_path, columns)
    kinds = [(int(row["line"]), row["kind"]) for row in rejected if row["reason"] != "repaired"]
    assert sorted(kinds) == [
        (1, "node list not readable"),
        (2, "no code"),
        (3, "duplicate code"),
        (4, "duplicate code with different text"),
        (5, "empty description"),
        (6, "code system not known"),
        (7, "code not in the form of its system"),
        (8, "node list not readable"),
    ]
    assert [(record.key, record.description) for record in found.records] == [
        ("ICD10CM/E11.9", "Type 2 diabetes"),
        ("ICD9CM/250.00", "ICD9CM 250.00"),
        ("LOINC/4548-4", "ab"),
        ("ICD10CM/E1190000", "too long"),
        ("ICD10CM/E10.9", "Type 1"),
    ]
    assert [numbers.tolist() for numbers in found.index] == [[1, 3, 4, 5], [2], [2], [2], [6]]


@pytest.mark.parametrize("column", ["med_code", "desc", "pkg_index_list"])
def test_a_missing_column_is_one_sentence(tmp_path, column):
    columns = {"med_code": ["a"], "desc": ["A"], "pkg_index_list": [[1]]}
    del columns[column]
    with pytest.raises(InputError, match=rf"all_codes_mappings\.parquet has no column '{column}'"):
        read(tmp_path, columns)


def test_damaged_and_empty_files_are_one_sentence(tmp_path):
    path = tmp_path / "all_codes_mappings.parquet"
    for content in (b"", b"no parquet"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"(cannot be read as parquet|is empty).*preprocessing\.download release"):
            read_release(path, Rejects(None), progress=False)
    with pytest.raises(InputError, match="holds no code"):
        read(tmp_path, {"med_code": pa.array([], pa.string()), "desc": pa.array([], pa.string()), "pkg_index_list": []})


@pytest.mark.integration
def test_nodes_that_the_graph_lacks_are_rejects_and_the_others_stay(tmp_path):
    rows = release_rows()
    rows[5]["pkg_index_list"] = [1, 77, 2]
    rows[7]["med_code_node_mapping"] = 88
    folder = write_release(tmp_path / "release", rows)
    builder = medtok_codes.prepare(NAME, tmp_path / "data", progress=False, source_dir=folder)
    examples = {example["description"].decode(): example for example in all_examples(builder).values()}
    assert examples[rows[5]["desc"]]["nodes"].tolist()[-2:] == [1, 2]
    assert examples[rows[7]["desc"]]["nodes"].tolist() == rows[7]["pkg_index_list"]
    counts = medtok_codes.report_of(builder)["counts"]
    assert counts["rejected: all_codes_mappings.parquet: node not in the graph"] == 2
    with (medtok_codes.graph_path(builder) / "rejects.csv").open(encoding="utf-8") as file:
        lines = [row["line"] for row in csv.DictReader(file) if row["kind"] == "node not in the graph"]
    assert lines == ["6", "8"]


@pytest.mark.integration
def test_a_node_named_like_the_code_is_the_code_itself(tmp_path):
    rows = release_rows()
    rows[3] |= {"desc": "Type 2 diabetes mellitus", "pkg_index_list": [0, 2], "med_code_node_mapping": 2}
    rows[9] |= {"desc": "Metformin", "pkg_index_list": [0, 6], "med_code_node_mapping": None}
    folder = write_release(tmp_path / "release", rows)
    builder = medtok_codes.prepare(NAME, tmp_path / "data", progress=False, source_dir=folder)
    examples = {example["description"].decode(): example for example in all_examples(builder).values()}
    diabetes = examples["Type 2 diabetes mellitus"]
    assert diabetes["nodes"][diabetes["self_node"]] == 2
    assert examples["Metformin"]["self_node"] == -1
    assert sum(example["self_node"] >= 0 for example in examples.values()) == 1


@pytest.mark.integration
def test_the_same_files_give_the_same_data_set_and_others_are_refused(built, tmp_path):
    builder, folder = built
    data_dir = builder.data_path.parents[2]
    again = medtok_codes.prepare(NAME, tmp_path, progress=False, source_dir=folder)
    assert medtok_codes.fingerprint(again) == medtok_codes.fingerprint(builder)
    assert medtok_codes.prepare(NAME, data_dir, source_dir=folder)
    other = write_release(tmp_path / "other", release_rows(59))
    with pytest.raises(InputError, match=r"was built from another all_codes_mappings\.parquet"):
        medtok_codes.prepare(NAME, data_dir, source_dir=other)


@pytest.mark.integration
@pytest.mark.parametrize("name", [NAME, "medtok_codes/primekg"])
def test_without_files_one_sentence_tells_the_commands(tmp_path, name):
    for call in (medtok_codes.prepare, medtok_codes.check_available):
        with pytest.raises(InputError) as raised:
            call(name, tmp_path)
        sentence = str(raised.value)
        assert f"python -m preprocessing.medtok_codes --codes={name} --source_dir=DIR --data_dir={tmp_path}" in sentence
        assert "\n" not in sentence
    with pytest.raises(InputError, match="lacks"):
        medtok_codes.prepare(name, tmp_path, source_dir=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.integration
def test_icd_takes_no_files(tmp_path):
    with pytest.raises(InputError, match="leave --source_dir"):
        medtok_codes.prepare("medtok_codes/icd-sample_30", tmp_path, source_dir=tmp_path)


def command(*arguments):
    return run_module("preprocessing.medtok_codes", f"--codes={NAME}", *arguments)


@pytest.mark.integration
def test_the_command_tells_rejects_and_strict_minds_them(built, tmp_path):
    arguments = (f"--source_dir={built[1]}", f"--data_dir={tmp_path}")
    result = command(*arguments)
    assert result.returncode == 0, result.stderr
    # The fixture has codes of a system that nobody knows.
    assert "rows rejected or used in part: see" in result.stdout
    result = command(*arguments, "--strict")
    assert result.returncode == 1
    assert "--strict does not allow that" in result.stderr
    result = command(*arguments, "--beam_pipeline_options=--runner=FlinkRunner")
    assert result.returncode == 2
    assert "--pipeline=beam" in result.stderr
