# SPDX-License-Identifier: Apache-2.0
"""MedTok in PyTorch: four quantized embeddings of a medical code from its description and its subgraph.

Su et al., "Multimodal Medical Code Tokenizer", ICML 2025 (arXiv 2502.04397). This file stands alone beside what it
reads: `config.json`, `model.safetensors`, `tokenizer.json` and `text_encoder/` (a Hugging Face BERT). It needs torch,
transformers and safetensors, nothing else.

    from modeling_medtok import MedTok

    model = MedTok.from_pretrained(".")
    batch = model.collate([{"system": "ICD10CM", "code": "E11.9", "description": "Type 2 diabetes", "graph": {...}}])
    model(batch).token_ids  # [codes, 4, K]

Parameter names are those of the Flax model, so that weights go back and forth bit for bit.
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
CONFIG, WEIGHTS, TOKENIZER, ENCODER = "config.json", "model.safetensors", "tokenizer.json", "text_encoder"
EMBEDDINGS = ("text_specific", "graph_specific", "text_cross", "graph_cross")
# Kinds of nodes: any; the one that is the code itself, whose name is not read; the one that stands for a missing graph.
ORDINARY, SELF, MISSING = 0, 1, 2
MAX_HOP = 2
LAYER_NORM_EPSILON = 1e-6
# Where the weights of the text encoder of descriptions lie; they are saved only where it was trained.
BERT = "text_encoder.bert."


class Batch(NamedTuple):
    """Codes as the model reads them; `MedTok.collate` makes one. Integers are int64, masks bool and False at padding.

    `text` may be token states `[B, L, hidden]` and `names` mean-pooled vectors `[N, hidden]` that were computed before.
    """

    text: Tensor  # [B, L] wordpieces of the descriptions
    text_mask: Tensor  # [B, L]
    names: Tensor  # [N, M] wordpieces of the distinct node names of the batch
    names_mask: Tensor  # [N, M]
    node_name: Tensor  # [B, V] row of `names`
    node_type: Tensor  # [B, V] row of `config["node_types"]`, or their number for another one
    node_kind: Tensor  # [B, V] ORDINARY, SELF or MISSING
    node_hop: Tensor  # [B, V] distance from the nodes that the code stands at, 0 to 2
    node_id: Tensor  # [B, V] node of the knowledge graph, -1 for none; read by models with embeddings of node ids
    node_mask: Tensor  # [B, V]
    senders: Tensor  # [B, E] place of a node in its graph; both directions of an edge are listed
    receivers: Tensor  # [B, E]
    relations: Tensor  # [B, E] row of `config["relation_names"]`, or their number for another one
    edge_mask: Tensor  # [B, E]

    def to(self, *args, **kwargs) -> "Batch":
        """The batch on another device, as `Tensor.to`."""
        return Batch(*(tensor.to(*args, **kwargs) for tensor in self))


class Output(NamedTuple):
    """The four embeddings of each code, in the order of `EMBEDDINGS`, and their quantization; float32."""

    token_ids: Tensor  # [B, 4, K] int64 rows of the codebook, nearest (or coarsest) first
    weights: Tensor  # [B, 4, K] share of each row; no gradient
    embeddings: Tensor  # [B, 4, d] before quantization
    vectors: Tensor  # [B, 4, d] quantized; gradient to the codebook only
    quantized: Tensor  # [B, 4, d] the same values; gradient to the encoders only (straight-through)


class Linear(nn.Linear):
    """A linear map that takes inputs of any floating dtype."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class LayerNorm(nn.LayerNorm):
    """LayerNorm with statistics in float32."""

    def __init__(self, width: int):
        super().__init__(width, eps=LAYER_NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        normed = F.layer_norm(x.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps)
        return normed.to(self.weight.dtype)


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis in float32, over the True entries of `mask`; zeros where there is none."""
    weights = logits.float().masked_fill(~mask, -1e30).softmax(-1)
    return weights.masked_fill(~mask, 0.0)


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over the True positions: [B, L, width], [B, L] -> [B, width], float32."""
    weights = mask / mask.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("bl,blh->bh", weights.float(), states.float())


class AttentionPooling(nn.Module):
    """Learned attention over real positions: Linear(hidden, 128) -> tanh -> Linear(128, 1) -> masked softmax."""

    def __init__(self, hidden: int):
        super().__init__()
        self.inner, self.score = Linear(hidden, 128), Linear(128, 1, bias=False)

    def forward(self, states: Tensor, mask: Tensor, score_bias: Tensor | float = 0.0) -> Tensor:
        """[B, L, hidden], [B, L] -> [B, hidden]."""
        scores = self.score(torch.tanh(self.inner(states)))[..., 0].float() + score_bias
        return torch.einsum("bl,blh->bh", masked_softmax(scores, mask).to(states.dtype), states)


class TextEncoder(nn.Module):
    """Token states of a description and their pooled vector."""

    def __init__(self, bert: BertModel, pooling: str):
        super().__init__()
        self.bert = bert
        self.pooling = AttentionPooling(bert.config.hidden_size) if pooling == "weighted_pooling" else None

    def pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """[B, L, hidden], [B, L] -> [B, hidden]."""
        if self.pooling is not None:
            return self.pooling(states, mask)
        return states[:, 0].masked_fill(~mask[:, :1], 0.0)


class NodeFeatures(nn.Module):
    """What is known of a node: its type, the text of its name and, in some models, its identity."""

    def __init__(self, config: dict):
        super().__init__()
        model, sizes, width = config["model"], config["sizes"], config["model"]["graph_width"]
        self.types = nn.Embedding(sizes["num_node_types"], width)
        self.name = Linear(sizes["text_width"], width) if model["node_name_features"] else None
        self.ids = nn.Embedding(sizes["num_nodes"], width) if model["node_id_features"] else None
        self.self_vector, self.missing_vector = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))

    def forward(self, batch: Batch, names: Tensor) -> Tensor:
        """Features [B, V, width] from the vectors of the distinct names [N, hidden]."""
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
    """A table with one more row, the mean of all, for names that the model never saw."""
    return torch.cat([table, table.mean(0, keepdim=True)])


class Edges(NamedTuple):
    """Edges of all graphs of a batch between their nodes end to end, [E] each."""

    senders: Tensor
    receivers: Tensor
    relations: Tensor
    mask: Tensor

    @classmethod
    def of(cls, batch: Batch) -> "Edges":
        size, places = batch.node_mask.shape
        first = torch.arange(size, device=batch.node_mask.device)[:, None] * places
        parts = (batch.senders + first, batch.receivers + first, batch.relations, batch.edge_mask)
        return cls(*(part.flatten() for part in parts))


def sum_at(values: Tensor, places: Tensor, size: int) -> Tensor:
    """Sums rows of `values` by their place: [E, ...] -> [size, ...], float32."""
    return values.new_zeros((size, *values.shape[1:])).index_add(0, places, values)


class GCNLayer(nn.Module):
    """Graph convolution (Kipf & Welling, 2017) whose messages carry their relation."""

    def __init__(self, width: int):
        super().__init__()
        self.linear, self.relation = Linear(width, width, bias=False), Linear(width, width, bias=False)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, nodes: Tensor, relation_table: Tensor, edges: Edges) -> Tensor:
        """[n, width] -> [n, width]."""
        size, present = len(nodes), edges.mask.float()
        degree = 1.0 + sum_at(present, edges.receivers, size)
        weight = present * degree[edges.senders].rsqrt() * degree[edges.receivers].rsqrt()
        values, relation = self.linear(nodes).float(), self.relation(relation_table).float()
        messages = values[edges.senders] + relation[edges.relations]
        mixed = sum_at(weight[:, None] * messages, edges.receivers, size)
        return (mixed + values / degree[:, None] + self.bias).to(nodes.dtype)


class GATLayer(nn.Module):
    """Graph attention (Velickovic et al., 2018) with a term for the relation of the edge."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.linear, self.relation = Linear(width, width, bias=False), Linear(width, num_heads, bias=False)
        self.source = nn.Parameter(torch.zeros(num_heads, width // num_heads))
        self.target = nn.Parameter(torch.zeros(num_heads, width // num_heads))
        self.loop, self.bias = nn.Parameter(torch.zeros(num_heads)), nn.Parameter(torch.zeros(width))

    def forward(self, nodes: Tensor, relation_table: Tensor, edges: Edges) -> Tensor:
        """[n, width] -> [n, width]."""
        values = self.linear(nodes).float().unflatten(-1, (self.num_heads, -1))
        source, target = (values * self.source.float()).sum(-1), (values * self.target.float()).sum(-1)
        relation = self.relation(relation_table).float()
        logits = F.leaky_relu(source[edges.senders] + target[edges.receivers] + relation[edges.relations], 0.2)
        loops = F.leaky_relu(source + target + self.loop.float(), 0.2)
        weight, loop_weight = softmax_with_loops(logits.masked_fill(~edges.mask[:, None], -1e30), loops, edges)
        mixed = sum_at(weight[..., None] * values[edges.senders], edges.receivers, len(nodes))
        mixed = (mixed + loop_weight[..., None] * values).flatten(1)
        return (mixed + self.bias).to(nodes.dtype)


def softmax_with_loops(logits: Tensor, loops: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
    """Softmax over each node's in-edges [E, heads] and its self-loop [n, heads]."""
    places = edges.receivers[:, None].expand_as(logits)
    highest = loops.detach().scatter_reduce(0, places, logits.detach(), "amax")
    weight, loop_weight = (logits - highest[edges.receivers]).exp(), (loops - highest).exp()
    total = sum_at(weight, edges.receivers, len(loops)) + loop_weight
    return weight / total[edges.receivers], loop_weight / total


class ResidualMlp(nn.Module):
    """LayerNorm(x + Linear(relu(Linear(x))))."""

    def __init__(self, width: int):
        super().__init__()
        self.inner, self.outer, self.norm = Linear(width, width), Linear(width, width), LayerNorm(width)

    def forward(self, states: Tensor) -> Tensor:
        return self.norm(states + self.outer(self.inner(states).relu()))


class Stack(nn.Module):
    """Residual layers of one kind: graph attention if `num_heads`, else graph convolution."""

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
    """Node MLP, then one graph attention layer (local) beside two graph convolutions (global), summed."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.mlp, self.local, self.wide = ResidualMlp(width), Stack(width, 1, num_heads), Stack(width, 2, 0)

    def forward(self, nodes: Tensor, relation_table: Tensor, edges: Edges) -> Tensor:
        nodes = self.mlp(nodes)
        return self.local(nodes, relation_table, edges) + self.wide(nodes, relation_table, edges)


class MultiScaleReadout(nn.Module):
    """Means over anchors, 1-hop, 2-hop and all nodes of a graph, combined by learned attention over these levels."""

    def __init__(self, width: int):
        super().__init__()
        self.attention, self.level_bias = AttentionPooling(width), nn.Parameter(torch.zeros(4))

    def forward(self, states: Tensor, batch: Batch) -> Tensor:
        """[B, V, width] -> [B, width]."""
        hops = torch.arange(MAX_HOP + 1, device=states.device)
        level = torch.cat([batch.node_hop[..., None] == hops, torch.ones_like(batch.node_mask)[..., None]], -1)
        level = level & batch.node_mask[..., None]
        count = level.sum(1)
        means = torch.einsum("bvl,bvw->blw", level.float(), states.float()) / count.clamp(min=1)[..., None]
        return self.attention(means.to(states.dtype), count > 0, self.level_bias.float())


class GraphEncoder(nn.Module):
    """Node states of a subgraph and their pooled vector: `default` (GCN), `gat` or `hierarchical`."""

    def __init__(self, config: dict):
        super().__init__()
        model, width = config["model"], config["model"]["graph_width"]
        self.relations = nn.Embedding(config["sizes"]["num_relations"], width)
        if model["graph_encoder_type"] == "hierarchical":
            self.body, self.readout = LocalGlobal(width, model["graph_heads"]), MultiScaleReadout(width)
        else:
            heads = model["graph_heads"] if model["graph_encoder_type"] == "gat" else 0
            self.body, self.readout = Stack(width, model["graph_layers"], heads), None

    def forward(self, nodes: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """[B, V, width] -> states [B, V, width], zero at padding, and pooled [B, width]."""
        states = self.body(nodes.flatten(0, 1), with_mean_row(self.relations.weight), Edges.of(batch))
        states = states.view_as(nodes).masked_fill(~batch.node_mask[..., None], 0.0)
        return states, masked_mean(states, batch.node_mask) if self.readout is None else self.readout(states, batch)


class CrossAttentionLayer(nn.Module):
    """Queries read a fixed context; residual and LayerNorm."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key_value = Linear(width, width), Linear(width, 2 * width)
        self.out, self.norm = Linear(width, width), LayerNorm(width)

    def forward(self, states: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """[B, queries, width], [B, keys, width], [B, keys] -> [B, queries, width]."""
        query = self.query(states).unflatten(-1, (self.num_heads, -1))
        key, value = self.key_value(context).unflatten(-1, (2, self.num_heads, -1)).unbind(2)
        logits = torch.einsum("bqhd,bkhd->bhqk", query, key).float() * query.shape[-1] ** -0.5
        weights = masked_softmax(logits, context_mask[:, None, None].expand_as(logits))
        mixed = torch.einsum("bhqk,bkhd->bqhd", weights.to(value.dtype), value).flatten(2)
        return self.norm(states + self.out(mixed))


class CrossAttention(nn.Module):
    """Text reads graph and graph reads text, each side the other's own projection (paper eq. 1-2)."""

    def __init__(self, config: dict):
        super().__init__()
        model, width = config["model"], config["model"]["cross_width"]
        self.text_in = Linear(config["sizes"]["text_width"], width)
        self.node_in = Linear(model["graph_width"], width)

        def stack() -> nn.ModuleList:
            return nn.ModuleList(CrossAttentionLayer(width, model["cross_heads"]) for _ in range(model["cross_layers"]))

        self.text_to_graph, self.graph_to_text = stack(), stack()
        self.text_pooling = AttentionPooling(width)

    def forward(self, text: Tensor, text_mask: Tensor, nodes: Tensor, node_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Token states [B, L, hidden] and node states [B, V, graph width] -> both sides [B, width]."""
        tokens, nodes = self.text_in(text), self.node_in(nodes)
        text_side, graph_side = tokens, nodes
        for layer in self.text_to_graph:
            text_side = layer(text_side, nodes, node_mask)
        for layer in self.graph_to_text:
            graph_side = layer(graph_side, tokens, text_mask)
        return self.text_pooling(text_side, text_mask), masked_mean(graph_side, node_mask)


def l2_normalize(x: Tensor) -> Tensor:
    """Unit vectors along the last axis, in float32."""
    x = x.float()
    return x * (x.square().sum(-1, keepdim=True) + 1e-12).rsqrt()


def pairwise_distance(x: Tensor, rows: Tensor) -> Tensor:
    """Euclidean distance of [B, d] to [rows, d]: [B, rows]."""
    squared = x.square().sum(-1)[:, None] + rows.square().sum(-1) - 2.0 * x @ rows.T
    return (squared.clamp(min=0.0) + 1e-12).sqrt()


def straight_through(embedding: Tensor, vector: Tensor) -> Tensor:
    """`vector` forward, the gradient of `embedding` unchanged backward."""
    return embedding + (vector - embedding).detach()


def rotation_trick(embedding: Tensor, vector: Tensor) -> Tensor:
    """`vector` forward; backward through the rotation that carries `embedding` onto it (Fifty et al., 2024)."""
    norm_e = embedding.detach().norm(dim=-1, keepdim=True) + 1e-12
    norm_v = vector.detach().norm(dim=-1, keepdim=True) + 1e-12
    unit_e, unit_v = embedding.detach() / norm_e, vector.detach() / norm_v
    middle = l2_normalize(unit_e + unit_v)
    rotated = embedding - 2.0 * (embedding * middle).sum(-1, keepdim=True) * middle
    rotated = (rotated + 2.0 * (embedding * unit_e).sum(-1, keepdim=True) * unit_v) * (norm_v / norm_e)
    return rotated + (vector - rotated).detach()


def mixing_weights(products: Tensor, rows: Tensor, ridge: float = 1e-2) -> Tensor:
    """Weights [B, k], none negative, of the mixture of rows [B, k, d] closest to what has these products with them."""
    gram = rows @ rows.transpose(1, 2)
    eye = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    positive = torch.linalg.solve(gram + ridge * eye, products).clamp(min=0.0)
    along = (positive * products).sum(-1, keepdim=True)
    squared = torch.einsum("bk,bkl,bl->b", positive, gram, positive)[:, None]
    return positive * along / squared.clamp(min=1e-12)


class Quantizer(nn.Module):
    """One codebook in three regions, K tokens an embedding (paper section 3.2). Float32.

    Its kind is `top_k`, `residual` or `pursuit`.
    """

    def __init__(self, config: dict):
        super().__init__()
        model, size, width = config["model"], config["model"]["codebook_size"], config["model"]["embedding_dim"]
        self.kind, self.num_tokens = model["quantizer_kind"], model["num_top_k_tokens"]
        self.num_nearest = model["num_nearest_tokens"] or -(-self.num_tokens // 2)
        self.normalize, self.temperature = model["normalize"], model["weight_temperature"]
        self.estimate = rotation_trick if model["gradient_estimator"] == "rotation" else straight_through
        self.searched = [config["searched"][name] for name in EMBEDDINGS]
        # Rows that training moved by other means than a gradient are a buffer, as they are fixed variables in Flax.
        if model["simvq"] or model["ema_decay"]:
            self.register_buffer("rows", torch.zeros(size, width))
        else:
            self.rows = nn.Parameter(torch.zeros(size, width))
        self.projection = nn.Parameter(torch.eye(width)) if model["simvq"] else None
        if model["ema_decay"]:
            self.register_buffer("ema_count", torch.ones(size))
            self.register_buffer("ema_sum", torch.zeros(size, width))

    def codebook(self) -> Tensor:
        """All rows as they are searched, [N, d]."""
        rows = self.rows.float() if self.projection is None else self.rows.float() @ self.projection.float()
        unit = self.kind == "pursuit" or (self.normalize and self.kind == "top_k")
        return l2_normalize(rows) if unit else rows

    def forward(self, embeddings: Tensor) -> Output:
        """Quantizes each of the four embeddings [B, 4, d] with the rows that it searches."""
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = l2_normalize(embeddings) if self.normalize else embeddings.float()
            kinds = {"top_k": self._top_k, "residual": self._residual, "pursuit": self.pursuit}
            codebook, search = self.codebook(), kinds[self.kind]
            found = []
            for embedding, (start, stop) in zip(embeddings.unbind(1), self.searched, strict=True):
                ids, weights, vector = search(embedding, codebook[start:stop])
                found.append((ids + start, weights, vector, self.estimate(embedding, vector)))
            ids, weights, vectors, quantized = (torch.stack(parts, 1) for parts in zip(*found, strict=True))
        return Output(ids, weights, embeddings, vectors, quantized)

    def _top_k(self, embedding: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        closeness = embedding @ rows.T if self.normalize else -pairwise_distance(embedding, rows)
        best, ids = closeness.detach().topk(self.num_tokens)
        nearest = ((2.0 - 2.0 * best).clamp(min=0.0) + 1e-12).sqrt() if self.normalize else -best
        weights = (-nearest / self.temperature).softmax(-1)
        return ids, weights, torch.einsum("bk,bkd->bd", weights, rows[ids])

    def _residual(self, embedding: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left, chosen = embedding.detach(), []
        for _ in range(self.num_tokens):
            chosen.append(pairwise_distance(left, rows.detach()).argmin(-1))
            left = left - rows.detach()[chosen[-1]]
        ids = torch.stack(chosen, 1)
        return ids, torch.ones_like(ids, dtype=rows.dtype), rows[ids].sum(1)

    def pursuit(self, embedding: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left, fixed = embedding.detach(), rows.detach()
        first = len(rows) * self.num_nearest // self.num_tokens
        products, ids = (left @ fixed[:first].T).topk(self.num_nearest)
        weights = mixing_weights(products, fixed[ids])
        left = left - torch.einsum("bk,bkd->bd", weights, fixed[ids])
        for _ in range(self.num_tokens - self.num_nearest):
            taken = ids[:, self.num_nearest :] - first
            product, local = (left @ fixed[first:].T).scatter(1, taken, float("-inf")).max(-1, keepdim=True)
            product = product.clamp(min=0.0)
            left = left - product * fixed[first:][local[:, 0]]
            ids, weights = torch.cat([ids, local + first], 1), torch.cat([weights, product], 1)
        return ids, weights, torch.einsum("bk,bkd->bd", weights, rows[ids])


class MedTok(nn.Module):
    """The whole tokenizer.

    Args:
        config: what `config.json` says.
        bert: the text encoder of the descriptions.
        name_encoder: that of node names, which stays as it was pretrained; None where `bert` does too.
    """

    def __init__(self, config: dict, bert: BertModel, name_encoder: BertModel | None = None):
        super().__init__()
        if config.get("model_type") != "medtok" or config.get("format_version") != FORMAT_VERSION:
            raise ValueError(f"this file reads MedTok models of format version {FORMAT_VERSION}, not this config.json")
        model, sizes = config["model"], config["sizes"]
        self.config, self.tokenizer, self.directory = config, None, None
        self.text_encoder = TextEncoder(bert, model["text_encoder_type"])
        self.name_encoder = name_encoder
        self.node_features, self.graph_encoder = NodeFeatures(config), GraphEncoder(config)
        self.cross_attention = CrossAttention(config)
        dim = model["embedding_dim"]
        self.text_head, self.graph_head = Linear(sizes["text_width"], dim), Linear(model["graph_width"], dim)
        self.text_cross_head = Linear(model["cross_width"], dim)
        self.graph_cross_head = Linear(model["cross_width"], dim)
        self.quantizer = Quantizer(config)
        (bert if name_encoder is None else name_encoder).requires_grad_(False)

    def forward(self, batch: Batch) -> Output:
        """Encodes and quantizes a batch of codes."""
        states, names = self.text_states(batch), self.name_vectors(batch)
        nodes, pooled_graph = self.graph_encoder(self.node_features(batch, names), batch)
        text_side, graph_side = self.cross_attention(states, batch.text_mask, nodes, batch.node_mask)
        pooled_text = self.text_encoder.pool(states, batch.text_mask)
        embeddings = [
            self.text_head(pooled_text),
            self.graph_head(pooled_graph),
            self.text_cross_head(text_side),
            self.graph_cross_head(graph_side),
        ]
        return self.quantizer(torch.stack(embeddings, 1))

    def text_states(self, batch: Batch) -> Tensor:
        """Token states of the descriptions, [B, L, hidden]."""
        if batch.text.is_floating_point():
            return batch.text
        states = self.text_encoder.bert(input_ids=batch.text, attention_mask=batch.text_mask.long()).last_hidden_state
        return states if self.config["model"]["text_encoder_trainable"] else self._rounded(states)

    @torch.no_grad()
    def name_vectors(self, batch: Batch) -> Tensor:
        """Mean-pooled token states of the node names, [N, hidden]."""
        if batch.names.is_floating_point():
            return batch.names
        bert = self.text_encoder.bert if self.name_encoder is None else self.name_encoder
        states = bert(input_ids=batch.names, attention_mask=batch.names_mask.long()).last_hidden_state
        return self._rounded(masked_mean(states, batch.names_mask).to(states.dtype))

    def _rounded(self, states: Tensor) -> Tensor:
        """States as the model was trained on them, rounded by its cache."""
        dtype = getattr(torch, self.config["text_state_dtype"])
        return states + (states.to(dtype).to(states.dtype) - states).detach()

    @staticmethod
    def quantization_loss(output: Output, alpha: float = 0.25, commitment_weight: float = 1.0) -> Tensor:
        """Paper eq. 5: commitment and codebook term, summed over the width and the four embeddings, mean over codes."""
        commitment = (output.vectors.detach() - output.embeddings).square().sum((1, 2))
        codebook = (output.vectors - output.embeddings.detach()).square().sum((1, 2))
        return (commitment_weight * commitment + alpha * codebook).mean()

    def collate(self, codes: Sequence[dict], multiple_of: int = 1) -> Batch:
        """A batch of codes, on the device of the model.

        Args:
            codes: each with `code` and `system` (or its key `SYSTEM/code` as `code`) and, where there is one, a
                `description` and a `graph` (see `read_graph`). What is missing is tokenized as it was in training.
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
        texts, names = self._wordpieces(texts, multiple_of), self._wordpieces(names, multiple_of)
        nodes = (node_name, node_type, kind, hop, node_id, node_mask)
        edges = (senders, receivers, relations, columns[-1][1])
        return Batch(*texts, *names, *nodes, *edges).to(self.quantizer.rows.device)

    def _wordpieces(self, texts: list[str], multiple_of: int) -> tuple[Tensor, Tensor]:
        if self.tokenizer is None:
            raise ValueError("the model has no text tokenizer; open it by MedTok.from_pretrained")
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        return pad_rows(rows, multiple_of, most=self.text_encoder.bert.config.max_position_embeddings)

    @torch.inference_mode()
    def encode(self, codes: Sequence[dict], batch_size: int = 64) -> Output:
        """Tokens and embeddings of many codes, given as to `collate`; without gradients."""
        parts = [self(self.collate(codes[start : start + batch_size])) for start in range(0, len(codes), batch_size)]
        return Output(*(torch.cat(fields) for fields in zip(*parts, strict=True)))

    @classmethod
    def from_pretrained(
        cls, directory: str | Path, *, dtype: torch.dtype = torch.float32, train_text_encoder: bool = False
    ) -> "MedTok":
        """Opens a directory, ready to evaluate; call `train()` before fine-tuning.

        Args:
            directory: what the conversion or `save_pretrained` wrote.
            dtype: of the encoders; the quantizer stays float32. `torch.autocast` works too.
            train_text_encoder: whether the text encoder of descriptions is to be fine-tuned along. Names of nodes keep
                the pretrained one.

        Raises:
            ValueError: the files do not belong together.
        """
        directory = Path(directory).expanduser()
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        trained = config["model"]["text_encoder_trainable"]
        config["model"]["text_encoder_trainable"] = trained or train_text_encoder

        two = trained or train_text_encoder
        model = cls(config, _load_bert(directory / ENCODER), _load_bert(directory / ENCODER) if two else None)
        weights = load_file(directory / WEIGHTS)
        expected = model._own_names() if trained else {n for n in model._own_names() if not n.startswith(BERT)}
        if weights.keys() != expected:
            raise ValueError(f"{directory / WEIGHTS} does not hold the weights that {CONFIG} calls for")
        model.load_state_dict(weights, strict=False)
        model.tokenizer, model.directory = Tokenizer.from_file(str(directory / TOKENIZER)), directory
        model.to(dtype).quantizer.float()
        return model.eval()

    def _own_names(self) -> set[str]:
        """Names of the weights that `model.safetensors` holds: all but those of frozen text encoders."""
        trained = self.config["model"]["text_encoder_trainable"]
        return {
            n for n in self.state_dict() if not n.startswith("name_encoder.") and (trained or not n.startswith(BERT))
        }

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes the model, with its text encoder, tokenizer and this file, into a new or empty directory."""
        directory = Path(directory).expanduser()
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise ValueError(f"{directory} is not empty")
        shutil.copytree(self.directory / ENCODER, directory / ENCODER)
        shutil.copyfile(self.directory / TOKENIZER, directory / TOKENIZER)
        shutil.copyfile(__file__, directory / Path(__file__).name)
        own, state = self._own_names(), self.state_dict()
        weights = {name: state[name].float().contiguous().cpu() for name in own}
        (directory / WEIGHTS).write_bytes(save(weights, {"format": "pt"}))
        (directory / CONFIG).write_text(json.dumps(self.config, indent=1) + "\n", encoding="utf-8")


def _load_bert(directory: Path) -> BertModel:
    """A text encoder without pooler, which MedTok does not read, and without dropout, as it was trained."""
    verbosity = logging.get_verbosity()
    # It would list the weights of the pooler as unexpected.
    logging.set_verbosity_error()
    try:
        options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "dtype": torch.float32}
        return BertModel.from_pretrained(directory, add_pooling_layer=False, **options)
    finally:
        logging.set_verbosity(verbosity)


class Graph(NamedTuple):
    """The subgraph of one code: columns of its nodes, then of its edges in both directions."""

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
    """The subgraph that node-link JSON (networkx's `node_link_data`) describes.

    A node has an `id` and should have a `name` and a `type`; it may have a `hop`. `"self": true` marks the node that is
    the code itself, as do `self_node` in the JSON's `graph` and an id that is the code or its key; `"anchor": true` or
    hop 0 mark nodes that the code hangs on; without any, that is the node with most edges. An edge, under `links` or
    `edges`, has `source`, `target` and a `relation`; one direction is enough. Nodes farther than two hops, and the
    farthest beyond `max_nodes`, are left out.

    Args:
        graph: the parsed JSON.
        key: `SYSTEM/code` of the code.
        config: of the model.

    Raises:
        ValueError: it is not node-link JSON, or marks several nodes as the code itself.
    """
    try:
        nodes, place = _distinct(graph["nodes"])
        relation = _facts(graph["links"] if "links" in graph else graph["edges"], place)
        if not nodes:
            return MISSING_GRAPH
        own = _own_place(nodes, key, graph.get("graph"))
        hops = _hops(nodes, relation, own)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the graph of {key} is no node-link JSON ({error!r}); expected is "
            '{"nodes": [{"id": ..., "name": ..., "type": ...}], "links": [{"source", "target", "relation"}]}'
        ) from error
    order = sorted((p for p in range(len(nodes)) if hops[p] <= MAX_HOP), key=lambda p: (hops[p], p != own))
    order = order[: config["sizes"]["max_nodes"]]
    types, relations = _numbers(config["node_types"]), _numbers(config["relation_names"])
    # The last number is for what the model never saw.
    other_type, other_relation = len(config["node_types"]), len(config["relation_names"])
    reverse, now = [*config["reverse"], other_relation], {p: number for number, p in enumerate(order)}
    facts = []
    for (a, b), name in relation.items():
        if a in now and b in now:
            number, low, high = relations.get(_spelling(name), other_relation), now[a], now[b]
            facts.append((low, high, number) if low < high else (high, low, reverse[number]))
    both = [edge for low, high, number in sorted(facts) for edge in ((low, high, number), (high, low, reverse[number]))]
    of_system = config["type_of_system"].get(key.partition("/")[0].upper(), other_type)
    type_of = lambda p: types.get(_spelling(nodes[p].get("type")), other_type)  # noqa: E731
    senders, receivers, numbers = ([edge[column] for edge in both] for column in range(3))
    return Graph(
        names=[_text(nodes[p].get("name")) or str(nodes[p]["id"]) for p in order],
        types=[of_system if p == own and not _text(nodes[p].get("type")) else type_of(p) for p in order],
        kinds=[SELF if p == own else ORDINARY for p in order],
        hops=[hops[p] for p in order],
        node_ids=[nodes[p].get("node_id", -1) for p in order],
        senders=senders,
        receivers=receivers,
        relations=numbers,
    )


def _distinct(nodes: list[dict]) -> tuple[list[dict], dict]:
    """The first node of each id, and the place of each id."""
    kept = {}
    for node in nodes:
        kept.setdefault(node["id"], node)
    return list(kept.values()), {identity: place for place, identity in enumerate(kept)}


def _facts(edges: list[dict], place: dict) -> dict[tuple[int, int], str | None]:
    """Relation of each pair of nodes by its first edge; the reverse of an edge says the same as the edge."""
    relation = {}
    for edge in edges:
        a, b = place.get(edge.get("source")), place.get(edge.get("target"))
        if a is not None and b is not None and a != b and (b, a) not in relation:
            relation.setdefault((a, b), edge.get("relation"))
    return relation


def _own_place(nodes: list[dict], key: str, about: object) -> int:
    """Place of the node that is the code itself, -1 for none."""
    marked = [place for place, node in enumerate(nodes) if node.get("self") is True]
    if not marked and isinstance(about, dict) and about.get("self_node") is not None:
        marked = [place for place, node in enumerate(nodes) if node["id"] == about["self_node"]]
    if len(marked) > 1:
        raise ValueError(f'the graph of {key} marks {len(marked)} nodes with "self": true; mark one')
    compact = lambda text: text.strip().upper().replace(".", "")  # noqa: E731
    wanted = {compact(key), compact(key.partition("/")[2])}
    ids = [compact(node["id"]) if isinstance(node["id"], str) else None for node in nodes]
    return next(iter(marked), next((place for place, name in enumerate(ids) if name in wanted), -1))


def _hops(nodes: list[dict], relation: dict, own: int) -> list[int]:
    """Given hops where every node has one, else distances from where the code stands."""
    neighbors = [[] for _ in nodes]
    for a, b in relation:
        neighbors[a].append(b)
        neighbors[b].append(a)
    given = [_hop(node) for node in nodes]
    anchors = [own] if own >= 0 else [p for p, node in enumerate(nodes) if node.get("anchor") is True or given[p] == 0]
    anchors = anchors or [max(range(len(nodes)), key=lambda p: len(neighbors[p]))]
    given = [0 if place in anchors else hop for place, hop in enumerate(given)]
    if None not in given:
        return given
    hops, queue = {place: 0 for place in anchors}, deque(anchors)
    while queue:
        place = queue.popleft()
        for neighbor in neighbors[place]:
            if neighbor not in hops:
                hops[neighbor] = hops[place] + 1
                queue.append(neighbor)
    return [hops.get(place, MAX_HOP + 1) for place in range(len(nodes))]


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
    """Rows of numbers padded with zeros to 1 to `most` columns, `[rows, columns]` int64, and their mask."""
    longest = max([1, *(len(row) for row in rows)])
    longest = min(-(-longest // multiple_of) * multiple_of, most or sys.maxsize)
    padded = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for place, row in enumerate(rows):
        padded[place, : len(row)], mask[place, : len(row)] = torch.tensor(row, dtype=torch.int64), True
    return padded, mask
