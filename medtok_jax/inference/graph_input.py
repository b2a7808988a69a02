"""Read subgraphs that come from outside, as node-link JSON (networkx's `node_link_data`).

A node has an `id` and may have a `name`, a `type` and a `hop`; `"self": true` marks the node that is the code itself,
as does `self_node` in the JSON's `graph` (`preprocessing.json_export`); `"anchor": true` (or hop 0) marks a node that
the code hangs on. Where the id is a key of the knowledge graph, such as `ICD10CM/E11.9`, what is missing is taken from
there. An edge, under `links` or `edges`, has `source`, `target` and may have a `relation`, which tells how the source
stands to the target, as in the data set.
"""

import dataclasses
import json
from collections import deque
from pathlib import Path

import numpy as np

from medtok_jax.inference.graph_index import GraphIndex
from preprocessing.codes import compact_code
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading

MAX_HOP = 2
EXPECTED = (
    '{"nodes": [{"id": ..., "name": ..., "type": ...}], "links": [{"source": ..., "target": ..., "relation": ...}]}'
)


@dataclasses.dataclass(frozen=True)
class CodeGraph:
    """Hold the subgraph of one code.

    Attributes:
        names: name of every node, of which only the embedding is used; that of the self node is not read.
        node_ids: `[V]` int64 node of the knowledge graph, -1 for none.
        types: `[V]` int32. hops: `[V]` int32, 0 to 2.
        senders, receivers, relations: `[E]` int32; edge 2i + 1 is edge 2i reversed.
        self_node: position of the node that is the code itself, -1 for none.
        notes: what was left out or assumed, one sentence each.
    """

    names: tuple[str, ...]
    node_ids: np.ndarray
    types: np.ndarray
    hops: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    relations: np.ndarray
    self_node: int
    notes: tuple[str, ...] = ()


def read_json(path: str | Path) -> dict | list:
    """Read a graph from a file: node-link JSON or a list of neighbors.

    Raises:
        InputError: the file cannot be read or holds something else.
    """
    path = Path(path).expanduser()
    with reading(path, "JSON", f"expected is {EXPECTED}"):
        content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict | list):
        raise InputError(f"The graph {path} is a bare value; expected is {EXPECTED}, or a list of neighbors.")
    return content


def from_node_link(graph: dict, key: str, index: GraphIndex) -> CodeGraph | None:
    """Return the subgraph that node-link JSON describes, None where it has no nodes.

    The code stands at the node marked `self`, else at the one whose id is the code or its key; else it hangs on the
    nodes marked `anchor` or of hop 0; else on the node with most edges, which is noted. Nodes farther than two hops are
    left out, as they are in the data set, and then the farthest ones beyond `max_nodes`.

    Args:
        graph: the parsed JSON.
        key: `SYSTEM/code` of the code.
        index: of the model's knowledge graph.

    Raises:
        InputError: it is not node-link JSON, or marks several nodes as the code itself.
    """
    draft = _Draft(key)
    draft.read_nodes(_list_of_objects(graph, ("nodes",), key))
    if not draft.nodes:
        return None
    draft.read_edges(_list_of_objects(graph, ("links", "edges"), key))
    self_node = draft.find_self(graph.get("graph"))
    anchors = draft.find_anchors(self_node)
    hops = draft.hops(anchors)
    order = [place for place in range(len(hops)) if hops[place] <= MAX_HOP]
    if len(order) < len(hops):
        draft.note(f"{len(hops) - len(order)} nodes farther than {MAX_HOP} hops from the code were left out")
    order.sort(key=lambda place: (hops[place], place != self_node))
    if len(order) > index.max_nodes:
        draft.note(f"of {len(order)} nodes within {MAX_HOP} hops the nearest {index.max_nodes} were kept")
        order = order[: index.max_nodes]
    return draft.finish(order, hops, self_node, index)


def _list_of_objects(graph: dict, names: tuple[str, ...], key: str) -> list[dict]:
    found = next((graph[name] for name in names if name in graph), None)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise InputError(
            f"The graph of {key} has no list of objects under {' or '.join(map(repr, names))}; expected is {EXPECTED}."
        )
    return found


class _Draft:
    """Collect nodes and edges as they were given, without what cannot be used."""

    def __init__(self, key: str):
        self.key = key
        self.nodes: list[dict] = []
        self.place: dict = {}
        self.relation: dict[tuple[int, int], object] = {}
        self.neighbors: list[list[int]] = []
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(f"{self.key}: {text}.")

    def read_nodes(self, nodes: list[dict]) -> None:
        """Keep the first node of each id."""
        for node in nodes:
            identity = node.get("id")
            if isinstance(identity, bool) or not isinstance(identity, str | int | float) or identity != identity:
                raise InputError(
                    f"A node of the graph of {self.key} has the id {describe(identity)}; give text or a number."
                )
            if identity not in self.place:
                self.place[identity] = len(self.nodes)
                self.nodes.append(node)
        self.neighbors = [[] for _ in self.nodes]
        if len(self.nodes) < len(nodes):
            self.note(f"{len(nodes) - len(self.nodes)} nodes repeat an id and were left out")

    def read_edges(self, edges: list[dict]) -> None:
        """Keep the first edge of each pair; its reverse says the same."""
        dangling, loops = 0, 0
        for edge in edges:
            ends = [self._end(edge, name) for name in ("source", "target")]
            if None in ends:
                dangling += 1
            elif ends[0] == ends[1]:
                loops += 1
            elif (ends[1], ends[0]) not in self.relation and (ends[0], ends[1]) not in self.relation:
                self.relation[ends[0], ends[1]] = edge.get("relation")
                self.neighbors[ends[0]].append(ends[1])
                self.neighbors[ends[1]].append(ends[0])
        if dangling:
            self.note(f"{dangling} edges name a node that is not there and were left out")
        if loops:
            self.note(f"{loops} edges lead from a node to itself and were left out")

    def _end(self, edge: dict, name: str) -> int | None:
        try:
            return self.place.get(edge.get(name))
        except TypeError as error:
            raise InputError(
                f"An edge of the graph of {self.key} has the {name} {describe(edge[name])}; give the id of a node."
            ) from error

    def find_self(self, about: object) -> int:
        """Return the position of the code's own node, -1 for none; `about` is the JSON's entry on the graph as such."""
        marked = [place for place, node in enumerate(self.nodes) if node.get("self") is True]
        if not marked and isinstance(about, dict) and isinstance(about.get("self_node"), str | int):
            marked = [self.place[about["self_node"]]] if about["self_node"] in self.place else []
        if not marked:
            wanted = {compact_code(self.key), compact_code(self.key.partition("/")[2])}
            ids = [node["id"] for node in self.nodes]
            marked = [p for p, name in enumerate(ids) if isinstance(name, str) and compact_code(name) in wanted][:1]
        if len(marked) > 1:
            raise InputError(f'The graph of {self.key} marks {len(marked)} nodes with "self": true; mark one.')
        return marked[0] if marked else -1

    def find_anchors(self, self_node: int) -> list[int]:
        if self_node >= 0:
            return [self_node]
        marked = [place for place, node in enumerate(self.nodes) if node.get("anchor") is True or _hop(node) == 0]
        if marked:
            return marked
        central = max(range(len(self.nodes)), key=lambda place: len(self.neighbors[place]))
        self.note(
            f'no node of its graph is marked "self" or "anchor", so it hangs on the one with most edges, '
            f"{describe(self.nodes[central]['id'])}"
        )
        return [central]

    def hops(self, anchors: list[int]) -> list[int]:
        """Return the hops given where every node has one, else distances from the anchors, which are at 0."""
        given = [0 if place in anchors else _hop(node) for place, node in enumerate(self.nodes)]
        if None not in given:
            return given
        hops = [MAX_HOP + 1] * len(self.nodes)
        queue = deque(anchors)
        for place in anchors:
            hops[place] = 0
        while queue:
            place = queue.popleft()
            for neighbor in self.neighbors[place]:
                if hops[neighbor] > hops[place] + 1:
                    hops[neighbor] = hops[place] + 1
                    queue.append(neighbor)
        return hops

    def finish(self, order: list[int], hops: list[int], self_node: int, index: GraphIndex) -> CodeGraph:
        """Return the graph of the nodes kept, nearest first."""
        nodes = [self.nodes[place] for place in order]
        ids = [index.find_key(node["id"]) if isinstance(node["id"], str) else -1 for node in nodes]
        known = [node for node in ids if node >= 0]
        name_of = dict(zip(known, index.names(known), strict=True)) if known else {}
        names = tuple(
            _text(node, "name") or name_of.get(i) or str(node["id"]) for node, i in zip(nodes, ids, strict=True)
        )
        types = [self._type(place, i, place == self_node, index) for place, i in zip(order, ids, strict=True)]
        strange = sum(number == index.unknown_type for number in types)
        if strange:
            self.note(f"{strange} nodes are of no type that the model knows")
        now = {place: number for number, place in enumerate(order)}
        senders, receivers, relations = self._edges(now, index)
        return CodeGraph(
            names=names,
            node_ids=np.array(ids, np.int64),
            types=np.array(types, np.int32),
            hops=np.array([hops[place] for place in order], np.int32),
            senders=senders,
            receivers=receivers,
            relations=relations,
            self_node=now.get(self_node, -1),
            notes=tuple(self.notes),
        )

    def _type(self, place: int, known: int, is_self: bool, index: GraphIndex) -> int:
        if name := _text(self.nodes[place], "type"):
            return index.type_number(name)
        if known >= 0:
            return int(index.node_types[known])
        return index.type_of_system(self.key.partition("/")[0]) if is_self else index.unknown_type

    def _edges(self, now: dict[int, int], index: GraphIndex) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return both directions of every kept edge, from the lower position to the higher one first, in order."""
        facts, strange = [], 0
        for (a, b), name in self.relation.items():
            if a not in now or b not in now:
                continue
            relation = index.relation_number(name) if isinstance(name, str) else index.unknown_relation
            strange += relation == index.unknown_relation
            low, high = now[a], now[b]
            facts.append((low, high, relation) if low < high else (high, low, int(index.reverse[relation])))
        if strange:
            self.note(f"{strange} edges are of no relation that the model knows")
        low, high, relation = np.array(sorted(facts), np.int32).reshape(-1, 3).T
        return (
            np.stack([low, high], axis=1).ravel(),
            np.stack([high, low], axis=1).ravel(),
            np.stack([relation, index.reverse[relation]], axis=1).ravel(),
        )


def _hop(node: dict) -> int | None:
    hop = node.get("hop")
    return hop if isinstance(hop, int) and not isinstance(hop, bool) and hop >= 0 else None


def _text(node: dict, name: str) -> str:
    value = node.get(name)
    return value.strip() if isinstance(value, str) else ""


def describe(value: object) -> str:
    """Return a value as it can be shown in a sentence: short, and only the type of what is nested."""
    if value is not None and not isinstance(value, str | int | float):
        return f"a {type(value).__name__}"
    text = repr(value[:60]) if isinstance(value, str) else f"{value}"[:60]
    return f"{text}..." if isinstance(value, str) and len(value) > 60 else text
