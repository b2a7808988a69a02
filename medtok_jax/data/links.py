"""Draw facts of the knowledge graph about codes, as the targets of link prediction.

A link is a relation and the node that it leads to from a code. Only facts of a code itself that its subgraph holds are
drawn. Facts of its parent are none: a note on a category holds for the codes below it, so that one in the graph may say
of a code what is held out.
"""

from collections.abc import Sequence

import numpy as np

from medtok_jax.batch import CodeLinks
from medtok_jax.data.dataset import Data
from medtok_jax.data.masking import Subgraphs
from medtok_jax.data.positives import both_directions
from preprocessing.common.ragged import positions


class LinkSampler:
    """Draw a link of each of some codes.

    Args:
        data: codes and their graph.
        relations: names of relations; they count in both directions.
    """

    def __init__(self, data: Data, relations: Sequence[str]):
        self.data, self.graph = data, data.table.graph
        self.relations = both_directions(self.graph, relations)

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> CodeLinks:
        """Return a random link of each code, on the host; a code that is no node of the graph has none.

        Each relation that a code has is as likely, and so is each node of that relation.
        """
        owner, source, relation, node = self._links(rows)
        # Of a code and a relation.
        group = np.unique(owner * len(self.relations) + relation, return_inverse=True)[1]
        sizes = np.bincount(group)
        # The least of exponential numbers of the rates 1 / size.
        order = np.lexsort((rng.exponential(size=len(owner)) * sizes[group], owner))
        found, first = np.unique(owner[order], return_index=True)
        drawn = np.full((3, len(rows)), -1)
        for kept, values in zip(drawn, (source, relation, node), strict=True):
            kept[found] = values[order][first]
        source, relation, node = drawn
        return CodeLinks(
            node=node.astype(np.int32), relation=relation.astype(np.int32), known=self._known(source, relation, node)
        )

    def _links(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return all links of some codes: the code's position, rising; the node it is; relation; node."""
        part = Subgraphs.of(self.data.table, rows)
        senders, receivers, relation = part.senders, part.receivers, part.relations.astype(np.int64)
        own = senders == part.self_node[part.of_edge]
        counted = own & self.relations[relation] & (part.hops[receivers] > 0)
        nodes = part.nodes.astype(np.int64)
        return part.of_edge[counted], nodes[senders[counted]], relation[counted], nodes[receivers[counted]]

    def _known(self, source: np.ndarray, relation: np.ndarray, node: np.ndarray) -> np.ndarray:
        """Return `[batch, batch]` bool, whose nodes are true for a code, or are named as its own node is.

        Args:
            source: `[batch]` node that a code with a link is, -1 for none.
            relation, node: `[batch]`, see `CodeLinks`.
        """
        linked = np.flatnonzero(node >= 0)
        where, counts = positions(self.graph.indptr, source[linked])
        owner = np.repeat(linked, counts)
        true = self.graph.relation[where] == relation[owner]
        owner, leads_to = owner[true], self.graph.indices[where[true]]
        # Several codes of a batch may have the same node.
        order = np.argsort(node, kind="stable")
        first, last = (np.searchsorted(node[order], leads_to, side=side) for side in ("left", "right"))
        matches, counts = positions(np.stack([first, last], axis=1).reshape(-1), 2 * np.arange(len(first)))
        name = np.where(node >= 0, self.data.node_name[node], -1)
        known = (name[:, None] == name) & (node >= 0)[:, None]
        known[np.repeat(owner, counts), order[matches]] = True
        return known
