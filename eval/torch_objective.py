"""A training step of MedTok in PyTorch, as `medtok_jax.steps` takes it: the converter's modules on the same arrays.

Two views, the whole objective and AdamW, so that a comparison of speed compares the same work. Only what the default
configuration needs: `top_k` on unit vectors, a frozen text encoder, no partners.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medtok_jax.batch import TIER, Batch, NodeTables
from medtok_jax.convert.modeling_medtok import Edges, MedTok, l2_normalize, with_mean_row
from medtok_jax.regions import EMBEDDINGS


class Arrays(NamedTuple):
    """A batch as `input_pipeline` pads it, for one device: the nodes and edges of all graphs end to end."""

    text: Tensor  # [B, L, hidden], or [B, L] wordpieces where the text encoder runs in the step
    text_mask: Tensor  # [B, L]
    names: Tensor  # [n, hidden] vectors of node names
    node_type: Tensor  # [n]
    node_kind: Tensor  # [n]
    node_id: Tensor  # [n]
    places: Tensor  # [B, V] node of each place of a graph
    node_mask: Tensor  # [B, V]
    node_hop: Tensor  # [B, V]
    edges: Edges  # [e]
    fact: Tensor  # [e] number of the fact, which both directions of an edge share
    excluded: Tensor  # [B, B] pairs that are no negatives
    small: tuple[int, int] | None  # see `Batch.small`

    @property
    def node_name(self) -> slice:
        """All of `names`, which are those of the nodes one by one."""
        return slice(None)


def to_arrays(batch: Batch, tables: NodeTables, max_nodes: int, device: torch.device, dtype=torch.float32) -> Arrays:
    """A host batch of one device in PyTorch. `batch.text` keeps its dtype where it is wordpieces."""
    put = lambda x: torch.from_numpy(np.ascontiguousarray(x)).to(device)  # noqa: E731
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
        node_hop=put(nodes["hop"][places]),
        edges=Edges(*(put(x.astype(np.int64)) for x in ids), put(number < n_edge)),
        # The facts of a graph begin at an even edge.
        fact=put(number // 2),
        excluded=put(same),
        small=batch.small,
    )


class Levels(NamedTuple):
    """What the readout reads of a batch."""

    node_hop: Tensor
    node_mask: Tensor


class Keep(NamedTuple):
    """What an augmented view keeps: tokens [B, L], features [B, hidden] (scaled), edges [e]."""

    tokens: Tensor
    features: Tensor
    edges: Tensor


def augmentation(arrays: Arrays, augment, hidden: int) -> Keep:
    """Draws an augmented view; see `medtok_jax.models.medtok.augmentation`."""
    device = arrays.text_mask.device
    tokens = torch.rand(arrays.text_mask.shape, device=device) >= augment.token_dropout
    tokens[:, 0] = True
    features = torch.rand(len(arrays.text), hidden, device=device) >= augment.feature_dropout
    edges = torch.rand(len(arrays.fact), device=device)[arrays.fact] >= augment.edge_dropout
    return Keep(tokens, features / (1.0 - augment.feature_dropout), edges)


class Objective(nn.Module):
    """The loss of a batch.

    Args:
        model: the converter's module.
        config: of the run.
        tiers: whether text and cross-attention are computed at the small shape where a batch has one, as Flax does.
    """

    def __init__(self, model: MedTok, config, *, tiers: bool):
        super().__init__()
        self.model, self.config, self.tiers = model, config, tiers

    def forward(self, arrays: Arrays) -> Tensor:
        """The training loss, a scalar."""
        text = self.model.text_states(arrays) if arrays.text.ndim == 2 else arrays.text
        arrays = arrays._replace(text=text)
        codebook = self.model.quantizer.codebook()
        features = self.model.node_features(arrays, arrays.names)
        view = self._quantize(self._encode(arrays, features, None), codebook)
        keep = augmentation(arrays, self.config.augment, text.shape[-1])
        augmented = self._quantize(self._encode(arrays, features, keep), codebook)
        return total_loss(view, augmented, arrays.excluded, self.config.loss)

    def _encode(self, arrays: Arrays, features: Tensor, keep: Keep | None) -> list[Tensor]:
        """The four embeddings [B, d], of unit length; as `MedTok.forward`, on nodes that lie end to end."""
        model, edges, text_mask = self.model, arrays.edges, arrays.text_mask
        scale = None
        if keep is not None:
            edges, text_mask = edges._replace(mask=edges.mask & keep.edges), text_mask & keep.tokens
            scale = keep.features.to(arrays.text.dtype)
        encoder = model.graph_encoder
        states = encoder.body(features, with_mean_row(encoder.relations.weight), edges)
        nodes = states[arrays.places].masked_fill(~arrays.node_mask[..., None], 0.0)
        pooled_graph = encoder.readout(nodes, Levels(arrays.node_hop, arrays.node_mask))
        joined = self._join(arrays, text_mask, scale, nodes)
        heads = (model.text_head, model.graph_head, model.text_cross_head, model.graph_cross_head)
        pooled = (joined[0], pooled_graph, *joined[1:])
        return [l2_normalize(head(x)) for head, x in zip(heads, pooled, strict=True)]

    def _join(self, arrays: Arrays, text_mask: Tensor, scale: Tensor | None, nodes: Tensor) -> list[Tensor]:
        parts = (arrays.text, text_mask, scale, nodes, arrays.node_mask)
        if arrays.small is None or not self.tiers:
            return self._join_modalities(*parts)
        tokens, places = arrays.small
        small, large = zip(*(_split(part) for part in parts), strict=True)
        text, mask, scale, nodes, node_mask = small
        cut = (text[:, :tokens], mask[:, :tokens], scale, nodes[:, :places], node_mask[:, :places])
        sides = zip(self._join_modalities(*cut), self._join_modalities(*large), strict=True)
        return [_joined(*side) for side in sides]

    def _join_modalities(self, text, mask, scale, nodes, node_mask) -> list[Tensor]:
        pooled = self.model.text_encoder.pool(text, mask)
        if scale is not None:
            pooled, text = pooled * scale, text * scale[:, None]
        return [pooled, *self.model.cross_attention(text, mask, nodes, node_mask)]

    def _quantize(self, embeddings: list[Tensor], codebook: Tensor) -> list["Quantized"]:
        quantizer = self.model.quantizer
        return [
            quantize(embedding, codebook[start:stop], quantizer.num_tokens, quantizer.temperature)
            for embedding, (start, stop) in zip(embeddings, quantizer.searched, strict=True)
        ]


class Quantized(NamedTuple):
    """An embedding and what the search of its region found; see `medtok_jax.models.quantizer.Quantized`."""

    embedding: Tensor
    vector: Tensor
    output: Tensor
    distances: Tensor


def quantize(embedding: Tensor, rows: Tensor, num_tokens: int, temperature: float) -> Quantized:
    """The nearest rows mixed by their closeness; distances and search share one matmul."""
    similarity = embedding @ rows.T
    distances = euclidean(2.0 - 2.0 * similarity)
    best, ids = similarity.detach().topk(num_tokens)
    weights = (-euclidean(2.0 - 2.0 * best) / temperature).softmax(-1)
    vector = torch.einsum("bk,bkd->bd", weights, rows[ids])
    return Quantized(embedding, vector, embedding + (vector - embedding).detach(), distances)


def euclidean(squared: Tensor) -> Tensor:
    """Distance from its square, with a finite gradient at zero."""
    return (squared.clamp(min=0.0) + 1e-12).sqrt()


def total_loss(view: list[Quantized], augmented: list[Quantized], excluded: Tensor, loss) -> Tensor:
    """The whole objective (`medtok_jax.losses.loss_terms`), all codes valid."""
    text, graph, text_shared, graph_shared = view
    squared = lambda a, b: (a - b).square().sum(-1).mean()  # noqa: E731
    quantization = sum(
        loss.commitment_weight * squared(q.vector.detach(), q.embedding)
        + loss.alpha * squared(q.vector, q.embedding.detach())
        for q in view
    )
    logs = [(-q.distances / loss.kl_temperature).log_softmax(-1) for q in (text_shared, graph_shared)]
    kl = (logs[0].exp() * (logs[0] - logs[1])).sum(-1).mean()
    contrast = lambda a, b: info_nce(a, b, excluded, loss.infonce_temperature)  # noqa: E731
    agreement = (l2_normalize(text_shared.embedding) * l2_normalize(graph_shared.embedding)).sum(-1).mean()
    other = dict(zip(EMBEDDINGS, augmented, strict=True))
    specific = sum(
        contrast(torch.cat([q.output, shared.output.detach()], -1), torch.cat([a.output, shared_a.output.detach()], -1))
        for q, shared, a, shared_a in (
            (text, graph_shared, other["text_specific"], other["graph_cross"]),
            (graph, text_shared, other["graph_specific"], other["text_cross"]),
        )
    )
    orthogonality = sum(
        (q.output.T @ shared.embedding / len(q.output)).square().sum()
        for q, shared in ((text, text_shared), (graph, graph_shared))
    )
    shared = contrast(text_shared.output, graph_shared.output) + contrast(graph_shared.output, text_shared.output)
    packing = loss.shared_weight * shared - 2.0 * loss.beta * agreement
    packing = packing + loss.specific_weight * specific + loss.lambda_val * orthogonality
    return loss.quantization_weight * quantization + loss.kl_weight * kl + loss.packing_weight * packing


def info_nce(anchors: Tensor, candidates: Tensor, excluded: Tensor, temperature: float) -> Tensor:
    """InfoNCE over cosines; row i of the candidates is the positive of anchor i."""
    logits = l2_normalize(anchors) @ l2_normalize(candidates).T / temperature
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    return F.cross_entropy(
        logits.masked_fill(excluded & ~own, -torch.inf), torch.arange(len(logits), device=logits.device)
    )


def _split(x: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    if x is None:
        return None, None
    groups = x.unflatten(0, (-1, TIER))
    return groups[:, :-1].flatten(0, 1), groups[:, -1]


def _joined(small: Tensor, large: Tensor) -> Tensor:
    return torch.cat([small.unflatten(0, (-1, TIER - 1)), large[:, None]], 1).flatten(0, 1)
