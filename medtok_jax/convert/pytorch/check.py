"""Holds a written PyTorch directory against the Flax model: the same codes through both."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from medtok_jax.inference.graph_index import GraphIndex
from medtok_jax.inference.model_reader import SavedModel
from medtok_jax.inference.new_codes import NewCode, NewCodeEncoder
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.models.quantizer import num_nearest
from medtok_jax.regions import EMBEDDINGS
from preprocessing.common.errors import UserError
from preprocessing.graph.neighborhoods import subgraphs

SAMPLE = 64
# Most an embedding may differ in a place.
TOLERANCE = 1e-4
# Two rows at distances this close may come in either order.
TIE = 1e-4
IDENTICAL = 0.999


@dataclasses.dataclass(frozen=True)
class Tie:
    """Where the two models chose different rows: the distances of both, by the Flax model's embedding."""

    key: str
    embedding: str
    place: int
    flax: int
    torch: int
    gap: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What came of it: codes compared, largest difference of an embedding, share of equal token ids, the others."""

    codes: int
    difference: float
    identical: float
    ties: list[Tie]

    def describe(self) -> str:
        """A sentence, and a line for each differing token."""
        lines = [
            f"{self.codes:,} codes through both models: embeddings within {self.difference:.1e},"
            f" {self.identical:.3%} of token ids identical{', the others at ties of distance:' if self.ties else '.'}"
        ]
        return "\n".join(
            lines
            + [
                f"  {tie.key} {tie.embedding} token {tie.place + 1}: {tie.flax} (Flax), {tie.torch} (PyTorch),"
                f" distances {tie.gap:.1e} apart"
                for tie in self.ties
            ]
        )


def compare(
    folder: Path, saved: SavedModel, encoder_dir: Path, tokenizer: Path, count: int = SAMPLE, progress: bool = True
) -> Comparison:
    """Encodes a sample of real codes with both models, all in float32.

    Text states that differ in their last bit may be rounded to different bfloat16 numbers, as caches of them are; that
    says nothing of the models.

    Args:
        folder: the PyTorch directory.
        saved: the Flax model.
        encoder_dir: of its text encoder.
        tokenizer: the tokenizer directory that lists the codes.
        count: how many codes.
        progress: whether to show bars.

    Raises:
        UserError: they differ by more than rounding explains.
    """
    saved = _in_float32(saved)
    codes = sample_codes(saved, TokenizerDirectory.read(tokenizer), count)
    flax = NewCodeEncoder(saved, encoder_dir).encode([_new_code(code) for code in codes], progress)
    model = load_module(folder).MedTok.from_pretrained(folder)
    model.config["text_state_dtype"] = "float32"
    import torch

    with torch.inference_mode():
        batches = range(0, len(codes), 32)
        parts = [
            model(model.collate(codes[start : start + 32])) for start in tqdm(batches, "PyTorch", disable=not progress)
        ]
    ids = torch.cat([part.token_ids for part in parts]).numpy()
    embeddings = torch.cat([part.embeddings for part in parts]).numpy()
    codebook = model.quantizer.codebook().detach().numpy()
    keys = [f"{code['system']}/{code['code']}" for code in codes]
    ours = (flax.ids.reshape(ids.shape), flax.weights.reshape(ids.shape), flax.unquantized)
    return judge(keys, ours, (ids, embeddings), codebook, saved.config.model)


def judge(keys, flax, torch, codebook, model) -> Comparison:
    """Compares both models.

    Args:
        keys: of the codes.
        flax: ids and weights `[n, 4, K]` and embeddings `[n, 4, d]`.
        torch: ids and embeddings.
        codebook: `[N, d]`.
        model: the `model` section of the configuration.

    Raises:
        UserError: they differ by more than rounding explains.
    """
    (flax_ids, weights, flax_embeddings), (ids, embeddings) = flax, torch
    difference = float(np.abs(flax_embeddings - embeddings).max())
    ties, wrong = [], flax_ids != ids
    if model.quantizer_kind != "top_k":
        # What follows another choice refines something else.
        wrong &= np.cumsum(wrong, -1) == 1
    for code, number, place in np.argwhere(wrong):
        # Tokens that look at what those before them leave.
        refines = model.quantizer_kind == "residual" or place >= num_nearest(model)
        before = place if refines and model.quantizer_kind != "top_k" else 0
        taken = codebook[flax_ids[code, number, :before]]
        left = flax_embeddings[code, number] - weights[code, number, :before] @ taken
        rows = (int(flax_ids[code, number, place]), int(ids[code, number, place]))
        near, far = (np.linalg.norm(left - codebook[row]) for row in rows)
        ties.append(Tie(keys[code], EMBEDDINGS[number], int(place), *rows, float(abs(near - far))))
    result = Comparison(len(keys), difference, float(np.mean(flax_ids == ids)), ties)
    if not difference <= TOLERANCE or result.identical < IDENTICAL or any(tie.gap > TIE for tie in ties):
        raise UserError(f"The PyTorch model does not compute what the Flax model does. {result.describe()}")
    return result


def sample_codes(saved: SavedModel, directory: TokenizerDirectory, count: int) -> list[dict]:
    """Codes spread over the table with subgraphs of the knowledge graph, as `MedTok.collate` takes them.

    Every tenth has no description, and every tenth no graph. A code that is no node of the knowledge graph gets the
    neighborhood of some node.
    """
    index, table = GraphIndex(saved), directory.table
    rows = np.unique(np.linspace(0, len(table) - 1, count).astype(int))
    columns = {name: table[name].take(rows).to_pylist() for name in ("key", "system", "code", "description")}
    codes = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    graphs = _graphs(saved, index, rows, columns["key"])
    for place, (code, graph) in enumerate(zip(codes, graphs, strict=True)):
        del code["key"]
        code["graph"] = None if place % 10 == 3 else graph
        if place % 10 == 7:
            code["description"] = None
    return codes


def _graphs(saved: SavedModel, index: GraphIndex, rows: np.ndarray, keys: list[str]) -> list[dict | None]:
    """Node-link JSON for each code; None where the directory holds no graph."""
    if saved.graph is None:
        return [None] * len(keys)
    own = np.array([index.find_key(key) for key in keys])
    # A stride that is prime spreads codes without a node of their own over the graph.
    anchors = np.where(own >= 0, own, rows * 7919 % index.num_nodes)
    drawn = subgraphs(index.neighbor_table, anchors[:, None].astype(np.int32), max_nodes=index.max_nodes)
    names = [index.graph.nodes[name] for name in ("source", "source_id", "name", "type")]
    graphs = []
    for subgraph, node in zip(drawn, own, strict=True):
        columns = (column.take(subgraph.nodes).to_pylist() for column in names)
        nodes = [
            {"id": f"{source}/{identity}", "name": name, "type": kind, "hop": int(hop), "node_id": int(number)}
            | ({"self": True} if number == node else {})
            for source, identity, name, kind, hop, number in zip(*columns, subgraph.hops, subgraph.nodes, strict=True)
        ]
        ends = (subgraph.senders[::2], subgraph.receivers[::2], subgraph.relations[::2])
        links = [
            {"source": nodes[a]["id"], "target": nodes[b]["id"], "relation": index.relation_names[r]}
            for a, b, r in zip(*ends, strict=True)
        ]
        graphs.append({"nodes": nodes, "links": links})
    return graphs


def _in_float32(saved: SavedModel) -> SavedModel:
    config = ConfigDict(saved.config.to_dict())
    config.train.mixed_precision, config.data.cache_dtype = False, "float32"
    return dataclasses.replace(saved, config=config)


def _new_code(code: dict) -> NewCode:
    # An empty list keeps a code without neighbors; None would join it to the code above it.
    return NewCode(code["system"], code["code"], code["description"], code["graph"] or [])


def load_module(folder: Path):
    """The module file as it was written into a directory."""
    path = folder / "modeling_medtok.py"
    spec = importlib.util.spec_from_file_location("modeling_medtok", path)
    module = importlib.util.module_from_spec(spec)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writes
    return module
