"""Pad token states and subgraphs into a `Batch`, for training and new codes alike: pure functions of host arrays."""

import jraph
import numpy as np

from medtok_jax.batch import MISSING, ORDINARY, SELF, Batch, CodeLinks
from medtok_jax.data.masking import Subgraphs


def pad_tokens(
    flat: np.ndarray, counts: np.ndarray, length: int, *, masked: np.ndarray | None = None, fill: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Pad the tokens of some texts to one length.

    Args:
        flat: `[tokens, ...]` states, ids, or rows of a table, of all texts one after the other.
        counts: `[batch]` tokens of each text.
        length: padded length, at least the largest count.
        masked: `[batch]` bool, texts that are left out; None for none.
        fill: value at padding.

    Returns:
        `[batch, length, ...]` of the dtype of `flat`, and `[batch, length]` bool, True at real tokens.
    """
    mask = np.arange(length) < counts[:, None]
    padded = np.full((*mask.shape, *flat.shape[1:]), fill, flat.dtype)
    padded[mask] = flat
    if masked is not None:
        padded[masked] = fill
        mask[masked] = False
    return padded, mask


def pad_subgraphs(part: Subgraphs, num_slots: int, shape: tuple[int, int]) -> jraph.GraphsTuple:
    """Pad the subgraphs of some codes to one graph; see `Batch.graph` without its leading axis.

    A code without a subgraph gets the one node that stands for that; slots beyond the codes stay empty.

    Args:
        part: of the codes, one after the other.
        num_slots: codes that fit, at least as many as there are.
        shape: (nodes, edges) to pad to, with at least one spare node.
    """
    count, (num_nodes, num_edges) = len(part.self_node), shape
    n_node = np.bincount(part.of_node, minlength=count)
    missing = n_node == 0
    padded_counts = n_node + missing
    starts = np.cumsum(padded_counts) - padded_counts
    # What the missing nodes before a code shift its own nodes by.
    shift = starts - (np.cumsum(n_node) - n_node)
    place = np.arange(len(part.nodes)) + shift[part.of_node]
    node_id, hop = np.zeros(num_nodes, np.int32), np.zeros(num_nodes, np.int32)
    node_id[place], hop[place] = part.nodes, part.hops
    kind = np.full(num_nodes, ORDINARY, np.int32)
    kind[starts[missing]] = MISSING
    kind[place[part.self_node[part.self_node >= 0]]] = SELF
    edges = len(part.senders)
    senders, receivers = np.full(num_edges, num_nodes - 1, np.int32), np.full(num_edges, num_nodes - 1, np.int32)
    senders[:edges], receivers[:edges] = place[part.senders], place[part.receivers]
    relation = np.zeros(num_edges, np.int32)
    relation[:edges] = part.relations
    return jraph.GraphsTuple(
        nodes={"node_id": node_id, "kind": kind, "hop": hop},
        edges=relation,
        senders=senders,
        receivers=receivers,
        n_node=_with_padding(padded_counts, num_slots, num_nodes),
        n_edge=_with_padding(np.bincount(part.of_edge, minlength=count), num_slots, num_edges),
        globals=None,
    )


def _with_padding(counts: np.ndarray, num_slots: int, total: int) -> np.ndarray:
    """Return `[num_slots + 1]` int32: the counts, zeros for empty slots, and what pads up to `total`."""
    padded = np.zeros(num_slots + 1, np.int32)
    padded[: len(counts)] = counts
    padded[-1] = total - counts.sum()
    return padded


def make_batch(
    *,
    text: np.ndarray,
    text_mask: np.ndarray,
    graphs: list[jraph.GraphsTuple],
    valid: np.ndarray,
    index: np.ndarray | None = None,
    text_id: np.ndarray | None = None,
    graph_id: np.ndarray | None = None,
    partner: np.ndarray | None = None,
    small: tuple[int, int] | None = None,
    links: CodeLinks | None = None,
    frozen_means: np.ndarray | None = None,
) -> Batch:
    """Put padded parts together; see `Batch` for each. Nothing but training reads those that may be None.

    Args:
        text, text_mask: of `pad_tokens`.
        graphs: of `pad_subgraphs`, one a device.
        valid: `[batch]` bool.
        index, text_id, graph_id, partner: `[batch]` integers.
        small: static shape of small codes.
        links: to be predicted.
        frozen_means: `[batch, text width]`.
    """
    none = np.full(len(valid), -1)
    index, text_id, graph_id, partner = (
        (none if numbers is None else numbers).astype(np.int32) for numbers in (index, text_id, graph_id, partner)
    )
    return Batch(
        text=text,
        text_mask=text_mask,
        graph=stack_graphs(graphs),
        valid=valid,
        index=index,
        text_id=text_id,
        graph_id=graph_id,
        partner=partner,
        small=small,
        links=links,
        frozen_means=frozen_means,
    )


def stack_graphs(graphs: list[jraph.GraphsTuple]) -> jraph.GraphsTuple:
    """Stack graphs of one shape on a new leading axis."""
    return jraph.GraphsTuple(
        nodes={name: np.stack([graph.nodes[name] for graph in graphs]) for name in graphs[0].nodes},
        edges=np.stack([graph.edges for graph in graphs]),
        senders=np.stack([graph.senders for graph in graphs]),
        receivers=np.stack([graph.receivers for graph in graphs]),
        n_node=np.stack([graph.n_node for graph in graphs]),
        n_edge=np.stack([graph.n_edge for graph in graphs]),
        globals=None,
    )
