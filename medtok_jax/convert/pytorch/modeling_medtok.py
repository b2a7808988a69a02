# SPDX-License-Identifier: Apache-2.0
"""Compute the four quantized embeddings of a medical code from its description and subgraph: MedTok in PyTorch.

Su et al., "Multimodal Medical Code Tokenizer", ICML 2025 (arXiv 2502.04397). This file needs only torch, transformers
and safetensors, and the files beside it: `config.json`, `model.safetensors`, `tokenizer.json` and `text_encoder/` (a
Hugging Face BERT).

    from modeling_medtok import MedTok

    model = MedTok.from_pretrained(".")
    batch = model.collate([{"system": "ICD10CM", "code": "E11.9", "description": "Type 2 diabetes", "graph": {...}}])
    model(batch).token_ids  # [codes, T]

Parameter names are those of the Flax model, so that weights can be converted in both directions bit for bit.
"""

import json
import shutil
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertModel
from transformers.utils import logging

FORMAT_VERSION = 1
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
ENCODER = "text_encoder"
# Kinds of nodes. SELF is the code itself, whose name is not read; MISSING replaces a missing graph.
ORDINARY, SELF, MISSING = 0, 1, 2
MAX_HOP = 2
LAYER_NORM_EPSILON = 1e-6
# Shorter vectors are not brought to unit length.
SHORTEST = 1e-3
# Least weight of a token of `pursuit`.
SMALLEST_WEIGHT = 1e-2
# Prefix of the weights of the text encoder of descriptions, which are saved only if it was trained.
BERT = "text_encoder.bert."


class Batch(NamedTuple):
    """Hold a batch of codes as made by `MedTok.collate`. Integers are int64; masks are bool, False at padding.

    In place of wordpieces, `text` may be token states `[B, L, hidden]`, and `names` mean-pooled vectors `[N, hidden]`.
    """

    text: Tensor  # [B, L] wordpieces of the descriptions
    text_mask: Tensor  # [B, L]
    names: Tensor  # [N, M] wordpieces of the distinct node names of the batch
    names_mask: Tensor  # [N, M]
    node_name: Tensor  # [B, V] row of `names`
    node_type: Tensor  # [B, V] row of `config["node_types"]`, or their number for an unknown type
    node_kind: Tensor  # [B, V] ORDINARY, SELF or MISSING
    node_hop: Tensor  # [B, V] distance from the anchor nodes of the code, 0 to 2
    node_id: Tensor  # [B, V] node of the knowledge graph, -1 for none; read by models with embeddings of node ids
    node_mask: Tensor  # [B, V]
    senders: Tensor  # [B, E] index of a node in its graph; both directions of an edge are listed
    receivers: Tensor  # [B, E]
    relations: Tensor  # [B, E] row of `config["relation_names"]`, or their number for an unknown relation
    edge_mask: Tensor  # [B, E]

    def to(self, *args, **kwargs) -> "Batch":
        """Return the batch on another device; see `Tensor.to` for the arguments."""
        return Batch(*(tensor.to(*args, **kwargs) for tensor in self))


class Output(NamedTuple):
    """Hold the E quantized embeddings of each code, in the order of `config["parts"]`; float32."""

    token_ids: Tensor  # [B, T] int64 rows of the codebook, embedding after embedding, nearest (or coarsest) first
    weights: Tensor  # [B, T] share of each row; no gradient
    embeddings: Tensor  # [B, E, d] before quantization
    vectors: Tensor  # [B, E, d] quantized; gradient to the codebook only
    quantized: Tensor  # [B, E, d] the same values; gradient to the encoders only (straight-through)


class Linear(nn.Linear):
    """Apply a linear map to inputs of any floating dtype."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class LayerNorm(nn.LayerNorm):
    """Apply LayerNorm with statistics in float32."""

    def __init__(self, width: int):
        super().__init__(width, eps=LAYER_NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        normed = F.layer_norm(x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)
        return normed.to(self.weight.dtype)


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the softmax over the True entries of the last axis in float32, and zeros where `mask` is False."""
    weights = logits.float().masked_fill(~mask, -1e30).softmax(-1)
    return weights.masked_fill(~mask, 0.0)


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the True positions: [B, L, width], [B, L] -> [B, width], float32."""
    weights = mask / mask.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("bl,blh->bh", weights.float(), states.float())


class AttentionPooling(nn.Module):
    """Pool real positions by learned attention: Linear(hidden, 128) -> tanh -> Linear(128, 1) -> masked softmax."""

    def __init__(self, hidden: int):
        super().__init__()
        self.inner = Linear(hidden, 128)
        self.score = Linear(128, 1, bias=False)

    def forward(self, states: Tensor, mask: Tensor, score_bias: Tensor | float = 0.0) -> Tensor:
        """Pool states: [B, L, hidden], [B, L] -> [B, hidden]."""
        scores = self.score(torch.tanh(self.inner(states)))[..., 0].float() + score_bias
        return torch.einsum("bl,blh->bh", masked_softmax(scores, mask).to(states.dtype), states)


class TextEncoder(nn.Module):
    """Encode descriptions as token states, and pool them."""

    def __init__(self, bert: BertModel, pooling: str):
        super().__init__()
        self.bert = bert
        self.no_text = nn.Parameter(torch.zeros(bert.config.hidden_size))
        self.pooling = AttentionPooling(bert.config.hidden_size) if pooling == "weighted_pooling" else None

    def pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool token states: [B, L, hidden], [B, L] -> [B, hidden]; the learned state where there is no token."""
        pooled = states[:, 0] if self.pooling is None else self.pooling(states, mask)
        return torch.where(mask.any(1, keepdim=True), pooled, self.no_text.to(pooled.dtype))


class NodeFeatures(nn.Module):
    """Compute node features from the type, the text of the name and, in some models, the identity of each node."""

    def __init__(self, config: dict):
        super().__init__()
        model = config["model"]
        sizes = config["sizes"]
        width = config["model"]["graph_width"]
        self.types = nn.Embedding(sizes["num_node_types"], width)
        self.name = Linear(sizes["text_width"], width) if model["node_name_features"] else None
        self.ids = nn.Embedding(sizes["num_nodes"], width) if model["node_id_features"] else None
        self.self_vector = nn.Parameter(torch.zeros(width))
        self.missing_vector = nn.Parameter(torch.zeros(width))

    def forward(self, batch: Batch, names: Tensor) -> Tensor:
        """Return features [B, V, width], given the vectors of the distinct names [N, hidden]."""
        kind = batch.node_kind[..., None]
        content = torch.zeros((), dtype=self.types.weight.dtype, device=names.device)
        if self.name is not None:
            content = content + self.name(names)[batch.node_name]
        if self.ids is not None:
            known = (batch.node_id >= 0) & (batch.node_id < self.ids.num_embeddings)
            content = content + self.ids(batch.node_id.where(known, 0)) * known[..., None]
        content = torch.where(kind == SELF, self.self_vector, content)
        typed = with_mean_row(self.types.weight)[batch.node_type] + content
        return torch.where(kind == MISSING, self.missing_vector, typed)


def with_mean_row(table: Tensor) -> Tensor:
    """Append the mean of all rows to a table, for types or relations that the model never saw."""
    return torch.cat([table, table.mean(0, keepdim=True)])


class Edges(NamedTuple):
    """Hold the edges of all graphs of a batch, [E] each, between their concatenated nodes."""

    senders: Tensor
    receivers: Tensor
    relations: Tensor
    mask: Tensor

    @classmethod
    def of(cls, batch: Batch) -> "Edges":
        size, most_nodes = batch.node_mask.shape
        first = torch.arange(size, device=batch.node_mask.device)[:, None] * most_nodes
        parts = (batch.senders + first, batch.receivers + first, batch.relations, batch.edge_mask)
        return cls(*(part.flatten() for part in parts))


def sum_at(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Sum the rows of `values` that have the same index: [E, ...], [E] -> [size, ...], float32."""
    return values.new_zeros((size, *values.shape[1:])).index_add(0, index, values)


class GCNLayer(nn.Module):
    """Apply a graph convolution (Kipf & Welling, 2017) with a relation term in the messages."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = Linear(width, width, bias=False)
        self.relation = Linear(width, width, bias=False)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, nodes: Tensor, relation_table: Tensor, edges: Edges) -> Tensor:
        """Return new node states: [n, width] -> [n, width]."""
        size = len(nodes)
        present = edges.mask.float()
        degree = 1.0 + sum_at(present, edges.receivers, size)
        weight = present * degree[edges.senders].rsqrt() * degree[edges.receivers].rsqrt()
        values = self.linear(nodes).float()
        relation = self.relation(relation_table).float()
        messages = values[edges.senders] + relation[edges.relations]
        mixed = sum_at(weight[:, None] * messages, edges.receivers, size)
        return (mixed + values / degree[:, None] + self.bias).to(nodes.dtype)


class GATLayer(nn.Module):
    """Apply graph attention (Velickovic et al., 2018) with a relation term in the logits."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.linear = Linear(width, width, bias=False)
        self.relation = Linear(width, num_heads, bias=False)
        self.source = nn.Parameter(torch.zeros(num_heads, width // num_heads))
        self.target = nn.Parameter(torch.zeros(num_heads, width // num_heads))
        self.loop = nn.Parameter(torch.zeros(num_heads))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, nodes: Tensor, relation_table: Tensor, edges: Edges) -> Tensor:
        """Return new node states: [n, width] -> [n, width]."""
        values = self.linear(nodes).float().unflatten(-1, (self.num_heads, -1))
        source = (values * self.source.float()).sum(-1)
        target = (values * self.target.float()).sum(-1)
        relation = self.relation(relation_table).float()
        logits = F.leaky_relu(source[edges.senders] + target[edges.receivers] + relation[edges.relations], 0.2)
        loops = F.leaky_relu(source + target + self.loop.float(), 0.2)
        weight, loop_weight = softmax_with_loops(logits.masked_fill(~edges.mask[:, None], -1e30), loops, edges)
        mixed = sum_at(weight[..., None] * values[edges.senders], edges.receivers, len(nodes))
        mixed = (mixed + loop_weight[..., None] * values).flatten(1)
        return (mixed + self.bias).to(nodes.dtype)


def softmax_with_loops(logits: Tensor, loops: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
    """Return the softmax over each node's in-edges [E, heads] and its self-loop [n, heads]."""
    index = edges.receivers[:, None].expand_as(logits)
    highest = loops.detach().scatter_reduce(0, index, logits.detach(), "amax")
    weight = (logits - highest[edges.receivers]).exp()
    loop_weight = (loops - highest).exp()
    total = sum_at(weight, edges.receivers, len(loops)) + loop_weight
    return weight / total[edges.receivers], loop_weight / total


class ResidualMlp(nn.Module):
    """Compute LayerNorm(x + Linear(relu(Linear(x))))."""

    def __init__(self, width: int):
        super().__init__()
        self.inner = Linear(width, width)
        self.outer = Linear(width, width)
        self.norm = LayerNorm(width)

    def forward(self, states: Tensor) -> Tensor:
        return self.norm(states + self.outer(self.inner(states).relu()))


class Stack(nn.Module):
    """Apply residual layers of one kind: graph attention if `num_heads`, else graph convolution."""

    def __init__(self, width: int, num_layers: int, num_heads: int):
        super().__init__()
        layers = (GATLayer(width, num_heads) if num_heads else GCNLayer(width) for _ in range(num_layers))
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(LayerNorm(width) for _ in range(num_layers))

    def forward(self, nodes: Tensor, relation_table: Tensor, edges: Edges) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            nodes = norm(nodes + layer(nodes, relation_table, edges).relu())
        return nodes


class LocalGlobal(nn.Module):
    """Apply a node MLP, then sum one graph attention layer (local) and two graph convolutions (global)."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.mlp = ResidualMlp(width)
        self.local = Stack(width, 1, num_heads)
        self.wide = Stack(width, 2, 0)

    def forward(self, nodes: Tensor, relation_table: Tensor, edges: Edges) -> Tensor:
        nodes = self.mlp(nodes)
        return self.local(nodes, relation_table, edges) + self.wide(nodes, relation_table, edges)


class MultiScaleReadout(nn.Module):
    """Pool anchors, 1-hop, 2-hop and all nodes of a graph by means, combined by learned attention over these levels."""

    def __init__(self, width: int):
        super().__init__()
        self.attention = AttentionPooling(width)
        self.level_bias = nn.Parameter(torch.zeros(4))

    def forward(self, states: Tensor, batch: Batch) -> Tensor:
        """Pool node states: [B, V, width] -> [B, width]."""
        hops = torch.arange(MAX_HOP + 1, device=states.device)
        level = torch.cat([batch.node_hop[..., None] == hops, torch.ones_like(batch.node_mask)[..., None]], -1)
        level = level & batch.node_mask[..., None]
        count = level.sum(1)
        means = torch.einsum("bvl,bvw->blw", level.float(), states.float()) / count.clamp(min=1)[..., None]
        return self.attention(means.to(states.dtype), count > 0, self.level_bias.float())


class GraphEncoder(nn.Module):
    """Encode subgraphs as node states, and pool them: `default` (GCN), `gat` or `hierarchical`."""

    def __init__(self, config: dict):
        super().__init__()
        model = config["model"]
        width = config["model"]["graph_width"]
        self.relations = nn.Embedding(config["sizes"]["num_relations"], width)
        if model["graph_encoder_type"] == "hierarchical":
            self.body: LocalGlobal | Stack = LocalGlobal(width, model["graph_heads"])
            self.readout: MultiScaleReadout | None = MultiScaleReadout(width)
        else:
            heads = model["graph_heads"] if model["graph_encoder_type"] == "gat" else 0
            self.body = Stack(width, model["graph_layers"], heads)
            self.readout = None

    def forward(self, nodes: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return states [B, V, width], zero at padding, and pooled vectors [B, width] of features [B, V, width]."""
        states = self.body(nodes.flatten(0, 1), with_mean_row(self.relations.weight), Edges.of(batch))
        states = states.view_as(nodes).masked_fill(~batch.node_mask[..., None], 0.0)
        return states, masked_mean(states, batch.node_mask) if self.readout is None else self.readout(states, batch)


class CrossAttentionLayer(nn.Module):
    """Attend from queries to a fixed context, with residual and LayerNorm."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query = Linear(width, width)
        self.key_value = Linear(width, 2 * width)
        self.out = Linear(width, width)
        self.norm = LayerNorm(width)

    def forward(self, states: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """Return new states: [B, queries, width], [B, keys, width], [B, keys] -> [B, queries, width]."""
        query = self.query(states).unflatten(-1, (self.num_heads, -1))
        key, value = self.key_value(context).unflatten(-1, (2, self.num_heads, -1)).unbind(2)
        logits = torch.einsum("bqhd,bkhd->bhqk", query, key).float() * query.shape[-1] ** -0.5
        weights = masked_softmax(logits, context_mask[:, None, None].expand_as(logits))
        mixed = torch.einsum("bhqk,bkhd->bqhd", weights.to(value.dtype), value).flatten(2)
        return self.norm(states + self.out(mixed))


class CrossAttention(nn.Module):
    """Attend from text to graph and from graph to text, each to the other's projected input (paper eq. 1-2)."""

    def __init__(self, config: dict):
        super().__init__()
        model = config["model"]
        width = config["model"]["cross_width"]
        self.text_in = Linear(config["sizes"]["text_width"], width)
        self.node_in = Linear(model["graph_width"], width)

        def stack() -> nn.ModuleList:
            return nn.ModuleList(CrossAttentionLayer(width, model["cross_heads"]) for _ in range(model["cross_layers"]))

        self.text_to_graph = stack()
        self.graph_to_text = stack()
        self.text_pooling = AttentionPooling(width)

    def forward(
        self, text: Tensor, text_mask: Tensor, nodes: Tensor, node_mask: Tensor, no_text: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return both sides, [B, width] each, of token states [B, L, hidden] and node states [B, V, graph width].

        `no_text`, [hidden], is the only state of each text that has no token.
        """
        first = torch.arange(text_mask.shape[1], device=text_mask.device) == 0
        stands = ~text_mask.any(1, keepdim=True) & first
        text_mask = text_mask | stands
        # Put in place after the projection: frozen states then need no gradient.
        tokens = torch.where(stands[..., None], self.text_in(no_text.to(text.dtype)), self.text_in(text))
        nodes = self.node_in(nodes)
        text_side = tokens
        graph_side = nodes
        for layer in self.text_to_graph:
            text_side = layer(text_side, nodes, node_mask)
        for layer in self.graph_to_text:
            graph_side = layer(graph_side, tokens, text_mask)
        return self.text_pooling(text_side, text_mask), masked_mean(graph_side, node_mask)


def l2_normalize(x: Tensor) -> Tensor:
    """Return unit vectors along the last axis, in float32."""
    x = x.float()
    return x * x.square().sum(-1, keepdim=True).clamp(min=SHORTEST**2).rsqrt()


def pairwise_distance(x: Tensor, rows: Tensor) -> Tensor:
    """Return the Euclidean distances [B, rows] of vectors [B, d] from rows [rows, d]."""
    squared = x.square().sum(-1)[:, None] + rows.square().sum(-1) - 2.0 * x @ rows.T
    return (squared.clamp(min=0.0) + 1e-12).sqrt()


def straight_through(embedding: Tensor, vector: Tensor) -> Tensor:
    """Return `vector`, and pass its gradient unchanged to `embedding`."""
    return embedding + (vector - embedding).detach()


def rotation_trick(embedding: Tensor, vector: Tensor) -> Tensor:
    """Return `vector`, and pass its gradient through the rotation of `embedding` onto it (Fifty et al., 2024)."""
    norm_e = embedding.detach().norm(dim=-1, keepdim=True) + 1e-12
    norm_v = vector.detach().norm(dim=-1, keepdim=True) + 1e-12
    unit_e = embedding.detach() / norm_e
    unit_v = vector.detach() / norm_v
    middle = l2_normalize(unit_e + unit_v)
    rotated = embedding - 2.0 * (embedding * middle).sum(-1, keepdim=True) * middle
    rotated = (rotated + 2.0 * (embedding * unit_e).sum(-1, keepdim=True) * unit_v) * (norm_v / norm_e)
    return rotated + (vector - rotated).detach()


def mixing_weights(products: Tensor, rows: Tensor, ridge: float = 1e-2) -> Tensor:
    """Return nonnegative weights [B, k] of rows [B, k, d] that approximate a vector by its inner products with them."""
    gram = rows @ rows.transpose(1, 2)
    eye = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    positive = torch.linalg.solve(gram + ridge * eye, products).clamp(min=0.0)
    along = (positive * products).sum(-1, keepdim=True)
    squared = torch.einsum("bk,bkl,bl->b", positive, gram, positive)[:, None]
    return positive * along / squared.clamp(min=1e-12)


def mix_nearest(embedding: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the nearest rows that add something to those nearer, [B, count], and their weights in a mixture."""
    products, ids = (embedding @ rows.T).topk(min(2 * count if count > 1 else 1, len(rows)))
    places = torch.arange(ids.shape[1], device=ids.device)
    chosen = torch.zeros_like(ids[:, :1])
    left, product = rows[ids], products
    for _ in range(count - 1):
        direction = l2_normalize(left.take_along_dim(chosen[:, -1:, None], 1))[:, 0]
        along = torch.einsum("bpd,bd->bp", left, direction)
        product = product - along * (embedding * direction).sum(-1, keepdim=True)
        left = left - along[..., None] * direction[:, None]
        taken = (places == chosen[..., None]).any(1)
        rank = torch.where(product > SMALLEST_WEIGHT, places, len(places) + places)
        rank = rank.masked_fill(taken, 2 * len(places))
        chosen = torch.cat([chosen, rank.argmin(1, keepdim=True)], 1)
    chosen = chosen.sort(1).values
    products, ids = products.take_along_dim(chosen, 1), ids.take_along_dim(chosen, 1)
    return ids, mixing_weights(products, rows[ids]).clamp(min=SMALLEST_WEIGHT)


class Quantizer(nn.Module):
    """Quantize embeddings by some rows each of a codebook in three regions (paper section 3.2), in float32.

    The kind of search is `top_k`, `residual` or `pursuit`.
    """

    def __init__(self, config: dict):
        super().__init__()
        model = config["model"]
        size = config["model"]["codebook_size"]
        width = config["model"]["embedding_dim"]
        self.kind = model["quantizer_kind"]
        self.normalize = model["normalize"]
        self.temperature = model["weight_temperature"]
        self.estimate = rotation_trick if model["gradient_estimator"] == "rotation" else straight_through
        self.parts = config["parts"]
        # Rows that training updates without a gradient are a buffer, as they are fixed variables in Flax.
        if model["simvq"] or model["ema_decay"]:
            self.register_buffer("rows", torch.zeros(size, width))
        else:
            self.rows = nn.Parameter(torch.zeros(size, width))
        self.projection = nn.Parameter(torch.eye(width)) if model["simvq"] else None
        if model["ema_decay"]:
            self.register_buffer("ema_count", torch.ones(size))
            self.register_buffer("ema_sum", torch.zeros(size, width))

    def prepare(self, embeddings: Tensor) -> Tensor:
        """Return embeddings as they are searched, in float32."""
        return l2_normalize(embeddings) if self.normalize else embeddings.float()

    def codebook(self) -> Tensor:
        """Return all rows as they are searched, [N, d] float32."""
        rows = self.rows.float() if self.projection is None else self.rows.float() @ self.projection.float()
        unit = self.kind == "pursuit" or (self.normalize and self.kind == "top_k")
        return l2_normalize(rows) if unit else rows

    def forward(self, embeddings: Tensor) -> Output:
        """Quantize each of the E embeddings [B, E, d] with the rows that it searches."""
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = self.prepare(embeddings)
            kinds = {"top_k": self._top_k, "residual": self._residual, "pursuit": self.pursuit}
            codebook = self.codebook()
            search = kinds[self.kind]
            found = []
            for embedding, part in zip(embeddings.unbind(1), self.parts, strict=True):
                start, stop = part["rows"]
                ids, weights, vector = search(embedding, codebook[start:stop], part)
                found.append((ids + start, weights, vector, self.estimate(embedding, vector)))
            ids, weights, vectors, quantized = zip(*found, strict=True)
        return Output(
            torch.cat(ids, 1), torch.cat(weights, 1), embeddings, torch.stack(vectors, 1), torch.stack(quantized, 1)
        )

    def _top_k(self, embedding: Tensor, rows: Tensor, part: dict) -> tuple[Tensor, Tensor, Tensor]:
        closeness = embedding @ rows.T if self.normalize else -pairwise_distance(embedding, rows)
        best, ids = closeness.detach().topk(part["num_tokens"])
        nearest = ((2.0 - 2.0 * best).clamp(min=0.0) + 1e-12).sqrt() if self.normalize else -best
        weights = (-nearest / self.temperature).softmax(-1)
        return ids, weights, torch.einsum("bk,bkd->bd", weights, rows[ids])

    def _residual(self, embedding: Tensor, rows: Tensor, part: dict) -> tuple[Tensor, Tensor, Tensor]:
        residual = embedding.detach()
        chosen = []
        for _ in range(part["num_tokens"]):
            chosen.append(pairwise_distance(residual, rows.detach()).argmin(-1))
            residual = residual - rows.detach()[chosen[-1]]
        ids = torch.stack(chosen, 1)
        return ids, torch.ones_like(ids, dtype=rows.dtype), rows[ids].sum(1)

    def pursuit(self, embedding: Tensor, rows: Tensor, part: dict) -> tuple[Tensor, Tensor, Tensor]:
        residual = embedding.detach()
        fixed = rows.detach()
        num_tokens, num_nearest = part["num_tokens"], part["num_nearest"]
        first = len(rows) * num_nearest // num_tokens
        ids, weights = mix_nearest(residual, fixed[:first], num_nearest)
        residual = residual - torch.einsum("bk,bkd->bd", weights, fixed[ids])
        for _ in range(num_tokens - num_nearest):
            taken = ids[:, num_nearest:] - first
            product, local = (residual @ fixed[first:].T).scatter(1, taken, float("-inf")).max(-1, keepdim=True)
            residual = residual - product.clamp(min=SMALLEST_WEIGHT) * fixed[first:][local[:, 0]]
            ids = torch.cat([ids, local + first], 1)
        if num_tokens > num_nearest:
            products = (fixed[ids] * embedding.detach()[:, None]).sum(-1)
            weights = mixing_weights(products, fixed[ids]).clamp(min=SMALLEST_WEIGHT)
        return ids, weights, torch.einsum("bk,bkd->bd", weights, rows[ids])


class MedTok(nn.Module):
    """Encode and quantize medical codes.

    Args:
        config: contents of `config.json`.
        bert: text encoder of descriptions.
        name_encoder: text encoder of node names, which is never trained; None to use `bert`, if it is not trained.
    """

    def __init__(self, config: dict, bert: BertModel, name_encoder: BertModel | None = None):
        super().__init__()
        if config.get("model_type") != "medtok" or config.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"config.json has model_type {config.get('model_type')!r} and format version"
                f" {config.get('format_version')!r}; this file reads 'medtok', version {FORMAT_VERSION}"
            )
        model = config["model"]
        sizes = config["sizes"]
        self.config = config
        self.tokenizer: Tokenizer | None = None
        self.directory: Path | None = None
        self.text_encoder = TextEncoder(bert, model["text_encoder_type"])
        self.name_encoder = name_encoder
        self.node_features = NodeFeatures(config)
        self.graph_encoder = GraphEncoder(config)
        self.cross_attention = CrossAttention(config)
        dim = model["embedding_dim"]
        self.text_head = Linear(sizes["text_width"], dim)
        self.graph_head = Linear(model["graph_width"], dim)
        self.text_cross_head = Linear(model["cross_width"], dim)
        self.graph_cross_head = Linear(model["cross_width"], dim)
        self.quantizer = Quantizer(config)
        (bert if name_encoder is None else name_encoder).requires_grad_(False)

    def forward(self, batch: Batch) -> Output:
        """Encode and quantize a batch of codes."""
        states, text_mask = self.text_states(batch), batch.text_mask
        names = self.name_vectors(batch)
        nodes, pooled_graph = self.graph_encoder(self.node_features(batch, names), batch)
        no_text = self.text_encoder.no_text
        text_side, graph_side = self.cross_attention(states, text_mask, nodes, batch.node_mask, no_text)
        embeddings = {
            "text_specific": self.text_head(self.text_encoder.pool(states, text_mask)),
            "graph_specific": self.graph_head(pooled_graph),
            "text_cross": self.text_cross_head(text_side),
            "graph_cross": self.graph_cross_head(graph_side),
        }
        prepared = {name: self.quantizer.prepare(x) for name, x in embeddings.items()}
        prepared["shared"] = (prepared["text_cross"] + prepared["graph_cross"]) / 2.0
        return self.quantizer(torch.stack([prepared[part["embedding"]] for part in self.config["parts"]], 1))

    def text_states(self, batch: Batch) -> Tensor:
        """Return the token states of the descriptions, [B, L, hidden]."""
        if batch.text.is_floating_point():
            return batch.text
        states = self.text_encoder.bert(input_ids=batch.text, attention_mask=batch.text_mask.long()).last_hidden_state
        return states if self.config["model"]["text_encoder_trainable"] else self._rounded(states)

    @torch.no_grad()
    def name_vectors(self, batch: Batch) -> Tensor:
        """Return the mean-pooled token states of the node names, [N, hidden]."""
        if batch.names.is_floating_point():
            return batch.names
        bert = self.text_encoder.bert if self.name_encoder is None else self.name_encoder
        states = bert(input_ids=batch.names, attention_mask=batch.names_mask.long()).last_hidden_state
        return self._rounded(masked_mean(states, batch.names_mask).to(states.dtype))

    def _rounded(self, states: Tensor) -> Tensor:
        """Round states to the dtype of the cache that the model was trained on."""
        dtype = getattr(torch, self.config["text_state_dtype"])
        return states + (states.to(dtype).to(states.dtype) - states).detach()

    @staticmethod
    def quantization_loss(output: Output, alpha: float = 0.25, commitment_weight: float = 1.0) -> Tensor:
        """Return the loss of paper eq. 5: commitment and codebook terms, summed over embeddings, mean over codes."""
        commitment = (output.vectors.detach() - output.embeddings).square().sum((1, 2))
        codebook = (output.vectors - output.embeddings.detach()).square().sum((1, 2))
        return (commitment_weight * commitment + alpha * codebook).mean()

    def collate(self, codes: Sequence[dict], multiple_of: int = 1) -> Batch:
        """Make a batch of codes, on the device of the model.

        Args:
            codes: each with `code` and `system` (or its key `SYSTEM/code` as `code`), and optionally a `description`
                and a `graph` (see `read_graph`). Missing ones are replaced as in training.
            multiple_of: lengths are padded to multiples of this, so that `torch.compile` sees fewer shapes.

        Raises:
            ValueError: a code or a graph cannot be read.
        """
        keys = [f"{code['system']}/{code['code']}" if code.get("system") else str(code["code"]) for code in codes]
        texts = [(code.get("description") or "").strip() for code in codes]
        texts = [text or key.replace("/", " ", 1) for text, key in zip(texts, keys, strict=True)]
        given = [(code.get("graph"), key) for code, key in zip(codes, keys, strict=True)]
        graphs = [read_graph(graph, key, self.config) if graph else MISSING_GRAPH for graph, key in given]
        names = list(dict.fromkeys(name for graph in graphs for name in graph.names))
        row = {name: number for number, name in enumerate(names)}
        node_name, node_mask = pad_rows([[row[name] for name in graph.names] for graph in graphs], multiple_of)
        columns = [pad_rows(column, multiple_of) for column in zip(*(graph[1:] for graph in graphs), strict=True)]
        node_type, kind, hop, node_id, senders, receivers, relations = (column for column, _ in columns)
        wordpieces = (*self._wordpieces(texts, multiple_of), *self._wordpieces(names, multiple_of))
        nodes = (node_name, node_type, kind, hop, node_id, node_mask)
        edges = (senders, receivers, relations, columns[-1][1])
        return Batch(*wordpieces, *nodes, *edges).to(self.quantizer.rows.device)

    def _wordpieces(self, texts: list[str], multiple_of: int) -> tuple[Tensor, Tensor]:
        if self.tokenizer is None:
            raise ValueError("the model has no text tokenizer; open it with MedTok.from_pretrained")
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        return pad_rows(rows, multiple_of, most=self.text_encoder.bert.config.max_position_embeddings)

    @torch.inference_mode()
    def encode(self, codes: Sequence[dict], batch_size: int = 64) -> Output:
        """Return tokens and embeddings of many codes, given as for `collate`, without gradients."""
        parts = [self(self.collate(codes[start : start + batch_size])) for start in range(0, len(codes), batch_size)]
        return Output(*(torch.cat(fields) for fields in zip(*parts, strict=True)))

    @classmethod
    def from_pretrained(
        cls, directory: str | Path, *, dtype: torch.dtype = torch.float32, train_text_encoder: bool = False
    ) -> "MedTok":
        """Open a directory in evaluation mode; call `train()` before fine-tuning.

        Args:
            directory: directory that the conversion or `save_pretrained` wrote.
            dtype: dtype of the encoders; the quantizer stays float32. `torch.autocast` works too.
            train_text_encoder: whether to fine-tune the text encoder of descriptions too. Node names keep the
                pretrained one.

        Raises:
            ValueError: `config.json` is of another version, or the weights do not match it.
        """
        directory = Path(directory).expanduser()
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        trained = config["model"]["text_encoder_trainable"]
        config["model"]["text_encoder_trainable"] = trained or train_text_encoder

        two = trained or train_text_encoder
        # Two objects: one stays frozen.
        encoders = [_load_bert(directory / ENCODER, config["model"]["text_encoder_gelu"]) for _ in range(1 + two)]
        model = cls(config, *encoders, *[None] * (not two))
        weights = load_file(directory / WEIGHTS)
        expected = model._own_names() if trained else {n for n in model._own_names() if not n.startswith(BERT)}
        if weights.keys() != expected:
            raise ValueError(f"{directory / WEIGHTS} does not hold the weights that {CONFIG} describes")
        model.load_state_dict(weights, strict=False)
        model.tokenizer = Tokenizer.from_file(str(directory / TOKENIZER))
        model.directory = directory
        model.to(dtype).quantizer.float()
        return model.eval()

    def _own_names(self) -> set[str]:
        """Return the names of the weights that `model.safetensors` holds: all but those of frozen text encoders."""
        trained = self.config["model"]["text_encoder_trainable"]
        return {
            n for n in self.state_dict() if not n.startswith("name_encoder.") and (trained or not n.startswith(BERT))
        }

    def save_pretrained(self, directory: str | Path) -> None:
        """Write the model, with its text encoder, tokenizer and this file, into a new or empty directory.

        Raises:
            ValueError: the directory is not empty, or the model was not opened with `from_pretrained`.
        """
        if self.directory is None:
            raise ValueError("the model has no text encoder to copy; open it with MedTok.from_pretrained")
        directory = Path(directory).expanduser()
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise ValueError(f"{directory} is not empty; choose another directory")
        shutil.copytree(self.directory / ENCODER, directory / ENCODER)
        shutil.copyfile(self.directory / TOKENIZER, directory / TOKENIZER)
        shutil.copyfile(__file__, directory / Path(__file__).name)
        own = self._own_names()
        state = self.state_dict()
        weights = {name: state[name].float().contiguous().cpu() for name in own}
        (directory / WEIGHTS).write_bytes(save(weights, {"format": "pt"}))
        (directory / CONFIG).write_text(json.dumps(self.config, indent=1) + "\n", encoding="utf-8")


def _load_bert(directory: Path, gelu: str) -> BertModel:
    """Load a text encoder without pooler, which MedTok does not use, and without dropout, as in training."""
    verbosity = logging.get_verbosity()
    # Loading would warn that the weights of the pooler are unexpected.
    logging.set_verbosity_error()
    try:
        options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "dtype": torch.float32}
        described = json.loads((directory / CONFIG).read_text(encoding="utf-8")).get("hidden_act", "gelu")
        if gelu == "tanh" and described == "gelu":
            options["hidden_act"] = "gelu_pytorch_tanh"
        return BertModel.from_pretrained(directory, add_pooling_layer=False, **options)  # nosec B615 # A directory.
    finally:
        logging.set_verbosity(verbosity)


class Graph(NamedTuple):
    """Hold the subgraph of one code: columns of its nodes, then of its edges in both directions."""

    names: list[str]
    types: list[int]
    kinds: list[int]
    hops: list[int]
    node_ids: list[int]
    senders: list[int]
    receivers: list[int]
    relations: list[int]


MISSING_GRAPH = Graph([""], [0], [MISSING], [0], [-1], [], [], [])


def read_graph(graph: dict, key: str, config: dict) -> Graph:
    """Read the subgraph that node-link JSON (networkx's `node_link_data`) describes.

    A node has an `id` and should have a `name` and a `type`; it may have a `hop`. The node of the code itself is marked
    by `"self": true`, by `self_node` in the JSON's `graph`, or by an id that is the code or its key. Anchors, the nodes
    next to the code, are marked by `"anchor": true` or hop 0; without any mark, the node with most edges is the anchor.
    An edge, under `links` or `edges`, has `source`, `target` and a `relation`; one direction is enough. Nodes farther
    than two hops, and the farthest beyond `max_nodes`, are left out.

    Args:
        graph: the parsed JSON.
        key: `SYSTEM/code` of the code.
        config: configuration of the model.

    Raises:
        ValueError: `graph` is not node-link JSON, or marks several nodes as the code itself.
    """
    try:
        nodes, position = _distinct(graph["nodes"])
        relation = _facts(graph["links"] if "links" in graph else graph["edges"], position)
        if not nodes:
            return MISSING_GRAPH
        own = _own_position(nodes, key, graph.get("graph"))
        hops = _hops(nodes, relation, own)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the graph of {key} is not node-link JSON ({error!r}); give "
            '{"nodes": [{"id": ..., "name": ..., "type": ...}], "links": [{"source", "target", "relation"}]}'
        ) from error
    order = sorted((p for p in range(len(nodes)) if hops[p] <= MAX_HOP), key=lambda p: (hops[p], p != own))
    order = order[: config["sizes"]["max_nodes"]]
    types = _numbers(config["node_types"])
    relations = _numbers(config["relation_names"])
    # The last number stands for types and relations that the model never saw.
    other_type = len(config["node_types"])
    other_relation = len(config["relation_names"])
    reverse = [*config["reverse"], other_relation]
    now = {p: number for number, p in enumerate(order)}
    facts = []
    for (a, b), name in relation.items():
        if a in now and b in now:
            number = relations.get(_spelling(name), other_relation)
            low = now[a]
            high = now[b]
            facts.append((low, high, number) if low < high else (high, low, reverse[number]))
    both = [edge for low, high, number in sorted(facts) for edge in ((low, high, number), (high, low, reverse[number]))]
    type_of_system = config["type_of_system"].get(key.partition("/")[0].upper(), other_type)

    def type_of(node: int) -> int:
        name = nodes[node].get("type")
        return type_of_system if node == own and not _text(name) else types.get(_spelling(name), other_type)

    senders, receivers, numbers = ([edge[column] for edge in both] for column in range(3))
    return Graph(
        names=[_text(nodes[p].get("name")) or str(nodes[p]["id"]) for p in order],
        types=[type_of(p) for p in order],
        kinds=[SELF if p == own else ORDINARY for p in order],
        hops=[hops[p] for p in order],
        node_ids=[nodes[p].get("node_id", -1) for p in order],
        senders=senders,
        receivers=receivers,
        relations=numbers,
    )


def _distinct(nodes: list[dict]) -> tuple[list[dict], dict]:
    """Return the first node of each id, and the position of each id."""
    kept = {}
    for node in nodes:
        kept.setdefault(node["id"], node)
    return list(kept.values()), {identity: number for number, identity in enumerate(kept)}


def _facts(edges: list[dict], position: dict) -> dict[tuple[int, int], str | None]:
    """Return the relation of each pair of nodes by its first edge; the reverse of an edge adds nothing."""
    relation = {}
    for edge in edges:
        a = position.get(edge.get("source"))
        b = position.get(edge.get("target"))
        if a is not None and b is not None and a != b and (b, a) not in relation:
            relation.setdefault((a, b), edge.get("relation"))
    return relation


def _own_position(nodes: list[dict], key: str, metadata: object) -> int:
    """Return the position of the node that is the code itself, -1 for none."""
    marked = [number for number, node in enumerate(nodes) if node.get("self") is True]
    if not marked and isinstance(metadata, dict) and metadata.get("self_node") is not None:
        marked = [number for number, node in enumerate(nodes) if node["id"] == metadata["self_node"]]
    if len(marked) > 1:
        raise ValueError(f'the graph of {key} marks {len(marked)} nodes with "self": true; mark only one')
    wanted = {_compact(key), _compact(key.partition("/")[2])}
    ids = [_compact(node["id"]) if isinstance(node["id"], str) else None for node in nodes]
    return next(iter(marked), next((number for number, name in enumerate(ids) if name in wanted), -1))


def _compact(code: str) -> str:
    return code.strip().upper().replace(".", "")


def _hops(nodes: list[dict], relation: dict, own: int) -> list[int]:
    """Return the given hops if every node has one, else the distances from the code itself or its anchors."""
    neighbors = [[] for _ in nodes]
    for a, b in relation:
        neighbors[a].append(b)
        neighbors[b].append(a)
    given = [_hop(node) for node in nodes]
    anchors = [own] if own >= 0 else [p for p, node in enumerate(nodes) if node.get("anchor") is True or given[p] == 0]
    anchors = anchors or [max(range(len(nodes)), key=lambda p: len(neighbors[p]))]
    known = [0 if node in anchors else hop for node, hop in enumerate(given) if node in anchors or hop is not None]
    if len(known) == len(nodes):
        return known
    hops = {node: 0 for node in anchors}
    queue = deque(anchors)
    while queue:
        node = queue.popleft()
        for neighbor in neighbors[node]:
            if neighbor not in hops:
                hops[neighbor] = hops[node] + 1
                queue.append(neighbor)
    return [hops.get(node, MAX_HOP + 1) for node in range(len(nodes))]


def _hop(node: dict) -> int | None:
    hop = node.get("hop")
    return hop if isinstance(hop, int) and not isinstance(hop, bool) and hop >= 0 else None


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _spelling(name: object) -> str:
    return _text(name).lower().replace(" ", "_")


def _numbers(names: list[str]) -> dict[str, int]:
    return {_spelling(name): number for number, name in enumerate(names)}


def pad_rows(rows: Sequence[Sequence[int]], multiple_of: int = 1, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Pad rows of numbers with zeros to one length, 1 to `most`; return `[rows, length]` int64 and the bool mask."""
    longest = max([1, *(len(row) for row in rows)])
    longest = min(-(-longest // multiple_of) * multiple_of, most or sys.maxsize)
    padded = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[number, : len(row)] = True
    return padded, mask
