"""Store a knowledge graph as a table of nodes and CSR arrays of typed edges, memory-mapped from disk.

Every fact is stored in both directions: `relation` of the stored edge u -> v is the relation of u to v, and the edge
v -> u carries the reverse relation. On disk a graph is a directory of `nodes.parquet`, `indptr.npy`, `indices.npy`,
`relation.npy` and `graph.json`.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from preprocessing.common.atomic import recover
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading

FORMAT_VERSION = 1
NODE_SCHEMA = pa.schema(
    [
        ("node_id", pa.int32()),
        ("type", pa.string()),
        ("name", pa.string()),
        ("source", pa.string()),
        ("source_id", pa.string()),
    ]
)
_ARRAYS = {"indptr": np.int64, "indices": np.int32, "relation": np.uint8}


@dataclasses.dataclass(frozen=True)
class KnowledgeGraph:
    """Hold nodes 0..N-1 and directed edges 0..E-1, sorted by (source, relation, target node) and without repeats.

    Attributes:
        nodes: `NODE_SCHEMA` table of N rows; row i is node i. `source/source_id` is the node's key.
        indptr: int64 [N + 1]; the edges of node i are `indptr[i]:indptr[i + 1]`.
        indices: int32 [E], target nodes.
        relation: uint8 [E], positions in `relation_names`.
        relation_names: name of each relation.
        reverse: position in `relation_names` of each relation's reverse.
        node_types: the distinct node types, sorted.
    """

    nodes: pa.Table
    indptr: np.ndarray
    indices: np.ndarray
    relation: np.ndarray
    relation_names: tuple[str, ...]
    reverse: tuple[int, ...]
    node_types: tuple[str, ...]

    @property
    def num_nodes(self) -> int:
        """Return the number of nodes."""
        return len(self.indptr) - 1

    @property
    def num_edges(self) -> int:
        """Return the number of directed edges, which is twice the number of facts."""
        return len(self.indices)

    def node_keys(self) -> list[str]:
        """Return the key `source/source_id` of every node."""
        return pc.binary_join_element_wise(self.nodes["source"], self.nodes["source_id"], "/").to_pylist()

    def node_type_ids(self) -> np.ndarray:
        """Return the position in `node_types` of each node's type, int32 [N]."""
        return pc.index_in(self.nodes["type"], value_set=pa.array(self.node_types)).to_numpy().astype(np.int32)

    def sources(self) -> np.ndarray:
        """Return the source node of every edge, int32 [E]."""
        return np.repeat(np.arange(self.num_nodes, dtype=np.int32), np.diff(self.indptr))

    def save(self, path: Path | str) -> None:
        """Write the graph into the directory `path`; the same graph gives the same bytes."""
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        pq.write_table(self.nodes, path / "nodes.parquet", compression="zstd")
        for name, dtype in _ARRAYS.items():
            np.save(path / f"{name}.npy", np.ascontiguousarray(getattr(self, name), dtype=dtype))
        meta = {
            "format_version": FORMAT_VERSION,
            "node_types": self.node_types,
            "relations": self.relation_names,
            "reverse": self.reverse,
        }
        (path / "graph.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> "KnowledgeGraph":
        """Open a saved graph with read-only, memory-mapped arrays.

        Raises:
            InputError: `path` holds no graph, a damaged one, or one of another format version.
        """
        path = Path(path)
        recover(path)
        with reading(path, "a knowledge graph", "delete it and build the data set again"):
            meta = json.loads((path / "graph.json").read_text(encoding="utf-8"))
            if meta["format_version"] != FORMAT_VERSION:
                raise InputError(
                    f"the graph in {path} has format version {meta['format_version']}, but this code reads version "
                    f"{FORMAT_VERSION}; build the data set again."
                )
            graph = cls(
                nodes=pq.read_table(path / "nodes.parquet", memory_map=True),
                relation_names=tuple(meta["relations"]),
                reverse=tuple(meta["reverse"]),
                node_types=tuple(meta["node_types"]),
                **{name: np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS},
            )
            edges = {int(graph.indptr[-1]), len(graph.indices), len(graph.relation)}
            pa.array([*graph.relation_names, *graph.node_types], pa.string())
            ascends = graph.indptr[0] == 0 and bool((np.diff(graph.indptr) >= 0).all())
        if len(graph.nodes) != graph.num_nodes or len(edges) != 1 or not ascends:
            raise InputError(f"the parts of the graph in {path} differ in length; delete it and build it again.")
        return graph


def from_facts(nodes: pa.Table, facts: Mapping[str, np.ndarray], reverse_names: Mapping[str, str]) -> KnowledgeGraph:
    """Build the graph of `facts`, storing each in both directions and dropping self-loops and repeats.

    Args:
        nodes: `NODE_SCHEMA` table of N rows.
        facts: forward relation -> int [n, 2] of (source node, target node).
        reverse_names: forward relation -> name of its reverse; a symmetric relation names itself.

    Raises:
        InputError: there are more than 256 relations.
    """
    names = list(dict.fromkeys(name for forward in facts for name in (forward, reverse_names[forward])))
    if len(names) > 256:
        raise InputError(f"the graph has {len(names)} relations, but at most 256 can be stored.")
    position = {name: index for index, name in enumerate(names)}
    reverse = list(range(len(names)))
    parts = []
    for forward, pairs in facts.items():
        there = position[forward]
        back = position[reverse_names[forward]]
        reverse[there] = back
        reverse[back] = there
        pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        parts += [_pack(pairs[:, 0], there, pairs[:, 1]), _pack(pairs[:, 1], back, pairs[:, 0])]
    # np.unique would hash first, which is 8 times slower on these numbers than sorting.
    packed = np.sort(np.concatenate(parts)) if parts else np.empty(0, np.uint64)
    packed = packed[np.concatenate([[True], packed[1:] != packed[:-1]])[: len(packed)]]
    counts = np.bincount((packed >> np.uint64(36)).astype(np.int64), minlength=len(nodes))
    return KnowledgeGraph(
        nodes=nodes,
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        indices=(packed & np.uint64(2**28 - 1)).astype(np.int32),
        relation=((packed >> np.uint64(28)) & np.uint64(255)).astype(np.uint8),
        relation_names=tuple(names),
        reverse=tuple(reverse),
        node_types=tuple(sorted(pc.unique(nodes["type"]).to_pylist())),
    )


def node_table(rows: Sequence[tuple[str, str, str, str]]) -> pa.Table:
    """Return the `NODE_SCHEMA` table of `(type, name, source, source_id)` rows, numbered in order."""
    columns = zip(*rows, strict=True) if rows else ([], [], [], [])
    arrays = [pa.array(np.arange(len(rows), dtype=np.int32)), *(pa.array(column, pa.string()) for column in columns)]
    return pa.Table.from_arrays(arrays, schema=NODE_SCHEMA)


def _pack(source: np.ndarray, relation: int, target: np.ndarray) -> np.ndarray:
    """Pack (source, relation, target) into 28 + 8 + 28 bits, uint64 [n], so that sorting numbers sorts edges."""
    return (source.astype(np.uint64) << np.uint64(36)) | np.uint64(relation << 28) | target.astype(np.uint64)
