import io
from collections import Counter

import numpy as np
import pytest
from rich.console import Console

from preprocessing import stats
from preprocessing.errors import InputError
from preprocessing.medtok_codes import fingerprint

SMALL = "medtok_codes/icd-sample_400"


@pytest.fixture(scope="module")
def printed(small, small_dir):
    console = Console(file=io.StringIO(), width=130)
    stats.print_stats(SMALL, small_dir, console, progress=False)
    return console.file.getvalue()


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


def test_fingerprint_is_printed(printed, small):
    assert fingerprint(small) in printed


def test_absent_data_set_says_how_to_build_it(tmp_path):
    with pytest.raises(InputError, match=r"python -m preprocessing\.medtok_codes --name=medtok_codes/icd --data_dir="):
        stats.print_stats("medtok_codes/icd", tmp_path, Console(file=io.StringIO()))
    assert not list(tmp_path.iterdir())
