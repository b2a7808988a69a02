"""Look up node types, relations and nodes of a trained model's knowledge graph, by key and by name."""

import functools

import numpy as np
import pyarrow.compute as pc

from medtok_jax.inference.model_reader import SavedModel
from preprocessing.codes import compact_code
from preprocessing.common.errors import InputError
from preprocessing.graph.names import by_normal_form, normal_form
from preprocessing.graph.neighborhoods import NeighborTable, neighbor_table

SHOWN_CANDIDATES = 5


class GraphIndex:
    """Look up what graphs from outside name.

    A type or relation that the model never saw has the number after the last known one.

    Attributes:
        graph: the knowledge graph, or None where the directory holds none.
        max_nodes: most nodes of a subgraph.
        codes_are_nodes: whether codes are nodes of the knowledge graph, or only hang on nodes.
        relation_names: the model's, in order. rank: of each relation and the unknown one, best first.
        unknown_type, unknown_relation: numbers for what the model never saw.
        reverse: `[relations + 1]` int32, reverse of each relation; the unknown one is its own.
    """

    def __init__(self, saved: SavedModel):
        self.graph, self.neighborhood = saved.graph, saved.neighborhood
        self.max_nodes, self.codes_are_nodes = saved.neighborhood.max_nodes, saved.neighborhood.codes_are_nodes
        self._types = {_spelling(name): number for number, name in enumerate(saved.node_types)}
        self.relation_names = saved.relation_names
        self._relations = {_spelling(name): number for number, name in enumerate(saved.relation_names)}
        self.unknown_type, self.unknown_relation = len(saved.node_types), len(saved.relation_names)
        self.reverse = np.array([*saved.reverse, self.unknown_relation], np.int32)
        rank = {name: place for place, name in enumerate(saved.neighborhood.priority)}
        self.rank = [rank.get(name, len(rank)) for name in saved.relation_names] + [len(rank)]

    @property
    def num_nodes(self) -> int:
        """Return the number of nodes of the knowledge graph; 0 where there is none."""
        return self.graph.num_nodes if self.graph else 0

    def type_number(self, name: str) -> int:
        """Return the number of a node type."""
        return self._types.get(_spelling(name), self.unknown_type)

    def relation_number(self, name: str) -> int:
        """Return the number of a relation."""
        return self._relations.get(_spelling(name), self.unknown_relation)

    @functools.cached_property
    def node_types(self) -> np.ndarray:
        """Return the type of every node of the knowledge graph, `[nodes]` int32."""
        return self.graph.node_type_ids() if self.graph else np.zeros(0, np.int32)

    def names(self, nodes: np.ndarray) -> list[str]:
        """Return the names of nodes of the knowledge graph."""
        return self.graph.nodes["name"].take(nodes).to_pylist()

    @functools.cached_property
    def neighbor_table(self) -> NeighborTable:
        """Return the neighbors of each node, in the order and number by which the training data was drawn."""
        rule = self.neighborhood
        return neighbor_table(self.graph, hub_cap=rule.hub_cap, priority=rule.priority, first_kept=rule.first_kept)

    def find_key(self, key: str) -> int:
        """Return the node of a `SYSTEM/code` key, with or without the dot, in any case; -1 for none."""
        return self._keys.get(_compact(key), -1)

    def is_key(self, text: str) -> bool:
        """Return whether a string reads as the key of a source of this graph: `ICD10CM/E11.9`, but not `HIV/AIDS`."""
        source, slash, rest = text.partition("/")
        return bool(slash and rest) and source.strip().upper() in self._sources

    def find_name(self, name: str, system: str) -> int:
        """Return the node of a name in its normal form; -1 for none.

        Of several nodes the one that is spelled exactly so is taken, else the one of the given system.

        Raises:
            InputError: several are left.
        """
        found = self._names.get(normal_form(name), [])
        for narrow in (lambda node: self._name_of(node) == name, lambda node: self._source_of(node) == system):
            if len(found) > 1:
                found = [node for node in found if narrow(node)] or found
        if len(found) > 1:
            shown = [self._key_of(node) for node in found[:SHOWN_CANDIDATES]]
            more = f" and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
            raise InputError(
                f"The neighbor {name[:60]!r} is the name of {len(found)} nodes of the knowledge graph "
                f"({', '.join(shown)}{more}); give one of these keys instead."
            )
        return found[0] if found else -1

    def type_of_system(self, system: str) -> int:
        """Return the commonest node type among the nodes of a code system."""
        return self._type_of_source.get(system.upper(), self.unknown_type)

    def default_relation(self, system: str, neighbor: int) -> int:
        """Return the commonest relation from codes of a system to nodes of the neighbor's kind (type and source).

        Of equally common ones, such as `parent` and `child`, the one the model lists first. A system that the graph
        does not hold is taken to be of the neighbor's own kind.
        """
        kind_of_node, relation = self._relations_of_kinds
        there = kind_of_node[neighbor]
        here = self._kind_of_source.get(system.upper(), there)
        return int(relation[here, there])

    @functools.cached_property
    def _keys(self) -> dict[str, int]:
        return {_compact(key): node for node, key in enumerate(self.graph.node_keys())} if self.graph else {}

    @functools.cached_property
    def _sources(self) -> set[str]:
        return {name.upper() for name in pc.unique(self.graph.nodes["source"]).to_pylist()} if self.graph else set()

    @functools.cached_property
    def _names(self) -> dict[str, list[int]]:
        if not self.graph:
            return {}
        return by_normal_form(zip(self.graph.nodes["name"].to_pylist(), range(self.num_nodes), strict=True))

    def _name_of(self, node: int) -> str:
        return self.graph.nodes["name"][node].as_py()

    def _source_of(self, node: int) -> str:
        return self.graph.nodes["source"][node].as_py()

    def _key_of(self, node: int) -> str:
        return f"{self._source_of(node)}/{self.graph.nodes['source_id'][node].as_py()}"

    @functools.cached_property
    def _kinds(self) -> tuple[np.ndarray, list[tuple[int, str]]]:
        """Return the kind of every node, and (type, source) of every kind."""
        sources = self.graph.nodes["source"].combine_chunks().dictionary_encode()
        names = sources.dictionary.to_pylist()
        packed = self.node_types.astype(np.int64) * len(names) + sources.indices.to_numpy()
        kinds, kind_of_node = np.unique(packed, return_inverse=True)
        return kind_of_node, [(int(kind // len(names)), names[kind % len(names)].upper()) for kind in kinds]

    @functools.cached_property
    def _kind_of_source(self) -> dict[str, int]:
        kind_of_node, kinds = self._kinds
        counts = np.bincount(kind_of_node, minlength=len(kinds))
        # Rising counts: the commonest kind of a source is written last.
        return {kinds[kind][1]: int(kind) for kind in np.argsort(counts, kind="stable")}

    @functools.cached_property
    def _type_of_source(self) -> dict[str, int]:
        if not self.graph:
            return {}
        return {source: self._kinds[1][kind][0] for source, kind in self._kind_of_source.items()}

    @functools.cached_property
    def _relations_of_kinds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the kind of every node, and the commonest relation `[kinds, kinds]` from one kind to another."""
        kind_of_node, kinds = self._kinds
        here, there = kind_of_node[self.graph.sources()], kind_of_node[np.asarray(self.graph.indices)]
        width = self.unknown_relation + 1
        packed = (here * len(kinds) + there) * width + np.asarray(self.graph.relation)
        counts = np.bincount(packed, minlength=len(kinds) ** 2 * width).reshape(len(kinds), len(kinds), width)
        return kind_of_node, np.where(counts.any(-1), counts.argmax(-1), self.unknown_relation)


def _spelling(name: str) -> str:
    return name.strip().lower().replace(" ", "_")


def _compact(key: str) -> str:
    source, _, code = key.partition("/")
    return f"{source.strip().upper()}/{compact_code(code)}"
