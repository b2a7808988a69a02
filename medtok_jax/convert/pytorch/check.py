"""Compare a written PyTorch directory with the Flax model by encoding the same codes with both."""

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
from ml_collections import ConfigDict

from medtok_jax.inference.graph_index import GraphIndex
from medtok_jax.inference.model_reader import SavedModel
from medtok_jax.inference.new_codes import NewCode, NewCodeEncoder
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.regions import parts_of
from preprocessing.common.errors import UserError
from preprocessing.common.progress import Bar
from preprocessing.graph.neighborhoods import subgraphs

SAMPLE = 64
# Largest difference allowed between the elements of two embeddings.
TOLERANCE = 1e-4
# Rows whose distances differ by at most this may come in either order.
TIE = 1e-4
# Least share of equal token ids.
IDENTICAL = 0.999


@dataclasses.dataclass(frozen=True)
class Tie:
    """Describe a token for which the two models chose different rows.

    Attributes:
        key: `SYSTEM/code`.
        embedding: name of the embedding, see `regions.parts_of`.
        rank: index of the token among those of the embedding.
        flax, torch: rows that the models chose.
        gap: difference of the rows' distances from the Flax model's embedding.
    """

    key: str
    embedding: str
    rank: int
    flax: int
    torch: int
    gap: float


@dataclasses.dataclass(frozen=True)
class ModelComparison:
    """Hold the result: number of codes, largest difference of embeddings, share of equal token ids, and the ties."""

    codes: int
    difference: float
    identical: float
    ties: list[Tie]

    def describe(self) -> str:
        """Return a sentence, and a line for each differing token."""
        lines = [
            f"Both models encoded {self.codes:,} codes: embeddings differ by at most {self.difference:.1e},"
            f" {self.identical:.3%} of token ids are equal{', the others are ties of distance:' if self.ties else '.'}"
        ]
        return "\n".join(
            lines
            + [
                f"  {tie.key} {tie.embedding} token {tie.rank + 1}: {tie.flax} (Flax), {tie.torch} (PyTorch),"
                f" distances {tie.gap:.1e} apart"
                for tie in self.ties
            ]
        )


def compare(
    folder: Path, saved: SavedModel, encoder_dir: Path, tokenizer: Path, count: int = SAMPLE, progress: bool = True
) -> ModelComparison:
    """Encode a sample of real codes with both models, all in float32.

    float32 is used as text states that differ in their last bit may be rounded to different bfloat16 numbers, which is
    not a difference of the models.

    Args:
        folder: the PyTorch directory.
        saved: the Flax model.
        encoder_dir: directory of its text encoder.
        tokenizer: the tokenizer directory that lists the codes.
        count: number of codes.
        progress: whether to show progress bars.

    Raises:
        UserError: the results differ by more than rounding explains.
    """
    saved = _in_float32(saved)
    codes = sample_codes(saved, TokenizerDirectory.read(tokenizer), count)
    flax = NewCodeEncoder(saved, encoder_dir).encode([_new_code(code) for code in codes], progress)
    model = load_module(folder).MedTok.from_pretrained(folder)
    model.config["text_state_dtype"] = "float32"
    import torch

    with torch.inference_mode():
        batches = range(0, len(codes), 32)
        parts = [model(model.collate(codes[start : start + 32])) for start in Bar(batches, "PyTorch", show=progress)]
    ids = torch.cat([part.token_ids for part in parts]).numpy()
    embeddings = torch.cat([part.embeddings for part in parts]).numpy()
    codebook = model.quantizer.codebook().detach().numpy()
    keys = [f"{code['system']}/{code['code']}" for code in codes]
    ours = (flax.ids, flax.weights, flax.unquantized)
    return judge(keys, ours, (ids, embeddings), codebook, saved.config.model)


def judge(
    keys: list[str],
    flax: tuple[np.ndarray, np.ndarray, np.ndarray],
    torch: tuple[np.ndarray, np.ndarray],
    codebook: np.ndarray,
    model: ConfigDict,
) -> ModelComparison:
    """Compare the results of both models.

    Args:
        keys: `SYSTEM/code` of each code.
        flax: ids and weights `[n, T]` and embeddings `[n, E, d]` of the Flax model.
        torch: ids and embeddings of the PyTorch model.
        codebook: `[N, d]`.
        model: the `model` section of the configuration.

    Raises:
        UserError: the results differ by more than rounding explains.
    """
    (flax_ids, weights, flax_embeddings) = flax
    (ids, embeddings) = torch
    difference = float(np.abs(flax_embeddings - embeddings).max())
    ties = []
    parts = parts_of(model)
    ends = np.cumsum([part.num_tokens for part in parts])
    for number, (part, end) in enumerate(zip(parts, ends, strict=True)):
        first = end - part.num_tokens
        mine, others = flax_ids[:, first:end], ids[:, first:end]
        wrong = mine != others
        if model.quantizer_kind != "top_k":
            # Tokens after a different choice have another residual and cannot be compared.
            wrong &= np.cumsum(wrong, -1) == 1
        for code, rank in np.argwhere(wrong):
            # Tokens that refine are chosen by the residual that the tokens before them leave.
            refines = model.quantizer_kind == "residual" or rank >= part.num_nearest
            before = rank if refines and model.quantizer_kind != "top_k" else 0
            taken = weights[code, first : first + before] @ codebook[mine[code, :before]]
            residual = flax_embeddings[code, number] - taken
            rows = (int(mine[code, rank]), int(others[code, rank]))
            near, far = (np.linalg.norm(residual - codebook[row]) for row in rows)
            ties.append(Tie(keys[code], part.embedding, int(rank), *rows, float(abs(near - far))))
    result = ModelComparison(len(keys), difference, float(np.mean(flax_ids == ids)), ties)
    if not difference <= TOLERANCE or result.identical < IDENTICAL or any(tie.gap > TIE for tie in ties):
        raise UserError(f"The PyTorch model differs from the Flax model by more than rounding. {result.describe()}")
    return result


def sample_codes(saved: SavedModel, directory: TokenizerDirectory, count: int) -> list[dict]:
    """Sample codes evenly from the table, with subgraphs of the knowledge graph, as `MedTok.collate` takes them.

    Every tenth code has no description, and every tenth no graph. A code without a node in the knowledge graph gets the
    neighborhood of some other node.
    """
    index = GraphIndex(saved)
    table = directory.table
    rows = np.unique(np.linspace(0, len(table) - 1, count).astype(int))
    columns = {name: table[name].take(rows).to_pylist() for name in ("key", "system", "code", "description")}
    codes = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    graphs = _graphs(saved, index, rows, columns["key"])
    for position, (code, graph) in enumerate(zip(codes, graphs, strict=True)):
        del code["key"]
        code["graph"] = None if position % 10 == 3 else graph
        if position % 10 == 7:
            code["description"] = None
    return codes


def _graphs(saved: SavedModel, index: GraphIndex, rows: np.ndarray, keys: list[str]) -> list[dict | None]:
    """Return node-link JSON for each code, or None for all if the directory holds no graph."""
    if saved.graph is None:
        return [None] * len(keys)
    own = np.array([index.find_key(key) for key in keys])
    # A prime stride spreads the codes without a node of their own over the graph.
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
    config.train.mixed_precision = False
    config.data.cache_dtype = "float32"
    return dataclasses.replace(saved, config=config)


def _new_code(code: dict) -> NewCode:
    # An empty list keeps the code without neighbors; None would join it to its parent code.
    return NewCode(code["system"], code["code"], code["description"], code["graph"] or [])


def load_module(folder: Path) -> ModuleType:
    """Import the module file of a written directory, without leaving bytecode there."""
    path = folder / "modeling_medtok.py"
    spec = importlib.util.spec_from_file_location("modeling_medtok", path)
    module = importlib.util.module_from_spec(spec)
    writes = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writes
    return module
