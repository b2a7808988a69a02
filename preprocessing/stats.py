"""Prints what a data set holds, without building anything.

python -m preprocessing.stats medtok_codes/icd --data_dir=DIR
"""

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow.parquet as pq
from absl import flags
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from preprocessing import command_line
from preprocessing.knowledge_graph import KnowledgeGraph
from preprocessing.medtok_codes import MedtokCodes, fingerprint, graph_path, open_prepared
from preprocessing.splits import SPLITS

_BATCH = 4096
_HPO_TYPES = ("phenotype", "disease", "gene")
# Wide enough for every table, where output is not a terminal.
_WIDTH = 130


@dataclasses.dataclass(frozen=True)
class Columns:
    """What the tables need of n examples, as arrays of n rows.

    Attributes:
        system, split: str. description: object (str). is_empty: bool, no official description.
        nodes, edges: int64, sizes of the subgraph; edges counts both directions.
        has_hpo: bool, an HPO node is in the subgraph. links_hpo: bool, the code's own node is linked to one.
    """

    system: np.ndarray
    split: np.ndarray
    description: np.ndarray
    is_empty: np.ndarray
    nodes: np.ndarray
    edges: np.ndarray
    has_hpo: np.ndarray
    links_hpo: np.ndarray


def read_columns(builder: MedtokCodes, graph: KnowledgeGraph, progress: bool = True) -> Columns:
    """Reads all examples of a prepared data set."""
    hpo_types = [position for position, name in enumerate(graph.node_types) if name in _HPO_TYPES]
    is_hpo = np.isin(graph.node_type_ids(), hpo_types)
    hpo_link = [position for position, name in enumerate(graph.relation_names) if name == "hpo_link"]
    rows = []
    total = sum(builder.info.splits[split].num_examples for split in SPLITS)
    with tqdm(total=total, desc="reading", unit=" codes", disable=not progress, leave=False) as bar:
        for split in SPLITS:
            source = builder.as_data_source(split)
            for start in range(0, len(source), _BATCH):
                batch = source.__getitems__(range(start, min(start + _BATCH, len(source))))
                rows += [_row(example, split, is_hpo, hpo_link) for example in batch]
                bar.update(len(batch))
    columns = zip(*rows, strict=True)
    return Columns(*(np.array(column, dtype=object if isinstance(column[0], str) else None) for column in columns))


def _row(example: dict, split: str, is_hpo: np.ndarray, hpo_link: list[int]) -> tuple:
    system, code, description = (example[name].decode() for name in ("system", "code", "description"))
    own = example["senders"] == example["self_node"]
    return (
        system,
        split,
        description,
        description == f"{system} {code}",
        len(example["nodes"]),
        len(example["senders"]),
        bool(is_hpo[example["nodes"]].any()),
        bool(np.isin(example["relations"][own], hpo_link).any()),
    )


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


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({part / max(whole, 1):.1%})"


def _by_system(columns: Columns) -> list[tuple[str, np.ndarray]]:
    systems = sorted(set(columns.system))
    selections = [(system, columns.system == system) for system in systems]
    return [*selections, ("all", np.ones(len(columns.system), dtype=bool))]


def code_table(columns: Columns) -> Table:
    """Codes and descriptions of each system; lengths in characters and blank-separated words."""
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


def graph_table(columns: Columns, max_nodes: int) -> Table:
    """Subgraphs of each system; an edge is counted once, not once per direction."""
    rows = []
    for system, chosen in _by_system(columns):
        nodes, pairs, count = columns.nodes[chosen], columns.edges[chosen] // 2, int(chosen.sum())
        rows.append(
            (
                system,
                _share(int((nodes > 1).sum()), count),
                _quantiles(nodes, 50, 95),
                _quantiles(pairs, 50, 95),
                _share(int((nodes >= max_nodes).sum()), count),
                _share(int(columns.links_hpo[chosen].sum()), count),
                _share(int(columns.has_hpo[chosen].sum()), count),
            )
        )
    headers = ("system", "more than itself", "nodes p50 / p95 / max", "edges p50 / p95 / max", f"at cap of {max_nodes}")
    return _table("Subgraphs", (*headers, "linked to HPO", "HPO in reach"), rows)


def split_table(columns: Columns) -> Table:
    """Codes of each system in each split."""
    rows = []
    for system, chosen in _by_system(columns):
        counts = Counter(columns.split[chosen])
        rows.append((system, *(_share(counts[split], int(chosen.sum())) for split in SPLITS)))
    return _table("Splits", ("system", *SPLITS), rows)


def source_table(report: dict) -> Table:
    """Published totals of the official lists against what was read."""
    rows = []
    for entry in report["code_lists"]:
        verdict = "as published" if entry["expected"] == entry["found"] else "differs"
        rows.append((entry["system"], entry["expected"], entry["found"], entry["malformed"], verdict))
    return _table("Official lists", ("list", "expected", "found", "malformed lines", ""), rows)


def node_table(graph: KnowledgeGraph) -> Table:
    """Nodes of the knowledge graph by type."""
    counts = np.bincount(graph.node_type_ids(), minlength=len(graph.node_types)).tolist()
    rows = sorted(zip(graph.node_types, counts, strict=True), key=lambda row: -row[1])
    return _table("Nodes of the knowledge graph", ("type", "nodes"), [*rows, ("all", graph.num_nodes)])


def edge_table(graph: KnowledgeGraph) -> Table:
    """Facts of the knowledge graph by relation; each is stored in both directions."""
    counts = np.bincount(np.asarray(graph.relation), minlength=len(graph.relation_names)).tolist()
    rows = []
    for position, reverse in enumerate(graph.reverse):
        if position <= reverse:
            facts = counts[position] if position != reverse else counts[position] // 2
            rows.append((graph.relation_names[position], graph.relation_names[reverse], facts))
    rows.sort(key=lambda row: -row[2])
    rows.append(("all", "", graph.num_edges // 2))
    return _table("Edges of the knowledge graph", ("relation", "reverse", "facts"), rows)


def print_stats(name: str, data_dir: str | os.PathLike | None, console: Console, progress: bool = True) -> None:
    """Prints every table of the prepared data set `name`.

    Raises:
        InputError: the data set is absent or damaged.
    """
    builder = open_prepared(name, data_dir)
    folder = graph_path(builder)
    graph = KnowledgeGraph.load(folder)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    columns = read_columns(builder, graph, progress)
    console.print(f"{builder.info.full_name}  {builder.data_path}", soft_wrap=True)
    console.print(f"fingerprint {fingerprint(builder)}\n", soft_wrap=True)
    console.print(source_table(report))
    console.print(code_table(columns))
    console.print(graph_table(columns, builder.builder_config.options.max_nodes))
    console.print(split_table(columns))
    console.print(node_table(graph))
    console.print(edge_table(graph))
    console.print(_table("Read, linked and dropped", ("what", "count"), report["counts"].items()))
    if (folder / "holdout.parquet").exists():
        held = Counter(pq.read_table(folder / "holdout.parquet")["relation"].to_pylist())
        console.print(_table("Held out", ("relation", "facts"), sorted(held.items())))


def main(argv: list[str]) -> None:
    """Prints the statistics of the data set that the first argument names."""
    (name,) = command_line.expect_arguments(argv, 1, "python -m preprocessing.stats medtok_codes/icd --data_dir=DIR")
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    print_stats(name, flags.FLAGS.data_dir, console)


if __name__ == "__main__":
    flags.DEFINE_string("data_dir", None, "TFDS data directory; TFDS's own default when not given")
    command_line.run(main)
