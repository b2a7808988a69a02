"""Hold subgraphs of some codes as flat arrays, and cut from them what is masked."""

import dataclasses
from typing import NamedTuple

import numpy as np

from medtok_jax.data.code_table import CodeTable
from preprocessing.common.ragged import positions


class Masked(NamedTuple):
    """Say what is masked of each code of a batch, `[batch]` each, bool but for `link`.

    Attributes:
        positives: the relations that positives are drawn from, and all nodes that only they lead to: a model that
            reads the positive's name off the graph learns nothing for codes that have none.
        graph: the complete subgraph.
        text: the description.
        link: integers, node of the knowledge graph that is to be predicted, and all nodes that only it leads to; -1
            for none.
    """

    positives: np.ndarray
    graph: np.ndarray
    text: np.ndarray
    link: np.ndarray

    @classmethod
    def none(cls, count: int) -> "Masked":
        """Return masks that leave everything visible."""
        return cls(*np.zeros((3, count), bool), link=np.full(count, -1))

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int, *, positives: float, modality: float) -> "Masked":
        """Draw masks at random.

        Args:
            rng: generator.
            count: codes of the batch.
            positives: share of codes whose relations to positives are masked.
            modality: share of codes whose graph is masked, and as large a share whose text is; never both.
        """
        draw = rng.random(count)
        return cls(rng.random(count) < positives, draw < modality, draw >= 1.0 - modality, np.full(count, -1))

    @property
    def cuts_graphs(self) -> bool:
        """Return whether anything of a subgraph is masked."""
        return bool(self.positives.any() or self.graph.any() or (self.link >= 0).any())

    def take(self, order: np.ndarray) -> "Masked":
        """Return the codes in another order, or some of them."""
        return Masked(*(part[order] for part in self))


@dataclasses.dataclass(frozen=True)
class Subgraphs:
    """Hold the subgraphs of some codes, one after the other.

    Attributes:
        nodes, hops: `[nodes]` ids in the knowledge graph, distance from the code.
        of_node, of_edge: `[nodes]`, `[edges]` the code that each belongs to.
        senders, receivers: `[edges]` positions in `nodes`.
        relations: `[edges]`; edges 2i and 2i + 1 of a code are one fact in its two directions.
        self_node: `[codes]` position in `nodes` of the code itself, -1 for none.
    """

    nodes: np.ndarray
    hops: np.ndarray
    of_node: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    relations: np.ndarray
    of_edge: np.ndarray
    self_node: np.ndarray

    @classmethod
    def of(cls, table: CodeTable, rows: np.ndarray) -> "Subgraphs":
        """Return the subgraphs of some rows of the table."""
        where, counts = positions(table.node_offsets, rows)
        starts = np.cumsum(counts) - counts
        edges, edge_counts = positions(table.edge_offsets, rows)
        shift = np.repeat(starts, edge_counts)
        self_node = table.self_node[rows]
        return cls(
            nodes=table.nodes[where],
            hops=table.hops[where],
            of_node=np.repeat(np.arange(len(rows)), counts),
            senders=table.senders[edges] + shift,
            receivers=table.receivers[edges] + shift,
            relations=table.relations[edges],
            of_edge=np.repeat(np.arange(len(rows)), edge_counts),
            self_node=np.where(self_node >= 0, starts + self_node, -1),
        )

    def without(self, masked: Masked, relations: np.ndarray) -> "Subgraphs":
        """Return the subgraphs without what is masked.

        Args:
            masked: what is masked of each code.
            relations: `[relations of the graph]` bool, those that positives are drawn from, in both directions.
        """
        # A code without such a relation has nothing to mask.
        has_any = np.bincount(self.of_edge[relations[self.relations]], minlength=len(self.self_node)) > 0
        cut = masked.positives & has_any
        hidden = (self.nodes == masked.link[self.of_node]) & (self.hops > 0)
        open_edge = ~(relations[self.relations] & cut[self.of_edge]) & ~hidden[self.senders] & ~hidden[self.receivers]
        cut |= np.bincount(self.of_node[hidden], minlength=len(cut)) > 0
        hops = self._hops(open_edge)
        kept = (hops >= 0) | ~cut[self.of_node]
        kept &= ~masked.graph[self.of_node]
        return self._cut(kept, open_edge, np.where(cut[self.of_node], hops, self.hops), ~masked.graph)

    def along(self, open_edge: np.ndarray) -> "Subgraphs":
        """Return the anchors and what open edges `[edges]` bool join to them, with the hops over these."""
        hops = self._hops(open_edge)
        return self._cut(hops >= 0, open_edge, hops, np.ones(len(self.self_node), bool))

    def _cut(self, kept: np.ndarray, open_edge: np.ndarray, hops: np.ndarray, knows: np.ndarray) -> "Subgraphs":
        """Return kept nodes, the open edges between them, and the own node of each code that knows it."""
        edge = open_edge & kept[self.senders] & kept[self.receivers]
        place = np.cumsum(kept) - 1
        known = (self.self_node >= 0) & knows
        return Subgraphs(
            nodes=self.nodes[kept],
            hops=hops[kept],
            of_node=self.of_node[kept],
            senders=place[self.senders[edge]],
            receivers=place[self.receivers[edge]],
            relations=self.relations[edge],
            of_edge=self.of_edge[edge],
            self_node=np.where(known, place[self.self_node], -1) if len(place) else self.self_node,
        )

    def _hops(self, open_edge: np.ndarray) -> np.ndarray:
        """Return the distance `[nodes]` from the anchors along open edges, -1 where it is more than any node's was."""
        hops = np.where(self.hops == 0, 0, -1)
        senders, receivers = self.senders[open_edge], self.receivers[open_edge]
        for distance in range(int(self.hops.max(initial=0))):
            reached = receivers[hops[senders] == distance]
            hops[reached[hops[reached] < 0]] = distance + 1
        return hops
