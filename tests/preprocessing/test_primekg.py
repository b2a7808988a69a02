import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.common.errors import InputError, UserError
from preprocessing.common.rejects import Rejects
from preprocessing.graph.knowledge_graph import KnowledgeGraph
from preprocessing.primekg import (
    COLUMNS,
    NODE_COUNTS,
    PRIORITY,
    ROW_COUNTS,
    read_primekg,
    write_primekg,
)
from tests.helpers import kg_csv
from tests.helpers.forked import run_module


def read(path, **options):
    rejects = Rejects(None)
    return read_primekg(path, rejects, progress=False, **options), rejects


def triples(graph):
    relations = [graph.relation_names[r] for r in graph.relation]
    return set(zip(graph.sources().tolist(), relations, graph.indices.tolist(), strict=True))


def both_ways(edges):
    return {(x, r, y) for r, _, x, y in edges} | {(y, r, x) for r, _, x, y in edges}


@pytest.fixture
def kg(tmp_path):
    return kg_csv.write(tmp_path / "kg.csv", kg_csv.lines())


@pytest.mark.parametrize("block_bytes", [150, 1000, 1 << 20])
def test_a_sound_file(kg, block_bytes):
    found, rejects = read(kg, block_bytes=block_bytes)
    graph = found.graph
    assert triples(graph) == both_ways(kg_csv.EDGES)
    assert graph.reverse == tuple(range(len(graph.relation_names)))
    assert found.index.tolist() == list(range(len(kg_csv.NODES)))
    expected = [(kind, next(csv.reader([name]))[0], source, key) for key, kind, name, source in kg_csv.NODES]
    assert [tuple(row.values())[1:] for row in graph.nodes.to_pylist()] == expected
    assert expected[3][1] == "diabetes mellitus, type 2 (disease)"
    assert expected[6][1] == '"bright" zone'
    assert found.rows["drug_protein"] == 4
    assert rejects.summary() == []


def test_quoted_everywhere_bom_and_windows_line_ends(tmp_path):
    rows = list(csv.reader(kg_csv.lines()))
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(rows)
    path = kg_csv.write(tmp_path / "kg.csv", b"\xef\xbb\xbf" + text.getvalue().encode())
    found, rejects = read(path)
    plain, _ = read(kg_csv.write(tmp_path / "plain.csv", kg_csv.lines()))
    assert triples(found.graph) == triples(plain.graph)
    assert found.graph.nodes.equals(plain.graph.nodes)
    assert rejects.summary() == [
        ("kg.csv", "Windows line ends", "repaired", 1),
        ("kg.csv", "byte order mark", "repaired", 1),
    ]


def test_columns_in_another_order_and_further_ones(tmp_path, kg):
    rows = [[*line[::-1], "more"] for line in csv.reader(kg_csv.lines())]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    found, _ = read(kg_csv.write(tmp_path / "turned.csv", text.getvalue().encode()))
    assert triples(found.graph) == triples(read(kg)[0].graph)


def test_the_order_of_rows_does_not_matter(tmp_path, kg):
    header, *rows = kg_csv.lines()
    mixed, _ = read(kg_csv.write(tmp_path / "mixed.csv", [header, *np.random.default_rng(0).permutation(rows)]))
    write_primekg(mixed, tmp_path / "mixed")
    write_primekg(read(kg)[0], tmp_path / "plain")
    for file in (tmp_path / "plain").iterdir():
        assert file.read_bytes() == (tmp_path / "mixed" / file.name).read_bytes()


# What is done to a line: (what the line becomes, kind of the reject, whether its edge stays).
SPOILED = {
    "too few columns": (lambda line: line.rpartition(",")[0], "wrong column count", False),
    "too many columns": (lambda line: line + ",more", "wrong column count", False),
    "unbalanced quote": (lambda line: line.replace(",", ',"', 3), "unbalanced quotation mark", False),
    "NUL": (lambda line: line + "\0", "NUL byte", False),
    "no number": (lambda line: line.replace(",2,", ",2.5,").replace(",8,", ",,"), "index not a number", False),
    "encoding": (lambda line: line[:-1] + "\udcff", "bad encoding", True),
    "free text": (lambda line: "see the manual", "wrong column count", False),
}


@pytest.mark.parametrize("spoiling", SPOILED)
@pytest.mark.parametrize("block_bytes", [300, 1 << 20])
def test_a_spoiled_line_is_reported_and_takes_no_other_with_it(tmp_path, spoiling, block_bytes):
    spoil, kind, stays = SPOILED[spoiling]
    lines = kg_csv.lines()
    position = 1 + 5  # An edge between nodes 3 and 8; its mirror is sound.
    assert lines[position].startswith("disease_disease")
    lines[position] = spoil(lines[position])
    path = kg_csv.write(tmp_path / "kg.csv", "\n".join(lines).encode("utf-8", "surrogateescape"))
    rejects = Rejects(tmp_path / "rejects.csv")
    with rejects:
        found = read_primekg(path, rejects, progress=False, block_bytes=block_bytes)
    reported = list(csv.DictReader((tmp_path / "rejects.csv").open()))
    assert reported[0]["kind"] == kind
    assert reported[0]["line"] == str(position + 1)
    # The mirror brings the edge back.
    assert triples(found.graph) == both_ways(kg_csv.EDGES)
    others = {entry["kind"] for entry in reported[1:]}
    # A value that lost its byte differs from what other rows say of the node.
    assert others <= ({"node described twice"} if stays else {"edge without its mirror"})
    with pytest.raises(UserError, match="--strict"):
        rejects.finish(strict=True)


def test_quotes_inside_an_unquoted_value_lose_no_line(tmp_path):
    lines = [*kg_csv.lines(), kg_csv.row("disease_disease", "parent-child", 4, 4)]
    lines[2] = lines[2].replace("PHYHIP", 'PHY "H, I" P')
    path = kg_csv.write(tmp_path / "kg.csv", lines)
    with Rejects(tmp_path / "rejects.csv") as rejects:
        found = read_primekg(path, rejects, progress=False)
    assert triples(found.graph) == both_ways(kg_csv.EDGES)
    reported = [(entry["kind"], int(entry["line"])) for entry in csv.DictReader((tmp_path / "rejects.csv").open())]
    # Lines behind it keep their numbers.
    assert ("wrong column count", 3) in reported
    assert ("self-loop", len(lines)) in reported


def test_self_loop_and_missing_mirror(tmp_path):
    lines = [*kg_csv.lines(), kg_csv.row("disease_disease", "parent-child", 4, 4)]
    del lines[-2]  # anatomy ... the mirror of `contraindication`
    found, rejects = read(kg_csv.write(tmp_path / "kg.csv", lines))
    assert triples(found.graph) == both_ways(kg_csv.EDGES)
    assert dict(((kind, what), n) for _, kind, what, n in rejects.summary()) == {
        ("self-loop", "rejected"): 1,
        ("edge without its mirror", "rejected"): 1,
    }


def test_a_node_described_twice_keeps_its_first_description_and_its_edges(tmp_path):
    lines = kg_csv.lines()
    lines[-1] = lines[-1].replace("Metformin", "Aspirin").replace(",drug,", ",disease,")
    found, rejects = read(kg_csv.write(tmp_path / "kg.csv", lines))
    assert found.graph.nodes["name"][2].as_py() == "Metformin"
    assert triples(found.graph) == both_ways(kg_csv.EDGES)
    assert rejects.summary() == [("kg.csv", "node described twice", "rejected", 1)]


def test_indices_with_gaps_are_mapped_and_kept(tmp_path):
    lines = kg_csv.lines(index=lambda node: str(1000 - 7 * node))
    found, _ = read(kg_csv.write(tmp_path / "kg.csv", lines))
    count = len(kg_csv.NODES)
    assert found.index.tolist() == sorted(1000 - 7 * node for node in range(count))
    assert triples(found.graph) == {(count - 1 - x, r, count - 1 - y) for x, r, y in both_ways(kg_csv.EDGES)}
    write_primekg(found, tmp_path / "graph")
    assert np.load(tmp_path / "graph" / "x_index.npy").tolist() == found.index.tolist()
    assert KnowledgeGraph.load(tmp_path / "graph").num_nodes == count


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf\n", "empty"),
        (b"relation,x_index\n", "no column 'x_type'"),
        (kg_csv.HEADER.encode(), "no edge"),
        (kg_csv.HEADER.encode() + b"\n\n\r\n", "no edge"),
    ],
)
def test_useless_files(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read(kg_csv.write(tmp_path / "kg.csv", text))


def test_an_absent_file(tmp_path):
    with pytest.raises(InputError, match=r"kg\.csv cannot be read"):
        read(tmp_path / "kg.csv")


SPOILERS = st.sampled_from([spoil for spoil, _, stays in SPOILED.values() if not stays])


@given(
    st.lists(st.tuples(st.sampled_from(sorted(ROW_COUNTS)), st.integers(0, 8), st.integers(0, 8)), min_size=1),
    st.dictionaries(st.integers(1, 60), SPOILERS, max_size=8),
    st.integers(100, 2000),
)
def test_any_mixture_of_sound_and_spoiled_lines(tmp_path_factory, edges, spoilers, block_bytes):
    """Against a reader that takes lines one by one."""
    lines = [kg_csv.HEADER, kg_csv.row("drug_drug", "", 2, 7)]
    lines += [kg_csv.row(relation, "", x, y) for relation, x, y in edges]
    lines = [spoilers.get(i, lambda line: line)(line) if i > 1 else line for i, line in enumerate(lines)]
    expected, index, bad = set(), set(), 0
    for line in lines[1:]:
        try:
            cells = next(csv.reader([line], strict=True)) if "\0" not in line else []
        except csv.Error:
            cells = []
        sound = len(cells) == 12 and cells[2].isdigit() and cells[7].isdigit()
        bad += not sound
        if len(cells) == 12:
            index |= {int(cell) for cell in (cells[2], cells[7]) if cell.isdigit()}
        if sound:
            x, y = int(cells[2]), int(cells[7])
            if x != y:
                expected |= {(x, cells[0], y), (y, cells[0], x)}
    path = kg_csv.write(tmp_path_factory.mktemp("kg") / "kg.csv", lines)
    found, rejects = read(path, block_bytes=block_bytes)
    assert found.index.tolist() == sorted(index)
    name = found.index.tolist()
    assert {(name[x], r, name[y]) for x, r, y in triples(found.graph)} == expected
    left_out = {"wrong column count", "unbalanced quotation mark", "NUL byte", "index not a number"}
    assert sum(count for (_, kind), count in rejects.counts.items() if kind in left_out) == bad


def test_published_numbers():
    assert sum(NODE_COUNTS.values()) == 129_375
    assert sum(ROW_COUNTS.values()) == 8_100_498
    assert len(ROW_COUNTS) == 30
    assert set(PRIORITY) == set(ROW_COUNTS)
    assert set(COLUMNS) | {"display_relation"} == set(kg_csv.HEADER.split(","))


@pytest.mark.integration
def test_command_line(kg, tmp_path):
    output = tmp_path / "out" / "graph"
    command = ["preprocessing.primekg", f"--input={kg}", f"--output={output}"]
    done = run_module(*command, "--strict")
    assert done.returncode == 0, done.stderr
    assert "9 nodes, 20 directed edges; node ids are x_index" in done.stdout
    (tmp_path / "a_file_of_the_user").touch()
    refused = run_module(command[0], command[1], f"--output={tmp_path}")
    assert refused.returncode == 2
    assert "is not empty and was not made by this command; choose another --output." in refused.stderr
    assert (tmp_path / "a_file_of_the_user").exists()
    refused = run_module(command[0])
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--input and --output are missing" in refused.stderr
    assert "129,375" in done.stdout
    first = {file.name: file.read_bytes() for file in output.iterdir()}
    kg.write_bytes(kg.read_bytes() + b"what\n")
    strict = run_module(*command, "--strict")
    assert strict.returncode == 1
    assert "1 rows were rejected" in strict.stderr
    assert str(output / "rejects.csv") in strict.stderr
    second = {file.name: file.read_bytes() for file in output.iterdir()}
    assert b"kg.csv,22," in second.pop("rejects.csv")
    first.pop("rejects.csv")
    assert first == second
    kg.write_text("relation\n")
    broken = run_module(*command)
    assert broken.returncode == 2
    assert "Traceback" not in broken.stderr
    assert "kg.csv has no column 'x_index'" in broken.stderr
    assert {file.name for file in output.parent.iterdir()} == {"graph"}
