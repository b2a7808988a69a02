"""Implement the training objective of MedTok in PyTorch, with the modules of the converter and the same batches.

The objective is complete, with two views, so that a comparison of speed compares the same work. It covers the default
configuration and that of the paper: `pursuit` and `top_k` on unit vectors, with a frozen text encoder.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor, nn

from medtok_jax.batch import TIER, Batch, Tables
from medtok_jax.convert.pytorch.modeling_medtok import Edges, MedTok, l2_normalize, with_mean_row
from medtok_jax.models.augmentation import LONGEST_WAY
from medtok_jax.regions import EMBEDDINGS, SHARED

CROSS = ("text_cross", "graph_cross")


class Arrays(NamedTuple):
    """Hold a padded batch for one device, with the nodes and edges of all graphs concatenated."""

    text: Tensor  # [B, L, hidden], or [B, L] wordpieces where the text encoder runs in the step
    text_mask: Tensor  # [B, L]
    names: Tensor  # [n, hidden] vectors of node names
    node_type: Tensor  # [n]
    node_kind: Tensor  # [n]
    node_id: Tensor  # [n]
    places: Tensor  # [B, V] node of each place of a graph
    node_mask: Tensor  # [B, V]
    hop: Tensor  # [n]
    edges: Edges  # [e]
    fact: Tensor  # [e] number of the fact, which both directions of an edge share
    excluded: Tensor  # [B, B] pairs that are no negatives
    partners: Tensor  # [B, B] further positives
    small: tuple[int, int] | None  # see `Batch.small`

    @property
    def node_name(self) -> slice:
        """Return the rows of `names` for all nodes, which are all rows in order."""
        return slice(None)


def to_arrays(batch: Batch, tables: Tables, max_nodes: int, device: torch.device, dtype=torch.float32) -> Arrays:
    """Convert a host batch for one device to PyTorch; text states get `dtype`, wordpieces stay integers."""

    def put(x: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x)).to(device)

    graph = batch.graph
    nodes = {name: graph.nodes[name][0].astype(np.int64) for name in graph.nodes}
    n_node, n_edge = graph.n_node[0][:-1].astype(np.int64), int(graph.n_edge[0][:-1].sum())
    starts = np.cumsum(n_node) - n_node
    places = np.minimum(starts[:, None] + np.arange(max_nodes), len(nodes["hop"]) - 1)
    number = np.arange(len(graph.senders[0]))
    ids = [graph.senders[0], graph.receivers[0], graph.edges[0]]
    same = (batch.text_id[:, None] == batch.text_id) | (batch.graph_id[:, None] == batch.graph_id)
    text = batch.text if batch.text.ndim == 2 else batch.text.astype(np.float32)
    return Arrays(
        text=put(text.astype(np.int64)) if text.ndim == 2 else put(text).to(dtype),
        text_mask=put(batch.text_mask),
        names=put(tables.name_embedding[tables.node_name[nodes["node_id"]]].astype(np.float32)).to(dtype),
        node_type=put(np.asarray(tables.node_type)[nodes["node_id"]].astype(np.int64)),
        node_kind=put(nodes["kind"]),
        node_id=put(nodes["node_id"]),
        places=put(places),
        node_mask=put(np.arange(max_nodes) < n_node[:, None]),
        hop=put(nodes["hop"]),
        edges=Edges(*(put(x.astype(np.int64)) for x in ids), put(number < n_edge)),
        # The two directions of a fact are edges 2i and 2i + 1.
        fact=put(number // 2),
        excluded=put(same),
        partners=put(batch.partner[:, None] == np.arange(len(batch.partner))),
        small=batch.small,
    )


class Levels(NamedTuple):
    """Hold the part of a batch that the readout uses."""

    node_hop: Tensor
    node_mask: Tensor


class Keep(NamedTuple):
    """Hold the masks of an augmented view: tokens `[B, L]`, features `[B, hidden]` (scaled), edges `[e]`, nodes `[n]`.

    `hops` `[n]` are the nodes' distances from the anchors over what is kept.
    """

    tokens: Tensor
    features: Tensor
    edges: Tensor
    nodes: Tensor
    hops: Tensor


def augmentation(arrays: Arrays, augment: ConfigDict, hidden: int) -> Keep:
    """Draw the masks of an augmented view, see `medtok_jax.models.augmentation`."""
    device = arrays.text_mask.device
    tokens = torch.rand(arrays.text_mask.shape, device=device) >= augment.token_dropout
    tokens[:, 0] = True
    features = torch.rand(len(arrays.text), hidden, device=device) >= augment.feature_dropout
    facts = torch.rand(len(arrays.fact), device=device)[arrays.fact] >= augment.fact_dropout
    nodes = torch.rand(len(arrays.hop), device=device) >= augment.node_dropout
    return Keep(tokens, features / (1.0 - augment.feature_dropout), *_reached(arrays, facts, nodes))


def _reached(arrays: Arrays, facts: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return edges and nodes that kept facts join to an anchor through kept nodes, and the hops over them."""
    senders, receivers = arrays.edges.senders, arrays.edges.receivers
    anchors = arrays.hop == 0
    nodes = nodes | anchors
    edges = facts & nodes[senders] & nodes[receivers] & arrays.edges.mask
    hops = torch.where(anchors, 0, LONGEST_WAY + 1)
    for distance in range(LONGEST_WAY):
        reached = torch.zeros_like(hops).index_add(0, receivers, (edges & (hops[senders] == distance)).long()) > 0
        hops = torch.where(reached, hops.clamp(max=distance + 1), hops)
    nodes = hops <= LONGEST_WAY
    return edges & nodes[senders] & nodes[receivers], nodes, hops


class Objective(nn.Module):
    """Compute the training loss of a batch.

    Args:
        model: PyTorch model of the converter.
        config: configuration of the run.
        tiers: whether text and cross-attention use the small shape of a batch where it has one, as in Flax.
    """

    def __init__(self, model: MedTok, config: ConfigDict, *, tiers: bool):
        super().__init__()
        self.model, self.config, self.tiers = model, config, tiers

    def forward(self, arrays: Arrays) -> Tensor:
        """Return the training loss, a scalar."""
        text = self.model.text_states(arrays) if arrays.text.ndim == 2 else arrays.text
        arrays = arrays._replace(text=text)
        codebook = self.model.quantizer.codebook()
        features = self.model.node_features(arrays, arrays.names)
        embeddings = self._encode(arrays, features, None)
        view = self._quantize(embeddings, codebook)
        keep = augmentation(arrays, self.config.augment, text.shape[-1])
        augmented = self._encode(arrays, features, keep)
        loss = self.config.loss
        if loss.contrasted == "quantized":
            other_view = self._quantize(augmented, codebook)
            clean, other = ({name: q.output for name, q in part.items()} for part in (view, other_view))
        else:
            clean, other = embeddings, augmented
        joined = [torch.cat([self._parts(part)[name] for name in view], -1) for part in (clean, other)]
        distances = [
            view[name].distances if name in view else self._distances(embeddings[name], codebook) for name in CROSS
        ]
        teacher = mean_states(text, arrays.text_mask)
        return total_loss(Views(embeddings, view, distances, clean, other, joined), teacher, arrays, loss)

    def _parts(self, embeddings: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the embeddings with the one that both modalities share."""
        return embeddings | {SHARED: l2_normalize(embeddings["text_cross"] + embeddings["graph_cross"])}

    def _distances(self, embedding: Tensor, codebook: Tensor) -> Tensor:
        start, stop = self.model.quantizer.parts[-1]["rows"]
        return euclidean(2.0 - 2.0 * embedding @ codebook[start:stop].T)

    def _encode(self, arrays: Arrays, features: Tensor, keep: Keep | None) -> dict[str, Tensor]:
        """Return the four embeddings `[B, d]` of unit length, as `MedTok.forward` does, for concatenated nodes."""
        model, edges, text_mask = self.model, arrays.edges, arrays.text_mask
        node_mask, hops, scale = arrays.node_mask, arrays.hop, None
        if keep is not None:
            edges, text_mask = edges._replace(mask=edges.mask & keep.edges), text_mask & keep.tokens
            node_mask, hops = node_mask & keep.nodes[arrays.places], keep.hops
            scale = keep.features.to(arrays.text.dtype)
        encoder = model.graph_encoder
        states = encoder.body(features, with_mean_row(encoder.relations.weight), edges)
        nodes = states[arrays.places].masked_fill(~node_mask[..., None], 0.0)
        pooled_graph = encoder.readout(nodes, Levels(hops[arrays.places], node_mask))
        joined = self._join(arrays, text_mask, scale, nodes, node_mask)
        heads = (model.text_head, model.graph_head, model.text_cross_head, model.graph_cross_head)
        pooled = (joined[0], pooled_graph, *joined[1:])
        return {name: l2_normalize(head(x)) for name, head, x in zip(EMBEDDINGS, heads, pooled, strict=True)}

    def _join(
        self, arrays: Arrays, text_mask: Tensor, scale: Tensor | None, nodes: Tensor, node_mask: Tensor
    ) -> list[Tensor]:
        parts = (arrays.text, text_mask, scale, nodes, node_mask)
        if arrays.small is None or not self.tiers:
            return self._join_modalities(*parts)
        tokens, places = arrays.small
        small, large = zip(*(_split(part) for part in parts), strict=True)
        text, mask, scale, nodes, node_mask = small
        cut = (text[:, :tokens], mask[:, :tokens], scale, nodes[:, :places], node_mask[:, :places])
        sides = zip(self._join_modalities(*cut), self._join_modalities(*large), strict=True)
        return [_joined(*side) for side in sides]

    def _join_modalities(self, text, mask, scale, nodes, node_mask) -> list[Tensor]:
        pooled, no_text = self.model.text_encoder.pool(text, mask), self.model.text_encoder.no_text
        if scale is not None:
            pooled, text = pooled * scale, text * scale[:, None]
        return [pooled, *self.model.cross_attention(text, mask, nodes, node_mask, no_text)]

    def _quantize(self, embeddings: dict[str, Tensor], codebook: Tensor) -> dict[str, "QuantizedTensors"]:
        quantizer, given = self.model.quantizer, self._parts(embeddings)
        return {
            part["embedding"]: quantize(given[part["embedding"]], codebook[slice(*part["rows"])], quantizer, part)
            for part in quantizer.parts
        }


class QuantizedTensors(NamedTuple):
    """Hold an embedding with the result of its quantization, see `medtok_jax.models.outputs.Quantized`."""

    embedding: Tensor
    vector: Tensor
    output: Tensor
    distances: Tensor


class Views(NamedTuple):
    """Hold both views: embeddings, their quantization, distances of the cross-modal ones, and what is contrasted."""

    embeddings: dict[str, Tensor]
    quantized: dict[str, QuantizedTensors]
    distances: list[Tensor]
    clean: dict[str, Tensor]
    other: dict[str, Tensor]
    joined: list[Tensor]


def quantize(embedding: Tensor, rows: Tensor, quantizer, part: dict) -> QuantizedTensors:
    """Quantize unit vectors; for `top_k`, distances and search share one matmul."""
    similarity = embedding @ rows.T
    distances = euclidean(2.0 - 2.0 * similarity)
    if quantizer.kind == "pursuit":
        _, _, vector = quantizer.pursuit(embedding, rows, part)
    else:
        best, ids = similarity.detach().topk(part["num_tokens"])
        weights = (-euclidean(2.0 - 2.0 * best) / quantizer.temperature).softmax(-1)
        vector = torch.einsum("bk,bkd->bd", weights, rows[ids])
    return QuantizedTensors(embedding, vector, embedding + (vector - embedding).detach(), distances)


def euclidean(squared: Tensor) -> Tensor:
    """Return distances from their squares, with a finite gradient at zero."""
    return (squared.clamp(min=0.0) + 1e-12).sqrt()


def mean_states(text: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the text states `[B, hidden]`, 0 where there is no text."""
    weights = mask / mask.sum(1, keepdim=True).clamp(min=1)
    return torch.einsum("bl,blh->bh", weights.to(text.dtype), text).detach()


def total_loss(views: Views, teacher: Tensor, arrays: Arrays, loss: ConfigDict) -> Tensor:
    """Return the objective of `training.losses.loss_terms`, all codes valid."""

    def squared(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().sum(-1).mean()

    quantization = sum(
        loss.commitment_weight * squared(q.vector.detach(), q.embedding)
        + loss.alpha * squared(q.vector, q.embedding.detach())
        for q in views.quantized.values()
    )
    logs = [(-distances / loss.kl_temperature).log_softmax(-1) for distances in views.distances]
    kl = (logs[0].exp() * (logs[0] - logs[1])).sum(-1).mean()
    partners = arrays.partners if len(loss.positive_relations) else None

    def contrast(a: Tensor, b: Tensor, counted: Tensor | None = None) -> Tensor:
        if counted is None:
            return info_nce(a, b, arrays.excluded, partners, loss.infonce_temperature)
        excluded = arrays.excluded[counted][:, counted]
        joined = None if partners is None else partners[counted][:, counted]
        return info_nce(a[counted], b[counted], excluded, joined, loss.infonce_temperature)

    total = loss.quantization_weight * quantization + loss.kl_weight * kl
    total = total + loss.packing_weight * _packing(views, contrast, loss)
    width = views.joined[0].shape[1] // len(views.quantized)
    # All that is quantized, the last of it by itself, which is the one shared embedding, and the first, the text's.
    alone = {"shared_": slice(-width, None), "text_": slice(0, width)}
    wholes = {"": views.joined} | {name: [x[:, part] for x in views.joined] for name, part in alone.items()}
    for name, whole in wholes.items():
        if loss[f"{name}joint_weight"]:
            # What stands for a concealed text is like no other text.
            counted = arrays.text_mask.any(1) if name == "text_" else None
            total = total + loss[f"{name}joint_weight"] * contrast(*whole, counted)
        if loss[f"{name}distillation_weight"]:
            distilled = distillation(whole[0], teacher, loss.distillation_temperature)
            total = total + loss[f"{name}distillation_weight"] * distilled
    return total


def _packing(views: Views, contrast: Callable, loss: ConfigDict) -> Tensor:
    text, graph, text_shared, graph_shared = (views.clean[name] for name in EMBEDDINGS)
    other_text, other_graph, other_text_shared, other_graph_shared = (views.other[name] for name in EMBEDDINGS)
    embedded = views.embeddings
    agreement = (l2_normalize(embedded["text_cross"]) * l2_normalize(embedded["graph_cross"])).sum(-1).mean()
    specific = sum(
        contrast(torch.cat([q, shared.detach()], -1), torch.cat([a, shared_a.detach()], -1))
        for q, shared, a, shared_a in (
            (text, graph_shared, other_text, other_graph_shared),
            (graph, text_shared, other_graph, other_text_shared),
        )
    )
    orthogonality = sum(
        (q.T @ embedded[name] / len(q)).square().sum() for q, name in ((text, "text_cross"), (graph, "graph_cross"))
    )
    shared = contrast(text_shared, graph_shared) + contrast(graph_shared, text_shared)
    packing = loss.shared_weight * shared - 2.0 * loss.beta * agreement
    return packing + loss.specific_weight * specific + loss.lambda_val * orthogonality


def info_nce(anchors: Tensor, candidates: Tensor, excluded: Tensor, partners: Tensor | None, temperature: float):
    """Return InfoNCE over cosines; row i of the candidates is a positive of anchor i, and so are its partners."""
    logits = l2_normalize(anchors) @ l2_normalize(candidates).T / temperature
    positive = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    positive = positive if partners is None else positive | partners
    logs = logits - logits.masked_fill(excluded & ~positive, -torch.inf).logsumexp(-1, keepdim=True)
    return -(torch.where(positive, logs, 0.0).sum(-1) / positive.sum(-1)).mean()


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the relative entropy of the similarities to other codes by the teacher and by the student."""
    known = (teacher != 0).any(-1)
    others = known[None, :] & ~torch.eye(len(known), dtype=torch.bool, device=known.device)

    def log_share(vectors: Tensor) -> Tensor:
        unit = l2_normalize(vectors)
        return (unit @ unit.T / temperature).masked_fill(~others, -1e9).log_softmax(-1)

    wanted = log_share(teacher)
    entropy = (wanted.exp() * (wanted - log_share(student))).sum(-1)
    return torch.where(known, entropy, 0.0).sum() / known.sum().clamp(min=1)


def _split(x: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    if x is None:
        return None, None
    groups = x.unflatten(0, (-1, TIER))
    return groups[:, :-1].flatten(0, 1), groups[:, -1]


def _joined(small: Tensor, large: Tensor) -> Tensor:
    return torch.cat([small.unflatten(0, (-1, TIER - 1)), large[:, None]], 1).flatten(0, 1)
