"""MedTok: text and subgraph of a medical code in, four quantized embeddings out (paper section 3)."""

import dataclasses

import jax
import jax.numpy as jnp
import jraph
from flax import nnx

from medtok_jax.batch import Batch, NodeTables
from medtok_jax.losses import Embeddings, View
from medtok_jax.models.bert import Bert
from medtok_jax.models.cross_attention import CrossAttention
from medtok_jax.models.graph_encoder import GraphEncoder
from medtok_jax.models.node_features import NodeFeatures
from medtok_jax.models.quantizer import Quantizer, Regions
from medtok_jax.models.text_encoder import TextEncoder


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the model must know of the data: all sizes are counts or widths."""

    text_width: int
    num_node_types: int
    num_relations: int
    num_nodes: int
    max_nodes: int


def _graph_members(graph: jraph.GraphsTuple) -> tuple[jax.Array, jax.Array]:
    """Graph number of every node and of every edge of one padded `GraphsTuple`; padding is in the last graph."""
    numbers = jnp.arange(graph.n_node.shape[0])
    of_node = jnp.repeat(numbers, graph.n_node, total_repeat_length=graph.nodes["node_id"].shape[0])
    of_edge = jnp.repeat(numbers, graph.n_edge, total_repeat_length=graph.senders.shape[0])
    return of_node, of_edge


def drop_edges(key: jax.Array, graph: jraph.GraphsTuple, first_slot: jax.Array, rate: float) -> jax.Array:
    """Which edges of one padded graph stay, `[edges]` bool, both directions of a fact together.

    The draw depends on the code's slot in the global batch and the edge's place in its subgraph alone, so that it is
    the same on any number of devices.
    """
    _, of_edge = _graph_members(graph)
    starts = jnp.cumsum(graph.n_edge) - graph.n_edge
    fact = (jnp.arange(of_edge.shape[0]) - starts[of_edge]) // 2
    slot = first_slot + of_edge
    draw = jax.vmap(lambda s, f: jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, s), f)))
    return draw(slot, fact) >= rate


class MedTok(nnx.Module):
    """The whole tokenizer but for the frozen text encoder, whose states come in the batch.

    Args:
        config: the `model` section of the configuration.
        sizes: sizes given by the data set and the text encoder.
        bert: the text encoder where it is trained too, else None.
        dtype: of activations.
        rngs: parameter initialisation.
    """

    def __init__(self, config, sizes: Sizes, *, bert: Bert | None = None, dtype=jnp.float32, rngs: nnx.Rngs):
        width, dim = config.graph_width, config.embedding_dim
        self.max_nodes, self.dtype = sizes.max_nodes, dtype
        self.text_encoder = TextEncoder(
            sizes.text_width, pooling=config.text_encoder_type, bert=bert, dtype=dtype, rngs=rngs
        )
        self.node_features = NodeFeatures(
            width=width,
            num_types=sizes.num_node_types,
            name_width=sizes.text_width,
            use_name=config.node_name_features,
            num_node_ids=sizes.num_nodes if config.node_id_features else 0,
            dtype=dtype,
            rngs=rngs,
        )
        self.graph_encoder = GraphEncoder(
            kind=config.graph_encoder_type,
            width=width,
            num_layers=config.graph_layers,
            num_heads=config.graph_heads,
            num_relations=sizes.num_relations,
            dtype=dtype,
            rngs=rngs,
        )
        self.cross_attention = CrossAttention(
            text_width=sizes.text_width,
            node_width=width,
            width=config.cross_width,
            num_heads=config.cross_heads,
            num_layers=config.cross_layers,
            dtype=dtype,
            rngs=rngs,
        )
        self.text_head = nnx.Linear(sizes.text_width, dim, dtype=dtype, rngs=rngs)
        self.graph_head = nnx.Linear(width, dim, dtype=dtype, rngs=rngs)
        self.text_cross_head = nnx.Linear(config.cross_width, dim, dtype=dtype, rngs=rngs)
        self.graph_cross_head = nnx.Linear(config.cross_width, dim, dtype=dtype, rngs=rngs)
        self.quantizer = Quantizer(
            Regions.from_ratios(config.codebook_size, config.text_specific_ratio, config.graph_specific_ratio),
            dim,
            num_tokens=config.num_top_k_tokens,
            kind=config.quantizer_kind,
            normalize=config.normalize,
            weight_temperature=config.weight_temperature,
            gradient=config.gradient_estimator,
            simvq=config.simvq,
            ema_decay=config.ema_decay,
            rngs=rngs,
        )

    def encode(self, batch: Batch, tables: NodeTables, *, augment=None, key: jax.Array | None = None) -> Embeddings:
        """The four prepared embeddings of a batch.

        Args:
            batch: codes.
            tables: node tables of the data set's knowledge graph.
            augment: the `augment` section of the configuration for the augmented view, None for the clean one.
            key: random key of the augmented view.
        """
        text, text_mask, edge_keep = batch.text, batch.text_mask, None
        if augment is not None:
            text_key, edge_key = jax.random.split(key)
            text_mask = self._drop_tokens(text_key, text_mask, augment.token_dropout)
            edge_keep = self._drop_edges(edge_key, batch.graph, augment.edge_dropout)
        states, pooled_text = self.text_encoder(text, text_mask)
        if augment is not None:
            keep = self._keep_features(text_key, states.shape[0], states.shape[-1], augment.feature_dropout)
            states, pooled_text = states * keep[:, None].astype(states.dtype), pooled_text * keep
        nodes, node_mask, pooled_graph = self._encode_graphs(batch.graph, tables, edge_keep)
        text_side, graph_side = self.cross_attention(states, text_mask, nodes, node_mask)
        prepare = self.quantizer.prepare
        return Embeddings(
            text_specific=prepare(self.text_head(pooled_text.astype(self.dtype))),
            graph_specific=prepare(self.graph_head(pooled_graph)),
            text_cross=prepare(self.text_cross_head(text_side)),
            graph_cross=prepare(self.graph_cross_head(graph_side)),
        )

    def quantize(self, embeddings: Embeddings) -> View:
        """Quantizes each embedding with its region (paper section 3.2)."""
        both = jnp.concatenate([embeddings.text_cross, embeddings.graph_cross])
        shared = self.quantizer(both, "shared")
        batch = embeddings.text_cross.shape[0]
        return View(
            embeddings=embeddings,
            text_specific=self.quantizer(embeddings.text_specific, "text"),
            graph_specific=self.quantizer(embeddings.graph_specific, "graph"),
            text_cross=jax.tree.map(lambda x: x[:batch], shared),
            graph_cross=jax.tree.map(lambda x: x[batch:], shared),
        )

    def __call__(self, batch: Batch, tables: NodeTables, *, augment=None, key: jax.Array | None = None) -> View:
        """Encodes and quantizes a batch."""
        return self.quantize(self.encode(batch, tables, augment=augment, key=key))

    def _drop_tokens(self, key: jax.Array, mask: jax.Array, rate: float) -> jax.Array:
        """Token-state dropout; the first token always stays, so that no text becomes empty."""
        keep = jax.random.uniform(jax.random.fold_in(key, 0), mask.shape) >= rate
        return mask & keep.at[:, 0].set(True)

    def _keep_features(self, key: jax.Array, batch: int, width: int, rate: float) -> jax.Array:
        """Feature dropout, one `[batch, width]` draw a code, scaled as dropout is."""
        keep = jax.random.uniform(jax.random.fold_in(key, 1), (batch, width)) >= rate
        return keep / (1.0 - rate)

    def _drop_edges(self, key: jax.Array, graph: jraph.GraphsTuple, rate: float) -> jax.Array:
        per_device = graph.n_node.shape[1] - 1
        first_slots = jnp.arange(graph.n_node.shape[0]) * per_device
        return jax.vmap(lambda g, first: drop_edges(key, g, first, rate))(graph, first_slots)

    def _encode_graphs(
        self, graph: jraph.GraphsTuple, tables: NodeTables, edge_keep: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Node states `[batch, max_nodes, width]`, their mask, and pooled graphs `[batch, width]`.

        Each device encodes its own stack entry, so that nothing of the graphs crosses devices.
        """
        keep = jnp.ones(graph.senders.shape, bool) if edge_keep is None else edge_keep
        nodes, mask, pooled = jax.vmap(lambda g, k: self._encode_stack(g, tables, k))(graph, keep)
        flat = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
        return flat(nodes), flat(mask), flat(pooled)

    def _encode_stack(
        self, graph: jraph.GraphsTuple, tables: NodeTables, edge_keep: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        node_id, hop = graph.nodes["node_id"], graph.nodes["hop"]
        of_node, _ = _graph_members(graph)
        graphs = graph.n_node.shape[0]
        features = self.node_features(
            tables.node_type[node_id],
            tables.name_embedding[tables.node_name[node_id]],
            graph.nodes["kind"],
            node_id,
        )
        states, pooled = self.graph_encoder(
            features,
            senders=graph.senders,
            receivers=graph.receivers,
            relations=graph.edges,
            edge_mask=jraph.get_edge_padding_mask(graph) & edge_keep,
            hops=hop,
            graph_index=of_node,
            node_mask=jraph.get_node_padding_mask(graph),
            num_graphs=graphs,
        )
        places = jnp.arange(self.max_nodes)
        starts = (jnp.cumsum(graph.n_node) - graph.n_node)[:-1]
        dense = states[jnp.minimum(starts[:, None] + places, states.shape[0] - 1)]
        return dense, places[None, :] < graph.n_node[:-1, None], pooled[:-1]
