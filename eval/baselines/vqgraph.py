"""Define VQGraph, the graph-only baseline: a structure-aware tokenizer of nodes (Yang et al., ICLR 2024).

"VQGraph: Rethinking Graph Representation Space for Bridging GNNs and MLPs" (arXiv 2308.02117): a graph network encodes
each node and its neighborhood as h, the nearest row of a codebook replaces h, and from that row linear decoders
reconstruct the attributes of the node and the edges between nodes. The details of this implementation:

- The nodes are those of the subgraphs of codes, and attributes are the frozen text embeddings of their names. As in
  MedTok's graph encoder, the node of the code itself does not see its name, so that the baseline knows the graph alone.
  Its name must still be reconstructed, as are the attributes of every node.
- The graph network is the GCN of MedTok, so that both encode the same graph in the same way.
- The losses are those of the paper except for the scaling of edges, which is that of the published code. That code also
  scores nodes by a squared error, updates rows by a moving average, and adds the classification loss of its task; codes
  have no labels.
- Rows are initialized by k-means after a warm-up. From random rows most are never used, which would make the baseline
  too weak.
- Codes are tokenized by their K nearest rows (top-K), as a row stands for a node by being nearest to it; there are no
  rows that refine. The baseline has the width of MedTok's rows and takes as many passes over the training codes.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import jraph
from flax import nnx

from eval.baselines import defaults
from medtok_jax.batch import MISSING, InputSizes, Tables
from medtok_jax.models.codebook import Quantizer
from medtok_jax.models.graph_encoder import GraphEncoder
from medtok_jax.models.node_features import NodeFeatures
from medtok_jax.regions import Regions
from medtok_jax.training.losses import masked_mean, quantization_loss


@dataclasses.dataclass(frozen=True)
class VQGraphOptions:
    """Hold the settings of the graph-only baseline.

    Attributes:
        codebook_size: number of rows N.
        width: width d of the rows and of the node states.
        num_layers: number of layers of the graph network.
        node_weight, edge_weight: weights of the two reconstruction losses.
        edge_scaling: `minmax` or `sigmoid`, see `edge_reconstruction`.
        commitment_weight: weight of the commitment term relative to the codebook term; 0.25 in the published code.
        gamma: power of the scaled cosine error, at least 1.
        steps: number of training steps; 0 for as many passes as the default MedTok takes.
        batch_size: number of codes whose subgraphs make a batch.
        kmeans_step: step before which the codebook is fitted; at most a third of the steps.
        learning_rate: peak learning rate, with linear warm-up and cosine decay.
    """

    codebook_size: int = defaults.SIZE
    width: int = defaults.WIDTH
    num_layers: int = 2
    node_weight: float = 1.0
    edge_weight: float = 1.0
    edge_scaling: str = "minmax"
    commitment_weight: float = 0.25
    gamma: float = 1.0
    steps: int = 0
    batch_size: int = 64
    kmeans_step: int = 300
    learning_rate: float = 1e-3


@flax.struct.dataclass
class NodeBatch:
    """Hold the nodes of a batch of subgraphs, with a row for each code.

    Attributes:
        states: `[batch, nodes, width]` states h, prepared for the quantizer.
        mask: `[batch, nodes]` bool, nodes that are not padding.
        known: `[batch, nodes]` bool, nodes with attributes.
        anchors: `[batch, nodes]` bool, nodes at hop 0.
        attributes: `[batch, nodes, name width]` float32.
        adjacency: `[batch, nodes, nodes]` float32, 1 where an edge joins two nodes.
    """

    states: jax.Array
    mask: jax.Array
    known: jax.Array
    anchors: jax.Array
    attributes: jax.Array
    adjacency: jax.Array


def node_reconstruction(attributes: jax.Array, decoded: jax.Array, known: jax.Array, *, gamma: float) -> jax.Array:
    """Return the scaled cosine error of attributes: the mean over nodes of `(1 - cos(v_i, v̂_i))^gamma`.

    Args:
        attributes, decoded: `[..., width]` attributes v and their reconstructions v̂.
        known: `[...]` bool, nodes that count.
        gamma: power of the error, at least 1.
    """
    norms = jnp.sqrt(jnp.sum(attributes**2, -1) * jnp.sum(decoded**2, -1) + 1e-12)
    error = jnp.maximum(1.0 - jnp.sum(attributes * decoded, -1) / norms, 0.0)
    return masked_mean(error**gamma, known)


def edge_reconstruction(
    adjacency: jax.Array, decoded: jax.Array, mask: jax.Array, *, scaling: str = "minmax"
) -> jax.Array:
    """Return `|| A - f(X X^T) ||^2` as a mean over pairs of different nodes of one subgraph.

    With the mean instead of the sum, the weight of the loss does not depend on the size of the graph.

    Args:
        adjacency: `[batch, nodes, nodes]` adjacency matrices A.
        decoded: `[batch, nodes, width]` decoded nodes X.
        mask: `[batch, nodes]` bool, nodes that are not padding.
        scaling: function f. `minmax` scales the products of the batch to the range 0 to 1, as the published code does;
            `sigmoid` is the function of the paper. Many nodes cannot all have negative products, so a sigmoid predicts
            an edge for nearly all pairs, and the loss stays near 1/4.
    """
    product = jnp.einsum("bid,bjd->bij", decoded, decoded)
    pairs = mask[:, :, None] & mask[:, None, :] & ~jnp.eye(mask.shape[1], dtype=bool)
    if scaling == "sigmoid":
        scaled = jax.nn.sigmoid(product)
    else:
        low, high = jnp.min(product, where=pairs, initial=jnp.inf), jnp.max(product, where=pairs, initial=-jnp.inf)
        scaled = jnp.where(pairs, (product - low) / jnp.maximum(high - low, 1e-6), 0.0)
    return masked_mean((adjacency - scaled) ** 2, pairs)


def _nearest(similarity: jax.Array, _: int) -> tuple[jax.Array, jax.Array]:
    """Return the value and the index of the maximum, faster than `jax.lax.top_k` for thousands of nodes and rows."""
    index = jnp.argmax(similarity, axis=-1)[:, None]
    return jnp.take_along_axis(similarity, index, axis=-1), index


class VQGraph(nnx.Module):
    """Encode nodes by a graph network, quantize them, and reconstruct attributes and edges by linear decoders.

    Args:
        options: settings.
        sizes: sizes of the inputs of the data set.
        rngs: random streams of the initialization.
    """

    def __init__(self, options: VQGraphOptions, sizes: InputSizes, *, rngs: nnx.Rngs):
        width = options.width
        self.max_nodes = sizes.max_nodes
        self.features = NodeFeatures(
            width=width, num_types=sizes.num_node_types, name_width=sizes.text_width, use_name=True, rngs=rngs
        )
        self.encoder = GraphEncoder(
            kind="default", width=width, num_layers=options.num_layers, num_relations=sizes.num_relations, rngs=rngs
        )
        regions = Regions(text=0, graph=options.codebook_size, shared=0)
        self.quantizer = Quantizer(regions, width, num_tokens=1, top_k=_nearest, rngs=rngs)
        self.node_decoder = nnx.Linear(width, sizes.text_width, rngs=rngs)
        self.edge_decoder = nnx.Linear(width, width, rngs=rngs)

    def nodes(self, graph: jraph.GraphsTuple, tables: Tables) -> NodeBatch:
        """Encode one padded stack of subgraphs, which is `medtok_jax.batch.Batch.graph` without its leading axis."""
        node_id, kind, hop = graph.nodes["node_id"], graph.nodes["kind"], graph.nodes["hop"]
        attributes = tables.name_embedding[tables.node_name[node_id]].astype(jnp.float32)
        graphs = graph.n_node.shape[0]
        of_node = jnp.repeat(jnp.arange(graphs), graph.n_node, total_repeat_length=node_id.shape[0])
        states, _ = self.encoder(
            self.features(tables.node_type[node_id], attributes, kind, node_id),
            senders=graph.senders,
            receivers=graph.receivers,
            relations=graph.edges,
            edge_mask=jraph.get_edge_padding_mask(graph),
            hops=hop,
            graph_index=of_node,
            node_mask=jraph.get_node_padding_mask(graph),
            num_graphs=graphs,
        )
        starts = jnp.cumsum(graph.n_node) - graph.n_node
        positions = jnp.arange(self.max_nodes)
        where = jnp.minimum(starts[:-1, None] + positions, node_id.shape[0] - 1)
        mask = positions < graph.n_node[:-1, None]
        there = mask & (kind[where] != MISSING)
        return NodeBatch(
            states=self.quantizer.prepare(states[where]),
            mask=mask,
            known=there,
            anchors=mask & (hop[where] == 0),
            attributes=attributes[where],
            adjacency=self._adjacency(graph, of_node, starts),
        )

    def _adjacency(self, graph: jraph.GraphsTuple, of_node: jax.Array, starts: jax.Array) -> jax.Array:
        member = of_node[graph.senders]
        # Padding edges are in the last graph, which is dropped.
        sender, receiver = graph.senders - starts[member], graph.receivers - starts[member]
        joined = jnp.zeros((graph.n_node.shape[0], self.max_nodes, self.max_nodes))
        real = jraph.get_edge_padding_mask(graph).astype(jnp.float32)
        return joined.at[member, sender, receiver].max(real, mode="drop")[:-1]

    def losses(self, nodes: NodeBatch, options: VQGraphOptions) -> dict[str, jax.Array]:
        """Return the weighted losses `node`, `edge` and `quantization` (codebook and commitment)."""
        flat = nodes.states.reshape(-1, nodes.states.shape[-1])
        quantized = self.quantizer(flat, "graph")
        output = quantized.output.reshape(nodes.states.shape)
        node = node_reconstruction(nodes.attributes, self.node_decoder(output), nodes.known, gamma=options.gamma)
        x = self.edge_decoder(output)
        edge = edge_reconstruction(nodes.adjacency, x, nodes.mask, scaling=options.edge_scaling)
        quantization = quantization_loss(
            flat, quantized, nodes.mask.reshape(-1), commitment_weight=options.commitment_weight, alpha=1.0
        )
        return {"node": options.node_weight * node, "edge": options.edge_weight * edge, "quantization": quantization}

    def codes(self, nodes: NodeBatch) -> jax.Array:
        """Return a state for each code, the mean over its anchors, prepared for the quantizer: `[batch, width]`."""
        weight = nodes.anchors[..., None].astype(jnp.float32)
        return self.quantizer.prepare(jnp.sum(nodes.states * weight, 1) / jnp.maximum(weight.sum(1), 1.0))
