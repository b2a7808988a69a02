"""VQGraph, the graph-only baseline: a structure-aware tokenizer of a graph's nodes (Yang et al., ICLR 2024).

"VQGraph: Rethinking Graph Representation Space for Bridging GNNs and MLPs" (arXiv 2308.02117): a graph network turns
each node and its neighborhood into h, the nearest row of a codebook stands for h, and from that row linear decoders
must tell the node's attributes and which nodes are joined. What is done here:

- Nodes are those of the codes' subgraphs, attributes the frozen text embeddings of their names. As in MedTok's graph
  encoder, a node that is the code itself does not see its own name: the baseline is to know the graph alone. It must
  still foretell that name, as every node its attributes.
- The graph network is this package's GCN, so that both see the same graph with the same eyes.
- The losses are the paper's but for the scaling of edges, which is that of its published code. That code also scores
  nodes by a squared error, moves rows by a moving average, and adds the classification loss of its task; codes carry
  no labels.
- Rows start from k-means after a warm-up. Started at random, most of them are never used; that would be too weak an
  opponent.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import jraph
from flax import nnx

from medtok_jax.batch import MISSING, InputSizes, Tables
from medtok_jax.models.graph_encoder import GraphEncoder
from medtok_jax.models.node_features import NodeFeatures
from medtok_jax.models.quantizer import Quantizer
from medtok_jax.regions import Regions
from medtok_jax.training.losses import masked_mean, quantization_loss


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of the baseline.

    Attributes:
        codebook_size: N. width: d, also of the node states.
        num_layers: layers of the graph network.
        node_weight, edge_weight: of the two reconstruction terms.
        edge_scaling: `minmax` or `sigmoid`, see `edge_reconstruction`.
        commitment_weight: of the commitment term beside the codebook term; the published code has 0.25.
        gamma: power of the scaled cosine error, at least 1.
        steps, batch_size: training steps, and codes whose subgraphs make one.
        kmeans_step: step before which the codebook is fitted.
        learning_rate: peak; linear warm-up, cosine decay.
    """

    codebook_size: int = 12_000
    width: int = 64
    num_layers: int = 2
    node_weight: float = 1.0
    edge_weight: float = 1.0
    edge_scaling: str = "minmax"
    commitment_weight: float = 0.25
    gamma: float = 1.0
    steps: int = 1500
    batch_size: int = 64
    kmeans_step: int = 300
    learning_rate: float = 1e-3


@flax.struct.dataclass
class NodeBatch:
    """The nodes of a batch of subgraphs, one row a code.

    Attributes:
        states: `[batch, nodes, width]` prepared states h.
        mask: `[batch, nodes]` bool, real nodes.
        known: `[batch, nodes]` bool, real nodes that have attributes.
        anchors: `[batch, nodes]` bool, nodes at hop 0.
        attributes: `[batch, nodes, name width]` float32.
        adjacency: `[batch, nodes, nodes]` float32, 1 where two nodes of a subgraph are joined.
    """

    states: jax.Array
    mask: jax.Array
    known: jax.Array
    anchors: jax.Array
    attributes: jax.Array
    adjacency: jax.Array


def node_reconstruction(attributes: jax.Array, decoded: jax.Array, known: jax.Array, *, gamma: float) -> jax.Array:
    """Scaled cosine error of attributes: the mean over nodes of `(1 - cos(v_i, v̂_i))^gamma`.

    Args:
        attributes, decoded: `[..., width]`. known: `[...]` bool, nodes that count.
    """
    norms = jnp.sqrt(jnp.sum(attributes**2, -1) * jnp.sum(decoded**2, -1) + 1e-12)
    error = jnp.maximum(1.0 - jnp.sum(attributes * decoded, -1) / norms, 0.0)
    return masked_mean(error**gamma, known)


def edge_reconstruction(
    adjacency: jax.Array, decoded: jax.Array, mask: jax.Array, *, scaling: str = "minmax"
) -> jax.Array:
    """`|| A - f(X X^T) ||^2` as a mean over pairs of different nodes of one subgraph.

    The mean instead of the sum makes the weight of the term independent of the size of the graph.

    Args:
        adjacency: `[batch, nodes, nodes]`. decoded: `[batch, nodes, width]`. mask: `[batch, nodes]` bool.
        scaling: f. `minmax` brings the products of the batch to 0 to 1, as the published code does; `sigmoid` is the
            paper's. Many nodes cannot all have negative products, so that under a sigmoid hardly a pair comes out as
            not joined, and the term stays near 1/4.
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
    """`jax.lax.top_k` of one, which is slow where thousands of nodes search thousands of rows."""
    place = jnp.argmax(similarity, axis=-1)[:, None]
    return jnp.take_along_axis(similarity, place, axis=-1), place


class VQGraph(nnx.Module):
    """The tokenizer: graph network, codebook, and two linear decoders.

    Args:
        options: settings.
        sizes: what the data set gives.
        rngs: parameter initialization.
    """

    def __init__(self, options: Options, sizes: InputSizes, *, rngs: nnx.Rngs):
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
        """Encodes one padded stack of subgraphs, see `medtok_jax.batch.Batch.graph` without its leading axis."""
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
        places = jnp.arange(self.max_nodes)
        where = jnp.minimum(starts[:-1, None] + places, node_id.shape[0] - 1)
        mask = places < graph.n_node[:-1, None]
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
        # Padding edges lie in the last graph, which is cut off.
        sender, receiver = graph.senders - starts[member], graph.receivers - starts[member]
        joined = jnp.zeros((graph.n_node.shape[0], self.max_nodes, self.max_nodes))
        real = jraph.get_edge_padding_mask(graph).astype(jnp.float32)
        return joined.at[member, sender, receiver].max(real, mode="drop")[:-1]

    def losses(self, nodes: NodeBatch, options: Options) -> dict[str, jax.Array]:
        """`node`, `edge` and `quantization` (codebook and commitment), each weighted; their sum is trained."""
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
        """One state a code: the mean over its anchors, `[batch, width]`, prepared."""
        weight = nodes.anchors[..., None].astype(jnp.float32)
        return self.quantizer.prepare(jnp.sum(nodes.states * weight, 1) / jnp.maximum(weight.sum(1), 1.0))
