"""Print tables of the contents of a data set, and the checks of these contents."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from preprocessing.dataset.known_codes import KINDS
from preprocessing.dataset.name import EMBEDDED
from preprocessing.dataset.splits import SPLITS
from preprocessing.graph.knowledge_graph import KnowledgeGraph
from preprocessing.medtok_codes import fingerprint, graph_path, open_prepared, report_of
from preprocessing.stats.columns import Columns, read_columns
from preprocessing.stats.verification import Check, check_table, checks_of


def _table(title: str, headers: Sequence[str], rows: Iterable[Sequence]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for position, header in enumerate(headers):
        table.add_column(header, justify="right" if position else "left")
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int | np.integer) else str(cell) for cell in row))
    return table


def _quantiles(values: np.ndarray, *percents: int) -> str:
    parts = [f"{int(np.percentile(values, percent, method='higher')):,}" for percent in percents]
    return " / ".join([*parts, f"{int(values.max()):,}"])


def _share(part: int, total: int) -> str:
    return f"{part:,} ({part / max(total, 1):.1%})"


def _by_system(columns: Columns) -> list[tuple[str, np.ndarray]]:
    systems = sorted(set(columns.system))
    selections = [(system, columns.system == system) for system in systems]
    return [*selections, ("all", np.ones(len(columns.system), dtype=bool))]


def code_table(columns: Columns) -> Table:
    """Return a table of the codes and descriptions of each system, with lengths in characters and words."""
    rows = []
    for system, chosen in _by_system(columns):
        texts = columns.description[chosen]
        characters = np.array([len(text) for text in texts])
        words = np.array([len(text.split()) for text in texts])
        lengths = (_quantiles(characters, 50, 95, 99), _quantiles(words, 50, 95, 99))
        rows.append((system, len(texts), int(columns.is_empty[chosen].sum()), len(set(texts)), *lengths))
    headers = (
        "system",
        "codes",
        "no description",
        "unique",
        "characters p50 / p95 / p99 / max",
        "words p50 / p95 / p99 / max",
    )
    return _table("Codes and descriptions", headers, rows)


def graph_table(columns: Columns, max_nodes: int, source: str) -> Table:
    """Return a table of the subgraphs of each system, counting an edge once rather than once per direction."""
    if source in EMBEDDED:
        first = ("more than itself", columns.nodes > 1)
        others = [("linked to HPO", columns.links_hpo), ("HPO in reach", columns.has_hpo)]
    else:
        first = ("with a graph", columns.nodes > 0)
        others = [("a node is the code itself", columns.has_self)]
    others.insert(0, (f"at cap of {max_nodes}", columns.nodes >= max_nodes))
    rows = []
    for system, chosen in _by_system(columns):
        count = int(chosen.sum())
        sizes = (_quantiles(columns.nodes[chosen], 50, 95), _quantiles(columns.edges[chosen] // 2, 50, 95))
        shares = [_share(int(flag[chosen].sum()), count) for _, flag in (first, *others)]
        rows.append((system, shares[0], *sizes, *shares[1:]))
    headers = ("system", first[0], "nodes p50 / p95 / max", "edges p50 / p95 / max", *(name for name, _ in others))
    return _table("Subgraphs", headers, rows)


def split_table(columns: Columns) -> Table:
    """Return a table of the numbers of codes of each system in each split."""
    rows = []
    for system, chosen in _by_system(columns):
        counts = Counter(columns.split[chosen])
        rows.append((system, *(_share(counts[split], int(chosen.sum())) for split in SPLITS)))
    return _table("Splits", ("system", *SPLITS), rows)


def source_table(report: dict) -> Table:
    """Return a table that compares the published totals of the official lists with the numbers of codes read."""
    rows = []
    for entry in report["code_lists"]:
        verdict = "as published" if entry["expected"] == entry["found"] else "differs"
        rows.append((entry["system"], entry["expected"], entry["found"], entry["malformed"], verdict))
    return _table("Official lists", ("list", "expected", "found", "malformed lines", ""), rows)


def known_table(report: dict) -> Table:
    """Return a table of what each system knows, and of the bare spellings that need their system, by kind."""
    rows = []
    for system, counts in report["known_codes"].items():
        rows.append((system, *counts.values(), *report["ambiguous_without_system"][system].values()))
    headers = (*KINDS, *(f"{kind}, ambiguous" for kind in KINDS))
    return _table("What the systems know", ("system", *headers), rows)


def node_table(graph: KnowledgeGraph) -> Table:
    """Return a table of the numbers of nodes of the knowledge graph by type."""
    counts = np.bincount(graph.node_type_ids(), minlength=len(graph.node_types)).tolist()
    rows = sorted(zip(graph.node_types, counts, strict=True), key=lambda row: -row[1])
    return _table("Nodes of the knowledge graph", ("type", "nodes"), [*rows, ("all", graph.num_nodes)])


def edge_table(graph: KnowledgeGraph) -> Table:
    """Return a table of the numbers of facts of the knowledge graph by relation, counting both directions as one."""
    counts = np.bincount(np.asarray(graph.relation), minlength=len(graph.relation_names)).tolist()
    rows = []
    for position, reverse in enumerate(graph.reverse):
        if position <= reverse:
            facts = counts[position] if position != reverse else counts[position] // 2
            rows.append((graph.relation_names[position], graph.relation_names[reverse], facts))
    rows.sort(key=lambda row: -row[2])
    rows.append(("all", "", graph.num_edges // 2))
    return _table("Edges of the knowledge graph", ("relation", "reverse", "facts"), rows)


def link_table(links: dict[str, dict[str, int]]) -> Table:
    """Return a table of the numbers of codes of each system by the method that linked them to the graph."""
    methods = list(dict.fromkeys(name for counts in links.values() for name in counts))
    rows = [(name, *(counts.get(name, 0) for counts in links.values())) for name in methods]
    return _table("Links", ("", *links), rows)


def print_stats(name: str, data_dir: str | os.PathLike | None, console: Console, progress: bool = True) -> list[Check]:
    """Print every table of the prepared data set `name`, and return its checks.

    Raises:
        InputError: the data set is absent or damaged.
    """
    builder = open_prepared(name, data_dir)
    options = builder.builder_config.options
    folder = graph_path(builder)
    graph = KnowledgeGraph.load(folder)
    report = report_of(builder)
    columns = read_columns(builder, graph, progress)
    checks = checks_of(options, columns, graph, report)
    console.print(f"{builder.info.full_name}  {builder.data_path}", soft_wrap=True)
    console.print(f"fingerprint {fingerprint(builder)}\n", soft_wrap=True)
    if report["code_lists"]:
        console.print(source_table(report))
    console.print(code_table(columns))
    console.print(graph_table(columns, options.max_nodes, options.source))
    if report.get("links"):
        console.print(link_table(report["links"]))
    console.print(split_table(columns))
    console.print(known_table(report))
    console.print(node_table(graph))
    console.print(edge_table(graph))
    console.print(_table("Read, linked and dropped", ("what", "count"), report["counts"].items()))
    if (folder / "holdout.parquet").exists():
        held = Counter(pq.read_table(folder / "holdout.parquet")["relation"].to_pylist())
        console.print(_table("Held out", ("relation", "facts"), sorted(held.items())))
    console.print(check_table(checks))
    return checks
