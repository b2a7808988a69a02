"""Define MedTok: text and subgraph of a medical code in, four quantized embeddings out (paper section 3)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jraph
from flax import nnx
from ml_collections import ConfigDict

from medtok_jax.batch import Batch, InputSizes, Tables, join_tiers, split_tiers
from medtok_jax.models.augmentation import Keep, KeptGraph, augmentation, graph_members, whole_graph
from medtok_jax.models.bert import Bert
from medtok_jax.models.codebook import Quantizer
from medtok_jax.models.cross_attention import CrossAttention
from medtok_jax.models.graph_encoder import GraphEncoder
from medtok_jax.models.link_head import LinkHead
from medtok_jax.models.node_features import NodeFeatures
from medtok_jax.models.outputs import Embeddings, View
from medtok_jax.models.text_encoder import TextEncoder
from medtok_jax.regions import EMBEDDINGS, REGIONS, SHARED, Regions, parts_of


class MedTok(nnx.Module):
    """Encode and quantize codes; states of a frozen text encoder come in the batch.

    Args:
        config: the `model` section of the configuration.
        sizes: sizes given by the data set and the text encoder.
        bert: the text encoder where it is trained too, else None.
        dtype: of activations.
        top_k: see `Quantizer`.
        predicts_links: whether it has a head that predicts links, which only training uses.
        rngs: parameter initialization.
    """

    def __init__(
        self,
        config: ConfigDict,
        sizes: InputSizes,
        *,
        bert: Bert | None = None,
        dtype=jnp.float32,
        top_k: Callable = jax.lax.top_k,
        predicts_links: bool = False,
        rngs: nnx.Rngs,
    ):
        width, dim = config.graph_width, config.embedding_dim
        self.parts = parts_of(config)
        self.max_nodes, self.text_width = sizes.max_nodes, sizes.text_width
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
        # Embeddings of one region are quantized alike.
        of_region = {part.region: part for part in self.parts}
        self.quantizer = Quantizer(
            Regions.from_ratios(config.codebook_size, config.text_specific_ratio, config.graph_specific_ratio),
            dim,
            num_tokens=tuple(of_region[name].num_tokens for name in REGIONS),
            num_nearest=tuple(of_region[name].num_nearest for name in REGIONS),
            kind=config.quantizer_kind,
            shared_search=config.shared_search,
            normalize=config.normalize,
            weight_temperature=config.weight_temperature,
            gradient=config.gradient_estimator,
            simvq=config.simvq,
            ema_decay=config.ema_decay,
            top_k=top_k,
            rngs=rngs,
        )
        self.link_head = (
            LinkHead(sizes.num_relations, len(self.parts) * dim, sizes.text_width, rngs=rngs)
            if predicts_links
            else None
        )

    def encode(self, batch: Batch, tables: Tables, keep: Keep | None = None) -> Embeddings:
        """Return the four prepared embeddings of a batch.

        Args:
            batch: codes.
            tables: node tables of the data set's knowledge graph.
            keep: what an augmented view keeps; None for all.
        """
        text_mask = batch.text_mask if keep is None else batch.text_mask & keep.tokens
        features = jnp.ones((), jnp.float32) if keep is None else keep.features
        features = jnp.broadcast_to(features, (text_mask.shape[0], self.text_width))
        kept = None if keep is None else keep.graph
        nodes, node_mask, pooled_graph = self._encode_graphs(batch.graph, tables, kept)
        codes = (batch.text, text_mask, features, nodes, node_mask)
        if batch.small is None:
            pooled_text, text_side, graph_side = self._join_modalities(*codes)
        else:
            tokens, places = batch.small
            small, large = zip(*(split_tiers(part) for part in codes), strict=True)
            text, mask, scale, small_nodes, small_node_mask = small
            cut = (text[:, :tokens], mask[:, :tokens], scale, small_nodes[:, :places], small_node_mask[:, :places])
            sides = zip(self._join_modalities(*cut), self._join_modalities(*large), strict=True)
            pooled_text, text_side, graph_side = (join_tiers(*side) for side in sides)
        prepare = self.quantizer.prepare
        return Embeddings(
            text_specific=prepare(self.text_head(pooled_text)),
            graph_specific=prepare(self.graph_head(pooled_graph)),
            text_cross=prepare(self.text_cross_head(text_side)),
            graph_cross=prepare(self.graph_cross_head(graph_side)),
        )

    def _join_modalities(
        self, text: jax.Array, text_mask: jax.Array, features: jax.Array, nodes: jax.Array, node_mask: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return pooled text `[batch, text width]` and both sides of cross-attention `[batch, cross width]`."""
        states, pooled = self.text_encoder(text, text_mask)
        scale = features.astype(states.dtype)
        # Not scaled, so one state for all codes: its projection is not reduced over devices a second time.
        no_text = self.text_encoder.no_text[...].astype(states.dtype)
        sides = self.cross_attention(states * scale[:, None], text_mask, nodes, node_mask, no_text)
        return pooled * scale, *sides

    def quantized_parts(self, embeddings: Embeddings) -> dict[str, jax.Array]:
        """Return what is quantized, `[batch, width]` each, by name in the order of `regions.parts_of`."""
        middle = (embeddings.text_cross + embeddings.graph_cross) / 2.0
        named = {SHARED: middle} | {name: getattr(embeddings, name) for name in EMBEDDINGS}
        found = {part.embedding: named[part.embedding] for part in self.parts}
        return found | ({SHARED: self.quantizer.prepare(middle)} if SHARED in found else {})

    def quantize(self, embeddings: Embeddings) -> View:
        """Quantize each part with its region (paper section 3.2)."""
        # Not one vmapped call: XLA then takes some `top_k` for a sort of all rows, which on a CPU takes most of a step.
        inputs = self.quantized_parts(embeddings)
        quantized = tuple(self.quantizer(inputs[part.embedding], part.region) for part in self.parts)
        if SHARED in inputs:
            cross = (embeddings.text_cross, embeddings.graph_cross)
            distances = tuple(self.quantizer.distances(embedding, "shared") for embedding in cross)
        else:
            distances = tuple(part.distances for part in quantized[2:])
        return View(embeddings, quantized, distances, tuple(inputs))

    def __call__(self, batch: Batch, tables: Tables) -> View:
        """Encode and quantize a batch."""
        return self.quantize(self.encode(batch, tables))

    def two_views(self, batch: Batch, tables: Tables, *, augment: ConfigDict, key: jax.Array) -> tuple[View, View]:
        """Return the clean view of a batch and one augmented by the `augment` section of the configuration.

        Both are encoded in one vmapped pass, which computes what the augmentation does not touch only once.
        """
        keep = augmentation(key, batch, augment, self.text_width)
        everything = keep.replace(
            tokens=jnp.ones_like(keep.tokens),
            features=jnp.ones_like(keep.features),
            graph=jax.vmap(whole_graph)(batch.graph),
        )
        both = jax.tree.map(lambda *parts: jnp.stack(parts), everything, keep)
        embeddings = jax.vmap(lambda kept: self.encode(batch, tables, kept))(both)
        clean, augmented = (jax.tree.map(lambda x, view=view: x[view], embeddings) for view in (0, 1))
        return self.quantize(clean), self.quantize(augmented)

    def _encode_graphs(
        self, graph: jraph.GraphsTuple, tables: Tables, kept: KeptGraph | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return node states `[batch, max_nodes, width]`, their mask, and pooled graphs `[batch, width]`.

        Each device encodes its own stack entry, so that nothing of the graphs crosses devices.
        """
        kept = jax.vmap(whole_graph)(graph) if kept is None else kept
        nodes, mask, pooled = jax.vmap(lambda g, k: self._encode_stack(g, tables, k))(graph, kept)
        nodes, mask, pooled = (x.reshape(-1, *x.shape[2:]) for x in (nodes, mask, pooled))
        return nodes, mask, pooled

    def _encode_stack(
        self, graph: jraph.GraphsTuple, tables: Tables, kept: KeptGraph
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        node_id = graph.nodes["node_id"]
        of_node, _ = graph_members(graph)
        features = self.node_features(
            tables.node_type[node_id],
            tables.name_embedding[tables.node_name[node_id]],
            graph.nodes["kind"],
            node_id,
        )
        node_mask = jraph.get_node_padding_mask(graph) & kept.nodes
        states, pooled = self.graph_encoder(
            features,
            senders=graph.senders,
            receivers=graph.receivers,
            relations=graph.edges,
            edge_mask=jraph.get_edge_padding_mask(graph) & kept.edges,
            hops=kept.hops,
            graph_index=of_node,
            node_mask=node_mask,
            num_graphs=graph.n_node.shape[0],
        )
        places = jnp.arange(self.max_nodes)
        starts = (jnp.cumsum(graph.n_node) - graph.n_node)[:-1]
        where = jnp.minimum(starts[:, None] + places, states.shape[0] - 1)
        return states[where], (places[None, :] < graph.n_node[:-1, None]) & node_mask[where], pooled[:-1]
