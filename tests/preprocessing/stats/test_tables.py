import dataclasses
import io
from collections import Counter

import numpy as np
import pytest
from rich.console import Console

from preprocessing.common.errors import InputError
from preprocessing.dataset.name import parse_name
from preprocessing.graph.knowledge_graph import KnowledgeGraph
from preprocessing.medtok_codes import fingerprint, graph_path, prepare, report_of
from preprocessing.stats import columns as example_columns
from preprocessing.stats import tables
from preprocessing.stats.columns import read_columns
from preprocessing.stats.verification import checks_of
from tests.helpers.forked import run_module
from tests.helpers.published import release_rows, write_release
from tests.helpers.small_run import DATA_SET


@pytest.fixture(scope="module")
def printed(small, data_dir):
    console = Console(file=io.StringIO(), width=130)
    tables.print_stats(DATA_SET, data_dir, console, progress=False)
    return console.file.getvalue()


def command(*arguments):
    return run_module("preprocessing.stats", *arguments)


def rows(printed, title):
    """Cells of a printed table, by the first cell."""
    lines = printed.split(title)[1].split("└")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    return {row[0]: row[1:] for row in cells}


def test_official_counts(printed):
    assert rows(printed, "Official lists")["ICD10PCS"][:4] == ["78,603", "78,603", "0", "as published"]
    assert rows(printed, "Official lists")["ICD9Proc"][:2] == ["3,882", "3,882"]


def test_code_and_split_tables_count_the_examples(printed, small_examples):
    systems = Counter(example["system"].decode() for split in small_examples.values() for example in split)
    table = rows(printed, "Codes and descriptions")
    assert {system: int(table[system][0]) for system in systems} == systems
    splits = rows(printed, "Splits")
    for position, examples in enumerate(small_examples.values()):
        counted = Counter(example["system"].decode() for example in examples)
        for system in systems:
            share = counted[system] / systems[system]
            assert splits[system][position] == f"{counted[system]} ({share:.1%})"


def test_graph_table_against_the_examples(printed, small_examples, graph):
    examples = [example for split in small_examples.values() for example in split]
    nodes = sorted(len(example["nodes"]) for example in examples)
    median = nodes[int(np.ceil((len(nodes) - 1) * 0.5))]
    cells = rows(printed, "Subgraphs")["all"]
    assert cells[1].startswith(f"{median} / ")
    assert cells[1].endswith(f" / {nodes[-1]}")
    hpo = {i for i, name in enumerate(graph.nodes["type"].to_pylist()) if name in ("phenotype", "disease", "gene")}
    reached = sum(bool(hpo & set(example["nodes"].tolist())) for example in examples)
    assert cells[5].startswith(f"{reached} (")


def test_graph_tables(printed, facts):
    kinds = Counter(row[0] for row in facts.rows)
    table = rows(printed, "Nodes of the knowledge graph")
    assert {kind: int(cells[0].replace(",", "")) for kind, cells in table.items() if kind != "all"} == kinds
    edges = rows(printed, "Edges of the knowledge graph")
    assert edges["gem_exact"] == ["gem_exact_of", f"{len(facts.facts['gem_exact']):,}"]


def test_what_the_systems_know_is_counted(printed, small):
    table = rows(printed, "What the systems know")
    report = report_of(small)
    for system, counts in report["known_codes"].items():
        ambiguous = report["ambiguous_without_system"][system]
        assert table[system] == [f"{count:,}" for count in (*counts.values(), *ambiguous.values())]
    assert table["ICD10CM"][0] == "74,783"


def test_fingerprint_is_printed(printed, small):
    assert fingerprint(small) in printed


def test_absent_data_set_says_how_to_build_it(tmp_path):
    with pytest.raises(InputError, match=r"python -m preprocessing\.medtok_codes --codes=medtok_codes/icd --data_dir="):
        tables.print_stats("medtok_codes/icd", tmp_path, Console(file=io.StringIO()))
    assert not list(tmp_path.iterdir())


@pytest.mark.integration
def test_a_sample_of_the_embedded_data_set_is_as_expected(small, data_dir, printed):
    table = rows(printed, "Verification")
    total = f"{small.info.splits.total_num_examples:,}"
    for check in ("descriptions", "sound subgraphs", "codes with a graph"):
        assert table[check] == [total, total, "as expected"]
    assert table["codes: ICD10PCS"][0] == "a sample of 78,603"
    assert not [check for check in table.values() if check[-1] in ("differs", "absent")]
    assert command("--strict", f"--data_dir={data_dir}", f"--codes={DATA_SET}").returncode == 0


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Columns, graph and report of a data set of the authors' release."""
    folder = write_release(tmp_path_factory.mktemp("release"))
    data_dir = tmp_path_factory.mktemp("release_data")
    builder = prepare("medtok_codes/release", data_dir, progress=False, source_dir=folder)
    graph = KnowledgeGraph.load(graph_path(builder))
    return data_dir, read_columns(builder, graph, progress=False), graph, report_of(builder)


@pytest.mark.integration
def test_the_release_against_the_paper(release):
    data_dir, columns, graph, report = release
    checks = {check.what: check for check in checks_of(parse_name("medtok_codes/release"), columns, graph, report)}
    assert [checks[f"codes: {name}"].expected for name in ("SNOMED", "ICD9CM + ICD9Proc", "all")] == [
        *("303,325", "18,365", "617,490"),
    ]
    assert checks["codes: SNOMED"].verdict == "absent"
    assert checks["codes: ATC"].verdict == "differs"
    assert checks["codes: LOCAL"].verdict == "not comparable"
    assert checks["nodes of PrimeKG"].expected == "129,375"
    with_nodes = sum(bool(row["pkg_index_list"]) for row in release_rows())
    assert checks["codes with a graph, of those with nodes"].found == str(with_nodes)
    assert checks["codes with a graph, of those with nodes"].verdict == "as expected"
    result = command("--codes=medtok_codes/release", f"--data_dir={data_dir}", "--strict")
    assert result.returncode == 1
    assert "a node is the code itself" in result.stdout
    assert "checks are off, the first: codes: SNOMED, expected 303,325, found 0" in result.stderr


@pytest.mark.integration
@pytest.mark.parametrize(
    ("field", "value", "check"),
    [
        ("is_sound", False, "sound subgraphs"),
        ("is_empty", True, "descriptions"),
        ("nodes", 65, "nodes of the largest subgraph"),
        ("nodes", 0, "codes with a graph, of those with nodes"),
        ("split", "test", "share of test"),
    ],
)
def test_each_check_can_fail(release, field, value, check):
    _, columns, graph, report = release
    options = parse_name("medtok_codes/release")
    before = {found.what: found for found in checks_of(options, columns, graph, report)}
    values = getattr(columns, field).copy()
    values[:] = value
    changed = dataclasses.replace(columns, **{field: values})
    after = {found.what: found for found in checks_of(options, changed, graph, report)}
    assert not before[check].is_off
    assert after[check].is_off


@pytest.mark.integration
def test_counts_close_to_the_paper_are_told_from_others(release):
    _, columns, graph, report = release
    systems = np.array(["ATC"] * 6_659 + ["CPT4"] * 10_700 + ["NDC"] * 50_000, dtype=object)
    repeated = {
        field.name: np.resize(getattr(columns, field.name), len(systems)) for field in dataclasses.fields(columns)
    }
    many = dataclasses.replace(columns, **repeated | {"system": systems})
    verdicts = {}
    for name in ("release", "primekg"):
        checks = checks_of(parse_name(f"medtok_codes/{name}"), many, graph, report)
        verdicts[name] = [check.verdict for check in checks if check.what.split(": ")[-1] in ("ATC", "CPT4", "NDC")]
    assert sorted(verdicts["release"]) == ["about as published", "as expected", "differs"]
    assert sorted(verdicts["primekg"]) == ["about as published", "about as published", "as expected"]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("nodes", lambda nodes: nodes + 1_000_000),
        ("nodes", lambda nodes: nodes * 0 + nodes[0]),
        ("hops", lambda hops: hops[1:]),
        ("senders", lambda senders: senders[::-1]),
        ("receivers", lambda receivers: receivers - 1),
        ("relations", lambda relations: relations * 0),
        ("self_node", lambda node: node + 1000),
    ],
)
def test_unsound_subgraphs_are_seen(small_examples, small, field, change):
    graph = KnowledgeGraph.load(graph_path(small))
    example = next(example for example in small_examples["test"] if len(example["nodes"]) > 5)
    assert example_columns._is_sound(example, graph)
    assert not example_columns._is_sound(example | {field: change(example[field])}, graph)
