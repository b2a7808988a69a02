"""Check visit graphs for GT-BEHRT against everything that its model assumes."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from medtok_jax.convert.ehr_models.visit_graphs import FIELDS, NUM_VISITS, PAIR_EDGE, READOUT_EDGE, VisitGraphs
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading
from preprocessing.common.ragged import offsets_of

# Sizes of the model's embedding tables; values must be below them.
LIMITS = {"age": 103, "time": 367, "delta": 144, "adm_type": 11, "los": 1192, "mask_v": 2, "label": 2, "mask": 2}
_KEYS = {"x", "edge_index", "edge_attr", *LIMITS}


@dataclasses.dataclass(frozen=True)
class Contents:
    """Count the contents of a directory.

    Attributes:
        patients: number of histories.
        visits: number of their visits, without padding.
        positive: number of labels that are 1.
        most_nodes, most_edges: of any visit.
    """

    patients: int
    visits: int
    positive: int
    most_nodes: int
    most_edges: int


def check_gt_behrt(folder: Path) -> Contents:
    """Read the files that `gt_behrt` wrote, and return counts of their contents.

    Raises:
        InputError: names the first value that the model cannot use, with its history or entry, see `visit_graphs`.
    """
    with reading(folder, "the files of GT-BEHRT", "convert again"):
        return _check_files(Path(folder))


def _check_files(folder: Path) -> Contents:
    names = (folder / "node_vocabulary.txt").read_text(encoding="utf-8").splitlines()
    config = json.loads((folder / "model_config.json").read_text())
    matrix = np.load(folder / "initial_nodes.npy", allow_pickle=False)
    if len(set(names)) != len(names) or config["vocab_size"] != len(names):
        raise InputError(f"{folder}: node_vocabulary.txt repeats a name, or disagrees with model_config.json in size.")
    if matrix.shape != (len(names), config["hidden_size"] // 5) or not np.isfinite(matrix).all():
        raise InputError(
            f"{folder}/initial_nodes.npy has the shape {matrix.shape} or is not finite; it needs a row for each node."
        )
    try:
        graphs = VisitGraphs(folder)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}/graphs does not hold the arrays of visit graphs; convert again.") from error
    _check_arrays(graphs.arrays, f"{folder}/graphs")
    histories = np.asarray(graphs.arrays["histories"])
    columns = json.loads((folder / "samples.json").read_text())
    if any(len(column) != len(histories) for column in columns.values()):
        raise InputError(f"{folder}/samples.json does not describe the {len(histories)} histories in graphs.")
    _check_visit(graphs.padding(), f"{folder}/graphs, padding", len(names))
    most_nodes = most_edges = 0
    # Fields are checked for all entries above, and each graph in the first of its entries.
    for entry in np.unique(graphs.arrays["entry_graph"], return_index=True)[1].tolist():
        visit = graphs.visit(entry, 0)
        _check_visit(visit, f"{folder}/graphs, entry {entry}", len(names))
        most_nodes, most_edges = max(most_nodes, len(visit["x"])), max(most_edges, len(visit["edge_attr"]))
    return Contents(
        patients=len(histories),
        visits=int((histories[:, 1] - histories[:, 0]).sum()),
        positive=int(histories[:, 2].sum()),
        most_nodes=most_nodes,
        most_edges=most_edges,
    )


def _check_arrays(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Check that offsets, entries and histories lead to elements that are there, and that fields are in their ranges.

    Raises:
        InputError: one does not, or is not.
    """
    graphs = len(arrays["code_offsets"]) - 1
    if len(arrays["code_kind"]) != len(arrays["code_nodes"]):
        raise InputError(f"{where}: code_kind must have a value for each of code_nodes.")
    for offsets, flat in (("node_offsets", "nodes"), ("code_offsets", "code_kind")):
        found = np.asarray(arrays[offsets])
        if len(found) != graphs + 1 or found[0] or found[-1] != len(arrays[flat]) or (np.diff(found) < 0).any():
            raise InputError(f"{where}: {offsets} must rise from 0 to the {len(arrays[flat])} elements of {flat}.")
    nodes = offsets_of(arrays["code_nodes"])[np.asarray(arrays["code_offsets"])]
    if not np.array_equal(nodes, arrays["node_offsets"]):
        raise InputError(f"{where}: code_nodes does not add up to the nodes of each graph.")
    kinds = np.asarray(arrays["code_kind"])
    if len(kinds) and not _within(kinds, len(PAIR_EDGE)):
        raise InputError(f"{where}: code_kind must be 0, 1 or 2.")
    if not np.array_equal(np.unique(arrays["entry_graph"]), np.arange(graphs)):
        raise InputError(f"{where}: entry_graph must name each of the {graphs} graphs, and no other.")
    _check_fields(np.asarray(arrays["fields"]), len(arrays["entry_graph"]), where)
    _check_histories(np.asarray(arrays["histories"]), len(arrays["entry_graph"]), where)


def _check_fields(fields: np.ndarray, entries: int, where: str) -> None:
    if fields.shape != (entries, len(FIELDS)) or not np.issubdtype(fields.dtype, np.integer):
        raise InputError(f"{where}: fields must hold {len(FIELDS)} whole numbers for each of the {entries} entries.")
    for name, values in zip(FIELDS, fields.T, strict=True):
        lowest = 1 if name == "adm_type" else 0  # which is 0 in padding and only there
        bad = np.flatnonzero((values < lowest) | (values >= LIMITS[name]))
        if len(bad):
            raise InputError(f"{where}, entry {bad[0]}: {name} must be from {lowest} to {LIMITS[name] - 1}.")


def _check_histories(histories: np.ndarray, entries: int, where: str) -> None:
    if histories.ndim != 2 or histories.shape[1:] != (3,) or not len(histories):
        raise InputError(f"{where}: histories must have a row of start, stop and label for each history.")
    start, stop, label = histories.T
    lengths = stop - start
    bad = (start < 0) | (lengths < 1) | (lengths > NUM_VISITS) | (stop > entries)
    if bad.any():
        raise InputError(
            f"{where}: history {np.flatnonzero(bad)[0]} must have 1 to {NUM_VISITS} of the {entries} entries."
        )
    bad = (label < 0) | (label >= LIMITS["label"])
    if bad.any():
        raise InputError(f"{where}: history {np.flatnonzero(bad)[0]} must have the label 0 or 1.")


def _check_visit(visit: object, where: str, vocab_size: int) -> None:
    if not hasattr(visit, "keys") or set(visit.keys()) != _KEYS:
        raise InputError(f"{where} is not a graph with the fields {', '.join(sorted(_KEYS))}.")
    for name, limit in LIMITS.items():
        if not isinstance(visit[name], int) or not 0 <= visit[name] < limit:
            raise InputError(f"{where}: {name} must be a whole number from 0 to {limit - 1}.")
    if bool(visit["adm_type"]) != bool(visit["mask_v"]):
        raise InputError(f"{where}: adm_type must be 0 in padding and only there.")
    x, index, attr = (np.asarray(visit[name]) for name in ("x", "edge_index", "edge_attr"))
    if any(array.dtype != np.int64 for array in (x, index, attr)) or x.ndim != 1:
        raise InputError(f"{where}: x [nodes], edge_index and edge_attr must be int64.")
    if (x == 0).sum() != 1:
        raise InputError(f"{where} has {(x == 0).sum()} readout nodes (id 0); it must have exactly one.")
    if not _within(x, vocab_size):
        raise InputError(f"{where}: node ids must be from 0 to {vocab_size - 1}.")
    if index.shape != (2, len(attr)) or attr.ndim != 1:
        raise InputError(
            f"{where}: edge_index has the shape {index.shape} and edge_attr {attr.shape}; they must be [2, edges] and"
            " [edges]."
        )
    if len(attr) and not (_within(index, len(x)) and _within(attr, READOUT_EDGE + 1)):
        raise InputError(f"{where}: edges must join nodes 0 to {len(x) - 1}, and have kinds from 0 to {READOUT_EDGE}.")
    others = np.flatnonzero(x)
    readout = index[0, index[1] == int(np.flatnonzero(x == 0)[0])]
    if visit["mask_v"] and not (len(others) and np.isin(others, readout).all()):
        raise InputError(f"{where} must have nodes besides the readout node, each with an edge to it.")


def _within(numbers: np.ndarray, limit: int) -> bool:
    return numbers.min() >= 0 and numbers.max() < limit
