"""Leaves a named, hashed fraction of an edge type out of a graph, so that an evaluation can ask for it.

Nodes are held out rather than single edges: crosswalks come in clusters (one ICD-9 code, several ICD-10 codes that
share further ICD-9 codes), so a single dropped edge would still be spelled out by a path of its neighbors. Every
edge of the edge type that touches a chosen node goes, whichever end the node is, so the node is isolated under that
edge type and no held-out pair is connected by it, however long the path.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing.common.errors import InputError
from preprocessing.common.hashing import hash_strings, uniform


@dataclasses.dataclass(frozen=True)
class Holdout:
    """`fraction` (between 0 and 1) of the source nodes of `edge_type`, chosen by a hash of `name` and their keys."""

    edge_type: str
    fraction: float
    name: str

    def __post_init__(self):
        if not 0 < self.fraction < 1:
            raise InputError(f"a hold-out fraction must lie between 0 and 1, but {self.fraction} was given.")


def hold_out(
    facts: Mapping[str, np.ndarray], keys: Sequence[str], relations: Sequence[str], holdout: Holdout
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Divides facts into those that stay in the graph and those held out.

    Args:
        facts: forward relation -> int64 [n, 2] of (source node, target node).
        keys: `source/source_id` of each node.
        relations: the forward relations of the edge type; the source side of each is where nodes are chosen.
        holdout: which fraction, under which name.

    Returns:
        (kept, held out), both in the form of `facts`; held out has an entry for each of `relations`.
    """
    concerned = [facts[relation] for relation in relations if relation in facts]
    sources = np.unique(np.concatenate([pairs[:, 0] for pairs in concerned])) if concerned else np.empty(0, np.int64)
    draws = uniform(hash_strings(holdout.name, (keys[node] for node in sources)))
    chosen = np.zeros(len(keys), dtype=bool)
    chosen[sources[draws < holdout.fraction]] = True
    kept, held = {}, {}
    for relation, pairs in facts.items():
        if relation in relations:
            touched = chosen[pairs].any(axis=1)
            kept[relation], held[relation] = pairs[~touched], pairs[touched]
        else:
            kept[relation] = pairs
    return kept, held


def write_held_out(path: Path, held: Mapping[str, np.ndarray], keys: Sequence[str]) -> None:
    """Writes held-out pairs as parquet with the string columns source, target (node keys) and relation, sorted."""
    rows = sorted({(keys[a], keys[b], relation) for relation, pairs in held.items() for a, b in pairs.tolist()})
    columns = list(zip(*rows, strict=True)) if rows else [[], [], []]
    names = ("source", "target", "relation")
    arrays = [pa.array(column, pa.string()) for column in columns]
    pq.write_table(pa.Table.from_arrays(arrays, names=names), path, compression="zstd")
