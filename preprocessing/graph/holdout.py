"""Hold out a fraction of an edge type from a graph, or all of it, so that an evaluation can predict it.

A named hash chooses nodes rather than single edges: crosswalks come in clusters (one ICD-9 code, several ICD-10 codes
that share further ICD-9 codes), so a single dropped edge could still be inferred from a path of its neighbors. Every
edge of the edge type that touches a chosen node is removed, whether the node is its source or target. The node is then
isolated under that edge type, and no path of that type, of any length, connects a held-out pair.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing.common.errors import InputError
from preprocessing.common.hashing import hash_strings, uniform


@dataclasses.dataclass(frozen=True)
class Holdout:
    """Describe a hold-out: a `fraction` of the source nodes of `edge_type`, chosen by a hash of `name` and their keys.

    Attributes:
        edge_type: a key of the graph's edge types, such as `gem`.
        fraction: above 0 and at most 1, which leaves no edge of the type.
        name: salt of the hash; another name gives another choice.

    Raises:
        InputError: `fraction` is out of bounds.
    """

    edge_type: str
    fraction: float
    name: str

    def __post_init__(self):
        if not 0 < self.fraction <= 1:
            raise InputError(f"a hold-out fraction must be above 0 and at most 1, but {self.fraction} was given.")

    def chooses(self, keys: Iterable[str]) -> np.ndarray:
        """Return whether each source node, given by its key, is held out: bool [n]."""
        return uniform(hash_strings(self.name, keys)) < self.fraction


def hold_out(
    facts: Mapping[str, np.ndarray], keys: Sequence[str], relations: Sequence[str], holdout: Holdout
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Divide facts into those that remain in the graph and those that are held out.

    Args:
        facts: forward relation -> int64 [n, 2] of (source node, target node).
        keys: `source/source_id` of each node.
        relations: the forward relations of the edge type; nodes are chosen among their sources.
        holdout: the fraction and the name of the hash.

    Returns:
        (kept, held out), both in the form of `facts`; held out has an entry for each of `relations`.
    """
    concerned = [facts[relation] for relation in relations if relation in facts]
    sources = np.unique(np.concatenate([pairs[:, 0] for pairs in concerned])) if concerned else np.empty(0, np.int64)
    chosen = np.zeros(len(keys), dtype=bool)
    chosen[sources[holdout.chooses(keys[node] for node in sources)]] = True
    kept = {}
    held = {}
    for relation, pairs in facts.items():
        if relation in relations:
            touched = chosen[pairs].any(axis=1)
            kept[relation] = pairs[~touched]
            held[relation] = pairs[touched]
        else:
            kept[relation] = pairs
    return kept, held


def write_held_out(path: Path, held: Mapping[str, np.ndarray], keys: Sequence[str]) -> None:
    """Write held-out pairs as parquet with the string columns source, target (node keys) and relation, sorted."""
    rows = sorted({(keys[a], keys[b], relation) for relation, pairs in held.items() for a, b in pairs.tolist()})
    columns = list(zip(*rows, strict=True)) if rows else [[], [], []]
    names = ("source", "target", "relation")
    arrays = [pa.array(column, pa.string()) for column in columns]
    pq.write_table(pa.Table.from_arrays(arrays, names=names), path, compression="zstd")
