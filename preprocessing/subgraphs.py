"""Hub-capped 2-hop neighbourhoods of many anchors at once.

Neighbourhoods explode through hubs (one ICD-9 code has thousands of crosswalk partners), so every node offers only
its first `hub_cap` neighbours. The order is by relation and then by a hash of the pair: taking low ids first would
show every hub by the same alphabetical corner of its children.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from preprocessing.errors import InputError
from preprocessing.hashing import mix
from preprocessing.knowledge_graph import KnowledgeGraph

# Anchors per pass. The look-up table of a pass takes _CHUNK * nodes * 2 bytes: 64 MiB on 262,000 nodes.
_CHUNK = 128


@dataclasses.dataclass(frozen=True)
class NeighbourTable:
    """The neighbours that each node offers, best first.

    Attributes:
        neighbours: int32 [N + 1, hub_cap], -1 beyond the last. Row N belongs to the padding node and is empty.
        relation: uint8 [N + 1, hub_cap], relation of the edge from the row's node to the neighbour.
        reverse: uint8 [R], reverse of each relation.
        first: bool [R], relations whose targets an anchor keeps in front of its other neighbours.
    """

    neighbours: np.ndarray
    relation: np.ndarray
    reverse: np.ndarray
    first: np.ndarray


@dataclasses.dataclass(frozen=True)
class Subgraph:
    """One neighbourhood.

    Attributes:
        nodes: int32 [V] node ids, anchors first. hops: uint8 [V], 0 for anchors, then 1 and 2.
        senders, receivers: int32 [E], positions in `nodes`. relations: int32 [E], of the edge sender -> receiver.
            Edge 2i + 1 is edge 2i reversed; no pair of nodes occurs twice and none is a self-loop.
    """

    nodes: np.ndarray
    hops: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    relations: np.ndarray


def neighbour_table(
    graph: KnowledgeGraph, *, hub_cap: int, priority: Sequence[str], first_kept: Sequence[str] = ()
) -> NeighbourTable:
    """Ranks every node's neighbours and keeps `hub_cap` of them.

    Args:
        graph: the knowledge graph.
        hub_cap: neighbours per node.
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
    place = np.arange(len(source)) - starts[source]
    kept = place < hub_cap
    neighbours = np.full((graph.num_nodes + 1, hub_cap), -1, dtype=np.int32)
    relations = np.zeros((graph.num_nodes + 1, hub_cap), dtype=np.uint8)
    neighbours[source[kept], place[kept]] = target[kept]
    relations[source[kept], place[kept]] = relation[kept]
    first = np.array([name in first_kept for name in graph.relation_names], dtype=bool)
    return NeighbourTable(neighbours, relations, reverse, first)


def _one_edge_per_pair(
    graph: KnowledgeGraph, ranks: np.ndarray, reverse: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(source, target, relation) with one relation per ordered pair: the best one, and the same fact both ways."""
    source, target, relation = graph.sources(), np.asarray(graph.indices), np.asarray(graph.relation)
    # Both directions must pick the same fact, so they compare facts by what does not depend on the direction.
    best = np.minimum(ranks[relation], ranks[reverse[relation]])
    oriented = np.where(source < target, relation, reverse[relation])
    order = np.lexsort((oriented, best, target, source))
    source, target, relation = source[order], target[order], relation[order]
    new = np.ones(len(source), dtype=bool)
    new[1:] = (source[1:] != source[:-1]) | (target[1:] != target[:-1])
    return source[new], target[new], relation[new]


def subgraphs(table: NeighbourTable, anchors: np.ndarray, *, max_nodes: int) -> Iterator[Subgraph]:
    """Yields the neighbourhood of each row of `anchors`, in order; the result of a row depends on that row alone.

    Kept are, up to `max_nodes`: the anchors, the targets of their `first_kept` relations, their other neighbours, and
    then neighbours of neighbours, taking the best of each neighbour before the second best of any.

    Args:
        table: what each node offers.
        anchors: int32 [n, A] node ids, -1 for padding. A row of padding only gives an empty subgraph.
        max_nodes: most nodes of a subgraph, at least A.

    Raises:
        InputError: `max_nodes` is smaller than A.
    """
    if max_nodes < max(1, anchors.shape[1]):
        raise InputError(f"max_nodes must be at least the number of anchors ({anchors.shape[1]}), not {max_nodes}.")
    padding = len(table.neighbours) - 1
    where = np.full((_CHUNK, padding + 1), -1, dtype=np.int16)
    for start in range(0, len(anchors), _CHUNK):
        nodes, hops = _keep(table, anchors[start : start + _CHUNK], max_nodes)
        row, low, high, relation = _induced(table, nodes, where)
        node_counts = (nodes >= 0).sum(axis=1)
        edge_ends = np.searchsorted(row, np.arange(len(nodes) + 1))
        for index, count in enumerate(node_counts):
            edges = slice(edge_ends[index], edge_ends[index + 1])
            there, back, relations = low[edges], high[edges], relation[edges]
            yield Subgraph(
                nodes=nodes[index, :count],
                hops=hops[index, :count],
                senders=np.stack([there, back], axis=1).ravel(),
                receivers=np.stack([back, there], axis=1).ravel(),
                relations=np.stack([relations, table.reverse[relations]], axis=1).ravel().astype(np.int32),
            )


def _keep(table: NeighbourTable, anchors: np.ndarray, max_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Kept nodes int32 [n, max_nodes], -1 padded, and their hops uint8 [n, max_nodes]."""
    rows = len(anchors)
    # [rows, hub_cap, A]: the best neighbour of every anchor, then the second best of every anchor, ...
    one_hop = table.neighbours[anchors].transpose(0, 2, 1).reshape(rows, -1)
    first = table.first[table.relation[anchors].transpose(0, 2, 1).reshape(rows, -1)]
    one_hop = np.take_along_axis(one_hop, np.argsort(~first, axis=1, kind="stable"), axis=1)
    two_hop = table.neighbours[one_hop].transpose(0, 2, 1).reshape(rows, -1)
    candidates = np.concatenate([anchors, one_hop, two_hop], axis=1)
    widths = (anchors.shape[1], one_hop.shape[1], two_hop.shape[1])
    hop_of_column = np.repeat(np.arange(3, dtype=np.uint8), widths)
    fresh = _first_occurrence(candidates) & (candidates >= 0)
    place = np.cumsum(fresh, axis=1) - 1
    row, column = np.nonzero(fresh & (place < max_nodes))
    nodes = np.full((rows, max_nodes), -1, dtype=np.int32)
    hops = np.zeros((rows, max_nodes), dtype=np.uint8)
    nodes[row, place[row, column]] = candidates[row, column]
    hops[row, place[row, column]] = hop_of_column[column]
    return nodes, hops


def _first_occurrence(values: np.ndarray) -> np.ndarray:
    """Boolean [n, k]: whether a value stands for the first time in its row."""
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    new = np.ones(values.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.empty_like(new)
    np.put_along_axis(first, order, new, axis=1)
    return first


def _induced(
    table: NeighbourTable, nodes: np.ndarray, where: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Edges among the kept nodes, once per pair, sorted by (row, lower position, higher position).

    A pair is joined when either node offers the other. `where` is scratch space, int16 [>= n, N + 1], all -1 before and
    after.

    Returns:
        row int64 [m], lower position int32 [m], higher position int32 [m], relation of lower -> higher uint8 [m].
    """
    width = nodes.shape[1]
    kept_row, kept_place = np.nonzero(nodes >= 0)
    kept = nodes[kept_row, kept_place]
    where[kept_row, kept] = kept_place
    offered = table.neighbours[kept]
    # The id -1 of padding looks at the last column of `where`, which belongs to the padding node and stays -1.
    found = where[kept_row[:, None], offered]
    where[kept_row, kept] = -1
    index, column = np.nonzero(found >= 0)
    here, there = kept_place[index], found[index, column].astype(np.int64)
    relation = table.relation[kept[index], column]
    relation = np.where(here < there, relation, table.reverse[relation])
    low, high = np.minimum(here, there), np.maximum(here, there)
    packed, unique = np.unique((kept_row[index] * width + low) * width + high, return_index=True)
    pair, high = np.divmod(packed, width)
    row, low = np.divmod(pair, width)
    return row, low.astype(np.int32), high.astype(np.int32), relation[unique]
