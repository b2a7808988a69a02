"""Read the knowledge graph, the codes and their nodes from one of the four sources of a data set.

| source | codes | graph | subgraphs |
|---|---|---|---|
| `icd` | ICD systems, from Python packages | hierarchies, crosswalks, notes, HPO | hub-capped, 2 hops |
| `icd_ndc` | the same and NDC | the same, and drugs with their ingredients and classes | hub-capped, 2 hops |
| `primekg` | `processed_descriptions.csv` | PrimeKG: `graph/` | hub-capped, 2 hops of the nodes in `links/` |
| `release` | `all_codes_mappings.parquet` | PrimeKG: `kg.csv` | its node lists, and all edges among them |

The last two are built from the files of a source directory (`FILES`). In their graphs, too, a node may be the code
itself, and the model must never see its name: `primekg` marks the node of an exact link, `release` the node whose name
equals the code's description.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from preprocessing import primekg
from preprocessing.codes import ICD9CM, CodeRecord
from preprocessing.common.checksums import sha256_of
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading
from preprocessing.common.rejects import Rejects
from preprocessing.common.text_tables import table
from preprocessing.dataset.drugs import read_drugs
from preprocessing.dataset.examples import anchor_lists, codes_table
from preprocessing.dataset.known_codes import graph_categories, known_codes, write_known_codes
from preprocessing.dataset.name import EMBEDDED, ICD, ICD_NDC, NAME, PRIMEKG, RELEASE, DatasetOptions
from preprocessing.dataset.release import FILE as RELEASE_FILE
from preprocessing.dataset.release import Release, read_release
from preprocessing.dataset.sample import sample
from preprocessing.graph import icd_graph
from preprocessing.graph.categories import spelled_categories
from preprocessing.graph.drug_graph import add_drugs
from preprocessing.graph.holdout import Holdout, hold_out, write_held_out
from preprocessing.graph.knowledge_graph import KnowledgeGraph, from_facts, node_table
from preprocessing.graph.names import normal_form
from preprocessing.graph.neighborhoods import NeighborTable, PairTable, neighbor_table, pair_table
from preprocessing.linking.links import anchors_of, link_by_key
from preprocessing.sources.icd import official_counts, read_gem, vocabulary
from preprocessing.sources.icd_editions import read_editions

LINKS = "links/links.parquet"
COVERAGE = "links/coverage.json"
DESCRIPTIONS = "processed_descriptions.csv"
GRAPH = "graph"
KG = "kg.csv"
# Files of a source directory from which a data set is built, and the command that makes them.
FILES = {
    PRIMEKG: ((DESCRIPTIONS, f"{GRAPH}/graph.json", LINKS), "python -m preprocessing.pipeline --output={} --full"),
    RELEASE: ((RELEASE_FILE, KG), "python -m preprocessing.download release --output={}"),
}
_ORIGINS = {PRIMEKG: "the official files of all code systems and PrimeKG", RELEASE: "files of doi:10.7910/DVN/7XNT3M"}


@dataclasses.dataclass(frozen=True)
class DatasetInputs:
    """Hold the inputs of a data set.

    Attributes:
        codes: `examples.CODES_SCHEMA` table.
        table: the edges from which subgraphs are cut.
    """

    codes: pa.Table
    table: NeighborTable | PairTable


def check_source(name: str, options: DatasetOptions, source_dir: Path | None, data_dir: object = None) -> None:
    """Check that the data set `name` could be built.

    Raises:
        InputError: the data set needs a source directory and none is given, the given one lacks a file, or none is
            needed; the message gives the commands.
    """
    if options.source in EMBEDDED:
        if source_dir is not None:
            raise InputError(f"{name} is built from Python packages; leave --source_dir={source_dir} out.")
        return
    files, command = FILES[options.source]
    if source_dir is None:
        where = "" if data_dir is None else f" --data_dir={data_dir}"
        raise InputError(
            f"{name} does not exist yet and is built from {_ORIGINS[options.source]}: get these with "
            f"{command.format('DIR')}, and build it with python -m preprocessing.medtok_codes --codes={name} "
            f"--source_dir=DIR{where} ('{NAME}/{ICD}' needs no files)."
        )
    for file in files:
        if not (source_dir / file).is_file():
            raise InputError(
                f"{source_dir} lacks {file}, from which {name} is built; make it with: {command.format(source_dir)}"
            )


def source_files(options: DatasetOptions, source_dir: Path | None) -> dict[str, dict[str, str | int]]:
    """Return the size (bytes) and SHA-256 of the files of a data set, by their name in the source directory."""
    found = {}
    for name in FILES.get(options.source, ((), ""))[0]:
        found[name] = {"bytes": (source_dir / name).stat().st_size, "sha256": sha256_of(source_dir / name)}
    return found


def read_source(options: DatasetOptions, source_dir: Path | None, folder: Path, progress: bool = True) -> DatasetInputs:
    """Read the inputs of a data set, and write its graph and a report of the counts into `folder`.

    `folder` then holds the graph, `known_codes.parquet`, `report.json`, `holdout.parquet` if edges are held out, and
    `rejects.csv` if there is a source directory.
    """
    if options.source in EMBEDDED:
        return _embedded(options, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with Rejects(folder / "rejects.csv") as rejects:
        read = {PRIMEKG: _primekg, RELEASE: _release}[options.source]
        source, counts, known = read(options, source_dir, folder, rejects, progress)
    counts |= {f"{outcome}: {file}: {kind}": count for file, kind, outcome, count in rejects.summary()}
    report = {
        "code_lists": [],
        "counts": counts,
        "links": _link_coverage(source_dir),
        "rejected": rejects.counts.total(),
        "sources": source_files(options, source_dir),
    }
    _write_report(folder, report | write_known_codes(folder, known))
    return source


def _embedded(options: DatasetOptions, folder: Path) -> DatasetInputs:
    source = icd_graph.icd_facts(options.groups)
    described = list(vocabulary())
    counts = source.counts
    if options.source == ICD_NDC:
        found = read_drugs()
        source = add_drugs(source, found.drugs)
        described += found.records()
        counts = counts | found.counts
    facts = source.facts
    keys = list(source.ids)
    held = {}
    for holdout in options.holdouts:
        facts, left_out = hold_out(facts, keys, icd_graph.EDGE_TYPES[holdout.edge_type], holdout)
        held |= left_out
    graph = from_facts(node_table(source.rows), facts, icd_graph.REVERSE)
    graph.save(folder)
    if options.holdouts:
        write_held_out(folder / "holdout.parquet", held, keys)
    lists = [dict(zip(row.dtype.names, row.item(), strict=True)) for row in official_counts()]
    pairs = _kept_pairs(options.holdouts)
    known = known_codes(described, graph_categories(graph.nodes), read_editions(), pairs)
    _write_report(folder, {"code_lists": lists, "counts": counts} | write_known_codes(folder, known))
    records = sampled(described, options)[0]
    nodes, anchors = anchor_lists(link_by_key(records, source.ids)[0])
    codes = codes_table(records, nodes, anchors, np.where(anchors > 0, 0, -1))
    return DatasetInputs(codes, _neighbors(graph, options, icd_graph.PRIORITY, icd_graph.FIRST_KEPT))


def _kept_pairs(holdouts: Sequence[Holdout]) -> list[tuple[str, str, bool]]:
    """Return the exact pairs of the crosswalk of which the ICD-9-CM code is not held out.

    Those of codes of earlier editions, which the graph lacks, are among them: such a code is read with the subgraph of
    its partner.
    """
    pairs = [pair for pair in read_gem().pairs if pair[2]]
    for holdout in holdouts:
        if "gem_exact" in icd_graph.EDGE_TYPES[holdout.edge_type]:
            held = holdout.chooses(f"{ICD9CM}/{icd9}" for icd9, _, _ in pairs)
            pairs = [pair for pair, is_held in zip(pairs, held, strict=True) if not is_held]
    return pairs


def _primekg(
    options: DatasetOptions, source_dir: Path, folder: Path, rejects: Rejects, progress: bool
) -> tuple[DatasetInputs, dict[str, int], pa.Table]:
    described = _described_codes(source_dir / DESCRIPTIONS, rejects)
    records, _ = sampled(described, options)
    graph = KnowledgeGraph.load(source_dir / GRAPH)
    graph.save(folder)
    anchors, self_nodes = anchors_of(records, source_dir / LINKS)
    nodes, counts = anchor_lists(anchors[:, : options.max_nodes])
    codes = codes_table(records, nodes, counts, np.where(self_nodes < counts, self_nodes, -1))
    counted = {"codes": len(described), "codes_with_nodes": int((counts > 0).sum())}
    known = known_codes(described, spelled_categories(described))
    return DatasetInputs(codes, _neighbors(graph, options, primekg.PRIORITY, primekg.FIRST_KEPT)), counted, known


def _release(
    options: DatasetOptions, source_dir: Path, folder: Path, rejects: Rejects, progress: bool
) -> tuple[DatasetInputs, dict[str, int], pa.Table]:
    found = primekg.read_primekg(source_dir / KG, rejects, progress=progress)
    found.graph.save(folder)
    path = source_dir / RELEASE_FILE
    release = read_release(path, rejects, progress=progress)
    nodes, anchors, cut = _known_nodes(release, found.index, options.max_nodes, rejects, path)
    records, chosen = sampled(release.records, options)
    nodes, anchors = nodes.take(pa.array(chosen)), anchors[chosen]
    codes = codes_table(records, nodes, anchors, _self_nodes(records, nodes, anchors, found.graph))
    counted = {
        "codes": len(release.records),
        "codes_with_nodes": int((anchors > 0).sum()),
        "node_lists_cut_at_the_cap": cut,
    }
    known = known_codes(release.records, spelled_categories(release.records))
    return DatasetInputs(codes, pair_table(found.graph, priority=primekg.PRIORITY)), counted, known


def _link_coverage(source_dir: Path) -> dict[str, dict[str, int]]:
    """Return the numbers of codes by system and method of linking from `coverage.json`, if there is such a file."""
    path = source_dir / COVERAGE
    if not path.is_file():
        return {}
    with reading(path, "the coverage of links", "make it with: python -m preprocessing.linking"):
        return json.loads(path.read_text(encoding="utf-8"))["systems"]


def _described_codes(path: Path, rejects: Rejects) -> list[CodeRecord]:
    """Return the codes of `processed_descriptions.csv`; the description of one without a text is `SYSTEM code`."""
    records = {}
    columns = dict.fromkeys(("system", "code", "description"), ())
    for line, (system, code, text), row in table(path, rejects, columns=columns, separators=",", quoted=True):
        record = CodeRecord(system, code, text.strip() or f"{system} {code}")
        if not code or not system:
            rejects.add(path, line, "no code", "the row names no code; left out", row)
        elif records.setdefault(record.key, record) != record:
            rejects.add(path, line, "duplicate code with different text", "the first text is kept", row)
    if not records:
        raise InputError(f"{path} holds no code; make it with: python -m preprocessing.descriptions")
    return list(records.values())


def _neighbors(
    graph: KnowledgeGraph, options: DatasetOptions, priority: Sequence[str], first_kept: Sequence[str]
) -> NeighborTable:
    return neighbor_table(graph, hub_cap=options.hub_cap, priority=priority, first_kept=first_kept)


def _known_nodes(
    release: Release, index: np.ndarray, max_nodes: int, rejects: Rejects, path: Path
) -> tuple[pa.ListArray, np.ndarray, int]:
    """Convert the PrimeKG indices of the release's codes to node ids, at most `max_nodes` per code.

    If the release does not state which nodes are the code's own, the first of its list is the anchor.

    Returns:
        lists: node ids of each of n codes, anchors first.
        anchors: int64 [n], number of anchors of each code.
        cut: number of lists that were longer than `max_nodes`.
    """
    lengths = np.array([len(numbers) for numbers in release.index], dtype=np.int64)
    flat = np.concatenate(release.index) if len(lengths) else np.empty(0, np.int64)
    row = np.repeat(np.arange(len(lengths)), lengths)
    node = np.minimum(np.searchsorted(index, flat), len(index) - 1)
    known = index[node] == flat
    for position in np.flatnonzero(~known):
        key = release.records[row[position]].key
        reason = f"PrimeKG has no node of index {flat[position]}; the other nodes of {key} are kept"
        rejects.add(path, int(release.lines[row[position]]), "node not in the graph", reason, key)
    own = np.arange(len(flat)) - (np.cumsum(lengths) - lengths)[row] < release.anchors[row]
    anchors = np.bincount(row[known & own], minlength=len(lengths))
    row = row[known]
    nodes = node[known]
    counts = np.bincount(row, minlength=len(lengths))
    kept = np.arange(len(row)) - (np.cumsum(counts) - counts)[row] < max_nodes
    capped = np.minimum(counts, max_nodes)
    offsets = np.concatenate([[0], np.cumsum(capped)]).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(nodes[kept].astype(np.int32)))
    anchors = np.minimum(np.where(anchors > 0, anchors, counts > 0), capped)
    return lists, anchors, int((counts > max_nodes).sum())


def _self_nodes(
    records: Sequence[CodeRecord], nodes: pa.ListArray, anchors: np.ndarray, graph: KnowledgeGraph
) -> np.ndarray:
    """Return the position of the anchor whose name equals the description of the code, -1 for none, int32 [n]."""
    names = graph.nodes["name"].to_pylist()
    forms: dict[int, str] = {}
    found = np.full(len(records), -1, dtype=np.int32)
    starts = nodes.offsets.to_numpy()
    flat = nodes.values.to_numpy()
    for row in np.flatnonzero(anchors):
        form = normal_form(records[row].description)
        for position in range(anchors[row]):
            node = int(flat[starts[row] + position])
            if node not in forms:
                forms[node] = normal_form(names[node])
            if forms[node] == form:
                found[row] = position
                break
    return found


def sampled(records: Sequence[CodeRecord], options: DatasetOptions) -> tuple[list[CodeRecord], np.ndarray]:
    """Return the codes that the option `sample` keeps, and their positions int64 [n]."""
    chosen = sample([record.key for record in records], options.sample or 0)
    return [records[position] for position in chosen], chosen


def _write_report(folder: Path, report: dict) -> None:
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
