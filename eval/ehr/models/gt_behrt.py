"""Define GT-BEHRT (Poulain & Beheshti, 2024, "Graph Transformers on EHRs"): a graph transformer over the codes of each
visit gives the visit a vector, and BEHRT runs over the visits.

The graph of a visit is fully connected over its codes and a readout node, whose state is the visit. Edge types of the
paper, which name the tables of MIMIC, are left out: the records of the benchmark are codes of any source.
"""

import functools

import jax
import jax.numpy as jnp
import jraph
from flax import nnx

from eval.ehr.models.batches import PatientBatch
from eval.ehr.models.behrt import VisitEncoder
from eval.ehr.models.embedding import SCALE
from eval.ehr.models.layers import Block, Dropout, numbered

GRAPH_LAYERS = 2


def graph_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    senders: jax.Array,
    receivers: jax.Array,
    edge_mask: jax.Array,
) -> jax.Array:
    """Let each node attend to the senders of its edges (Shi et al., 2021, "Masked Label Prediction", eq. 3-4).

    Args:
        query: `[nodes, heads, head_width]`.
        key: `[nodes, heads, head_width]`.
        value: `[nodes, heads, head_width]`.
        senders: `[edges]` int32.
        receivers: `[edges]` int32.
        edge_mask: `[edges]` bool, False at padding.

    Returns:
        `[nodes, heads * head_width]`, zeros for a node that receives nothing.
    """
    nodes = len(query)
    logits = jnp.einsum("ehd,ehd->eh", query[receivers], key[senders]) * query.shape[-1] ** -0.5
    # Padding edges go to a segment of their own.
    segments = jnp.where(edge_mask, receivers, nodes)
    weights = jraph.segment_softmax(logits, segments, nodes + 1)
    messages = (weights[..., None] * value[senders]).reshape(len(senders), -1)
    return jraph.segment_sum(messages, segments, nodes + 1)[:nodes]


class GtBehrt(nnx.Module):
    """Encode a patient's visits as graphs, then their order by BEHRT.

    Args:
        width: width of the states.
        num_layers: number of blocks over visits.
        num_heads: heads of attention.
        inner: width inside the MLPs.
        rngs: initializes the parameters.
    """

    def __init__(self, width: int, *, num_layers: int, num_heads: int, inner: int, rngs: nnx.Rngs):
        self.readout = nnx.Param(nnx.initializers.normal(0.05)(rngs.params(), (width,), jnp.float32))
        self.layers = nnx.List([Block(width, num_heads=num_heads, inner=inner, rngs=rngs) for _ in range(GRAPH_LAYERS)])
        # Visits come at the scale of embedded codes, so that ages and positions beside them are heard from the start.
        self.norm = nnx.LayerNorm(width, scale_init=nnx.initializers.constant(SCALE), rngs=rngs)
        self.encoder = VisitEncoder(width, num_layers=num_layers, num_heads=num_heads, inner=inner, rngs=rngs)

    def __call__(
        self, embedded: jax.Array, batch: PatientBatch, dropout: Dropout | None
    ) -> tuple[jax.Array, jax.Array]:
        """Encode embedded codes `[batch, length, width]`.

        Returns:
            the state of each code in its graph plus that of its visit, `[batch, length, width]`, and patients
            `[batch, width]`.
        """
        patients, length, width = embedded.shape
        graphs = batch.graphs
        visits = graphs.visit_mask.shape[1]
        readouts = jnp.broadcast_to(self.readout[...], (patients * visits, width))
        nodes = jnp.concatenate([embedded.reshape(-1, width), readouts])
        attention = functools.partial(
            graph_attention, senders=graphs.senders, receivers=graphs.receivers, edge_mask=graphs.edge_mask
        )
        for number, layer in enumerate(self.layers):
            nodes = layer(nodes, attention, numbered(dropout, 300 + number))
        codes = nodes[: patients * length].reshape(embedded.shape)
        states, patient = self.encoder(
            self.norm(nodes[patients * length :]).reshape(patients, visits, width),
            mask=graphs.visit_mask,
            age=graphs.visit_age,
            visit=jnp.broadcast_to(jnp.arange(visits), (patients, visits)),
            dropout=dropout,
        )
        return codes + jnp.take_along_axis(states, batch.visit[..., None], axis=1), patient
