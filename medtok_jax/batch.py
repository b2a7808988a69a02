"""Define the batch that the input pipeline makes and the model takes; its shapes are static and few."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import jraph
import numpy as np

# Kinds of nodes, see `Batch.graph`.
ORDINARY = 0
SELF = 1  # the node that is the code itself
MISSING = 2  # the one node of a code without a subgraph


@flax.struct.dataclass
class CodeLinks:
    """Hold links of the codes of a batch that are to be predicted; their nodes are masked from the codes' subgraphs.

    Attributes:
        node: `[batch]` int32, node of the knowledge graph that a relation leads to from each code, -1 for none.
        relation: `[batch]` int32, that relation, -1 for none.
        known: `[batch, batch]` bool, codes whose nodes are no negatives of a code: its relation leads there too, or
            they are named as its node is. All False for a code without a link.
    """

    node: jax.Array
    relation: jax.Array
    known: jax.Array

    def take(self, order: np.ndarray) -> "CodeLinks":
        """Return the same of a batch whose codes stand in another order, on the host."""
        return CodeLinks(self.node[order], self.relation[order], self.known[order][:, order])

    def part(self, slots: np.ndarray) -> "CodeLinks":
        """Return what belongs to some slots, on the host; `known` keeps the columns of the global batch."""
        return CodeLinks(self.node[slots], self.relation[slots], self.known[slots])


@flax.struct.dataclass
class Batch:
    """Hold a batch of codes; arrays are host-local until they are placed, then sharded over the `data` axis.

    Attributes:
        text: `[batch, length, hidden]` cached token states; `[batch, length]` int32 rows of `Tables.token_states` where
            those are on the device; `[batch, length]` int32 token ids if the text encoder is trained.
        text_mask: `[batch, length]` bool, real tokens.
        graph: per-device padded subgraphs stacked on a leading axis. `nodes` holds `node_id` (row of the node tables),
            `kind` (ORDINARY, SELF, MISSING) and `hop`, each `[devices, nodes]` int32; `edges` is the `[devices, edges]`
            int32 relation; `n_node` and `n_edge` are `[devices, batch / devices + 1]`, the last graph being padding.
            Edge 2i and 2i + 1 of a subgraph are one fact in its two directions.
        valid: `[batch]` bool, False for padding rows.
        index: `[batch]` int32, row of the code in the code table.
        text_id: `[batch]` int32, equal for codes of identical description.
        graph_id: `[batch]` int32, equal for codes of identical subgraph.
        partner: `[batch]` int32, slot of a code joined to this one by a graph edge, -1 for none.
        small: (tokens, nodes) that no code exceeds but those in every `TIER`th slot, or None where that does not hold.
            It is static: text and cross-attention are computed at that smaller shape for all but these slots.
        links: to be predicted; None where none are.
        frozen_means: `[batch, text width]` float32 means of the frozen encoder's states, 0 where no description is
            shown; None unless the text encoder is trained and distilled from them.
    """

    text: jax.Array
    text_mask: jax.Array
    graph: jraph.GraphsTuple
    valid: jax.Array
    index: jax.Array
    text_id: jax.Array
    graph_id: jax.Array
    partner: jax.Array
    small: tuple[int, int] | None = flax.struct.field(pytree_node=False, default=None)
    links: CodeLinks | None = None
    frozen_means: jax.Array | None = None


# Every `TIER`th slot is for codes of any size. A fixed pattern of slots is the same on any number of devices.
TIER = 8


def split_tiers(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Split into the slots of small codes `[batch * (TIER - 1) / TIER, ...]` and of any size `[batch / TIER, ...]`."""
    groups = x.reshape(-1, TIER, *x.shape[1:])
    return groups[:, :-1].reshape(-1, *x.shape[1:]), groups[:, -1]


def join_tiers(small: jax.Array, large: jax.Array) -> jax.Array:
    """Join the slots that `split_tiers` split, in their original order."""
    groups = small.reshape(-1, TIER - 1, *small.shape[1:])
    return jnp.concatenate([groups, large[:, None]], axis=1).reshape(-1, *small.shape[1:])


# Stands for padding in place of a row of `Tables.token_states`.
NO_STATE = np.iinfo(np.int32).max


@flax.struct.dataclass
class Tables:
    """Hold constant features of graph nodes and of descriptions on the device.

    Attributes:
        node_type: `[nodes]` int32.
        node_name: `[nodes]` int32, row of the node's name in `name_embedding`; row 0 is for nodes that are not used.
        name_embedding: `[names, hidden]` mean-pooled text embedding of each distinct name.
        token_states: `[tokens, hidden]` of all descriptions, one after the other; None if batches hold the states.
    """

    node_type: jax.Array
    node_name: jax.Array
    name_embedding: jax.Array
    token_states: jax.Array | None = None


def with_states(batch: Batch, tables: Tables) -> Batch:
    """Return the batch with its token states, which are looked up in `tables` if the batch holds only rows."""
    if tables.token_states is None or batch.text.ndim > 2:
        return batch
    states = jnp.take(tables.token_states, batch.text, axis=0, mode="fill", fill_value=0)
    return batch.replace(text=states)


def has_text(batch: Batch) -> jax.Array:
    """Return `[batch]` bool, the codes that are shown with a description."""
    return jnp.any(batch.text_mask, axis=1)


def has_both(batch: Batch) -> jax.Array:
    """Return `[batch]` bool, the codes that are shown with a description and with a subgraph."""

    def has_graph(graph: jraph.GraphsTuple) -> jax.Array:
        first_node = (jnp.cumsum(graph.n_node) - graph.n_node)[:-1]
        return graph.nodes["kind"][first_node] != MISSING

    return has_text(batch) & jax.vmap(has_graph)(batch.graph).reshape(-1)


@dataclasses.dataclass(frozen=True)
class InputSizes:
    """Hold the counts and widths of the data that the model is built for."""

    text_width: int
    num_node_types: int
    num_relations: int
    num_nodes: int
    max_nodes: int
