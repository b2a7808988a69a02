"""Pack the data set's examples once as memory-mapped columns: strings, splits and ragged subgraphs."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing.common.listing import cached
from preprocessing.common.progress import Bar
from preprocessing.common.ragged import offsets_of
from preprocessing.graph.knowledge_graph import KnowledgeGraph
from preprocessing.medtok_codes import fingerprint

SPLITS = ("train", "validation", "test")
STRINGS = ("key", "system", "code", "description")
RAGGED = {"nodes": np.int32, "hops": np.uint8, "senders": np.uint16, "receivers": np.uint16, "relations": np.uint8}
CHUNK = 4096
FORMAT = 1
ADVICE = "set data.cache_dir"


@dataclasses.dataclass(frozen=True)
class CodeTable:
    """Hold all codes of a data set, split after split, in the data set's order.

    Attributes:
        fingerprint: of the data set's content.
        key, system, code, description: `[codes]` arrays of str.
        split: `[codes]` int8, position in `SPLITS`.
        nodes, hops: flat subgraph nodes (knowledge-graph ids, distance from the anchor); rows by `node_offsets`.
        senders, receivers, relations: flat subgraph edges (positions in the code's own nodes); rows by `edge_offsets`.
        self_node: `[codes]` int32, position of the node that is the code itself, -1 for none.
        graph_id: `[codes]` int32, equal for codes whose subgraphs are identical but for the self node's name.
        graph: the knowledge graph.
    """

    fingerprint: str
    key: np.ndarray
    system: np.ndarray
    code: np.ndarray
    description: np.ndarray
    split: np.ndarray
    nodes: np.ndarray
    hops: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    relations: np.ndarray
    node_offsets: np.ndarray
    edge_offsets: np.ndarray
    self_node: np.ndarray
    graph_id: np.ndarray
    graph: KnowledgeGraph

    def __len__(self) -> int:
        return len(self.key)

    @property
    def num_nodes(self) -> np.ndarray:
        """Return the number of nodes of each subgraph, `[codes]` int64."""
        return np.diff(self.node_offsets)

    @property
    def has_text(self) -> np.ndarray:
        """Return which codes have a description, not only their system and code as one, `[codes]` bool."""
        stand_in = np.char.add(np.char.add(self.system.astype(str), " "), self.code.astype(str))
        return self.description != stand_in.astype(object)

    @property
    def num_edges(self) -> np.ndarray:
        """Return the number of edges of each subgraph, `[codes]` int64."""
        return np.diff(self.edge_offsets)

    def rows(self, split: str) -> np.ndarray:
        """Return the rows of one split, rising."""
        return np.flatnonzero(self.split == SPLITS.index(split))


def without_graphs(table: CodeTable) -> CodeTable:
    """Return the same codes as if none had a subgraph."""
    nothing = {name: np.zeros(0, dtype) for name, dtype in RAGGED.items()}
    return dataclasses.replace(
        table,
        **nothing,
        node_offsets=np.zeros_like(table.node_offsets),
        edge_offsets=np.zeros_like(table.edge_offsets),
        self_node=np.full_like(table.self_node, -1),
        graph_id=np.arange(len(table), dtype=np.int32),
    )


def load(builder, cache_dir: Path, *, progress: bool = True) -> CodeTable:
    """Open the packed examples of a built data set, packing them first where that was not done.

    Args:
        builder: a built TFDS builder (`preprocessing.medtok_codes.prepare`).
        cache_dir: where packed examples lie, one folder a data set fingerprint.
        progress: whether to show a bar.
    """
    graph = builder.knowledge_graph
    identity = fingerprint(builder, graph)
    folder = cache_dir / f"examples-{identity[:16]}-{FORMAT}"
    cached(folder, lambda partial: _write_columns(_read_columns(builder, progress), partial), advice=ADVICE)
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
    strings = pq.read_table(folder / "strings.parquet")
    return CodeTable(
        fingerprint=identity,
        graph=graph,
        **{name: strings[name].to_numpy(zero_copy_only=False) for name in STRINGS},
        **arrays,
    )


def _read_columns(builder, progress: bool) -> dict[str, list]:
    columns = {name: [] for name in (*STRINGS, *RAGGED, "self_node", "split", "num_nodes", "num_edges", "digest")}
    total = sum(builder.info.splits[split].num_examples for split in SPLITS)
    with Bar(total=total, desc="Packing examples", unit=" codes", show=progress) as bar:
        for number, split in enumerate(SPLITS):
            source = builder.as_data_source(split=split)
            for start in range(0, len(source), CHUNK):
                for example in source.__getitems__(range(start, min(start + CHUNK, len(source)))):
                    _append(columns, example, number)
                bar.update(min(CHUNK, len(source) - start))
    return columns


def _write_columns(columns: dict[str, list], folder: Path) -> None:
    pq.write_table(pa.table({name: pa.array(columns[name]) for name in STRINGS}), folder / "strings.parquet")
    for name, dtype in RAGGED.items():
        np.save(folder / f"{name}.npy", np.concatenate(columns[name]).astype(dtype))
    _, graph_id = np.unique(np.array(columns["digest"], np.uint64), return_inverse=True)
    np.save(folder / "graph_id.npy", graph_id.astype(np.int32))
    np.save(folder / "self_node.npy", np.array(columns["self_node"], np.int32))
    np.save(folder / "split.npy", np.array(columns["split"], np.int8))
    np.save(folder / "node_offsets.npy", offsets_of(columns["num_nodes"]))
    np.save(folder / "edge_offsets.npy", offsets_of(columns["num_edges"]))


def _append(columns: dict[str, list], example: dict, split: int) -> None:
    for name in STRINGS:
        columns[name].append(example[name].decode() if isinstance(example[name], bytes) else example[name])
    for name in RAGGED:
        columns[name].append(example[name])
    columns["self_node"].append(int(example["self_node"]))
    columns["split"].append(split)
    columns["num_nodes"].append(len(example["nodes"]))
    columns["num_edges"].append(len(example["senders"]))
    columns["digest"].append(_subgraph_digest(example))


def _subgraph_digest(example: dict) -> int:
    """Return a 64-bit digest of what the graph encoder sees: all but the name of the self node."""
    nodes = np.array(example["nodes"], np.int64)
    if example["self_node"] >= 0:
        nodes[example["self_node"]] = -1
    digest = hashlib.blake2b(digest_size=8)
    for array in (
        nodes,
        *(np.asarray(example[name], np.int64) for name in ("hops", "senders", "receivers", "relations")),
    ):
        digest.update(np.int64(len(array)).tobytes())
        digest.update(array.tobytes())
    return int.from_bytes(digest.digest(), "little")
