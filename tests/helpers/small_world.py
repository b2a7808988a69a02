"""Define a small world of twelve codes with their facts and subgraphs, for the fixtures of the second floor."""

import numpy as np

from preprocessing.graph.knowledge_graph import from_facts, node_table

TEXT_WIDTH = 8
VOCABULARY = 30

# Nodes 0-9 are the codes 0-9; nodes 10-13 are phenotypes. Node 9 has no edge.
FACTS = {
    "is_a": [(1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (6, 2), (7, 2)],
    "maps_to": [(3, 8), (4, 8)],
    "has_phenotype": [(1, 10), (3, 11), (4, 11), (5, 12), (12, 13)],
}
REVERSE = {"is_a": "parent_of", "maps_to": "maps_to", "has_phenotype": "phenotype_of"}
# Code 10 has no subgraph; code 11 is no node itself but hangs on node 12.
ANCHORS = [*range(10), None, 12]
SPLIT = np.array([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 2, 0], np.int8)
DESCRIPTIONS = [f"disease {number}" for number in range(12)]
DESCRIPTIONS[5] = DESCRIPTIONS[4]


def world_graph():
    rows = [("code", f"code {number}", "X", str(number)) for number in range(10)]
    rows += [("phenotype", f"phenotype {number}", "HPO", str(number)) for number in range(10, 14)]
    return from_facts(node_table(rows), {name: np.array(pairs) for name, pairs in FACTS.items()}, REVERSE)


def subgraph_of(graph, anchor: int | None) -> dict:
    """Return the two hops around the anchor; edge 2i + 1 is the reverse of edge 2i."""
    if anchor is None:
        return {"nodes": [], "hops": [], "edges": []}
    hop = {anchor: 0}
    for distance in (1, 2):
        for node in [n for n, h in hop.items() if h == distance - 1]:
            for neighbor in graph.indices[graph.indptr[node] : graph.indptr[node + 1]]:
                hop.setdefault(int(neighbor), distance)
    index = {node: number for number, node in enumerate(hop)}
    relation = {name: number for number, name in enumerate(graph.relation_names)}
    edges = []
    for name, pairs in FACTS.items():
        for a, b in pairs:
            if a in index and b in index:
                edges.append((index[a], index[b], relation[name]))
                edges.append((index[b], index[a], relation[REVERSE[name]]))
    return {"nodes": list(hop), "hops": list(hop.values()), "edges": edges}
