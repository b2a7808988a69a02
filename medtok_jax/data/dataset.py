"""Open a data set for a model: its codes, their frozen texts, and which of them are in use."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from medtok_jax import config as configuration
from medtok_jax.batch import InputSizes, Tables
from medtok_jax.data import code_table
from medtok_jax.data.code_table import CodeTable
from medtok_jax.devices.processes import first_goes_ahead
from medtok_jax.text import cache as text_cache
from medtok_jax.text.cache import TextCache
from preprocessing import medtok_codes
from preprocessing.common.ragged import take
from preprocessing.dataset.sample import sample
from preprocessing.graph.knowledge_graph import KnowledgeGraph


@dataclasses.dataclass(frozen=True)
class Data:
    """Hold everything a model reads: codes, their frozen texts, and which of them are in use.

    Attributes:
        table: all codes of the data set.
        cache: token states of the descriptions in use, embeddings of the node names in use.
        selected: `[selected]` rising rows of the table that are in use (all, or a sample).
        text_id: `[codes]` int32, text of each code in the cache; -1 for codes not in use.
        node_name: `[nodes]` int32, row of each knowledge-graph node's name in `cache.name_embedding`.
        row_of_node: `[nodes]` int32, table row of the code that a node is, -1 for none.
    """

    table: CodeTable
    cache: TextCache
    selected: np.ndarray
    text_id: np.ndarray
    node_name: np.ndarray
    row_of_node: np.ndarray

    def rows(self, split: str) -> np.ndarray:
        """Return the rows of one split that are in use, rising."""
        return np.intersect1d(self.table.rows(split), self.selected, assume_unique=True)

    @property
    def num_texts(self) -> int:
        """Return the number of distinct descriptions in use."""
        return len(self.cache.offsets) - 1

    def without(self, modality: str) -> "Data":
        """Return the same codes as if none had a subgraph, or as if none had a description.

        Nothing of the modality is left, not even which codes share it. A missing description has no
        token, and a missing subgraph is the node that stands for that.

        Args:
            modality: `graph` or `text`.
        """
        if modality == "graph":
            return dataclasses.replace(self, table=code_table.without_graphs(self.table))
        count, width = len(self.selected), self.cache.states.shape[1]
        empty = TextCache(
            states=np.zeros((0, width), self.cache.states.dtype),
            offsets=np.zeros(count + 1, np.int64),
            token_ids=np.zeros(0, np.int32),
            name_embedding=self.cache.name_embedding,
            num_cut=0,
            encoder=self.cache.encoder,
        )
        text_id = np.full(len(self.table), -1, np.int32)
        text_id[self.selected] = np.arange(count)
        return dataclasses.replace(self, cache=empty, text_id=text_id)

    def num_tokens(self, rows: np.ndarray) -> np.ndarray:
        """Return the number of wordpieces of each code's description, `[rows]` int64."""
        text = self.text_id[rows]
        return self.cache.offsets[text + 1] - self.cache.offsets[text]

    def sizes(self) -> InputSizes:
        """Return the sizes that the model is built for."""
        return InputSizes(
            text_width=self.cache.states.shape[1],
            num_node_types=len(self.table.graph.node_types),
            num_relations=len(self.table.graph.relation_names),
            num_nodes=len(self.node_name),
            max_nodes=max(int(self.table.num_nodes.max()), 1),
        )

    def tables(self, *, with_states: bool = False) -> Tables:
        """Return the tables that devices keep, on the host; with token states only where asked for."""
        return Tables(
            node_type=self.table.graph.node_type_ids(),
            node_name=self.node_name,
            name_embedding=self.cache.name_embedding,
            token_states=self.cache.states if with_states else None,
        )


def load_data(
    config: ConfigDict,
    *,
    encoder_dir: Path,
    progress: bool = True,
    encode: Callable[..., TextCache] = text_cache.open_or_encode,
) -> Data:
    """Open a data set with its texts, building, packing and encoding first what was not yet.

    Of several processes the first goes ahead, so that those that share its files find everything done.

    Args:
        config: of the run.
        encoder_dir: of the text encoder.
        progress: whether to show bars.
        encode: opens the text states; takes what `text_cache.open_or_encode` does.
    """
    with first_goes_ahead("data ready"):
        return _load_data(config, encoder_dir, progress, encode)


def _load_data(config: ConfigDict, encoder_dir: Path, progress: bool, encode: Callable[..., TextCache]) -> Data:
    data_dir = configuration.data_dir(config)
    builder = medtok_codes.prepare(config.data.name, str(data_dir), progress=progress)
    table = code_table.load(builder, configuration.cache_dir(config), progress=progress)
    selected = sample(table.key, config.data.sample_size, config.data.include)
    # Objects: an array of strings gives each as much room as the longest takes.
    texts, text_of_selected = np.unique(table.description[selected], return_inverse=True)
    text_id = np.full(len(table), -1, np.int32)
    text_id[selected] = text_of_selected
    used_nodes = np.unique(take(table.nodes, table.node_offsets, selected)[0])
    encode = functools.partial(encode, encoder_dir, progress=progress)
    cache, node_name = encode_texts(config, texts, table.graph, used_nodes, encode)
    return of_modalities(config, Data(table, cache, selected, text_id, node_name, _row_of_node(table, len(node_name))))


def encode_texts(
    config: ConfigDict, texts: np.ndarray, graph: KnowledgeGraph, nodes: np.ndarray, encode: Callable[..., TextCache]
) -> tuple[TextCache, np.ndarray]:
    """Return the states of texts and of the names of some nodes, and the row of each node's name among the latter.

    Args:
        config: of the run.
        texts: `[texts]` distinct descriptions.
        graph: the knowledge graph.
        nodes: `[used]` nodes whose names are read.
        encode: opens the text states; takes what `text_cache.open_or_encode` does behind the encoder's directory.

    Returns:
        The cache, and `[nodes of the graph]` int32, 0 for nodes that are not used.
    """
    all_names = graph.nodes["name"].to_numpy(zero_copy_only=False)
    names, name_of_used = np.unique(all_names[nodes], return_inverse=True)
    node_name = np.zeros(len(all_names), np.int32)
    node_name[nodes] = name_of_used + 1
    cache = encode(
        configuration.cache_dir(config),
        texts.tolist(),
        names.tolist(),
        max_length=config.data.max_length,
        dtype=config.data.cache_dtype,
        gelu=config.model.text_encoder_gelu,
    )
    return cache, node_name


def of_modalities(config: ConfigDict, data: Data) -> Data:
    """Return the data without the modality that `data.modalities` leaves out, if any."""
    missing = {"both": None, "text": "graph", "graph": "text"}[config.data.modalities]
    return data.without(missing) if missing else data


def _row_of_node(table: CodeTable, num_nodes: int) -> np.ndarray:
    rows = np.full(num_nodes, -1, np.int32)
    known = np.flatnonzero(table.self_node >= 0)
    rows[table.nodes[table.node_offsets[known] + table.self_node[known]]] = known
    return rows


def by_length(data: Data, rows: np.ndarray) -> np.ndarray:
    """Return rows ordered by token length, so that batches hold little padding."""
    return rows[np.argsort(data.num_tokens(rows), kind="stable")]
