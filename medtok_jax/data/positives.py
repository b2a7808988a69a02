"""Draw codes of nearly the same meaning, by the knowledge graph: further positives of the contrastive losses."""

from collections.abc import Sequence

import numpy as np

from medtok_jax.data.dataset import Data
from preprocessing.common.ragged import positions
from preprocessing.graph.knowledge_graph import KnowledgeGraph


def both_directions(graph: KnowledgeGraph, names: Sequence[str]) -> np.ndarray:
    """Return `[relations]` bool, relations of these names and their reverses; unknown names are ignored."""
    named = np.isin(graph.relation_names, list(names))
    return named | named[np.asarray(graph.reverse)]


class Positives:
    """Draw a training code that a relation joins to each of some codes.

    Args:
        data: codes and their graph.
        rows: training rows of the table; no other code is drawn.
        relations: `[relations]` bool, which relations count.
    """

    def __init__(self, data: Data, rows: np.ndarray, relations: np.ndarray):
        self.data, self.rows, self.relations = data, rows, relations
        self.is_train = np.zeros(len(data.table), bool)
        self.is_train[rows] = True

    def draw(self, anchors: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return a random positive of each anchor `[anchors]`, and which anchors have one.

        Where there is none, it is a random training code.
        """
        owner, row = self.joined(anchors)
        order = np.lexsort((rng.random(len(owner)), owner))
        found = np.bincount(owner, minlength=len(anchors)) > 0
        first = np.searchsorted(owner[order], np.flatnonzero(found))
        drawn = self.rows[rng.integers(len(self.rows), size=len(anchors))]
        drawn[found] = row[order][first]
        return drawn, found

    def joined(self, anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return all pairs of an anchor and a positive of it: the anchor's position, rising, and the positive's row."""
        table = self.data.table
        where, counts = positions(table.edge_offsets, anchors)
        owner = np.repeat(np.arange(len(anchors)), counts)
        counted = (table.senders[where] == table.self_node[anchors][owner]) & self.relations[table.relations[where]]
        where, owner = where[counted], owner[counted]
        node = table.nodes[table.node_offsets[anchors][owner] + table.receivers[where]]
        row = self.data.row_of_node[node]
        usable = row >= 0
        usable[usable] = self.is_train[row[usable]]
        return owner[usable], row[usable]
