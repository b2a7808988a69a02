"""Extract subgraphs for many codes at once: hub-capped 2-hop neighborhoods of anchors, or subgraphs induced by nodes.

Neighborhoods explode through hubs (one ICD-9 code has thousands of crosswalk partners), so every node offers only
its first `hub_cap` neighbors. Neighbors are ordered by relation and then by a hash of the pair, because taking low ids
first would show only the alphabetically first children of every hub.
"""

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np

from preprocessing.common.errors import InputError
from preprocessing.common.hashing import mix
from preprocessing.graph.knowledge_graph import KnowledgeGraph

# Anchors per pass. The look-up table of a pass takes _CHUNK * nodes * 2 bytes: 64 MiB on 262,000 nodes.
_CHUNK = 128


@dataclasses.dataclass(frozen=True)
class NeighborTable:
    """Hold the best `hub_cap` neighbors that each of N nodes offers to subgraphs, best first.

    Attributes:
        neighbors: int32 [N + 1, hub_cap], -1 beyond the last. Row N belongs to the padding node and is empty.
        relation: uint8 [N + 1, hub_cap], relation of the edge from the row's node to the neighbor.
        reverse: uint8 [R], reverse of each relation.
        first: bool [R], mask of the relations whose targets an anchor keeps before its other neighbors.
    """

    neighbors: np.ndarray
    relation: np.ndarray
    reverse: np.ndarray
    first: np.ndarray


@dataclasses.dataclass(frozen=True)
class Subgraph:
    """Hold the subgraph of one code, with V nodes and E directed edges.

    Edge 2i + 1 is edge 2i reversed; no pair of nodes occurs twice and none is a self-loop.

    Attributes:
        nodes: int32 [V] node ids, anchors first.
        hops: uint8 [V], 0 for anchors, then 1 and 2.
        senders: int32 [E], positions in `nodes`.
        receivers: int32 [E], positions in `nodes`.
        relations: int32 [E], relation of the edge sender -> receiver.
    """

    nodes: np.ndarray
    hops: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    relations: np.ndarray


def neighbor_table(
    graph: KnowledgeGraph, *, hub_cap: int, priority: Sequence[str], first_kept: Sequence[str] = ()
) -> NeighborTable:
    """Rank the neighbors of every node and keep the best `hub_cap` of them.

    Args:
        graph: the knowledge graph.
        hub_cap: neighbors per node.
        priority: relation names, best first; relations not named come last.
        first_kept: relation names whose targets an anchor keeps first.

    Raises:
        InputError: `hub_cap` is below 1.
    """
    if hub_cap < 1:
        raise InputError(f"hub_cap must be at least 1, but {hub_cap} was given.")
    rank = {name: position for position, name in enumerate(priority)}
    ranks = np.array([rank.get(name, len(rank)) for name in graph.relation_names], dtype=np.int64)
    reverse = np.array(graph.reverse, dtype=np.uint8)
    source, target, relation = _one_edge_per_pair(graph, ranks, reverse)
    pair = (source.astype(np.uint64) << np.uint64(32)) | target.astype(np.uint64)
    order = np.lexsort((mix(pair), ranks[relation], source))
    source, target, relation = source[order], target[order], relation[order]
    starts = np.searchsorted(source, np.arange(graph.num_nodes))
    position = np.arange(len(source)) - starts[source]
    kept = position < hub_cap
    neighbors = np.full((graph.num_nodes + 1, hub_cap), -1, dtype=np.int32)
    relations = np.zeros((graph.num_nodes + 1, hub_cap), dtype=np.uint8)
    neighbors[source[kept], position[kept]] = target[kept]
    relations[source[kept], position[kept]] = relation[kept]
    first = np.array([name in first_kept for name in graph.relation_names], dtype=bool)
    return NeighborTable(neighbors, relations, reverse, first)


def _one_edge_per_pair(
    graph: KnowledgeGraph, ranks: np.ndarray, reverse: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (source, target, relation) with the best relation per ordered pair, the same fact in both directions."""
    source, target, relation = graph.sources(), np.asarray(graph.indices), np.asarray(graph.relation)
    # Both directions must pick the same fact, so they compare facts by what does not depend on the direction.
    best = np.minimum(ranks[relation], ranks[reverse[relation]])
    oriented = np.where(source < target, relation, reverse[relation])
    order = np.lexsort((oriented, best, target, source))
    source, target, relation = source[order], target[order], relation[order]
    new = np.ones(len(source), dtype=bool)
    new[1:] = (source[1:] != source[:-1]) | (target[1:] != target[:-1])
    return source[new], target[new], relation[new]


def subgraphs(table: NeighborTable, anchors: np.ndarray, *, max_nodes: int) -> Iterator[Subgraph]:
    """Yield the neighborhood of each row of `anchors`, in order; equal rows share one `Subgraph`.

    Up to `max_nodes` nodes are kept, in this order: the anchors, the targets of their `first_kept` relations, their
    other neighbors, and then neighbors of neighbors, taking the best of each neighbor before the second best of any.

    Args:
        table: the neighbors that each node offers.
        anchors: int32 [n, A] node ids, -1 for padding; a row that is all padding gives an empty subgraph.
        max_nodes: maximum number of nodes of a subgraph, at least A.

    Raises:
        InputError: `max_nodes` is smaller than A.
    """
    if max_nodes < max(1, anchors.shape[1]):
        raise InputError(f"max_nodes must be at least the number of anchors ({anchors.shape[1]}), not {max_nodes}.")
    padding = len(table.neighbors) - 1
    where = np.full((_CHUNK, padding + 1), -1, dtype=np.int16)

    def compute(rows: np.ndarray) -> Iterator[Subgraph]:
        for start in range(0, len(rows), _CHUNK):
            nodes, hops = _keep(table, anchors[rows[start : start + _CHUNK]], max_nodes)
            yield from _divide(nodes, hops, _induced(table, nodes, where), table.reverse)

    yield from _shared(len(anchors), lambda row: anchors[row].tobytes(), compute, max_nodes)


def _divide(
    nodes: np.ndarray, hops: np.ndarray, edges: tuple[np.ndarray, ...], reverse: np.ndarray
) -> Iterator[Subgraph]:
    """Yield the subgraph of each row of `nodes` and `hops` [n, max_nodes] (-1 padded) from the edges of `_induced`."""
    row, low, high, relation = edges
    senders = np.stack([low, high], axis=1)
    receivers = np.ascontiguousarray(senders[:, ::-1])
    relations = np.stack([relation, reverse[relation]], axis=1).astype(np.int32)
    node_counts = (nodes >= 0).sum(axis=1).tolist()
    ends = np.searchsorted(row, np.arange(len(nodes) + 1)).tolist()
    for index, count in enumerate(node_counts):
        own = slice(ends[index], ends[index + 1])
        yield Subgraph(
            # A view would keep the arrays of all rows of the pass in memory.
            nodes=nodes[index, :count].copy(),
            hops=hops[index, :count].copy(),
            senders=senders[own].flatten(),
            receivers=receivers[own].flatten(),
            relations=relations[own].flatten(),
        )


def _keep(table: NeighborTable, anchors: np.ndarray, max_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the kept nodes, int32 [n, max_nodes], -1 padded, and their hops, uint8 [n, max_nodes]."""
    rows = len(anchors)
    # [rows, hub_cap, A]: the best neighbor of every anchor, then the second best of every anchor, ...
    one_hop = table.neighbors[anchors].transpose(0, 2, 1).reshape(rows, -1)
    first = table.first[table.relation[anchors].transpose(0, 2, 1).reshape(rows, -1)]
    one_hop = np.take_along_axis(one_hop, np.argsort(~first, axis=1, kind="stable"), axis=1)
    two_hop = table.neighbors[one_hop].transpose(0, 2, 1).reshape(rows, -1)
    candidates = np.concatenate([anchors, one_hop, two_hop], axis=1)
    widths = (anchors.shape[1], one_hop.shape[1], two_hop.shape[1])
    hop_of_column = np.repeat(np.arange(3, dtype=np.uint8), widths)
    fresh = _first_occurrence(candidates) & (candidates >= 0)
    position = np.cumsum(fresh, axis=1) - 1
    row, column = np.nonzero(fresh & (position < max_nodes))
    nodes = np.full((rows, max_nodes), -1, dtype=np.int32)
    hops = np.zeros((rows, max_nodes), dtype=np.uint8)
    nodes[row, position[row, column]] = candidates[row, column]
    hops[row, position[row, column]] = hop_of_column[column]
    return nodes, hops


def _first_occurrence(values: np.ndarray) -> np.ndarray:
    """Return a bool [n, k] mask of the values that occur for the first time in their row."""
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    new = np.ones(values.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.empty_like(new)
    np.put_along_axis(first, order, new, axis=1)
    return first


def _induced(
    table: NeighborTable, nodes: np.ndarray, where: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the edges among the kept nodes, one per pair, sorted by (row, lower position, higher position).

    A pair is joined if either node offers the other. `where` is scratch space, int16 [>= n, N + 1], all -1 before
    and after.

    Returns:
        row int64 [m], lower position int32 [m], higher position int32 [m], relation of lower -> higher uint8 [m].
    """
    width = nodes.shape[1]
    kept_row, kept_position = np.nonzero(nodes >= 0)
    kept = nodes[kept_row, kept_position]
    where[kept_row, kept] = kept_position
    offered = table.neighbors[kept]
    # The id -1 of padding reads the last column of `where`, which belongs to the padding node and remains -1.
    found = where[kept_row[:, None], offered]
    where[kept_row, kept] = -1
    index, column = np.nonzero(found >= 0)
    here = kept_position[index]
    there = found[index, column].astype(np.int64)
    relation = table.relation[kept[index], column]
    relation = np.where(here < there, relation, table.reverse[relation])
    low, high = np.minimum(here, there), np.maximum(here, there)
    packed, unique = np.unique((kept_row[index] * width + low) * width + high, return_index=True)
    pair, high = np.divmod(packed, width)
    row, low = np.divmod(pair, width)
    return row, low.astype(np.int32), high.astype(np.int32), relation[unique]


@dataclasses.dataclass(frozen=True)
class PairTable:
    """Index every edge of a graph, with one relation per pair of nodes, to find the edges among given nodes quickly.

    Attributes:
        indptr: int64 [N + 1], CSR offsets of the edges that leave nodes which are not hubs.
        targets: int32 [E], target nodes of these edges.
        relation: uint8 [E], relations of these edges.
        hub: int32 [N], number of each hub, -1 for all other nodes.
        between_hubs: int16 [H, H], relation of the edge from hub to hub, -1 if there is none.
        reverse: uint8 [R], reverse of each relation.
    """

    indptr: np.ndarray
    targets: np.ndarray
    relation: np.ndarray
    hub: np.ndarray
    between_hubs: np.ndarray
    reverse: np.ndarray


def pair_table(graph: KnowledgeGraph, *, priority: Sequence[str], most_hubs: int = 8192) -> PairTable:
    """Build the `PairTable` of `graph` that `induced` reads.

    Args:
        graph: the knowledge graph.
        priority: relation names, best first; of several edges between two nodes the best is taken.
        most_hubs: number of nodes of the highest degrees whose edges are looked up in a matrix instead of a list.
    """
    rank = {name: position for position, name in enumerate(priority)}
    ranks = np.array([rank.get(name, len(rank)) for name in graph.relation_names], dtype=np.int64)
    reverse = np.array(graph.reverse, dtype=np.uint8)
    source, target, relation = _one_edge_per_pair(graph, ranks, reverse)
    degree = np.bincount(source, minlength=graph.num_nodes)
    hubs = np.argsort(-degree, kind="stable")[:most_hubs]
    hub = np.full(graph.num_nodes, -1, dtype=np.int32)
    hub[hubs] = np.arange(len(hubs), dtype=np.int32)
    between = np.full((len(hubs), len(hubs)), -1, dtype=np.int16)
    inside = (hub[source] >= 0) & (hub[target] >= 0)
    between[hub[source[inside]], hub[target[inside]]] = relation[inside]
    outward = hub[source] < 0
    counts = np.where(hub < 0, degree, 0)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return PairTable(indptr, target[outward], relation[outward], hub, between, reverse)


def induced(
    table: PairTable, nodes: np.ndarray, offsets: np.ndarray, *, max_nodes: int, anchors: np.ndarray | None = None
) -> Iterator[Subgraph]:
    """Yield the subgraph that each list of nodes induces, in order: all edges among them, one per pair, both ways.

    Its nodes are the anchors and then the list, in their order and without repeats, cut at `max_nodes`. A hop is 0 for
    anchors, 1 for nodes joined to an anchor and 2 for all others, at any distance. Equal lists share one `Subgraph`.

    Args:
        table: the edges.
        nodes: int [total] node ids of all lists, concatenated; ids below 0 are skipped.
        offsets: int64 [n + 1], start of each list in `nodes`, and the end of the last.
        max_nodes: maximum number of nodes of a subgraph, at least A and at most 32,767.
        anchors: int32 [n, A] node ids, -1 for padding; None takes the first node of each list.

    Raises:
        InputError: `max_nodes` is out of bounds, or a node id is not in the graph.
    """
    nodes = np.asarray(nodes, dtype=np.int32)
    offsets = np.asarray(offsets, dtype=np.int64)
    count = len(table.hub)
    for given in (nodes, np.empty(0, np.int32) if anchors is None else anchors):
        if given.size and given.max() >= count:
            raise InputError(f"node id {given.max()} is not in the graph, whose {count:,} nodes are numbered from 0.")
    if not max(1, 0 if anchors is None else anchors.shape[1]) <= max_nodes < 2**15:
        raise InputError(f"max_nodes must be at least the number of anchors and below 32,768, not {max_nodes}.")
    anchors = _first_nodes(nodes, offsets) if anchors is None else np.asarray(anchors, dtype=np.int32)
    # Every pair of hubs in a row is looked up, so memory bounds the rows of a pass.
    chunk = int(np.clip((1 << 21) // max_nodes**2, 1, _CHUNK))
    where = np.full((chunk, count), -1, dtype=np.int16)

    def compute(rows: np.ndarray) -> Iterator[Subgraph]:
        for start in range(0, len(rows), chunk):
            kept, anchor_counts = _unrepeated(nodes, offsets, anchors, rows[start : start + chunk], max_nodes)
            edges = _edges_among(table, kept, where)
            yield from _divide(kept, _hops(kept, anchor_counts, edges), edges, table.reverse)

    def key(row: int) -> tuple[bytes, bytes]:
        return anchors[row].tobytes(), nodes[offsets[row] : offsets[row + 1]].tobytes()

    yield from _shared(len(offsets) - 1, key, compute, max_nodes)


def _shared(
    count: int, key: Callable[[int], Hashable], compute: Callable[[np.ndarray], Iterator[Subgraph]], max_nodes: int
) -> Iterator[Subgraph]:
    """Yield the subgraph of rows 0 .. count - 1; rows of equal `key` within a window are computed once."""
    window = int(np.clip((1 << 20) // max_nodes, 1 << 10, 1 << 14))
    for start in range(0, count, window):
        numbers: dict[Hashable, int] = {}
        which = [numbers.setdefault(key(row), len(numbers)) for row in range(start, min(start + window, count))]
        _, first = np.unique(which, return_index=True)
        uses = np.bincount(which).tolist()
        computed = compute(start + first)
        kept: dict[int, Subgraph] = {}
        for number in which:
            # Numbers are given in order of appearance, so a new one is the next that `compute` yields.
            found = kept.get(number) or next(computed)
            uses[number] -= 1
            if uses[number]:
                kept[number] = found
            else:
                kept.pop(number, None)
            yield found


def _first_nodes(nodes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the first node of each list, -1 for an empty one, int32 [n, 1]."""
    return np.append(nodes, np.int32(-1))[np.where(offsets[:-1] < offsets[1:], offsets[:-1], len(nodes))][:, None]


def _unrepeated(
    nodes: np.ndarray, offsets: np.ndarray, anchors: np.ndarray, rows: np.ndarray, max_nodes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the kept nodes, int32 [n, max_nodes], -1 padded, and the number of anchors among them, int64 [n]."""
    lists = [np.concatenate([anchors[row], nodes[offsets[row] : offsets[row + 1]]]) for row in rows]
    lengths = np.array([len(members) for members in lists])
    row = np.repeat(np.arange(len(rows)), lengths)
    flat = np.concatenate(lists) if lists else np.empty(0, np.int32)
    present = flat >= 0
    packed = (row[present] << 32) | flat[present]
    _, first = np.unique(packed, return_index=True)
    first.sort()
    row = row[present][first]
    flat = flat[present][first]
    position = np.arange(len(row)) - np.searchsorted(row, np.arange(len(rows)))[row]
    kept = np.full((len(rows), max_nodes), -1, dtype=np.int32)
    fits = position < max_nodes
    kept[row[fits], position[fits]] = flat[fits]
    anchor_counts = np.array([len(np.unique(own[own >= 0])) for own in anchors[rows]], dtype=np.int64)
    return kept, anchor_counts


def _edges_among(table: PairTable, nodes: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return all edges among `nodes` in the form of `_induced`; `where` is scratch space, as there."""
    kept_row, kept_position = np.nonzero(nodes >= 0)
    kept = nodes[kept_row, kept_position]
    where[kept_row, kept] = kept_position
    starts = table.indptr[kept]
    counts = np.diff(table.indptr)[kept]
    owner = np.repeat(np.arange(len(kept)), counts)
    edge = np.arange(len(owner)) + np.repeat(starts - np.cumsum(counts) + counts, counts)
    target = table.targets[edge]
    there = where[kept_row[owner], target]
    where[kept_row, kept] = -1
    here = kept_position[owner]
    # An edge between two nodes that are not hubs is found from both ends, one to a hub only from this end.
    taken = np.flatnonzero((there >= 0) & ((here < there) | (table.hub[target] >= 0)))
    row = kept_row[owner[taken]]
    here = here[taken]
    there = there[taken].astype(np.int64)
    relation = table.relation[edge[taken]]
    relation = np.where(here < there, relation, table.reverse[relation])
    hubs = _edges_among_hubs(table, nodes)
    row = np.concatenate([row, hubs[0]])
    low, high = np.concatenate([np.minimum(here, there), hubs[1]]), np.concatenate([np.maximum(here, there), hubs[2]])
    order = np.argsort((row * nodes.shape[1] + low) * nodes.shape[1] + high)
    relation = np.concatenate([relation, hubs[3]])
    return row[order], low[order].astype(np.int32), high[order].astype(np.int32), relation[order]


def _edges_among_hubs(table: PairTable, nodes: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the (row, low, high, relation) arrays of the edges between hubs; see `_edges_among`."""
    hub = np.where(nodes >= 0, table.hub[nodes], -1)
    width = (hub >= 0).sum(axis=1).max(initial=0)
    if width < 2:
        return (*np.empty((3, 0), dtype=np.int64), np.empty(0, dtype=np.uint8))
    positions = np.argsort(hub < 0, axis=1, kind="stable")[:, :width]
    hub = np.take_along_axis(hub, positions, axis=1)
    left, right = np.triu_indices(width, 1)
    relation = table.between_hubs[hub[:, left], hub[:, right]]
    # A node that is not a hub has the number -1, which read the last row or column of `between_hubs`.
    row, pair = np.nonzero((relation >= 0) & (hub[:, left] >= 0) & (hub[:, right] >= 0))
    return row, positions[row, left[pair]], positions[row, right[pair]], relation[row, pair].astype(np.uint8)


def _hops(nodes: np.ndarray, anchor_counts: np.ndarray, edges: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return the hops of `nodes` [n, max_nodes], uint8 of the same shape."""
    row, low, high, _ = edges
    hops = np.where(np.arange(nodes.shape[1]) < anchor_counts[:, None], 0, 2).astype(np.uint8)
    # Anchors come first, so an edge with an anchor has one at its low end.
    joined = low < anchor_counts[row]
    hops[row[joined], high[joined]] = np.minimum(hops[row[joined], high[joined]], 1)
    return hops
