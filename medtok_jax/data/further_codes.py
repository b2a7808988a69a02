"""Prepare codes that the systems of a data set know beside its own: categories, and codes of earlier editions.

They are no part of the data set: a trained model encodes them as it encodes codes. A category is a node of the
knowledge graph and keeps its neighborhood. A code of an earlier edition joins the graph as a new node, whose only
neighbor is the code or category that stands for it.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ml_collections import ConfigDict

from medtok_jax.batch import Tables
from medtok_jax.data import code_table
from medtok_jax.data.code_table import CodeTable
from medtok_jax.data.dataset import Data, encode_texts, of_modalities
from medtok_jax.text import cache as text_cache
from preprocessing import primekg
from preprocessing.codes import ICD9CM, ancestors
from preprocessing.common.ragged import offsets_of
from preprocessing.dataset.known_codes import CATEGORY, CODE, RETIRED
from preprocessing.dataset.name import parse_name
from preprocessing.graph import icd_graph
from preprocessing.graph.knowledge_graph import KnowledgeGraph
from preprocessing.graph.neighborhoods import NeighborTable, neighbor_table, subgraphs

# Modules that say in which order the subgraphs of their graph keep neighbors.
ORDERS = (icd_graph, primekg)


@dataclasses.dataclass(frozen=True)
class FurtherCodes:
    """Hold codes to encode beside those of a data set.

    Attributes:
        data: the codes as data of their own, all in use; their nodes are those of the graph and behind them one for
            each code of an earlier edition.
        kinds: `[codes]` str, `category` or `retired`.
        node_type: `[nodes]` int32, of these nodes.
    """

    data: Data
    kinds: np.ndarray
    node_type: np.ndarray

    def tables(self) -> Tables:
        """Return the facts of the nodes, on the host."""
        cache = self.data.cache
        return Tables(node_type=self.node_type, node_name=self.data.node_name, name_embedding=cache.name_embedding)


def order_of(graph: KnowledgeGraph):
    """Return the module that says in which order subgraphs of a graph keep neighbors."""
    return max(ORDERS, key=lambda module: len(set(module.PRIORITY) & set(graph.relation_names)))


def chosen(known: pa.Table, keys: np.ndarray) -> pa.Table:
    """Return the rows of `known` to encode beside the codes `keys`: all that are no codes, for a whole vocabulary.

    Of a sample only what is above its codes is encoded, and the codes of earlier editions that these stand for.
    """
    others = known.filter(pc.not_equal(known["kind"], CODE))
    if len(known) - len(others) <= len(keys):
        return others
    held = set(keys.tolist())
    for key in keys.tolist():
        system, _, code = key.partition("/")
        held.update(f"{system}/{above}" for above in ancestors(system, code))
    columns = (others[name].to_pylist() for name in ("key", "kind", "stands"))
    kept = [(key if kind == CATEGORY else stands) in held for key, kind, stands in zip(*columns, strict=True)]
    return others.filter(pa.array(kept, pa.bool_()))


def prepare(
    config: ConfigDict,
    data: Data,
    known: pa.Table,
    encoder_dir: Path,
    *,
    progress: bool = True,
) -> FurtherCodes | None:
    """Return the codes that are encoded beside those of a data set, with their texts, None where there are none.

    Args:
        config: of the run.
        data: of the data set.
        known: what the systems know, see `preprocessing.dataset.known_codes`.
        encoder_dir: of the text encoder.
        progress: whether to show bars.
    """
    rows = chosen(known, data.table.key[data.selected])
    if not len(rows):
        return None
    graph, columns = data.table.graph, rows.to_pydict()
    table = _code_table(config, data.table, columns)
    texts, text_id = np.unique(table.description, return_inverse=True)
    retired = [row for row, kind in enumerate(columns["kind"]) if kind == RETIRED]
    # The name of a node that is the code itself is not read.
    used = np.unique(table.nodes[table.nodes < graph.num_nodes])
    encode = functools.partial(text_cache.open_or_encode, encoder_dir, progress=progress)
    cache, node_name = encode_texts(config, texts, graph, used, encode)
    node_name = np.concatenate([node_name, np.zeros(len(retired), np.int32)])
    every, no_row = np.arange(len(table)), np.full(len(node_name), -1, np.int32)
    prepared = of_modalities(config, Data(table, cache, every, text_id.astype(np.int32), node_name, no_row))
    types = _types_of_systems(graph, [key.partition("/")[0] for key in columns["key"]])[retired]
    node_type = np.concatenate([graph.node_type_ids(), types])
    return FurtherCodes(prepared, np.array(columns["kind"]), node_type)


def _code_table(config: ConfigDict, table: CodeTable, columns: Mapping[str, list]) -> CodeTable:
    """Return the table of some rows of known codes, given as columns."""
    graph, keys = table.graph, columns["key"]
    options, order = parse_name(config.data.name), order_of(table.graph)
    node_of = {key: node for node, key in enumerate(graph.node_keys())}
    neighbors = neighbor_table(graph, hub_cap=options.hub_cap, priority=order.PRIORITY, first_kept=order.FIRST_KEPT)
    retired = [row for row, kind in enumerate(columns["kind"]) if kind == RETIRED]
    stands = [node_of.get(columns["stands"][row], -1) for row in retired]
    relations = [_relation(graph, keys[row], columns["stands"][row]) for row in retired]
    anchors = np.array([node_of.get(key, -1) for key in keys], np.int32)
    anchors[retired] = np.where(np.array(stands, np.int32) >= 0, graph.num_nodes + np.arange(len(retired)), -1)
    joined = _with_new_nodes(neighbors, np.array(stands, np.int32), np.array(relations, np.uint8))
    drawn = list(subgraphs(joined, anchors[:, None], max_nodes=options.max_nodes))
    systems, codes = zip(*(key.split("/", 1) for key in keys), strict=True)
    return CodeTable(
        fingerprint=table.fingerprint,
        key=np.array(keys, object),
        system=np.array(systems, object),
        code=np.array(codes, object),
        description=np.array(columns["description"], object),
        split=np.zeros(len(keys), np.int8),
        node_offsets=offsets_of([len(part.nodes) for part in drawn]),
        edge_offsets=offsets_of([len(part.senders) for part in drawn]),
        self_node=np.where(anchors >= 0, 0, -1).astype(np.int32),
        graph_id=np.arange(len(keys), dtype=np.int32),
        graph=graph,
        **{
            name: np.concatenate([getattr(part, name) for part in drawn]).astype(dtype)
            for name, dtype in code_table.RAGGED.items()
        },
    )


def _relation(graph: KnowledgeGraph, key: str, stands: str | None) -> int:
    """Return the relation of a code of an earlier edition to the one that stands for it."""
    system = key.partition("/")[0]
    if stands is None or stands.partition("/")[0] == system:
        name = "parent"
    else:
        name = "gem_exact" if system == ICD9CM else "gem_exact_of"
    return graph.relation_names.index(name) if name in graph.relation_names else 0


def _with_new_nodes(table: NeighborTable, neighbor: np.ndarray, relation: np.ndarray) -> NeighborTable:
    """Return the table with nodes behind its own, each of one neighbor, or none where that is -1."""
    cap = table.neighbors.shape[1]
    offered, named = np.full((len(neighbor), cap), -1, np.int32), np.zeros((len(neighbor), cap), np.uint8)
    offered[:, 0], named[:, 0] = neighbor, relation
    # The last row belongs to padding.
    return dataclasses.replace(
        table,
        neighbors=np.concatenate([table.neighbors[:-1], offered, table.neighbors[-1:]]),
        relation=np.concatenate([table.relation[:-1], named, table.relation[-1:]]),
    )


def _types_of_systems(graph: KnowledgeGraph, systems: list[str]) -> np.ndarray:
    """Return the commonest node type among the nodes of each code system, `[systems]` int32."""
    sources, types = graph.nodes["source"].to_numpy(zero_copy_only=False), graph.node_type_ids()
    of_system = {name: np.bincount(types[sources == name], minlength=1).argmax() for name in set(systems)}
    return np.array([of_system[name] for name in systems], np.int32)
