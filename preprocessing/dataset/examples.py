"""Make the examples of a data set from a plan on disk, so that any process can make any range of them.

A *plan* is a directory that exists while a data set is built. For each split it holds a parquet file of codes with
their nodes, in row groups of `RANGE` codes; and it holds the edges of the graph as arrays to map into memory. The
writer of TFDS reads the row groups one after the other; Apache Beam distributes them to its workers. Either way a
process holds one row group and maps the rest.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing.codes import CodeRecord
from preprocessing.common.errors import InputError
from preprocessing.dataset.splits import SPLITS, split_of
from preprocessing.graph.neighborhoods import NeighborTable, PairTable, Subgraph, induced, subgraphs

RANGE = 4096
CODES_SCHEMA = pa.schema(
    [
        ("system", pa.string()),
        ("code", pa.string()),
        ("description", pa.string()),
        # The anchors of the code, or its complete neighborhood with the anchors first.
        ("nodes", pa.list_(pa.int32())),
        # Number of the anchors.
        ("anchors", pa.int32()),
        # Position in `nodes` of the node that is the code itself, -1 for none.
        ("self_node", pa.int32()),
    ]
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Hold an open plan.

    Attributes:
        folder: directory of the plan.
        table: the neighbors of each node, to find neighborhoods; or all edges, if the codes come with neighborhoods.
        max_nodes: maximum number of nodes of a subgraph.
        ranges: split -> number of row groups.
        sizes: split -> number of codes.
    """

    folder: Path
    table: NeighborTable | PairTable
    max_nodes: int
    ranges: dict[str, int]
    sizes: dict[str, int]

    @property
    def num_codes(self) -> int:
        """Return the number of codes in all splits."""
        return sum(self.sizes.values())


def codes_table(
    records: Sequence[CodeRecord], nodes: pa.ListArray, anchors: np.ndarray, self_nodes: np.ndarray
) -> pa.Table:
    """Return the `CODES_SCHEMA` table of n records, with their n node lists, numbers of anchors and self nodes [n]."""
    columns = [pa.array([getattr(record, name) for record in records], pa.string()) for name in CODES_SCHEMA.names[:3]]
    columns += [nodes, pa.array(anchors, pa.int32()), pa.array(self_nodes, pa.int32())]
    return pa.Table.from_arrays(columns, schema=CODES_SCHEMA)


def anchor_lists(anchors: np.ndarray) -> tuple[pa.ListArray, np.ndarray]:
    """Return the rows of `anchors`, int32 [n, A], -1 padded, as lists without padding, and their lengths, int64 [n]."""
    present = anchors >= 0
    counts = present.sum(axis=1)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(anchors[present], pa.int32())), counts


def write_plan(folder: Path, codes: pa.Table, table: NeighborTable | PairTable, max_nodes: int) -> None:
    """Write the plan of `codes` (`CODES_SCHEMA`, keys unique).

    Raises:
        InputError: a split would be empty.
    """
    systems, names = (codes[column].to_pylist() for column in ("system", "code"))
    splits = split_of([f"{system}/{code}" for system, code in zip(systems, names, strict=True)])
    if len(set(splits.tolist())) < len(SPLITS):
        raise InputError(f"{len(codes)} codes leave a split empty; take more codes or a larger sample.")
    folder.mkdir(parents=True, exist_ok=True)
    for position, name in enumerate(SPLITS):
        chosen = codes.filter(pa.array(splits == position))
        pq.write_table(chosen, folder / f"{name}.parquet", row_group_size=RANGE, compression="zstd")
    for field in dataclasses.fields(table):
        np.save(folder / f"{field.name}.npy", getattr(table, field.name))
    about = {"table": type(table).__name__, "max_nodes": max_nodes}
    (folder / "plan.json").write_text(json.dumps(about), encoding="utf-8")


@functools.lru_cache(maxsize=1)
def open_plan(folder: Path) -> Plan:
    """Open the plan in `folder`, once per process for all of its threads."""
    about = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    kind = {kind.__name__: kind for kind in (NeighborTable, PairTable)}[about["table"]]
    arrays = {field.name: np.load(folder / f"{field.name}.npy", mmap_mode="r") for field in dataclasses.fields(kind)}
    about_codes = {split: pq.read_metadata(folder / f"{split}.parquet") for split in SPLITS}
    return Plan(
        folder=folder,
        table=kind(**arrays),
        max_nodes=about["max_nodes"],
        ranges={split: metadata.num_row_groups for split, metadata in about_codes.items()},
        sizes={split: metadata.num_rows for split, metadata in about_codes.items()},
    )


def examples(folder: Path, split: str, position: int) -> Iterator[tuple[str, dict]]:
    """Yield `(key, example)` of the codes in row group `position` of a split; see `medtok_codes.MedtokCodes`.

    An example depends only on its code, so ranges may be made in any order and by any process.
    """
    plan = open_plan(folder)
    with pq.ParquetFile(plan.folder / f"{split}.parquet") as file:
        codes = file.read_row_group(position)
    columns = [codes[name].to_pylist() for name in ("system", "code", "description", "self_node")]
    for system, code, description, self_node, subgraph in zip(*columns, _subgraphs(plan, codes), strict=True):
        key = f"{system}/{code}"
        yield (
            key,
            {
                "key": key,
                "system": system,
                "code": code,
                "description": description,
                "nodes": subgraph.nodes,
                "hops": subgraph.hops,
                "self_node": self_node,
                "senders": subgraph.senders,
                "receivers": subgraph.receivers,
                "relations": subgraph.relations,
            },
        )


def _subgraphs(plan: Plan, codes: pa.Table) -> Iterator[Subgraph]:
    lists = codes["nodes"].combine_chunks()
    nodes = lists.flatten().to_numpy()
    offsets = lists.offsets.to_numpy().astype(np.int64)
    counts = codes["anchors"].to_numpy()
    width = max(1, int(counts.max(initial=0)))
    anchors = np.full((len(codes), width), -1, dtype=np.int32)
    columns = np.arange(width)
    taken = columns < counts[:, None]
    anchors[taken] = nodes[(offsets[:-1, None] + columns)[taken]]
    if isinstance(plan.table, NeighborTable):
        return subgraphs(plan.table, anchors, max_nodes=plan.max_nodes)
    return induced(plan.table, nodes, offsets, max_nodes=plan.max_nodes, anchors=anchors)
