"""Generated graphs of a given size whose degrees follow a power law, to measure on without the real files."""

import numpy as np
import pyarrow as pa

from preprocessing.graph.knowledge_graph import NODE_SCHEMA, KnowledgeGraph, from_facts

_KINDS = 10


def power_law_graph(
    nodes: int, edges: int, relations: tuple[str, ...], *, exponent: float = 0.75, seed: int = 0
) -> KnowledgeGraph:
    """A graph of `nodes` nodes and `edges` directed edges, every second one the reverse of another.

    The ends of edges are drawn with a weight of `rank ** -exponent` (Chung and Lu, Annals of Combinatorics 2002), so
    that the largest hubs are joined to a tenth of all nodes, as in PrimeKG; ids say nothing of degrees. Relations are
    symmetric and fall off by a power law too.

    Args:
        nodes, edges: sizes. relations: names. exponent: steepness. seed: of all that is drawn.
    """
    rng = np.random.default_rng(seed)
    bounds = np.cumsum((np.arange(nodes) + 10.0) ** -exponent)
    ids = rng.permutation(nodes)
    pairs = np.empty(0, np.int64)
    wanted = edges // 2
    while len(pairs) < wanted:
        drawn = rng.random((int((wanted - len(pairs)) * 1.2) + 100, 2)) * bounds[-1]
        ends = np.sort(ids[np.searchsorted(bounds, drawn)], axis=1)
        ends = ends[ends[:, 0] != ends[:, 1]]
        pairs = np.unique(np.concatenate([pairs, ends[:, 0] * nodes + ends[:, 1]]))
    pairs = rng.permutation(pairs)[:wanted]
    share = (np.arange(len(relations)) + 1.0) ** -1.5
    kind = rng.choice(len(relations), wanted, p=share / share.sum())
    facts = {
        name: np.stack(np.divmod(pairs[kind == position], nodes), axis=1) for position, name in enumerate(relations)
    }
    return from_facts(_node_table(nodes), facts, {name: name for name in relations})


def _node_table(nodes: int) -> pa.Table:
    numbers = np.arange(nodes, dtype=np.int32)
    texts = pa.array(numbers).cast(pa.string())
    kinds = pa.array([f"type {kind}" for kind in range(_KINDS)]).take(pa.array(numbers % _KINDS))
    source = pa.array(["generated"]).take(pa.array(np.zeros(nodes, np.int32)))
    return pa.Table.from_arrays([pa.array(numbers), kinds, texts, source, texts], schema=NODE_SCHEMA)
