"""Build the labels of a data set from its knowledge graph, its held-out edges and the official groups of codes.

Crosswalk pairs and note edges that the data set holds out are used as they are. Where it holds none out, the pairs that
a hold-out of the same name and share would choose are used instead and marked as given: figures of different data sets
then cover the same codes, and leakage is visible. A graph that never had such edges (PrimeKG) leaks nothing; there the
crosswalk comes from the official files.

A held-out pair is not evaluated where the subgraph of one of its codes contains the other code by another path, such as
a phenotype that both codes are linked to.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from eval.quality import held_terms
from eval.quality.labels import SPLITS, Labels, Queries, Terms
from medtok_jax.data import code_table
from medtok_jax.data.code_table import CodeTable
from preprocessing import medtok_codes
from preprocessing.codes import ICD9CM, ICD10CM, CodeRecord, category_of
from preprocessing.common.hashing import hash_strings, uniform
from preprocessing.common.ragged import offsets_of, take
from preprocessing.graph import icd_graph
from preprocessing.graph.holdout import Holdout, hold_out
from preprocessing.sources import icd

FORWARD, BACKWARD = f"{ICD9CM} to {ICD10CM}", f"{ICD10CM} to {ICD9CM}"
CROSSWALK_KINDS = ("exact", "approximate", "not evaluated")
EXACT, APPROXIMATE, NOT_EVALUATED = range(3)
# The hold-out whose pairs are used where a data set holds nothing out.
SHARE, NAME = 0.3, "eval"
GIVEN_CROSSWALK = "GIVEN: the graph contains these crosswalk edges"
GIVEN_NOTES = "GIVEN: the graph contains these note edges"
GIVEN_TREE = "GIVEN: the graph contains the code tree"
# The split of codes, pairs and edges into validation and test.
_SALT = "eval/split"
_VERSION = 3


def open_labels(name: str, data_dir: str | Path | None = None, *, progress: bool = True) -> Labels:
    """Return the labels of a prepared data set, from the cache in `medtok_cache` beside the data sets if possible.

    Args:
        name: name of the data set, such as `medtok_codes/icd-holdout_gem_30_eval`.
        data_dir: directory of the data sets; None for the default of TFDS.
        progress: whether to show a progress bar while examples are packed.

    Raises:
        InputError: the data set is absent or damaged.
    """
    builder = medtok_codes.open_prepared(name, data_dir)
    cache = Path(builder.data_dir).parents[2] / "medtok_cache"
    folder = cache / f"labels-{medtok_codes.fingerprint(builder)[:16]}-{_VERSION}"
    if not folder.exists():
        build_labels(name, code_table.load(builder, cache, progress=progress), _held_out(builder)).save(folder)
    return Labels.load(folder)


def _held_out(builder) -> list[tuple[str, str, str]]:
    """Return (source key, target key, relation) of every edge that the data set holds out."""
    path = medtok_codes.graph_path(builder) / "holdout.parquet"
    if not path.is_file():
        return []
    columns = pq.read_table(path).to_pydict()
    return list(zip(columns["source"], columns["target"], columns["relation"], strict=True))


def build_labels(name: str, table: CodeTable, held_out: Sequence[tuple[str, str, str]]) -> Labels:
    """Build the labels of the codes of a data set.

    Args:
        name: name of the data set.
        table: codes of the data set with their subgraphs and the graph.
        held_out: (source key, target key, relation) of the edges held out of the graph.
    """
    linked = _LinkedCodes.from_table(table)
    crosswalk, pair_counts = _crosswalk(linked, held_out)
    relations, edge_counts = _relations(linked, held_out)
    terms, term_counts = _terms(linked) if (linked.systems == ICD10CM).any() else ({}, {})
    given = {"tree": GIVEN_TREE} if (linked.path[:, 0] >= 0).any() else {}
    in_group = set(table.graph.relation_names) & {"in_group"}
    given |= {"groups": "GIVEN: the graph contains CCSR and CCS groups"} if in_group else {}
    return Labels(
        data_set=name,
        fingerprint=table.fingerprint,
        keys=linked.keys,
        systems=linked.systems,
        category=linked.category,
        path=linked.path,
        groups=_groups(linked),
        crosswalk=crosswalk,
        relations=relations,
        part=parts_of(linked.keys),
        terms=terms,
        given=given,
        counts=pair_counts | edge_counts | term_counts,
    )


def parts_of(keys: Sequence[str]) -> np.ndarray:
    """Assign items to validation and test, half each, by a stable hash of their keys: int8 `[n]`, index in `SPLITS`."""
    return np.floor(uniform(hash_strings(_SALT, keys)) * len(SPLITS)).astype(np.int8)


@dataclasses.dataclass(frozen=True)
class _LinkedCodes:
    """Hold the codes of a data set, sorted by key, with their nodes in its graph.

    Attributes:
        keys, systems, category, path: see `Labels`.
        row: key -> row.
        node: `[n]` int64, node of each code, -1 for none.
        table: the codes in the order of the data set.
        table_row: `[n]` int64, row of each code in `table`.
        node_keys: key of every node.
        node_of: key -> node.
        begin, end: `[nodes]` int64; the codes under a node are `by_path[begin[node]:end[node]]`.
        by_path: `[n]` int64, rows in the order of the tree.
    """

    keys: np.ndarray
    systems: np.ndarray
    category: np.ndarray
    path: np.ndarray
    row: dict[str, int]
    node: np.ndarray
    table: CodeTable
    table_row: np.ndarray
    node_keys: list[str]
    node_of: dict[str, int]
    begin: np.ndarray
    end: np.ndarray
    by_path: np.ndarray

    @classmethod
    def from_table(cls, table: CodeTable) -> "_LinkedCodes":
        """Collect the codes of a table."""
        order = np.argsort(table.key.astype(str), kind="stable")
        keys, systems = table.key[order].astype(str), table.system[order].astype(str)
        pairs = zip(systems.tolist(), table.code[order].tolist(), strict=True)
        names = [category_of(CodeRecord(system, code, "")) for system, code in pairs]
        node_keys = table.graph.node_keys()
        node_of = {key: node for node, key in enumerate(node_keys)}
        node = np.array([node_of.get(key, -1) for key in keys.tolist()])
        path = _paths(table, node)
        by_path = np.lexsort(path.T[::-1])
        begin, end = _ranges(path[by_path], len(node_keys))
        return cls(
            keys=keys,
            systems=systems,
            category=np.unique(names, return_inverse=True)[1].astype(np.int32),
            path=path,
            row={key: row for row, key in enumerate(keys.tolist())},
            node=node,
            table=table,
            table_row=order,
            node_keys=node_keys,
            node_of=node_of,
            begin=begin,
            end=end,
            by_path=by_path,
        )

    def codes_under(self, node: int) -> np.ndarray:
        """Return the rows of the codes under a node of the tree, including the node itself."""
        return self.by_path[self.begin[node] : self.end[node]]

    def contains(self, rows: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        """Return whether the subgraph of each code contains a node.

        Args:
            rows: `[m]` rows of codes.
            nodes: `[m]` node to look for in each subgraph, -1 for none.

        Returns:
            bool `[m]`.
        """
        found, counts = take(self.table.nodes, self.table.node_offsets, self.table_row[rows])
        owner = np.repeat(np.arange(len(rows)), counts)
        return np.bincount(owner[found == nodes[owner]], minlength=len(rows)) > 0


def _paths(table: CodeTable, node: np.ndarray) -> np.ndarray:
    """Return `Labels.path` by the relation `parent`; of several parents the first counts."""
    graph = table.graph
    above = np.full(graph.num_nodes, -1)
    if "parent" in graph.relation_names:
        edges = np.flatnonzero(np.asarray(graph.relation) == graph.relation_names.index("parent"))[::-1]
        above[graph.sources()[edges]] = graph.indices[edges]
    climbing = np.where(node >= 0, node, -1)
    levels = []
    while (climbing >= 0).any():
        levels.append(climbing)
        climbing = np.where(climbing >= 0, above[climbing], -1)
    upward = np.stack(levels or [node], axis=1)
    depth = (upward >= 0).sum(1)
    # Reverse each path to begin at the root, with its padding behind it.
    column = (depth[:, None] - 1 - np.arange(upward.shape[1])) % upward.shape[1]
    path = np.take_along_axis(upward, column, axis=1)
    path[np.arange(upward.shape[1]) >= depth[:, None]] = -1
    # A code without a parent and without children is in no tree.
    path[depth == 1] = -1
    return path.astype(np.int32)


def _ranges(path: np.ndarray, num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of the rows of `path`, which is sorted, that contain each node: two int64 `[nodes]`."""
    begin = np.zeros(num_nodes, np.int64)
    end = np.zeros(num_nodes, np.int64)
    for level in path.T:
        rows = np.flatnonzero(level >= 0)
        nodes, first, counts = np.unique(level[rows], return_index=True, return_counts=True)
        begin[nodes], end[nodes] = rows[first], rows[first] + counts
    return begin, end


def _groups(linked: _LinkedCodes) -> dict[str, np.ndarray]:
    """Return the CCSR groups of ICD-10-CM and the CCS groups of ICD-9-CM, where the data set has such codes."""
    pairs = {}
    if (linked.systems == ICD10CM).any():
        pairs["CCSR"] = [(f"{ICD10CM}/{code}", group) for code, group in icd.read_ccsr()]
    if (linked.systems == ICD9CM).any():
        pairs["CCS"] = [(f"{ICD9CM}/{code}", group) for code, group, _ in icd.read_ccs()]
    groups = {}
    for name, members in pairs.items():
        known = [(linked.row[key], group) for key, group in members if key in linked.row]
        groups[name] = np.full(len(linked.keys), -1, np.int32)
        if known:
            rows, names = zip(*known, strict=True)
            groups[name][list(rows)] = np.unique(names, return_inverse=True)[1]
    return groups


def _terms(linked: _LinkedCodes) -> tuple[dict[str, Terms], dict[str, int]]:
    """Return terms for ICD-10-CM codes that no text of the data set contains, see `held_terms`, and counts."""
    texts = [*linked.table.description.tolist(), *linked.table.graph.nodes["name"].to_pylist()]
    links = _facts(linked, ["hpo_link"]).get("hpo_link", np.empty((0, 2), np.int64))
    pairs = [(linked.node_keys[code], linked.node_keys[phenotype]) for code, phenotype in links.tolist()]

    def codes_under(key: str) -> np.ndarray:
        node = linked.node_of.get(key, -1)
        under = linked.codes_under(node) if node >= 0 else np.empty(0, np.int64)
        # A code without a tree is under no node.
        own = linked.row.get(key)
        return np.union1d(under, [] if own is None else [own]).astype(np.int64)

    found, counts = held_terms.build(texts, pairs, codes_under)
    part_of = {name: parts_of([f"term/{text}" for text in terms.text]) for name, terms in found.items()}
    return {name: dataclasses.replace(terms, part=part_of[name]) for name, terms in found.items()}, counts


def _facts(linked: _LinkedCodes, relations: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the edges of some relations in the graph: relation -> int64 `[m, 2]` of (source, target) nodes."""
    graph = linked.table.graph
    sources = graph.sources()
    relation = np.asarray(graph.relation)
    found = {}
    for name in relations:
        if name in graph.relation_names:
            edges = np.flatnonzero(relation == graph.relation_names.index(name))
            found[name] = np.stack([sources[edges], graph.indices[edges]], axis=1).astype(np.int64)
    return found


def _held_facts(
    linked: _LinkedCodes, held_out: Sequence[tuple[str, str, str]], relations: Sequence[str]
) -> tuple[dict[str, np.ndarray], bool]:
    """Return the edges of some relations that are held out, or would be, and whether the graph contains them.

    Returns:
        relation -> int64 `[m, 2]` of (source, target) nodes; and True where the data set holds none of them out.
    """
    node_of = linked.node_of
    held = {name: [(node_of[a], node_of[b]) for a, b, r in held_out if r == name] for name in relations}
    if any(held.values()):
        return {name: np.array(pairs, np.int64).reshape(-1, 2) for name, pairs in held.items() if pairs}, False
    facts = _facts(linked, relations)
    if not facts:
        return {}, False
    return hold_out(facts, linked.node_keys, list(facts), Holdout("any", SHARE, NAME))[1], True


def _crosswalk(
    linked: _LinkedCodes, held_out: Sequence[tuple[str, str, str]]
) -> tuple[dict[str, Queries], dict[str, int]]:
    """Return the queries of both directions of the crosswalk of ICD-9-CM and ICD-10-CM diagnoses, and counts."""
    pairs, given = _crosswalk_pairs(linked, held_out)
    if not len(pairs):
        return {}, {}
    nodes = linked.node[pairs[:, :2]]
    leaked = linked.contains(pairs[:, 0], nodes[:, 1]) | linked.contains(pairs[:, 1], nodes[:, 0])
    counts = {
        "crosswalk pairs held out": len(pairs),
        "crosswalk pairs of which a subgraph contains the other code": int(leaked.sum()),
    }
    if not given:
        pairs[leaked, 2] = NOT_EVALUATED
    # In both directions a pair belongs to the split of its ICD-9 code.
    part_of = parts_of(linked.keys[pairs[:, 0]].tolist())
    forward = _queries(pairs[:, 0], pairs[:, 1], pairs[:, 2], part_of, given)
    backward = _backward(linked, pairs, part_of, given)
    return {FORWARD: forward, BACKWARD: backward}, counts


def _crosswalk_pairs(linked: _LinkedCodes, held_out: Sequence[tuple[str, str, str]]) -> tuple[np.ndarray, str]:
    """Return int64 `[m, 3]` of (ICD-9 row, ICD-10 row, kind), and what the graph contains of these pairs."""
    relations = icd_graph.EDGE_TYPES["gem"]
    held, given = _held_facts(linked, held_out, relations)
    row_of_node = np.full(len(linked.node_keys) + 1, -1)
    row_of_node[linked.node] = np.arange(len(linked.keys))
    row_of_node[-1] = -1
    parts = [
        np.column_stack([row_of_node[edges], np.full(len(edges), relations.index(name))])
        for name, edges in held.items()
    ]
    if not held and not _facts(linked, relations):
        parts = [_official_pairs(linked)]
    pairs = np.concatenate(parts) if parts else np.empty((0, 3), np.int64)
    return pairs[(pairs[:, :2] >= 0).all(1)], GIVEN_CROSSWALK if given else ""


def _official_pairs(linked: _LinkedCodes) -> np.ndarray:
    """Return the official pairs of a share of the ICD-9 codes, chosen by hash as a hold-out would choose them."""
    if not {ICD9CM, ICD10CM} <= set(linked.systems.tolist()):
        return np.empty((0, 3), np.int64)
    keys = [
        (f"{ICD9CM}/{a}", f"{ICD10CM}/{b}", EXACT if exact else APPROXIMATE) for a, b, exact in icd.read_gem().pairs
    ]
    rows = [(linked.row[a], linked.row[b], kind) for a, b, kind in keys if a in linked.row and b in linked.row]
    pairs = np.array(rows, np.int64).reshape(-1, 3)
    draws = uniform(hash_strings(NAME, linked.keys[pairs[:, 0]].tolist()))
    return pairs[draws < SHARE]


def _backward(linked: _LinkedCodes, pairs: np.ndarray, part_of: np.ndarray, given: str) -> Queries:
    """Return the queries from ICD-10, for codes of which all partners are held out and in the same split."""
    kept_edges = np.concatenate(list(_facts(linked, icd_graph.EDGE_TYPES["gem"]).values()) or [np.empty((0, 2))])
    has_kept = np.isin(linked.node[pairs[:, 1]], kept_edges[:, 1]) & (not given)
    halves = np.zeros((len(linked.keys), len(SPLITS)), bool)
    halves[pairs[:, 1], part_of] = True
    usable = ~has_kept & (halves[pairs[:, 1]].sum(1) == 1)
    return _queries(pairs[usable, 1], pairs[usable, 0], pairs[usable, 2], part_of[usable], given)


def _queries(query: np.ndarray, target: np.ndarray, kind: np.ndarray, part: np.ndarray, given: str) -> Queries:
    """Group `[m]` pairs into queries; a query gets the split of its first pair."""
    order = np.lexsort((target, query))
    first_of, starts, counts = np.unique(query[order], return_index=True, return_counts=True)
    return Queries(
        query=first_of.astype(np.int32),
        offsets=offsets_of(counts),
        targets=target[order].astype(np.int32),
        kinds=kind[order].astype(np.int8),
        kind_names=CROSSWALK_KINDS,
        part=part[order][starts],
        given=given,
    )


def _relations(
    linked: _LinkedCodes, held_out: Sequence[tuple[str, str, str]]
) -> tuple[dict[str, Queries], dict[str, int]]:
    """Return the queries of the held-out note edges between codes or categories, and counts.

    A note applies to every code under its node and refers to every code under its target. So the query of an edge
    A -> B is one code under A, drawn by a stable hash, and its targets are the codes under B. Edges of nodes above
    categories are left out, because the codes under them have little in common, and so are edges within a category,
    which the tree reveals.
    """
    relations = icd_graph.EDGE_TYPES["note"]
    held, given = _held_facts(linked, held_out, relations)
    counts = {
        "note edges held out": sum(map(len, held.values())),
        "note edges that join two categories": 0,
        "note edges of which a subgraph contains the other code": 0,
    }
    found = {}
    for name, edges in held.items():
        category = [_category_under(linked, edges[:, side]) for side in (0, 1)]
        edges = edges[(category[0] >= 0) & (category[1] >= 0) & (category[0] != category[1])]
        keys = [f"{name}|{linked.node_keys[a]}|{linked.node_keys[b]}" for a, b in edges.tolist()]
        draws = uniform(hash_strings(_SALT, [f"{key}|drawn" for key in keys]))
        sizes = (linked.end - linked.begin)[edges]
        rows = linked.by_path[linked.begin[edges[:, 0]] + np.floor(draws * sizes[:, 0]).astype(np.int64)]
        targets = [linked.codes_under(node) for node in edges[:, 1].tolist()]
        leaked = np.zeros(len(edges), bool) if given else _leaked(linked, rows, edges, targets)
        counts["note edges that join two categories"] += len(edges)
        counts["note edges of which a subgraph contains the other code"] += int(leaked.sum())
        some = np.flatnonzero(~leaked)
        if len(some):
            flat = np.concatenate([targets[number] for number in some])
            found[name] = Queries(
                query=rows[some].astype(np.int32),
                offsets=offsets_of([len(targets[number]) for number in some]),
                targets=flat.astype(np.int32),
                kinds=np.zeros(len(flat), np.int8),
                kind_names=(name,),
                part=parts_of([keys[number] for number in some]),
                given=GIVEN_NOTES if given else "",
            )
    return found, counts if held else {}


def _category_under(linked: _LinkedCodes, nodes: np.ndarray) -> np.ndarray:
    """Return the category of the codes under each node, -1 for no codes or several categories: int64 `[n]`."""
    codes = linked.category[linked.by_path]
    begin, end = linked.begin[nodes], linked.end[nodes]
    some = end > begin
    last = np.where(some, end - 1, 0)
    first = np.where(some, begin, 0)
    # Codes of a category are adjacent in the order of the tree, so comparing the first and the last suffices.
    return np.where(some & (codes[first] == codes[last]), codes[first], -1)


def _leaked(linked: _LinkedCodes, rows: np.ndarray, edges: np.ndarray, targets: list[np.ndarray]) -> np.ndarray:
    """Return whether a subgraph of the query or of a target contains the other end of each edge: bool `[m]`."""
    counts = np.array([len(group) for group in targets], np.int64)
    flat = np.concatenate(targets) if targets else np.empty(0, np.int64)
    owner = np.repeat(np.arange(len(rows)), counts)
    query_node = linked.node[rows]
    leaked = linked.contains(rows, edges[:, 1])
    back = (
        linked.contains(rows[owner], linked.node[flat])
        | linked.contains(flat, query_node[owner])
        | linked.contains(flat, edges[owner, 0])
    )
    return leaked | (np.bincount(owner[back], minlength=len(rows)) > 0)
