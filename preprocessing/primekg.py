"""Read PrimeKG (Chandak et al., Scientific Data 2023) into a knowledge graph.

    python -m preprocessing.primekg --input=DIR/primekg/kg.csv --output=DIR/graph

Format: `kg.csv` of Harvard Dataverse doi:10.7910/DVN/IXA7BM. Each row is a directed edge from x to y; every undirected
edge has two rows. The column `relation` holds 30 relations; `display_relation` only distinguishes the targets, enzymes,
carriers and transporters of `drug_protein`. The file mirrors every edge under the same relation, even "parent" edges,
so each relation is its own reverse; if the ends differ in type, the types give the direction.

Node ids equal `x_index` and `y_index` if these run from 0 without a gap, as in the official file: the authors' release
refers to nodes by them. Otherwise ids follow the order of the indices. In both cases `x_index.npy` holds the index of
every node.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from absl import flags
from rich.console import Console
from rich.table import Table

from preprocessing.common import command_line
from preprocessing.common.atomic import check_replaceable, whole_folder
from preprocessing.common.errors import InputError
from preprocessing.common.large_csv import BLOCK_BYTES, Block, read_blocks
from preprocessing.common.progress import Bar
from preprocessing.common.rejects import Rejects
from preprocessing.graph.knowledge_graph import NODE_SCHEMA, KnowledgeGraph, from_facts

# Table 2 of the paper: nodes of each type; and directed rows of each relation in the official file.
NODE_COUNTS = {
    "biological_process": 28_642,
    "gene/protein": 27_671,
    "disease": 17_080,
    "effect/phenotype": 15_311,
    "anatomy": 14_035,
    "molecular_function": 11_169,
    "drug": 7_957,
    "cellular_component": 4_176,
    "pathway": 2_516,
    "exposure": 818,
}
ROW_COUNTS = {
    "anatomy_protein_present": 3_036_406,
    "drug_drug": 2_672_628,
    "protein_protein": 642_150,
    "disease_phenotype_positive": 300_634,
    "bioprocess_protein": 289_610,
    "cellcomp_protein": 166_804,
    "disease_protein": 160_822,
    "molfunc_protein": 139_060,
    "drug_effect": 129_568,
    "bioprocess_bioprocess": 105_772,
    "pathway_protein": 85_292,
    "disease_disease": 64_388,
    "contraindication": 61_350,
    "drug_protein": 51_306,
    "anatomy_protein_absent": 39_774,
    "phenotype_phenotype": 37_472,
    "anatomy_anatomy": 28_064,
    "molfunc_molfunc": 27_148,
    "indication": 18_776,
    "cellcomp_cellcomp": 9_690,
    "phenotype_protein": 6_660,
    "off-label use": 5_136,
    "pathway_pathway": 5_070,
    "exposure_disease": 4_608,
    "exposure_exposure": 4_140,
    "exposure_bioprocess": 3_250,
    "exposure_protein": 2_424,
    "disease_phenotype_negative": 2_386,
    "exposure_molfunc": 90,
    "exposure_cellcomp": 20,
}
# Order in which the neighbors of a node are kept when it has more than the hub cap allows: relations that define a
# disease or a drug come first, relations that nearly every gene has come last.
PRIORITY = (
    "indication",
    "disease_disease",
    "drug_protein",
    "disease_phenotype_positive",
    "disease_protein",
    "contraindication",
    "off-label use",
    "phenotype_phenotype",
    "phenotype_protein",
    "exposure_disease",
    "drug_effect",
    "anatomy_anatomy",
    "pathway_pathway",
    "molfunc_molfunc",
    "bioprocess_bioprocess",
    "cellcomp_cellcomp",
    "exposure_exposure",
    "pathway_protein",
    "molfunc_protein",
    "bioprocess_protein",
    "exposure_protein",
    "exposure_bioprocess",
    "exposure_molfunc",
    "exposure_cellcomp",
    "cellcomp_protein",
    "protein_protein",
    "drug_drug",
    "disease_phenotype_negative",
    "anatomy_protein_present",
    "anatomy_protein_absent",
)
# Relations whose targets an anchor keeps before all others.
FIRST_KEPT = PRIORITY[:3]

_ENDS = ("x", "y")
_ATTRIBUTES = ("type", "name", "source", "id")
COLUMNS = ("relation", *(f"{end}_{name}" for end in _ENDS for name in ("index", *_ATTRIBUTES)))
# Maximum number of nodes of a `KnowledgeGraph`.
_MOST_NODES = 1 << 28
_NODE_COLUMNS = {"type": "type", "name": "name", "source": "source", "id": "source_id"}
_INDEX_FILE = "x_index.npy"
_REJECTS = "rejects.csv"


@dataclasses.dataclass(frozen=True)
class PrimeKg:
    """Hold PrimeKG with N nodes.

    Attributes:
        graph: nodes and edges.
        index: int64 [N], `x_index` of every node, ascending.
        rows: numbers of directed rows of each relation in the file, including repeats.
    """

    graph: KnowledgeGraph
    index: np.ndarray
    rows: dict[str, int]


class _Interner:
    """Number the distinct values of columns, parsed by `parse`, in the order of their first occurrence."""

    def __init__(self, parse: Callable[[str], object] = str):
        self.ids: dict = {}
        self._parse = parse

    def __call__(self, column: pa.DictionaryArray) -> np.ndarray:
        """Return the number of every value of a column, int32 [n], -1 if `parse` returns None."""
        ids = self.ids
        values = map(self._parse, column.dictionary.to_pylist())
        numbers = np.fromiter((-1 if v is None else ids.setdefault(v, len(ids)) for v in values), np.int32)
        return numbers[column.indices.to_numpy(zero_copy_only=False)]


def _whole_number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


class _Reader:
    """Collect edges and the attributes of nodes, block by block; slots number nodes in the order of occurrence."""

    def __init__(self, path: Path, rejects: Rejects):
        self._path = path
        self._rejects = rejects
        self._slots = _Interner(_whole_number)
        self._relations = _Interner()
        self._strings = {name: _Interner() for name in _ATTRIBUTES}
        self._attributes = np.full((1 << 16, len(_ATTRIBUTES)), -1, dtype=np.int32)
        self._edges: list[tuple[np.ndarray, ...]] = []  # relation uint8, x slot, y slot and line int32

    def add(self, block: Block) -> None:
        """Add one block of rows."""
        ends = [self._slots(block.columns[f"{end}_index"]) for end in _ENDS]
        relation = self._relations(block.columns["relation"])
        if len(self._relations.ids) > 256:
            raise InputError(f"{self._path} has more than 256 relations; check that it is PrimeKG's kg.csv.")
        sound = (ends[0] >= 0) & (ends[1] >= 0)
        self._reject(block, ~sound, "index not a number", "x_index or y_index is not a whole number; edge left out")
        for end, slots in zip(_ENDS, ends, strict=True):
            self._describe(block, end, slots)
        loop = sound & (ends[0] == ends[1])
        self._reject(block, loop, "self-loop", "both ends are one node, which is kept; edge left out")
        kept = np.flatnonzero(sound & ~loop)
        parts = (relation.astype(np.uint8), *ends, block.lines.astype(np.int32))
        self._edges.append(tuple(part[kept] for part in parts))

    def _describe(self, block: Block, end: str, slots: np.ndarray) -> None:
        """Store the attributes of nodes at their first occurrence, and report rows with other attributes."""
        columns = [self._strings[name](block.columns[f"{end}_{name}"]) for name in _ATTRIBUTES]
        described = np.stack(columns, axis=1)
        while len(self._slots.ids) > len(self._attributes):
            self._attributes = np.concatenate([self._attributes, np.full_like(self._attributes, -1)])
        unknown = np.flatnonzero((slots >= 0) & (self._attributes[slots, 0] < 0))
        fresh, first = np.unique(slots[unknown], return_index=True)
        self._attributes[fresh] = described[unknown[first]]
        other = (slots >= 0) & (self._attributes[slots] != described).any(axis=1)
        reason = f"the {end} end has other attributes than in the first row of its index, which are used; edge kept"
        self._reject(block, other, "node described twice", reason)

    def _reject(self, block: Block, chosen: np.ndarray, kind: str, reason: str) -> None:
        for row in np.flatnonzero(chosen):
            text = ",".join(block.columns[name][row].as_py() for name in COLUMNS)
            self._rejects.add(self._path, int(block.lines[row]), kind, reason, text)

    def finish(self) -> PrimeKg:
        """Return the graph of all blocks."""
        index = np.fromiter(self._slots.ids, np.int64, len(self._slots.ids))
        if len(index) > _MOST_NODES:
            raise InputError(f"{self._path} has {len(index):,} nodes, but at most {_MOST_NODES:,} can be numbered.")
        order = np.argsort(index)
        node_of_slot = np.empty(len(order), np.int32)
        node_of_slot[order] = np.arange(len(order), dtype=np.int32)
        empty = [np.empty(0, np.int32)] * 4
        relation, x, y, lines = map(np.concatenate, zip(empty, *self._edges, strict=True))
        self._edges.clear()
        x = node_of_slot[x]
        y = node_of_slot[y]
        names = list(self._relations.ids)
        self._report_unmirrored(names, index[order], relation, x, y, lines)
        grouped = np.argsort(relation, kind="stable")
        pairs = np.stack([x[grouped], y[grouped]], axis=1)
        counts = np.bincount(relation, minlength=len(names))
        facts = dict(zip(names, np.split(pairs, np.cumsum(counts)[:-1]), strict=True)) if names else {}
        graph = from_facts(self._node_table(order), dict(sorted(facts.items())), {name: name for name in names})
        return PrimeKg(graph, index[order], dict(zip(names, counts.tolist(), strict=True)))

    def _node_table(self, order: np.ndarray) -> pa.Table:
        columns = {"node_id": pa.array(np.arange(len(order), dtype=np.int32))}
        for position, name in enumerate(_ATTRIBUTES):
            texts = pa.array(list(self._strings[name].ids), pa.string())
            columns[_NODE_COLUMNS[name]] = texts.take(pa.array(self._attributes[order, position]))
        return pa.table(columns).select(NODE_SCHEMA.names).cast(NODE_SCHEMA)

    def _report_unmirrored(
        self, names: list[str], index: np.ndarray, relation: np.ndarray, x: np.ndarray, y: np.ndarray, lines: np.ndarray
    ) -> None:
        forward = np.sort(_packed(x, relation, y))
        backward = np.sort(_packed(y, relation, x))
        if np.array_equal(forward, backward):
            return
        unmirrored = np.isin(_packed(x, relation, y), np.setdiff1d(forward, backward))
        for row in np.flatnonzero(unmirrored):
            text = f"{names[relation[row]]},{index[x[row]]},{index[y[row]]}"
            reason = "no row holds this edge in the other direction; added"
            self._rejects.add(self._path, int(lines[row]), "edge without its mirror", reason, text)


def _packed(x: np.ndarray, relation: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pack (x, relation, y) into one number, uint64 [n]."""
    packed = (x.astype(np.uint64) << np.uint64(36)) | y.astype(np.uint64)
    packed |= relation.astype(np.uint64) << np.uint64(28)
    return packed


def read_primekg(
    path: Path | str, rejects: Rejects, *, progress: bool = True, block_bytes: int = BLOCK_BYTES
) -> PrimeKg:
    """Read `kg.csv`, reporting faulty rows to `rejects`; a faulty row does not affect others.

    Rows with a wrong number of columns, an unbalanced quotation mark or a NUL byte are left out, and so are the edges,
    though not the nodes, of self-loops and of rows with an index that is not a number. Rows are reported but used if
    they are not UTF-8, if their node has other attributes than in the first row of its index, or if they lack their
    mirror, which is added.

    Raises:
        InputError: the file cannot be read, is empty or lacks a column.
    """
    path = Path(path)
    reader = _Reader(path, rejects)
    size = path.stat().st_size if path.exists() else 0
    with Bar(total=size, desc=f"reading {path.name}", unit="B", unit_scale=True, show=progress) as bar:
        for block in read_blocks(path, COLUMNS, rejects, block_bytes):
            reader.add(block)
            bar.update(block.size)
    found = reader.finish()
    if not found.graph.num_edges:
        raise InputError(f"{path} holds no edge; fetch it again.")
    return found


def write_primekg(found: PrimeKg, path: Path | str) -> None:
    """Write the graph, `x_index.npy` and `report.json` into the directory `path`."""
    path = Path(path)
    found.graph.save(path)
    np.save(path / _INDEX_FILE, found.index)
    report = {"rows": dict(sorted(found.rows.items())), "nodes": _nodes_by_type(found.graph)}
    (path / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _is_dense(index: np.ndarray) -> bool:
    return bool(np.array_equal(index, np.arange(len(index))))


def _nodes_by_type(graph: KnowledgeGraph) -> dict[str, int]:
    counts = np.bincount(graph.node_type_ids(), minlength=len(graph.node_types))
    return dict(zip(graph.node_types, counts.tolist(), strict=True))


def count_table(title: str, expected: Mapping[str, int], found: Mapping[str, int]) -> Table:
    """Return a table that compares published with found numbers, largest first, with their totals."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for header in ("", "expected", "found", "verdict"):
        table.add_column(header, justify="left" if header in ("", "verdict") else "right")
    names = sorted(
        expected.keys() | found.keys(), key=lambda name: (-max(expected.get(name, 0), found.get(name, 0)), name)
    )
    rows = [(name, expected.get(name, 0), found.get(name, 0)) for name in names]
    for name, published, counted in [*rows, ("all", sum(expected.values()), sum(found.values()))]:
        verdict = "as published" if published == counted else "differs"
        table.add_row(name, f"{published:,}", f"{counted:,}", verdict)
    return table


def main(argv: list[str]) -> None:
    """Read `--input` and write the graph into `--output`."""
    command_line.expect_arguments(
        argv, 0, "python -m preprocessing.primekg --input=DIR/primekg/kg.csv --output=DIR/graph"
    )
    output = Path(flags.FLAGS.output)
    check_replaceable(output, _INDEX_FILE)
    console = Console()
    with whole_folder(output) as folder:
        with Rejects(folder / _REJECTS) as rejects:
            found = read_primekg(flags.FLAGS.input, rejects)
        write_primekg(found, folder)
    rejects.path = output / _REJECTS
    console.print(count_table("Nodes by type", NODE_COUNTS, _nodes_by_type(found.graph)))
    console.print(count_table("Directed rows by relation", ROW_COUNTS, found.rows))
    if rejects.summary():
        console.print(rejects.table())
    ids = "node ids are x_index" if _is_dense(found.index) else f"x_index has gaps: see {_INDEX_FILE}"
    print(f"{output}: {found.graph.num_nodes:,} nodes, {found.graph.num_edges:,} directed edges; {ids}")
    rejects.finish(flags.FLAGS.strict)


if __name__ == "__main__":
    flags.DEFINE_string("input", None, "kg.csv of PrimeKG", required=True)
    flags.DEFINE_string("output", None, "directory of the graph, which is replaced", required=True)
    flags.DEFINE_bool("strict", False, "exit with status 1 when a row was rejected")
    command_line.run(main)
