"""Makes the labels of a data set from its knowledge graph, what it holds out, and the official groups of codes.

Crosswalk pairs and note edges that the data set holds out are taken as they are. Where it holds none out, the pairs
that a hold-out of the same name and share would have held out are taken instead and said to be given: figures of
different data sets are then about the same codes, and nobody takes one that leaks for one that does not. A graph that
never had such edges (PrimeKG) gives nothing away; there the crosswalk comes from the official files.

A held-out pair is not evaluated where the subgraph of either code shows the other one after all, by another path, such
as a phenotype that both are linked to.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from eval.quality.labels import SPLITS, Labels, Queries
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
# What is taken where a data set holds nothing out.
SHARE, NAME = 0.3, "eval"
GIVEN_CROSSWALK = "GIVEN: the graph holds these crosswalk edges"
GIVEN_NOTES = "GIVEN: the graph holds these note edges"
GIVEN_TREE = "the code tree is given in the graph"
# The split of codes, pairs and edges into validation and test.
_SALT = "eval/split"
_VERSION = 1


def open_labels(name: str, data_dir: str | Path | None = None, *, progress: bool = True) -> Labels:
    """Labels of a data set that is built; made once and kept beside the data sets, in `medtok_cache`.

    Args:
        name: of the data set, `medtok_codes/icd-holdout_gem_30_eval`.
        data_dir: where data sets lie; None for TFDS's own default.
        progress: whether to show a bar where examples are packed.

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
    """(source key, target key, relation) of every edge that the data set holds out."""
    path = medtok_codes.graph_path(builder) / "holdout.parquet"
    if not path.is_file():
        return []
    columns = pq.read_table(path).to_pydict()
    return list(zip(columns["source"], columns["target"], columns["relation"], strict=True))


def build_labels(name: str, table: CodeTable, held_out: Sequence[tuple[str, str, str]]) -> Labels:
    """Labels of the codes of `table`.

    Args:
        name: of the data set.
        table: its codes, their subgraphs and its graph.
        held_out: (source key, target key, relation) of the edges left out of the graph.
    """
    world = _World.of(table)
    crosswalk, pair_counts = _crosswalk(world, held_out)
    relations, edge_counts = _relations(world, held_out)
    given = {"tree": GIVEN_TREE} if (world.path[:, 0] >= 0).any() else {}
    in_group = set(table.graph.relation_names) & {"in_group"}
    given |= {"groups": "GIVEN: the graph holds CCSR and CCS groups"} if in_group else {}
    return Labels(
        data_set=name,
        fingerprint=table.fingerprint,
        keys=world.keys,
        systems=world.systems,
        category=world.category,
        path=world.path,
        groups=_groups(world),
        crosswalk=crosswalk,
        relations=relations,
        part=parts_of(world.keys),
        given=given,
        counts=pair_counts | edge_counts,
    )


def parts_of(keys: Sequence[str]) -> np.ndarray:
    """Half of the items each for validation and test by a stable hash of their keys: int8 [n], places in `SPLITS`."""
    return np.floor(uniform(hash_strings(_SALT, keys)) * len(SPLITS)).astype(np.int8)


@dataclasses.dataclass(frozen=True)
class _World:
    """The codes of a data set, sorted by key, and where they stand in its graph.

    Attributes:
        keys, systems, category, path: see `Labels`.
        row: key -> row.
        node: `[n]` int64, node that is the code, -1 for none.
        table: the data set's codes in its own order. table_row: `[n]`, row of each code there.
        node_keys: key of every node. node_of: key -> node.
        begin, end: `[nodes]`, the codes under a node are `by_path[begin:end]`; `by_path`: `[n]` rows in tree order.
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
    def of(cls, table: CodeTable) -> "_World":
        order = np.argsort(table.key.astype(str), kind="stable")
        keys, systems = table.key[order].astype(str), table.system[order].astype(str)
        columns = (systems.tolist(), table.code[order].tolist())
        names = [category_of(CodeRecord(system, code, "")) for system, code in zip(*columns, strict=True)]
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
        """Rows of the codes under a node of the tree, itself included."""
        return self.by_path[self.begin[node] : self.end[node]]

    def shows(self, rows: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        """Whether the subgraph of each code holds a node: bool [n] of `[n]` rows and `[n]` nodes, -1 for no node."""
        found, counts = take(self.table.nodes, self.table.node_offsets, self.table_row[rows])
        owner = np.repeat(np.arange(len(rows)), counts)
        return np.bincount(owner[found == nodes[owner]], minlength=len(rows)) > 0


def _paths(table: CodeTable, node: np.ndarray) -> np.ndarray:
    """`Labels.path`, by the relation `parent`; of several parents the first counts."""
    graph = table.graph
    above = np.full(graph.num_nodes, -1)
    if "parent" in graph.relation_names:
        edges = np.flatnonzero(np.asarray(graph.relation) == graph.relation_names.index("parent"))[::-1]
        above[graph.sources()[edges]] = graph.indices[edges]
    climbing, levels = np.where(node >= 0, node, -1), []
    while (climbing >= 0).any():
        levels.append(climbing)
        climbing = np.where(climbing >= 0, above[climbing], -1)
    upward = np.stack(levels or [node], axis=1)
    depth = (upward >= 0).sum(1)
    # From the root down: what is -1 in front of a short path moves behind it.
    column = (depth[:, None] - 1 - np.arange(upward.shape[1])) % upward.shape[1]
    path = np.take_along_axis(upward, column, axis=1)
    path[np.arange(upward.shape[1]) >= depth[:, None]] = -1
    # A code without a node above or below it stands in no tree.
    path[depth == 1] = -1
    return path.astype(np.int32)


def _ranges(path: np.ndarray, num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the codes under each node begin and end in `path`, whose rows are in order."""
    begin, end = np.zeros(num_nodes, np.int64), np.zeros(num_nodes, np.int64)
    for level in path.T:
        rows = np.flatnonzero(level >= 0)
        nodes, first, counts = np.unique(level[rows], return_index=True, return_counts=True)
        begin[nodes], end[nodes] = rows[first], rows[first] + counts
    return begin, end


def _groups(world: _World) -> dict[str, np.ndarray]:
    """CCSR of ICD-10-CM and CCS of ICD-9-CM diagnoses, where the data set has such codes."""
    pairs = {}
    if (world.systems == ICD10CM).any():
        pairs["CCSR"] = [(f"{ICD10CM}/{code}", group) for code, group in icd.read_ccsr()]
    if (world.systems == ICD9CM).any():
        pairs["CCS"] = [(f"{ICD9CM}/{code}", group) for code, group, _ in icd.read_ccs()]
    groups = {}
    for name, members in pairs.items():
        known = [(world.row[key], group) for key, group in members if key in world.row]
        groups[name] = np.full(len(world.keys), -1, np.int32)
        if known:
            rows, names = zip(*known, strict=True)
            groups[name][list(rows)] = np.unique(names, return_inverse=True)[1]
    return groups


def _facts(world: _World, relations: Sequence[str]) -> dict[str, np.ndarray]:
    """Edges of some relations in the graph of the data set: relation -> int64 [m, 2] of (source, target) nodes."""
    graph = world.table.graph
    sources, relation = graph.sources(), np.asarray(graph.relation)
    found = {}
    for name in relations:
        if name in graph.relation_names:
            edges = np.flatnonzero(relation == graph.relation_names.index(name))
            found[name] = np.stack([sources[edges], graph.indices[edges]], axis=1).astype(np.int64)
    return found


def _held_facts(
    world: _World, held_out: Sequence[tuple[str, str, str]], relations: Sequence[str]
) -> tuple[dict[str, np.ndarray], bool]:
    """Edges of some relations that are held out, or would be, and whether the graph holds them.

    Returns:
        relation -> int64 [m, 2] of (source, target) nodes; and True where the data set holds none of them out.
    """
    node_of = world.node_of
    held = {name: [(node_of[a], node_of[b]) for a, b, r in held_out if r == name] for name in relations}
    if any(held.values()):
        return {name: np.array(pairs, np.int64).reshape(-1, 2) for name, pairs in held.items() if pairs}, False
    facts = _facts(world, relations)
    if not facts:
        return {}, False
    return hold_out(facts, world.node_keys, list(facts), Holdout("any", SHARE, NAME))[1], True


def _crosswalk(world: _World, held_out: Sequence[tuple[str, str, str]]) -> tuple[dict[str, Queries], dict[str, int]]:
    """Both directions of the crosswalk between ICD-9-CM and ICD-10-CM diagnoses."""
    pairs, given = _crosswalk_pairs(world, held_out)
    if not len(pairs):
        return {}, {}
    nodes = world.node[pairs[:, :2]]
    shown = world.shows(pairs[:, 0], nodes[:, 1]) | world.shows(pairs[:, 1], nodes[:, 0])
    counts = {
        "crosswalk pairs held out": len(pairs),
        "crosswalk pairs of which a subgraph shows the other code": int(shown.sum()),
    }
    if not given:
        pairs[shown, 2] = NOT_EVALUATED
    # A pair belongs to the part of its ICD-9 code in both directions.
    part_of = parts_of(world.keys[pairs[:, 0]].tolist())
    forward = _queries(pairs[:, 0], pairs[:, 1], pairs[:, 2], part_of, given)
    backward = _backward(world, pairs, part_of, given)
    return {FORWARD: forward, BACKWARD: backward}, counts


def _crosswalk_pairs(world: _World, held_out: Sequence[tuple[str, str, str]]) -> tuple[np.ndarray, str]:
    """int64 [m, 3] of (ICD-9 row, ICD-10 row, kind), and what the graph holds of them."""
    relations = icd_graph.EDGE_TYPES["gem"]
    held, given = _held_facts(world, held_out, relations)
    row_of_node = np.full(len(world.node_keys) + 1, -1)
    row_of_node[world.node] = np.arange(len(world.keys))
    row_of_node[-1] = -1
    parts = [
        np.column_stack([row_of_node[edges], np.full(len(edges), relations.index(name))])
        for name, edges in held.items()
    ]
    if not held and not _facts(world, relations):
        parts = [_official_pairs(world)]
    pairs = np.concatenate(parts) if parts else np.empty((0, 3), np.int64)
    return pairs[(pairs[:, :2] >= 0).all(1)], GIVEN_CROSSWALK if given else ""


def _official_pairs(world: _World) -> np.ndarray:
    """Pairs of the official files for a hashed share of the ICD-9 codes, as a hold-out would choose them."""
    if not {ICD9CM, ICD10CM} <= set(world.systems.tolist()):
        return np.empty((0, 3), np.int64)
    keys = [
        (f"{ICD9CM}/{a}", f"{ICD10CM}/{b}", EXACT if exact else APPROXIMATE) for a, b, exact in icd.read_gem().pairs
    ]
    rows = [(world.row[a], world.row[b], kind) for a, b, kind in keys if a in world.row and b in world.row]
    pairs = np.array(rows, np.int64).reshape(-1, 3)
    draws = uniform(hash_strings(NAME, world.keys[pairs[:, 0]].tolist()))
    return pairs[draws < SHARE]


def _backward(world: _World, pairs: np.ndarray, part_of: np.ndarray, given: str) -> Queries:
    """The pairs seen from ICD-10: only codes all of whose partners are held out, and in the same part."""
    kept_edges = np.concatenate(list(_facts(world, icd_graph.EDGE_TYPES["gem"]).values()) or [np.empty((0, 2))])
    has_kept = np.isin(world.node[pairs[:, 1]], kept_edges[:, 1]) & (not given)
    halves = np.zeros((len(world.keys), len(SPLITS)), bool)
    halves[pairs[:, 1], part_of] = True
    usable = ~has_kept & (halves[pairs[:, 1]].sum(1) == 1)
    return _queries(pairs[usable, 1], pairs[usable, 0], pairs[usable, 2], part_of[usable], given)


def _queries(query: np.ndarray, target: np.ndarray, kind: np.ndarray, part: np.ndarray, given: str) -> Queries:
    """Queries of `[m]` pairs; the part of a query is that of its first pair."""
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


def _relations(world: _World, held_out: Sequence[tuple[str, str, str]]) -> tuple[dict[str, Queries], dict[str, int]]:
    """Held-out note edges of codes and categories, as queries.

    A note holds for every code below the node that it stands at, and names every code below the other one. So the
    query of an edge A -> B is one code under A, drawn by a stable hash, and it looks for the codes under B. Nodes above
    categories are left out, whose codes have little in common, and so are edges within a category, which the tree
    tells.
    """
    relations = icd_graph.EDGE_TYPES["note"]
    held, given = _held_facts(world, held_out, relations)
    counts = {"note edges held out": sum(map(len, held.values())), "note edges that join two categories": 0}
    counts["note edges of which a subgraph shows the other code"] = 0
    found = {}
    for name, edges in held.items():
        category = [_category_under(world, edges[:, side]) for side in (0, 1)]
        edges = edges[(category[0] >= 0) & (category[1] >= 0) & (category[0] != category[1])]
        keys = [f"{name}|{world.node_keys[a]}|{world.node_keys[b]}" for a, b in edges.tolist()]
        draws = uniform(hash_strings(_SALT, [f"{key}|drawn" for key in keys]))
        sizes = (world.end - world.begin)[edges]
        rows = world.by_path[world.begin[edges[:, 0]] + np.floor(draws * sizes[:, 0]).astype(np.int64)]
        targets = [world.codes_under(node) for node in edges[:, 1].tolist()]
        shown = np.zeros(len(edges), bool) if given else _shown(world, rows, edges, targets)
        counts["note edges that join two categories"] += len(edges)
        counts["note edges of which a subgraph shows the other code"] += int(shown.sum())
        some = np.flatnonzero(~shown)
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


def _category_under(world: _World, nodes: np.ndarray) -> np.ndarray:
    """The category of all codes under each node, -1 where they have several or there are none: int64 [n]."""
    codes = world.category[world.by_path]
    begin, end = world.begin[nodes], world.end[nodes]
    some = end > begin
    last = np.where(some, end - 1, 0)
    first = np.where(some, begin, 0)
    # Codes of a category stand together in the order of the tree, so the ends tell of all between.
    return np.where(some & (codes[first] == codes[last]), codes[first], -1)


def _shown(world: _World, rows: np.ndarray, edges: np.ndarray, targets: list[np.ndarray]) -> np.ndarray:
    """Whether the query's subgraph shows the node at the other end or a code under it, or one of theirs the query."""
    counts = np.array([len(group) for group in targets], np.int64)
    flat = np.concatenate(targets) if targets else np.empty(0, np.int64)
    owner = np.repeat(np.arange(len(rows)), counts)
    query_node = world.node[rows]
    shown = world.shows(rows, edges[:, 1])
    back = (
        world.shows(rows[owner], world.node[flat])
        | world.shows(flat, query_node[owner])
        | world.shows(flat, edges[owner, 0])
    )
    return shown | (np.bincount(owner[back], minlength=len(rows)) > 0)
