"""Which nodes of a knowledge graph a code stands on: the anchors of its subgraph."""

from collections.abc import Iterable, Mapping

import numpy as np

from preprocessing.codes import CodeRecord


def link_by_key(records: Iterable[CodeRecord], ids: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Anchors each code at the node that has its key, for graphs whose nodes are the codes themselves.

    Args:
        records: n codes.
        ids: node key -> node id.

    Returns:
        anchors: int32 [n, 1], -1 where the graph has no such node.
        self_node: int32 [n], column of `anchors` that holds the node which is the code itself (0), or -1.
    """
    anchors = np.array([ids.get(record.key, -1) for record in records], dtype=np.int32).reshape(-1, 1)
    return anchors, np.where(anchors[:, 0] >= 0, 0, -1).astype(np.int32)
