"""Measure how fast neighborhoods of all codes are cut out of a generated graph."""

from typing import NamedTuple

import numpy as np
from absl import flags

from eval.speed.generated_source import power_law_graph
from eval.speed.timing import Phases
from preprocessing.common.progress import Bar
from preprocessing.graph.icd_graph import FIRST_KEPT as ICD_FIRST
from preprocessing.graph.icd_graph import PRIORITY as ICD_PRIORITY
from preprocessing.graph.neighborhoods import neighbor_table, subgraphs
from preprocessing.primekg import FIRST_KEPT, PRIORITY

HUB_CAP, MAX_NODES = 16, 64


class Scale(NamedTuple):
    """Hold the sizes of a graph (of directed edges) and of a vocabulary of codes with 1 to `most_anchors` anchors."""

    nodes: int
    edges: int
    codes: int
    most_anchors: int
    relations: tuple[str, ...]
    first_kept: tuple[str, ...]


SCALES = {
    "primekg": Scale(129_375, 8_100_498, 617_490, 4, PRIORITY, FIRST_KEPT),
    "icd": Scale(262_444, 1_711_586, 171_835, 1, ICD_PRIORITY, ICD_FIRST),
}


def run(given: flags.FlagValues) -> dict:
    """Measure at the scale that the flags name, `primekg` in place of `release`, whose files contain the subgraphs."""
    name = given.scale if given.scale in SCALES else "primekg"
    scale = SCALES[name]
    if given.num_codes is not None:
        scale = scale._replace(codes=min(given.num_codes, scale.codes))
    return measure(name, scale).report()


def measure(name: str, scale: Scale, *, progress: bool = True, seed: int = 0) -> Phases:
    """Generate a graph, rank its neighbors, and cut out a neighborhood for every code; nearly all are distinct."""
    phases = Phases(scale=name, nodes=scale.nodes, edges=scale.edges, codes=scale.codes)
    with phases.phase("generate the graph"):
        graph = power_law_graph(scale.nodes, scale.edges, scale.relations, seed=seed)
    with phases.phase("rank neighbors", graph.num_edges, "edges"):
        table = neighbor_table(graph, hub_cap=HUB_CAP, priority=scale.relations, first_kept=scale.first_kept)
    rng = np.random.default_rng(seed)
    anchors = rng.integers(0, scale.nodes, (scale.codes, scale.most_anchors)).astype(np.int32)
    counts = rng.integers(1, scale.most_anchors + 1, scale.codes)
    anchors[np.arange(scale.most_anchors) >= counts[:, None]] = -1
    nodes = edges = 0
    with phases.phase("subgraphs", scale.codes, "codes"):
        found = subgraphs(table, anchors, max_nodes=MAX_NODES)
        for subgraph in Bar(found, total=scale.codes, unit=" codes", unit_scale=True, show=progress):
            nodes += len(subgraph.nodes)
            edges += len(subgraph.senders)
    phases.facts |= {"nodes_of_all_subgraphs": nodes, "edges_of_all_subgraphs": edges}
    return phases
