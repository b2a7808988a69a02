"""Draw what an augmented view keeps of a batch: wordpieces, text features, and facts and nodes of the subgraphs."""

import flax.struct
import jax
import jax.numpy as jnp
import jraph
from ml_collections import ConfigDict

from medtok_jax.batch import Batch

# Hops of the longest way from an anchor that is looked for once facts are dropped; nodes farther away are dropped too.
LONGEST_WAY = 2


@flax.struct.dataclass
class KeptGraph:
    """Say what is kept of the padded subgraphs of each device.

    Attributes:
        edges: `[devices, edges]` bool, both directions of a fact together.
        nodes: `[devices, nodes]` bool: anchors, and what kept facts join to them through kept nodes.
        hops: `[devices, nodes]` int32, distance from the anchors over what is kept.
    """

    edges: jax.Array
    nodes: jax.Array
    hops: jax.Array


@flax.struct.dataclass
class Keep:
    """Say what an augmented view keeps of a batch.

    Attributes:
        tokens: `[batch, length]` bool.
        features: `[batch, text width]` float32, 0 or the scale that makes up for what is dropped.
        graph: what is kept of the subgraphs.
    """

    tokens: jax.Array
    features: jax.Array
    graph: KeptGraph


def augmentation(key: jax.Array, batch: Batch, augment: ConfigDict, text_width: int) -> Keep:
    """Draw an augmented view at the rates of the `augment` section.

    The first token always stays, so that no text becomes empty. The draw of a fact or a node depends on its code's slot
    in the global batch and its place in the subgraph alone, so that it is the same on any number of devices.
    """
    token_key, feature_key, fact_key, node_key = jax.random.split(key, 4)
    tokens = jax.random.uniform(token_key, batch.text_mask.shape) >= augment.token_dropout
    shape = (batch.text_mask.shape[0], text_width)
    features = jax.random.uniform(feature_key, shape) >= augment.feature_dropout
    per_device = batch.graph.n_node.shape[1] - 1
    first_slots = jnp.arange(batch.graph.n_node.shape[0]) * per_device

    def kept(graph: jraph.GraphsTuple, first_slot: jax.Array) -> KeptGraph:
        of_node, of_edge = graph_members(graph)
        facts = _places(of_edge, graph.n_edge) // 2
        return keep_graph(
            graph,
            facts=_draw(fact_key, first_slot + of_edge, facts) >= augment.fact_dropout,
            nodes=_draw(node_key, first_slot + of_node, _places(of_node, graph.n_node)) >= augment.node_dropout,
        )

    return Keep(
        tokens=tokens.at[:, 0].set(True),
        features=features / (1.0 - augment.feature_dropout),
        graph=jax.vmap(kept)(batch.graph, first_slots),
    )


def keep_graph(graph: jraph.GraphsTuple, *, facts: jax.Array, nodes: jax.Array) -> KeptGraph:
    """Drop facts and nodes of one padded `GraphsTuple`, and all that only they join to an anchor.

    Args:
        graph: padded subgraphs, with `hop` of each node.
        facts: `[edges]` bool, both directions of a fact together.
        nodes: `[nodes]` bool; anchors stay whatever it says.
    """
    anchors = graph.nodes["hop"] == 0
    nodes = nodes | anchors
    edges = facts & nodes[graph.senders] & nodes[graph.receivers] & jraph.get_edge_padding_mask(graph)
    hops = jnp.where(anchors, 0, LONGEST_WAY + 1)
    for distance in range(LONGEST_WAY):
        from_here = (edges & (hops[graph.senders] == distance)).astype(jnp.int32)
        reached = jax.ops.segment_max(from_here, graph.receivers, hops.shape[0]) > 0
        hops = jnp.where(reached, jnp.minimum(hops, distance + 1), hops)
    nodes = hops <= LONGEST_WAY
    return KeptGraph(edges=edges & nodes[graph.senders] & nodes[graph.receivers], nodes=nodes, hops=hops)


def whole_graph(graph: jraph.GraphsTuple) -> KeptGraph:
    """Keep all of one padded `GraphsTuple`."""
    hops = graph.nodes["hop"]
    return KeptGraph(edges=jnp.ones(graph.senders.shape, bool), nodes=jnp.ones(hops.shape, bool), hops=hops)


def graph_members(graph: jraph.GraphsTuple) -> tuple[jax.Array, jax.Array]:
    """Return the graph of every node and of every edge of one padded `GraphsTuple`; padding is in the last graph."""
    numbers = jnp.arange(graph.n_node.shape[0])
    of_node = jnp.repeat(numbers, graph.n_node, total_repeat_length=graph.nodes["node_id"].shape[0])
    of_edge = jnp.repeat(numbers, graph.n_edge, total_repeat_length=graph.senders.shape[0])
    return of_node, of_edge


def _places(members: jax.Array, counts: jax.Array) -> jax.Array:
    """Return the place of each node or edge in its own graph."""
    starts = jnp.cumsum(counts) - counts
    return jnp.arange(members.shape[0]) - starts[members]


def _draw(key: jax.Array, slots: jax.Array, places: jax.Array) -> jax.Array:
    """Return a uniform number for each node or edge, of its code's slot and its own place alone."""
    return jax.vmap(lambda s, p: jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, s), p)))(slots, places)
