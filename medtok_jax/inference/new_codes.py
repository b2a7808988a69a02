"""Encode codes that no table holds with a trained model, from a description, a subgraph, or both."""

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from flax import nnx

from medtok_jax.batch import Batch, InputSizes, Tables
from medtok_jax.data.collate import make_batch, pad_subgraphs, pad_tokens
from medtok_jax.data.masking import Subgraphs
from medtok_jax.inference import graph_input, model_reader, neighbor_lists
from medtok_jax.inference.graph_index import GraphIndex
from medtok_jax.inference.graph_input import CodeGraph
from medtok_jax.inference.model_reader import SavedModel
from medtok_jax.models.outputs import BatchTokens
from medtok_jax.regions import EMBEDDINGS, parts_of
from medtok_jax.text.cache import DTYPES
from medtok_jax.text.encode import TextStates
from medtok_jax.text.encoder_files import encoder_identity, resolve_text_encoder
from preprocessing.codes import SYSTEMS, ancestors, display_code, is_wellformed
from preprocessing.common.errors import InputError
from preprocessing.common.progress import Bar

# Codes a batch: one alone, or many. Each is compiled when it is first needed.
BATCH_SIZES = (1, 32)
# Codes whose texts are encoded together.
CODES_AT_ONCE = 512
# What is read of a description or name before it is cut into wordpieces.
MAX_CHARACTERS = 100_000
# The system of a text that is no code's description; no code system has this name.
FREE_TEXT = "free text"
# Characters of a system or a code.
MAX_NAME = 200
# The model's tables whose rows are named; each gets a row, the mean of all, for names it never saw.
NAMED_ROWS = ("params.node_features.types.embedding", "params.graph_encoder.relations.embedding")
UNLEARNED = (
    "the model never saw a code without a graph, so that only its text-specific tokens tell something; give neighbors."
)

State: TypeAlias = nnx.State[Any, Any]

_NONE = np.zeros(0, np.int32)
# Stands for a code without a graph.
NO_GRAPH = CodeGraph((), _NONE, _NONE, _NONE, _NONE, _NONE, _NONE, self_node=-1)


@dataclasses.dataclass(frozen=True)
class NewCode:
    """Describe a code to encode.

    Attributes:
        system: code system, an OMOP vocabulary name where there is one.
        code: the code.
        description: what it means, or None; for a node of the knowledge graph without another graph, its name.
        graph: node-link JSON (`graph_input.from_node_link`), a list of neighbors (`neighbor_lists.from_neighbors`),
            or None for its own neighborhood where it is a node of the knowledge graph, and else to join it to the
            nearest code above it in its own spelling. An empty list leaves it without neighbors.
    """

    system: str
    code: str
    description: str | None = None
    graph: dict[str, Any] | list[Any] | None = None


@dataclasses.dataclass(frozen=True)
class NewTokens:
    """Hold the tokens of new codes, in the order in which the codes were given.

    Attributes:
        ids: `[n, T]` int32 global token ids, in the order of `regions.parts_of`.
        weights: `[n, T]` float32, likewise.
        embeddings: `[n, E, d]` float32, the quantized embeddings.
        unquantized: `[n, E, d]` float32, the embeddings as they were searched.
        source: what each code was encoded from: `text`, `graph`, `text+graph`, or `text+hierarchy` where the code above
            it is its neighborhood.
        notes: for each code what was cut, left out or assumed, one sentence each.
        keys: `SYSTEM/code` of each code, in the normal form of its system.
    """

    ids: np.ndarray
    weights: np.ndarray
    embeddings: np.ndarray
    unquantized: np.ndarray
    source: list[str]
    notes: list[tuple[str, ...]]
    keys: list[str]

    @property
    def queries(self) -> np.ndarray:
        """Return what is compared with the quantized embeddings of codes to find similar ones, `[n, E, d]` float32.

        It is what was quantized, without the graph-specific embedding of a code that has no graph.
        """
        found = self.unquantized.copy()
        has_no_graph = np.array([source == "text" for source in self.source], bool)
        found[has_no_graph, EMBEDDINGS.index("graph_specific")] = 0.0
        return found


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """Hold a checked code: its key, the text to encode, its subgraph or None, the source and the notes."""

    key: str
    text: str
    graph: CodeGraph | None
    source: str
    notes: tuple[str, ...]


class NewCodeEncoder:
    """Encode new codes with a trained model; `from_directory` opens one.

    The first call compiles for seconds, later calls of like size do not.

    Args:
        saved: the model.
        encoder_dir: directory of its text encoder.
    """

    def __init__(self, saved: SavedModel, encoder_dir: Path):
        data, self.modalities = saved.config.data, saved.config.data.modalities
        self.saved, self.index = saved, GraphIndex(saved)
        gelu = saved.config.model.text_encoder_gelu
        self.texts = TextStates(encoder_dir, max_length=data.max_length, dtype=DTYPES[data.cache_dtype], gelu=gelu)
        sizes, variables = _with_unknown_rows(saved)
        graphdef, params, fixed = model_reader.structure(saved, sizes, encoder_dir)
        self.params = model_reader.fill(params, variables, "params")
        self.fixed = model_reader.fill(fixed, variables, "fixed")

        @jax.jit
        def tokenize(params: State, fixed: State, batch: Batch, tables: Tables) -> BatchTokens:
            return nnx.merge(graphdef, params, fixed)(batch, tables).tokens()

        self._run = tokenize

    @classmethod
    def from_directory(cls, path: str | Path, *, text_encoder: str | None = None) -> "NewCodeEncoder":
        """Open the model of a tokenizer directory.

        Args:
            path: a directory that `model_writer` filled.
            text_encoder: where its text encoder lies now, if not where it lay in training.

        Raises:
            InputError: there is no model, it is damaged, or its text encoder is absent or another one.
        """
        saved = model_reader.load(path)
        name = text_encoder or saved.config.model.text_encoder_model
        encoder_dir = resolve_text_encoder(name)
        identity = encoder_identity(encoder_dir)
        if identity != saved.encoder:
            raise InputError(
                f"The model in {path} was trained with another text encoder than {name} "
                f"({saved.encoder[:12]} instead of {identity[:12]}); install or give that one."
            )
        return cls(saved, encoder_dir)

    def encode(self, codes: Sequence[NewCode], progress: bool = False) -> NewTokens:
        """Return the tokens of some codes.

        Args:
            codes: what to encode.
            progress: whether to show a bar.

        Raises:
            InputError: a code has neither description nor graph, or something that cannot be read.
        """
        prepared = [self._prepare(code) for code in codes]
        model = self.saved.config.model
        parts = parts_of(model)
        width = sum(part.num_tokens for part in parts)
        ids, weights = np.zeros((len(codes), width), np.int32), np.zeros((len(codes), width), np.float32)
        vectors = np.zeros((len(codes), len(parts), model.embedding_dim), np.float32)
        searched = np.zeros((len(codes), len(parts), model.embedding_dim), np.float32)
        notes = [code.notes for code in prepared]
        with Bar(total=len(codes), desc="Encoding", unit=" codes", show=progress) as bar:
            for start in range(0, len(codes), CODES_AT_ONCE):
                part = prepared[start : start + CODES_AT_ONCE]
                for rows, tokens in self._encode_part(part):
                    ids[start + rows] = np.asarray(tokens.ids)[: len(rows)]
                    weights[start + rows] = np.asarray(tokens.weights)[: len(rows)]
                    vectors[start + rows] = np.asarray(tokens.vectors)[: len(rows)]
                    searched[start + rows] = np.asarray(tokens.embeddings)[: len(rows)]
                    bar.update(len(rows))
        return NewTokens(
            ids, weights, vectors, searched, [code.source for code in prepared], notes, [c.key for c in prepared]
        )

    def encode_texts(self, texts: Sequence[str]) -> NewTokens:
        """Return the tokens of texts that describe no code in particular; `queries` of them is what finds codes.

        A warning names a text that is too long to be read to its end.

        Raises:
            InputError: a text has no word, or the model was trained without texts.
        """
        if self.modalities == "graph":
            raise InputError("This model was trained on graphs alone, so that no text can be compared with its codes.")
        for text in texts:
            read = _clean(text.strip()) if isinstance(text, str) else ""
            tokens, _, cut = self.texts.tokenizer([read])
            if len(tokens) <= 2:
                raise InputError(f"The text {graph_input.describe(text)} has no word to compare by; give some.")
            if cut or len(read) < len(text.strip()):
                length = self.texts.tokenizer.max_length
                warnings.warn(
                    f"The text {graph_input.describe(text)} is read up to {length} wordpieces only.", stacklevel=3
                )
        return self.encode([NewCode(FREE_TEXT, str(number), text) for number, text in enumerate(texts)])

    def can_encode(self, code: NewCode) -> bool:
        """Return whether `encode` would accept a code."""
        try:
            self._prepare(code)
        except InputError:
            return False
        return True

    def _prepare(self, code: NewCode) -> _Prepared:
        key, notes = _checked_key(code), []
        code = dataclasses.replace(code, code=key.partition("/")[2])
        # What the model never read says nothing to it.
        if self.modalities == "text":
            code = dataclasses.replace(code, graph=[])
        if self.modalities == "graph":
            code = dataclasses.replace(code, description=None)
        own = self.index.find_key(key)
        stands_alone = own >= 0 and (code.graph is None or neighbor_lists.names_itself(code.graph, key, self.index))
        if stands_alone and code.description is None and self.modalities != "graph":
            code = dataclasses.replace(code, description=self.index.names(np.array([own]))[0])
            notes.append(f"{key}: its description is its name in the knowledge graph.")
        text, graph = self._description(code, key, notes), None
        if stands_alone and self.modalities != "text":
            graph = neighbor_lists.own_neighborhood(own, key, self.index)
        elif isinstance(code.graph, dict):
            graph = graph_input.from_node_link(code.graph, key, self.index)
        elif isinstance(code.graph, list | tuple):
            graph = neighbor_lists.from_neighbors(list(code.graph), key, self.index)
        elif code.graph is not None:
            raise InputError(
                f"The graph of {key} is a {type(code.graph).__name__}; give node-link JSON or a list of neighbors."
            )
        if graph is None and not text:
            raise InputError(f"{key} has neither a description nor a graph; give one of the two.")
        source = "text+graph" if text and graph else "text" if text else "graph"
        if code.graph is None and own < 0 and (above := self._code_above(code)):
            graph, source = neighbor_lists.from_neighbors([above], key, self.index), "text+hierarchy"
            notes.append(f"{key}: {above}, the code above it, is its only neighbor.")
        if graph is None and code.graph is not None:
            notes.append(f"{key}: its graph is empty.")
        if graph is None and not self.saved.learned_missing_graph:
            notes.append(f"{key}: {UNLEARNED}")
        # A code without a description is described by its system and code, as in training.
        return _Prepared(
            key, text or _clean(f"{code.system} {code.code}"), graph, source, (*notes, *(graph.notes if graph else ()))
        )

    def _code_above(self, code: NewCode) -> str | None:
        """Return the key of the nearest code above one, by its spelling, that is a node of the knowledge graph."""
        system = code.system.strip()
        if system not in SYSTEMS or not is_wellformed(system, code.code):
            return None
        keys = (f"{system}/{above}" for above in ancestors(system, display_code(system, code.code)))
        return next((key for key in keys if self.index.find_key(key) >= 0), None)

    def _description(self, code: NewCode, key: str, notes: list[str]) -> str:
        """Return the text to encode, empty where there is none."""
        if code.description is None:
            return ""
        if not isinstance(code.description, str):
            raise InputError(f"The description of {key} is a {type(code.description).__name__}; give text or None.")
        text = _clean(code.description.strip())
        tokens, _, cut = self.texts.tokenizer([text])
        if cut or len(text) < len(code.description.strip()):
            notes.append(f"{key}: its description was cut at {self.texts.tokenizer.max_length} wordpieces.")
        # [CLS] and [SEP] alone: nothing that the encoder reads.
        return text if len(tokens) > 2 else ""

    def _encode_part(self, codes: list[_Prepared]) -> Iterator[tuple[np.ndarray, BatchTokens]]:
        """Yield rows of `codes` and their tokens, behind which padding follows."""
        names = list(dict.fromkeys(_clean(name) for code in codes if code.graph for name in code.graph.names))
        states, pooled = self.texts([code.text for code in codes], names)
        if self.modalities == "graph":
            states = [state[:0] for state in states]
        row_of_name = {name: row for row, name in enumerate(names)}
        order = np.argsort([len(state) for state in states], kind="stable")
        size = next((size for size in BATCH_SIZES if size >= len(codes)), BATCH_SIZES[-1])
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            graphs = [codes[row].graph for row in rows]
            text, mask = self._pad_texts([codes[row].text for row in rows], [states[row] for row in rows], size)
            shape, part = _shape(graphs, size, self.index.max_nodes), _joined(graphs, self._first_free)
            batch = make_batch(
                text=text,
                text_mask=mask,
                graphs=[pad_subgraphs(part, size, shape)],
                valid=np.arange(size) < len(rows),
            )
            used = [row_of_name[_clean(name)] for g in graphs if g for name in g.names]
            tables = self._tables(part.nodes, [g.types for g in graphs if g], pooled[used], shape[0])
            yield rows, self._run(self.params, self.fixed, batch, tables)

    @property
    def _first_free(self) -> int:
        """Return the number of the first node that has no learned embedding of its id."""
        return self.saved.sizes.num_nodes if self.saved.config.model.node_id_features else 0

    def _pad_texts(self, texts: list[str], states: list[np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return padded token states, or wordpieces where the text encoder was trained too, and their mask."""
        if self.saved.config.model.text_encoder_trainable:
            tokens, offsets, _ = self.texts.tokenizer(texts)
            states = np.split(tokens, offsets[1:-1])
        counts = np.zeros(size, np.int64)
        counts[: len(states)] = [len(state) for state in states]
        length = next(length for length in self.saved.config.data.length_buckets if length >= counts.max())
        return pad_tokens(np.concatenate(states), counts, length)

    def _tables(self, nodes: np.ndarray, types: list[np.ndarray], names: np.ndarray, num_padded: int) -> Tables:
        """Return the facts of the nodes of one batch, each at its number.

        Args:
            nodes: `[nodes]` numbers, see `_joined`.
            types: `[nodes]` of each graph.
            names: `[nodes, hidden]` vector of each node's name.
            num_padded: nodes that the graphs are padded to, as shapes must be few.
        """
        node_type = np.zeros(self._first_free + num_padded, np.int32)
        node_name = np.zeros(self._first_free + num_padded, np.int32)
        if types:
            node_type[nodes] = np.concatenate(types)
        node_name[nodes] = np.arange(len(nodes))
        embedding = np.zeros((num_padded, names.shape[-1]), names.dtype)
        embedding[: len(nodes)] = names
        return Tables(node_type=node_type, node_name=node_name, name_embedding=embedding)


def _checked_key(code: NewCode) -> str:
    """Return the key of a code, in the normal form of its system where that is one of `codes.SYSTEMS`."""
    for name, value in (("system", code.system), ("code", code.code)):
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"The {name} of a new code is {graph_input.describe(value)}; give text that is not empty.")
        if len(value) > MAX_NAME:
            raise InputError(f"The {name} {graph_input.describe(value)} is longer than {MAX_NAME} characters.")
    system, bare = code.system.strip(), code.code.strip()
    return f"{system}/{display_code(system, bare) if system in SYSTEMS else bare}"


def _clean(text: str) -> str:
    """Return text that a tokenizer can read: cut at `MAX_CHARACTERS`, and valid Unicode."""
    return text[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")


def _with_unknown_rows(saved: SavedModel) -> tuple[InputSizes, dict[str, np.ndarray]]:
    """Return sizes and variables with one more node type and relation, the mean of those that were learned."""
    variables = dict(saved.variables)
    for name in NAMED_ROWS:
        table = variables.get(name)
        if table is None or table.ndim != 2 or not len(table):
            raise InputError(f"The model lacks the table {name}; export it again from its run.")
        variables[name] = np.concatenate([table, table.mean(0, keepdims=True)])
    more = {"num_node_types": saved.sizes.num_node_types + 1, "num_relations": saved.sizes.num_relations + 1}
    return dataclasses.replace(saved.sizes, **more), variables


def _shape(graphs: list[CodeGraph | None], size: int, max_nodes: int) -> tuple[int, int]:
    """Return the smallest of a few (nodes, edges) that holds the graphs and a spare node."""
    nodes = sum(len(graph.hops) if graph else 1 for graph in graphs)
    edges = sum(len(graph.senders) if graph else 0 for graph in graphs)
    places = next(level for level in (-(-size * max_nodes // 4), size * max_nodes) if level >= nodes)
    return places + 1, next(places * level for level in (4, 16, max_nodes) if places * level >= edges)


def _joined(graphs: list[CodeGraph | None], first_free: int) -> Subgraphs:
    """Return the graphs of some codes one after the other, their nodes numbered as the model's tables are.

    A node that has a learned embedding of its id keeps its number; the others are numbered from `first_free` on.
    """
    known = [graph or NO_GRAPH for graph in graphs]
    num_nodes, num_edges = [len(graph.hops) for graph in known], [len(graph.senders) for graph in known]
    starts = np.cumsum(num_nodes) - num_nodes
    shift = np.repeat(starts, num_edges)
    ids = np.concatenate([graph.node_ids for graph in known])
    learned = (ids >= 0) & (ids < first_free)
    self_node = np.array([graph.self_node for graph in known])
    return Subgraphs(
        nodes=np.where(learned, ids, first_free + np.arange(len(ids))),
        hops=np.concatenate([graph.hops for graph in known]),
        of_node=np.repeat(np.arange(len(known)), num_nodes),
        senders=np.concatenate([graph.senders for graph in known]) + shift,
        receivers=np.concatenate([graph.receivers for graph in known]) + shift,
        relations=np.concatenate([graph.relations for graph in known]),
        of_edge=np.repeat(np.arange(len(known)), num_edges),
        self_node=np.where(self_node >= 0, starts + self_node, -1),
    )
