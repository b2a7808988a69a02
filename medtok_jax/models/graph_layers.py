"""Pass messages on padded batches of subgraphs (paper section 3.1: the graph encoder).

Edges run from `senders` to `receivers`; `edge_mask` is False at padding edges and at edges dropped by augmentation,
which then count for nothing: neither messages, nor degrees, nor attention. Self-loops are part of the layers, never of
the edge lists. Segment sums, softmaxes and degrees are float32.
"""

import jax
import jax.numpy as jnp
import jraph
from flax import nnx

LEAKY_SLOPE = 0.2  # Velickovic et al., 2018, section 2.1


def gcn_normalization(
    *, senders: jax.Array, receivers: jax.Array, edge_mask: jax.Array, num_nodes: int
) -> tuple[jax.Array, jax.Array]:
    """Return the entries of D^-1/2 (A + I) D^-1/2 (Kipf & Welling, 2017, eq. 2), D the in-degrees of A + I.

    Returns:
        The weight of each edge [e] (0 where masked) and of each self-loop [n], float32.
    """
    degree = 1.0 + jraph.segment_sum(edge_mask.astype(jnp.float32), receivers, num_nodes)
    root = jax.lax.rsqrt(degree)
    return edge_mask * root[senders] * root[receivers], 1.0 / degree


class GCNLayer(nnx.Module):
    """Compute a graph convolution (Kipf & Welling, 2017) whose messages carry their relation.

    out_i = sum over edges (j, r, i) of norm_ji (W x_j + V rel_r) + norm_ii W x_i + b
    """

    def __init__(self, width: int, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        self.dtype = dtype
        self.linear = nnx.Linear(width, width, use_bias=False, dtype=dtype, rngs=rngs)
        self.relation = nnx.Linear(width, width, dtype=dtype, use_bias=False, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros(width, jnp.float32))

    def __call__(
        self,
        nodes: jax.Array,
        *,
        relation_table: jax.Array,
        senders: jax.Array,
        receivers: jax.Array,
        relations: jax.Array,
        edge_mask: jax.Array,
    ) -> jax.Array:
        """Apply it: [n, width], relation embeddings [num_relations, width] and four edge arrays [e] -> [n, width]."""
        num_nodes = nodes.shape[0]
        edge_weight, self_weight = gcn_normalization(
            senders=senders, receivers=receivers, edge_mask=edge_mask, num_nodes=num_nodes
        )
        values = self.linear(nodes)
        messages = values[senders] + self.relation(relation_table)[relations]
        mixed = jraph.segment_sum(edge_weight[:, None] * messages, receivers, num_nodes)
        return (mixed + self_weight[:, None] * values + self.bias[...]).astype(self.dtype)


class GATLayer(nnx.Module):
    """Compute graph attention (Velickovic et al., 2018, eq. 1-5) with a term for the relation of the edge.

    Per head: logit_jri = LeakyReLU(a_src . W x_j + a_dst . W x_i + a_rel . rel_r), softmax over the in-edges of i and
    its self-loop, whose relation term is a learned scalar; out_i = concatenated heads of sum alpha_jri W x_j, + b.
    """

    def __init__(self, width: int, *, num_heads: int = 4, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        if width % num_heads:
            raise ValueError(f"the graph attention width {width} is not divisible by its {num_heads} heads")
        self.dtype = dtype
        self.num_heads = num_heads
        self.linear = nnx.Linear(width, width, use_bias=False, dtype=dtype, rngs=rngs)
        initial = nnx.initializers.normal((width // num_heads) ** -0.5)
        self.source = nnx.Param(initial(rngs.params(), (num_heads, width // num_heads), jnp.float32))
        self.target = nnx.Param(initial(rngs.params(), (num_heads, width // num_heads), jnp.float32))
        self.relation = nnx.Linear(width, num_heads, use_bias=False, dtype=dtype, rngs=rngs)
        self.loop = nnx.Param(jnp.zeros(num_heads, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(width, jnp.float32))

    def __call__(
        self,
        nodes: jax.Array,
        *,
        relation_table: jax.Array,
        senders: jax.Array,
        receivers: jax.Array,
        relations: jax.Array,
        edge_mask: jax.Array,
    ) -> jax.Array:
        """Apply it: [n, width], relation embeddings [num_relations, width] and four edge arrays [e] -> [n, width]."""
        num_nodes = nodes.shape[0]
        values = self.linear(nodes).reshape(num_nodes, self.num_heads, -1)
        source = jnp.einsum("nhd,hd->nh", values, self.source[...])
        target = jnp.einsum("nhd,hd->nh", values, self.target[...])
        relation = self.relation(relation_table).astype(jnp.float32)
        edge_logits = jax.nn.leaky_relu(source[senders] + target[receivers] + relation[relations], LEAKY_SLOPE)
        loop_logits = jax.nn.leaky_relu(source + target + self.loop[...], LEAKY_SLOPE)
        edge_weight, loop_weight = _softmax_with_loops(
            edge_logits, loop_logits=loop_logits, receivers=receivers, edge_mask=edge_mask
        )
        messages = (edge_weight[..., None] * values[senders]).reshape(senders.shape[0], -1)
        mixed = jraph.segment_sum(messages, receivers, num_nodes)
        loops = (loop_weight[..., None] * values).reshape(num_nodes, -1)
        return (mixed + loops + self.bias[...]).astype(self.dtype)


def _softmax_with_loops(
    edge_logits: jax.Array, *, loop_logits: jax.Array, receivers: jax.Array, edge_mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the softmax over each node's in-edges [e, heads] and self-loop [n, heads]; masked edges get exactly 0."""
    num_edges, num_nodes = edge_logits.shape[0], loop_logits.shape[0]
    # The loop is always a candidate, so that no segment is empty and exp(-1e30 - max) is a clean 0.
    logits = jnp.concatenate([jnp.where(edge_mask[:, None], edge_logits, -1e30), loop_logits])
    segments = jnp.concatenate([receivers, jnp.arange(num_nodes, dtype=receivers.dtype)])
    weights = jraph.segment_softmax(logits, segments, num_nodes)
    return weights[:num_edges], weights[num_edges:]
