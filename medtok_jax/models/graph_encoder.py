"""Encode the subgraph of a code (paper section 3.1) to node states and one pooled vector.

The arrays are those of a padded `jraph.GraphsTuple`; see `graph_layers` for the meaning of `edge_mask`.
"""

import jax
import jax.numpy as jnp
import jraph
from flax import nnx

from medtok_jax.models.cross_attention import ResidualMlp
from medtok_jax.models.graph_layers import GATLayer, GCNLayer
from medtok_jax.models.text_encoder import AttentionPooling

KINDS = ("default", "gat", "hierarchical")
NUM_HOP_LEVELS = 3  # anchors, 1-hop, 2-hop


class GraphEncoder(nnx.Module):
    """Encode padded subgraphs.

    - "default": GCN layers, each x <- LayerNorm(x + relu(layer(x))), then the mean over a graph's nodes.
    - "gat": the same with graph attention.
    - "hierarchical": a node MLP, then local structure by GAT plus global structure by two GCN layers, then a readout at
      several scales: the means over anchors, 1-hop, 2-hop and all nodes, combined by learned attention.

    Args:
        kind: one of the above.
        width: width of the nodes, in and out.
        num_layers: layers of "default" and "gat".
        num_heads: heads of graph attention.
        num_relations: rows of the relation embedding, the edges' input.
        dtype: dtype of the activations.
        rngs: initializes the parameters.

    Raises:
        ValueError: unknown `kind`, or `width` not divisible by `num_heads` where heads are used.
    """

    def __init__(
        self,
        *,
        kind: str,
        width: int,
        num_layers: int = 2,
        num_heads: int = 4,
        num_relations: int,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if kind not in KINDS:
            raise ValueError(f"graph encoder kind must be one of {KINDS}, not {kind!r}")
        self.dtype = dtype
        self.relations = nnx.Embed(num_relations, width, dtype=dtype, rngs=rngs)
        if kind == "hierarchical":
            self.body = LocalGlobal(width, num_heads=num_heads, dtype=dtype, rngs=rngs)
            self.readout = MultiScaleReadout(width, dtype=dtype, rngs=rngs)
        else:
            heads = num_heads if kind == "gat" else 0
            self.body = Stack(width, num_layers=num_layers, num_heads=heads, dtype=dtype, rngs=rngs)
            self.readout = None

    def __call__(
        self,
        nodes: jax.Array,
        *,
        senders: jax.Array,
        receivers: jax.Array,
        relations: jax.Array,
        edge_mask: jax.Array,
        hops: jax.Array,
        graph_index: jax.Array,
        node_mask: jax.Array,
        num_graphs: int,
    ) -> tuple[jax.Array, jax.Array]:
        """Encode all nodes and pool each graph.

        Args:
            nodes: [n, width] node inputs.
            senders: [e] int32.
            receivers: [e] int32.
            relations: [e] int32 in [0, num_relations).
            edge_mask: [e] bool, False at padding and dropped edges.
            hops: [n] int32, distance from the anchors, 0 at an anchor.
            graph_index: [n] int32, the graph of each node; padding nodes belong to a spare last graph.
            node_mask: [n] bool, False at padding.
            num_graphs: graphs including the spare one; static.

        Returns:
            node states [n, width], zero at padding, and pooled [num_graphs, width], zero for a graph without nodes.
        """
        edges = {"senders": senders, "receivers": receivers, "relations": relations, "edge_mask": edge_mask}
        states = self.body(nodes.astype(self.dtype), relation_table=self.relations.embedding[...], **edges)
        states = jnp.where(node_mask[:, None], states, 0)
        membership = {"graph_index": graph_index, "node_mask": node_mask, "num_graphs": num_graphs}
        if self.readout is None:
            return states, mean_readout(states, **membership)
        return states, self.readout(states, hops=hops, **membership)


class Stack(nnx.Module):
    """Apply residual layers of one kind: graph attention if `num_heads`, else graph convolution."""

    def __init__(self, width: int, *, num_layers: int, num_heads: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        def layer() -> nnx.Module:
            if num_heads:
                return GATLayer(width, num_heads=num_heads, dtype=dtype, rngs=rngs)
            return GCNLayer(width, dtype=dtype, rngs=rngs)

        self.layers = nnx.List([layer() for _ in range(num_layers)])
        self.norms = nnx.List([nnx.LayerNorm(width, dtype=dtype, rngs=rngs) for _ in range(num_layers)])

    def __call__(self, nodes: jax.Array, **edges: jax.Array) -> jax.Array:
        """Apply the layers: [n, width] and their edge arguments -> [n, width]."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            nodes = norm(nodes + jax.nn.relu(layer(nodes, **edges)))
        return nodes


class LocalGlobal(nnx.Module):
    """Apply a node MLP, then one graph attention layer (local) beside two graph convolutions (global), summed."""

    def __init__(self, width: int, *, num_heads: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.mlp = ResidualMlp(width, ratio=1, dtype=dtype, rngs=rngs)
        self.local = Stack(width, num_layers=1, num_heads=num_heads, dtype=dtype, rngs=rngs)
        self.wide = Stack(width, num_layers=2, num_heads=0, dtype=dtype, rngs=rngs)

    def __call__(self, nodes: jax.Array, **edges: jax.Array) -> jax.Array:
        """Apply the layers: [n, width] and their edge arguments -> [n, width]."""
        nodes = self.mlp(nodes)
        return self.local(nodes, **edges) + self.wide(nodes, **edges)


def mean_readout(states: jax.Array, *, graph_index: jax.Array, node_mask: jax.Array, num_graphs: int) -> jax.Array:
    """Average over the real nodes of each graph: [n, width] -> [num_graphs, width]; zeros where there is none."""
    total = jraph.segment_sum(jnp.where(node_mask[:, None], states, 0).astype(jnp.float32), graph_index, num_graphs)
    count = jraph.segment_sum(node_mask.astype(jnp.float32), graph_index, num_graphs)
    return (total / jnp.maximum(count, 1)[:, None]).astype(states.dtype)


class MultiScaleReadout(nnx.Module):
    """Combine the means over anchors, 1-hop, 2-hop and all nodes of a graph by learned attention over these levels.

    An empty level takes no part. Each level also has a learned bias on its score, zero at first, as two levels of equal
    content are still different things.
    """

    def __init__(self, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.attention = AttentionPooling(width, dtype=dtype, rngs=rngs)
        self.level_bias = nnx.Param(jnp.zeros(NUM_HOP_LEVELS + 1, jnp.float32))

    def __call__(
        self, states: jax.Array, *, hops: jax.Array, graph_index: jax.Array, node_mask: jax.Array, num_graphs: int
    ) -> jax.Array:
        """Pool each graph: [n, width], hops [n] -> [num_graphs, width]."""
        means, present = level_means(
            states, hops=hops, graph_index=graph_index, node_mask=node_mask, num_graphs=num_graphs
        )
        return self.attention(means, present, score_bias=self.level_bias[...])


def level_means(
    states: jax.Array, *, hops: jax.Array, graph_index: jax.Array, node_mask: jax.Array, num_graphs: int
) -> tuple[jax.Array, jax.Array]:
    """Return means over anchors, 1-hop, 2-hop and all nodes [num_graphs, 4, width], and which exist [num_graphs, 4]."""
    # One segment sum by (graph, hop), farther nodes in a fourth cell; the sum over all nodes is the sum of the cells.
    cells = NUM_HOP_LEVELS + 1
    cell = graph_index * cells + jnp.clip(hops, 0, NUM_HOP_LEVELS)
    masked = jnp.where(node_mask[:, None], states, 0).astype(jnp.float32)
    totals = jraph.segment_sum(masked, cell, num_graphs * cells).reshape(num_graphs, cells, -1)
    counts = jraph.segment_sum(node_mask.astype(jnp.float32), cell, num_graphs * cells).reshape(num_graphs, cells, 1)
    totals = totals.at[:, -1].set(totals.sum(axis=1))
    counts = counts.at[:, -1].set(counts.sum(axis=1))
    return (totals / jnp.maximum(counts, 1)).astype(states.dtype), counts[..., 0] > 0
