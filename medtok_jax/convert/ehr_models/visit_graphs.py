"""Open visit graphs that were written for GT-BEHRT: each history is made when the notebook asks for it.

This file lies in the folder that `python -m medtok_jax.convert --to=gt_behrt` wrote and needs only numpy, torch and
torch_geometric:

    dataset = VisitGraphs(FOLDER)     # in place of the notebook's pickle: len(dataset), dataset[i]
    train = dataset.of("train")       # histories of one split

An edge follows from the kinds of the codes and their numbers of nodes, so the files hold these and not the edges, of
which a visit of 50 codes has thousands. A visit that histories share has its graph once, and an entry in each:

    graphs/nodes.npy          [nodes] int32, node ids graph after graph, without the readout node
    graphs/node_offsets.npy   [graphs + 1] int64, the nodes of graph g are nodes[node_offsets[g]:node_offsets[g + 1]]
    graphs/code_kind.npy      [codes] int8, 0 diagnosis, 1 procedure, 2 prescription
    graphs/code_nodes.npy     [codes] uint16, number of nodes of each code
    graphs/code_offsets.npy   [graphs + 1] int64
    graphs/entry_graph.npy    [entries] int32, the graph of each entry, history after history
    graphs/fields.npy         [entries, 5] int16, the values of `FIELDS`
    graphs/histories.npy      [histories, 3] int64: first entry, the entry after the last, label
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

NUM_VISITS = 50
FIELDS = ("age", "time", "delta", "los", "adm_type")
ARRAYS = ("nodes", "node_offsets", "code_kind", "code_nodes", "code_offsets", "entry_graph", "fields", "histories")
# Kind of the edge, 0 to 5, between nodes of two kinds of codes, and of an edge of the readout node.
PAIR_EDGE = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])
READOUT_EDGE = 6


class VisitGraphs(Sequence):
    """Make the histories of a folder: element i is a new list of exactly 50 `torch_geometric.data.Data`.

    Args:
        folder: the folder.
        rows: numbers of the histories, in order; None for all.

    Raises:
        OSError, ValueError: a file is missing or is not an array.
    """

    def __init__(self, folder: str | Path, rows: np.ndarray | None = None):
        self.folder = Path(folder)
        # Mapped into memory, so that only the visits that are asked for are read.
        self.arrays = {
            name: np.load(self.folder / "graphs" / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS
        }
        self.rows = np.arange(len(self.arrays["histories"])) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list:
        start, stop, label = (int(number) for number in self.arrays["histories"][self.rows[index]])
        shown = [self.visit(entry, label) for entry in range(start, stop)]
        # The notebook writes a number into each visit, so padding is made anew too.
        return shown + [self.padding() for _ in range(NUM_VISITS - len(shown))]

    def of(self, split: str) -> "VisitGraphs":
        """Return the histories of a split: `train`, `tuning` or `held_out`."""
        splits = json.loads((self.folder / "samples.json").read_text())["split"]
        return VisitGraphs(self.folder, self.rows[np.array([splits[row] == split for row in self.rows], bool)])

    def visit(self, entry: int, label: int):
        """Return the visit of an entry as `torch_geometric.data.Data`; its readout node is node 0."""
        graph = int(self.arrays["entry_graph"][entry])
        nodes = self._part("nodes", "node_offsets", graph).astype(np.int64)
        kinds, counts = (self._part(name, "code_offsets", graph) for name in ("code_kind", "code_nodes"))
        fields = dict(zip(FIELDS, self.arrays["fields"][entry].tolist(), strict=True))
        index, attr = visit_edges(kinds, counts.astype(np.int64))
        return _graph(np.concatenate([[0], nodes]), index, attr, {**fields, "mask_v": 1, "label": label, "mask": 1})

    def padding(self):
        """Return the graph that stands for a missing visit: the readout node alone."""
        numbers = dict.fromkeys((*FIELDS, "mask_v", "label", "mask"), 0)
        return _graph(np.zeros(1, np.int64), np.zeros((2, 0), np.int64), np.zeros(0, np.int64), numbers)

    def _part(self, name: str, offsets: str, graph: int) -> np.ndarray:
        start, stop = self.arrays[offsets][graph : graph + 2]
        return np.asarray(self.arrays[name][start:stop])


def _graph(x: np.ndarray, index: np.ndarray, attr: np.ndarray, numbers: dict[str, int]):
    import torch
    from torch_geometric.data import Data

    tensors = {"x": x, "edge_index": index, "edge_attr": attr}
    return Data(**{name: torch.from_numpy(array) for name, array in tensors.items()}, **numbers)


def visit_edges(kinds: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of a visit, in both directions.

    Edges join the readout node with all others, the nodes of a code with one another, and the first, second, ... nodes
    of any two codes, so that codes of one node each are all joined.

    Args:
        kinds: `[codes]` int8, kind of each code.
        counts: `[codes]` int, number of nodes of each code.

    Returns:
        `edge_index` `[2, edges]` and `edge_attr` `[edges]`, int64; node 0 is the readout, those of the codes follow.
    """
    code = np.repeat(np.arange(len(counts)), counts)
    rank = np.arange(len(code)) - np.repeat(np.cumsum(counts) - counts, counts)
    joined = (code[:, None] == code) | (rank[:, None] == rank)
    np.fill_diagonal(joined, False)
    source, target = np.nonzero(joined)
    attr = PAIR_EDGE[kinds[code[source]], kinds[code[target]]]
    nodes = np.arange(1, len(code) + 1)
    readout = np.zeros(len(code), np.int64)
    index = np.stack(
        [np.concatenate([source + 1, nodes, readout]), np.concatenate([target + 1, readout, nodes])]
    ).astype(np.int64)
    return index, np.concatenate([attr, np.full(2 * len(code), READOUT_EDGE)]).astype(np.int64)
