"""Link codes to the nodes of a knowledge graph: the anchors of their subgraphs."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.table import Table

from preprocessing.codes import CodeRecord
from preprocessing.common.atomic import whole_folder
from preprocessing.common.foreign_files import reading
from preprocessing.common.progress import Bar
from preprocessing.common.rejects import Rejects
from preprocessing.common.text_tables import table
from preprocessing.graph.knowledge_graph import KnowledgeGraph
from preprocessing.linking.evidence import METHODS, Evidence, gather
from preprocessing.linking.rules import (
    INHERITED,
    Code,
    Link,
    best,
    from_evidence,
    inherit,
    members_of_atc_classes,
    own_links,
)
from preprocessing.linking.targets import LinkTargets
from preprocessing.sources.code_entries import read_attributes

MOST_ANCHORS = 4
LINKS = "links.parquet"
LINK_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("node_id", pa.int32()),
        ("method", pa.string()),
        ("confidence", pa.float32()),
        ("rank", pa.uint8()),
        ("exact", pa.bool_()),
        ("via", pa.string()),
    ]
)


def link_by_key(records: Iterable[CodeRecord], ids: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Anchor each code at the node that has its key, for graphs whose nodes are the codes themselves.

    Args:
        records: n codes.
        ids: node key -> node id.

    Returns:
        anchors: int32 [n, 1], -1 if the graph has no such node.
        self_node: int32 [n], column of `anchors` that holds the node which is the code itself (0), or -1.
    """
    anchors = np.array([ids.get(record.key, -1) for record in records], dtype=np.int32).reshape(-1, 1)
    return anchors, np.where(anchors[:, 0] >= 0, 0, -1).astype(np.int32)


def anchors_of(records: Iterable[CodeRecord], links: pa.Table | Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the anchors of codes, and which anchor is the code itself, from their links.

    A node that is the code itself must not show its name to the model, because the name equals, or means the same as,
    the description that the text encoder reads. `exact` links lead to such nodes: nodes of equal name, of an exact
    match, or of a shared UMLS concept. Only one node of a subgraph can be marked this way, so only the best exact link
    of a code gives an anchor.

    Args:
        records: n codes.
        links: `LINK_SCHEMA` table, or the path of `links.parquet`.

    Returns:
        anchors: int32 [n, A], best first, -1 after a code's last anchor; A is the maximum number of anchors of the
            codes, and at least 1.
        self_node: int32 [n], column of `anchors` that holds the node which is the code itself, or -1.

    Raises:
        InputError: the file cannot be read or lacks a column.
    """
    if not isinstance(links, pa.Table):
        links = _read_links(links)
    of_key: dict[str, list[tuple[int, bool]]] = {}
    ordered = links.sort_by([("key", "ascending"), ("rank", "ascending")])
    columns = (ordered[name].to_pylist() for name in ("key", "node_id", "exact"))
    for key, node, exact in zip(*columns, strict=True):
        known = of_key.setdefault(key, [])
        if not (exact and any(is_exact for _, is_exact in known)):
            known.append((node, exact))
    found = [of_key.get(record.key, []) for record in records]
    anchors = np.full((len(found), max(map(len, found), default=1) or 1), -1, dtype=np.int32)
    self_node = np.full(len(found), -1, dtype=np.int32)
    for row, own in enumerate(found):
        for column, (node, exact) in enumerate(own):
            anchors[row, column] = node
            if exact:
                self_node[row] = column
    return anchors, self_node


def _read_links(path: Path) -> pa.Table:
    with reading(path, "links", "make it with: python -m preprocessing.linking"):
        table = pq.read_table(path, schema=LINK_SCHEMA)
        table.validate(full=True)
    return table


def link_codes(
    codes: Sequence[Code],
    targets: LinkTargets,
    evidence: Evidence,
    *,
    most: int = MOST_ANCHORS,
    progress: bool = True,
) -> pa.Table:
    """Link every code to at most `most` nodes, best first.

    The links of a code depend only on the contents of the arguments, not on the order of codes or files.

    Args:
        codes: the codes.
        targets: nodes of the graph by term and name.
        evidence: links that the cross-reference files state.
        most: maximum number of nodes per code.
        progress: whether to show a progress bar.

    Returns:
        A `LINK_SCHEMA` table in the order of `codes`.
    """
    own = {
        code.record.key: own_links(code, targets, evidence)
        for code in Bar(codes, desc="linking", unit=" codes", unit_scale=True, show=progress, leave=False)
    }
    # A category passes its links to its codes even if the category is not in the vocabulary.
    for key in evidence.links.keys() - own.keys():
        own[key] = from_evidence(evidence.links[key], targets)
    members = members_of_atc_classes(own)
    rows: list[tuple] = []
    for code in codes:
        key = code.record.key
        links = best([*own[key], *inherit(code, own, evidence.rxcuis, members)], most)
        rows += [(key, *_row(link, rank)) for rank, link in enumerate(links)]
    columns = zip(*rows, strict=True) if rows else [[] for _ in LINK_SCHEMA]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, LINK_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=LINK_SCHEMA)


def _row(link: Link, rank: int) -> tuple:
    return link.node, link.method, link.confidence, rank, link.exact, link.via


def read_codes(path: Path, rejects: Rejects) -> list[Code]:
    """Return the codes of `codes.csv` (`process_codes`), in file order; the column `attributes` may be absent.

    Raises:
        InputError: the file cannot be read, is empty or lacks a column.
    """
    codes = []
    columns = dict.fromkeys(("system", "code", "description"), ())
    for line, (system, code, description, attributes), text in table(
        path, rejects, columns=columns, optional={"attributes": ()}, separators=",", quoted=True
    ):
        known = read_attributes(attributes)
        if known is None:
            rejects.add(path, line, "malformed attributes", "they are no JSON object and were left out", text)
        codes.append(Code(CodeRecord(system, code, description), known or {}))
    return codes


def coverage(codes: Sequence[Code], links: pa.Table) -> dict[str, dict[str, int]]:
    """Return the numbers of `codes`, of `linked` codes, and of codes by the method of their best link, by system."""
    first = links.filter(pc.equal(links["rank"], 0))
    best_method = dict(zip(first["key"].to_pylist(), first["method"].to_pylist(), strict=True))
    found: dict[str, Counter[str]] = {}
    for record, _ in codes:
        counts = found.setdefault(record.system, Counter(codes=0, linked=0))
        counts["codes"] += 1
        if method := best_method.get(record.key):
            counts["linked"] += 1
            counts[method] += 1
    order = ["codes", "linked", *METHODS, *INHERITED]
    return {system: {name: counts[name] for name in order if name in counts} for system, counts in found.items()}


def coverage_table(found: Mapping[str, Mapping[str, int]]) -> Table:
    """Format the result of `coverage` for the terminal, with one row per method and one column per system."""
    report = Table(title="Codes by the method of their best link", title_justify="left", title_style="bold")
    report.add_column("")
    for system in found:
        report.add_column(system, justify="right")
    report.add_column("all", justify="right")
    for name in ["codes", "linked", *METHODS, *INHERITED]:
        counts = [counts.get(name, 0) for counts in found.values()]
        if any(counts):
            report.add_row(name, *(f"{count:,}" for count in (*counts, sum(counts))))
    return report


def write_links(
    codes_file: Path,
    graph: Path,
    folders: Sequence[Path],
    output: Path,
    *,
    most: int = MOST_ANCHORS,
    progress: bool = True,
) -> tuple[dict, Rejects]:
    """Link the codes of a file, and write `links.parquet`, `coverage.json` and `rejects.csv` into `output`.

    Args:
        codes_file: `codes.csv` of `process_codes`.
        graph: directory of the graph.
        folders: folders that are searched for cross-reference files.
        output: folder that is replaced once all files are complete.
        most: maximum number of nodes per code.
        progress: whether to show progress bars.

    Returns:
        The contents of `coverage.json` (`systems`, `references`, `files`, `links`), and the rejects.

    Raises:
        InputError: a file cannot be read, is empty or lacks a column; or the folder cannot be written.
    """
    with whole_folder(output) as folder:
        with Rejects(folder / "rejects.csv") as rejects:
            codes = read_codes(codes_file, rejects)
            targets = LinkTargets(KnowledgeGraph.load(graph))
            evidence = gather(folders, targets, rejects, progress=progress)
            links = link_codes(codes, targets, evidence, most=most, progress=progress)
        pq.write_table(links, folder / LINKS, compression="zstd")
        report = {
            "systems": coverage(codes, links),
            "references": dict(sorted(evidence.counts.items())),
            "files": [path.name for path in evidence.files],
            "links": len(links),
        }
        (folder / "coverage.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report, rejects
