"""Draw subgraphs of codes that are given by their neighbors, as the training data was drawn: hub-capped, two hops.

Where codes are nodes of the knowledge graph, the code joins it as a new node. Where they only hang on nodes, as those
of PrimeKG do, the neighbors are what it hangs on.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from medtok_jax.inference.graph_index import GraphIndex
from medtok_jax.inference.graph_input import CodeGraph, describe
from preprocessing.codes import compact_code
from preprocessing.common.errors import InputError
from preprocessing.graph.neighborhoods import NeighborTable, Subgraph, subgraphs

FRESH = -1


@dataclasses.dataclass(frozen=True)
class _Neighbor:
    """Hold a neighbor: its node of the knowledge graph or `FRESH`, its name, and the relation from the code to it."""

    node: int
    name: str
    relation: int


def from_neighbors(neighbors: list, key: str, index: GraphIndex) -> CodeGraph | None:
    """Return the subgraph of a code joined to some nodes, None for an empty list.

    A neighbor is a string, or an object of `node` and `relation`. The string is a key of the knowledge graph, a bare
    code of the code's own system, or a node's name in any spelling of the same normal form; what is no node takes part
    by its name alone. `relation` tells how the code stands to the neighbor (`parent`: the neighbor is its parent);
    without it the relation is the commonest one between codes of the system and nodes of the neighbor's kind. Of more
    neighbors than `hub_cap` those of the first relations, then those given first are kept. Where the only neighbor is
    the code itself, its own neighborhood is drawn.

    Args:
        neighbors: what was given.
        key: `SYSTEM/code` of the code.
        index: of the model's knowledge graph.

    Raises:
        InputError: a neighbor is neither of the two, is a key that is no node, or the name of several nodes.
    """
    notes: list[str] = []
    if names_itself(neighbors, key, index):
        return own_neighborhood(index.find_key(key), key, index)
    found = _without_repeats([_resolve(item, key, index, notes) for item in neighbors], key, index, notes)
    if not found:
        return None
    found.sort(key=lambda neighbor: index.rank[neighbor.relation])
    limit = min(index.neighborhood.hub_cap, index.max_nodes - index.codes_are_nodes)
    if len(found) > limit:
        notes.append(f"{key}: of {len(found)} neighbors {limit} were kept.")
        found = found[:limit]
    return _assemble(_draw(found, index), found, key, index, notes)


def names_itself(neighbors: object, key: str, index: GraphIndex) -> bool:
    """Return whether the only neighbor given for a node of the knowledge graph is this node itself."""
    own = index.find_key(key)
    if own == FRESH or not isinstance(neighbors, list | tuple) or not neighbors:
        return False
    system = key.partition("/")[0]
    names = [name.strip() for name in neighbors if isinstance(name, str)]
    found = [index.find_key(name if index.is_key(name) else f"{system}/{name}") for name in names]
    return len(names) == len(neighbors) and set(found) == {own}


def own_neighborhood(node: int, key: str, index: GraphIndex) -> CodeGraph:
    """Return the subgraph of a code that is a node of the knowledge graph, drawn around this node."""
    drawn = next(iter(subgraphs(index.neighbor_table, np.array([[node]], np.int32), max_nodes=index.max_nodes)))
    nodes = drawn.nodes.astype(np.int64)
    return CodeGraph(
        names=(key, *index.names(nodes[1:])),
        node_ids=nodes,
        types=index.node_types[nodes],
        hops=drawn.hops.astype(np.int32),
        senders=drawn.senders.astype(np.int32),
        receivers=drawn.receivers.astype(np.int32),
        relations=drawn.relations.astype(np.int32),
        self_node=0,
        notes=(f"{key} is a node of the knowledge graph, whose neighborhood was used.",),
    )


def _resolve(item: object, key: str, index: GraphIndex, notes: list[str]) -> _Neighbor:
    name = item.get("node") if isinstance(item, dict) else item
    relation = item.get("relation") if isinstance(item, dict) else None
    if not isinstance(name, str) or not name.strip() or not isinstance(relation, str | None):
        raise InputError(
            f"A neighbor of {key} is {describe(item)}; give a name, a key such as ICD10CM/E11.9, or an object of "
            '"node" and "relation".'
        )
    name, system = name.strip(), key.partition("/")[0]
    node = _find(name, key, system, index)
    if node == FRESH:
        notes.append(
            f"{key}: the neighbor {describe(name)} is no node of the knowledge graph and counts by its name alone."
        )
    if relation is None:
        number = index.default_relation(system, node) if node != FRESH else index.unknown_relation
    else:
        number = index.relation_number(relation)
        if number == index.unknown_relation:
            notes.append(f"{key}: the relation {describe(relation)} is none that the model knows.")
    return _Neighbor(node, name, number)


def _find(name: str, key: str, system: str, index: GraphIndex) -> int:
    if index.is_key(name):
        node = index.find_key(name)
        if node < 0:
            raise InputError(
                f"The neighbor {describe(name)} of {key} is no node of the knowledge graph; correct it or give a name."
            )
        return node
    node = index.find_key(f"{system}/{name}")
    return node if node >= 0 else index.find_name(name, system)


def _without_repeats(found: list[_Neighbor], key: str, index: GraphIndex, notes: list[str]) -> list[_Neighbor]:
    own = index.find_key(key)
    kept: dict[object, _Neighbor] = {}
    for neighbor in found:
        if neighbor.node == own != FRESH or compact_code(neighbor.name) == compact_code(key):
            notes.append(f"{key}: the code itself is among its neighbors and was left out.")
        else:
            kept.setdefault(neighbor.name if neighbor.node == FRESH else neighbor.node, neighbor)
    return list(kept.values())


def _draw(found: Sequence[_Neighbor], index: GraphIndex) -> Subgraph:
    """Draw the subgraph around the code, whose node follows the graph's last; fresh neighbors follow it."""
    first, cap = index.num_nodes, index.neighborhood.hub_cap
    nodes, fresh = [], first
    for neighbor in found:
        fresh += neighbor.node == FRESH
        nodes.append(fresh if neighbor.node == FRESH else neighbor.node)
    more = fresh - first + 2  # The code, the fresh neighbors, and the table's row of padding.
    offered, relation = np.full((more, cap), -1, np.int32), np.zeros((more, cap), np.uint8)
    anchors = [first] if index.codes_are_nodes else nodes
    if index.codes_are_nodes:
        offered[0, : len(found)] = nodes
        relation[0, : len(found)] = [neighbor.relation for neighbor in found]
    known = np.array([*(name in index.neighborhood.first_kept for name in index.relation_names), False])
    table = NeighborTable(offered, relation, index.reverse.astype(np.uint8), known)
    if index.graph:
        rows = index.neighbor_table
        table = dataclasses.replace(
            table,
            neighbors=np.concatenate([rows.neighbors[:first], offered]),
            relation=np.concatenate([rows.relation[:first], relation]),
        )
    return next(iter(subgraphs(table, np.array([anchors], np.int32), max_nodes=index.max_nodes)))


def _assemble(drawn: Subgraph, found: Sequence[_Neighbor], key: str, index: GraphIndex, notes: list[str]) -> CodeGraph:
    """Return the drawn subgraph without the node that the knowledge graph may already have of this code."""
    own = index.find_key(key)
    keep = drawn.nodes != own if own != FRESH else np.ones(len(drawn.nodes), bool)
    now = np.cumsum(keep) - 1
    edges = keep[drawn.senders] & keep[drawn.receivers]
    nodes, first = drawn.nodes[keep].astype(np.int64), index.num_nodes
    known = nodes < first
    fresh_names = [neighbor.name for neighbor in found if neighbor.node == FRESH]
    names, types = np.full(len(nodes), key, object), np.full(len(nodes), index.unknown_type, np.int32)
    names[~known] = [key if node == first else fresh_names[node - first - 1] for node in nodes[~known]]
    if known.any():
        names[known], types[known] = index.names(nodes[known]), index.node_types[nodes[known]]
    types[nodes == first] = index.type_of_system(key.partition("/")[0])
    return CodeGraph(
        names=tuple(names),
        node_ids=np.where(known, nodes, -1),
        types=types,
        hops=drawn.hops[keep].astype(np.int32),
        senders=now[drawn.senders[edges]].astype(np.int32),
        receivers=now[drawn.receivers[edges]].astype(np.int32),
        relations=drawn.relations[edges],
        self_node=0 if index.codes_are_nodes else -1,
        notes=tuple(notes),
    )
