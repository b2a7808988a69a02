"""Read the examples of a prepared data set as columns, for statistics."""

import dataclasses

import numpy as np

from preprocessing.common.progress import Bar
from preprocessing.dataset.splits import SPLITS
from preprocessing.graph.knowledge_graph import KnowledgeGraph
from preprocessing.medtok_codes import MedtokCodes

_BATCH = 4096
_HPO_TYPES = ("phenotype", "disease", "gene")


@dataclasses.dataclass(frozen=True)
class Columns:
    """Hold the values of n examples that statistics need, as arrays [n].

    Attributes:
        system: object (str), OMOP vocabulary of the code.
        split: object (str), name of the split.
        description: object (str), text of the code.
        is_empty: bool, whether the code has no official description.
        nodes: int64, number of nodes of the subgraph.
        edges: int64, number of edges of the subgraph, counting both directions.
        has_hpo: bool, whether an HPO node is in the subgraph.
        links_hpo: bool, whether the code's own node is linked to an HPO node.
        has_self: bool, whether a node of the subgraph is the code itself.
        is_sound: bool, whether node ids are in the graph, ends of edges are in the subgraph, and every edge has its
            reverse.
    """

    system: np.ndarray
    split: np.ndarray
    description: np.ndarray
    is_empty: np.ndarray
    nodes: np.ndarray
    edges: np.ndarray
    has_hpo: np.ndarray
    links_hpo: np.ndarray
    has_self: np.ndarray
    is_sound: np.ndarray


def read_columns(builder: MedtokCodes, graph: KnowledgeGraph, progress: bool = True) -> Columns:
    """Read all examples of the prepared data set of `builder`, whose knowledge graph is `graph`."""
    hpo_types = [position for position, name in enumerate(graph.node_types) if name in _HPO_TYPES]
    is_hpo = np.isin(graph.node_type_ids(), hpo_types)
    hpo_link = [position for position, name in enumerate(graph.relation_names) if name == "hpo_link"]
    rows = []
    total = sum(builder.info.splits[split].num_examples for split in SPLITS)
    with Bar(total=total, desc="reading", unit=" codes", show=progress, leave=False) as bar:
        for split in SPLITS:
            source = builder.as_data_source(split)
            for start in range(0, len(source), _BATCH):
                batch = source.__getitems__(range(start, min(start + _BATCH, len(source))))
                rows += [_row(example, split, is_hpo, hpo_link, graph) for example in batch]
                bar.update(len(batch))
    columns = zip(*rows, strict=True)
    return Columns(*(np.array(column, dtype=object if isinstance(column[0], str) else None) for column in columns))


def _row(example: dict, split: str, is_hpo: np.ndarray, hpo_link: list[int], graph: KnowledgeGraph) -> tuple:
    system, code, description = (example[name].decode() for name in ("system", "code", "description"))
    own = example["senders"] == example["self_node"]
    is_sound = _is_sound(example, graph)
    return (
        system,
        split,
        description,
        description == f"{system} {code}",
        len(example["nodes"]),
        len(example["senders"]),
        is_sound and bool(is_hpo[example["nodes"]].any()),
        is_sound and bool(np.isin(example["relations"][own], hpo_link).any()),
        bool(example["self_node"] >= 0),
        is_sound,
    )


def _is_sound(example: dict, graph: KnowledgeGraph) -> bool:
    nodes, senders, receivers, relations = (example[name] for name in ("nodes", "senders", "receivers", "relations"))
    count = len(nodes)
    if not len(senders) == len(receivers) == len(relations) or len(senders) % 2 or len(example["hops"]) != count:
        return False
    if not -1 <= example["self_node"] < max(count, 1) or len(np.unique(nodes)) < count:
        return False
    within = [(nodes, graph.num_nodes), (senders, count), (receivers, count), (relations, len(graph.relation_names))]
    if not all(((values >= 0) & (values < bound)).all() for values, bound in within):
        return False
    mirrored = np.array_equal(senders[::2], receivers[1::2]) and np.array_equal(receivers[::2], senders[1::2])
    return mirrored and np.array_equal(np.array(graph.reverse)[relations[::2]], relations[1::2])
