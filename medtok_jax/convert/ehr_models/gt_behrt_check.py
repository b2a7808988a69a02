"""Check visit graphs for GT-BEHRT against everything that its model assumes."""

import dataclasses
import importlib
import io
import json
from pathlib import Path

import numpy as np

from medtok_jax.convert.ehr_models import unpickling
from preprocessing.common import extras
from preprocessing.common.errors import InputError

NUM_VISITS = 50
# Sizes of the model's embedding tables; values must be below them.
LIMITS = {"age": 103, "time": 367, "delta": 144, "adm_type": 11, "los": 1192, "mask_v": 2, "label": 2, "mask": 2}
READOUT_EDGE = 6
_KEYS = {"x", "edge_index", "edge_attr", *LIMITS}


@dataclasses.dataclass(frozen=True)
class Contents:
    """Count the contents of a directory.

    Attributes:
        patients: number of patients.
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
        InputError: names the first value that the model cannot use, with its patient and visit.
    """
    folder = Path(folder)
    patients = unpickling.load(folder / "data.pickle", _allowed())
    names = (folder / "node_vocabulary.txt").read_text(encoding="utf-8").splitlines()
    config = json.loads((folder / "model_config.json").read_text())
    matrix = np.load(folder / "initial_nodes.npy")
    if len(set(names)) != len(names) or config["vocab_size"] != len(names):
        raise InputError(f"{folder}: node_vocabulary.txt repeats a name, or disagrees with model_config.json in size.")
    if matrix.shape != (len(names), config["hidden_size"] // 5) or not np.isfinite(matrix).all():
        raise InputError(
            f"{folder}/initial_nodes.npy has the shape {matrix.shape} or is not finite; it needs a row for each node."
        )
    if not isinstance(patients, list) or not patients:
        raise InputError(f"{folder}/data.pickle does not hold a list of patients.")
    columns = json.loads((folder / "samples.json").read_text())
    if any(len(column) != len(patients) for column in columns.values()):
        raise InputError(f"{folder}/samples.json does not describe the {len(patients)} patients in data.pickle.")
    checked: set[int] = set()
    for number, patient in enumerate(patients):
        _check_patient(patient, f"{folder}/data.pickle, patient {number}", len(names), checked)
    return _contents(patients)


def _contents(patients: list[list]) -> Contents:
    real = [visit for patient in patients for visit in patient if visit["mask_v"]]
    return Contents(
        patients=len(patients),
        visits=len(real),
        positive=sum(patient[0]["label"] for patient in patients),
        most_nodes=max(len(visit["x"]) for visit in real),
        most_edges=max(len(visit["edge_attr"]) for visit in real),
    )


def _allowed() -> dict[str, object]:
    """Return the names that a pickle of graphs may use; torch loads the tensors in it as weights only."""
    import collections

    import torch

    data = extras.load("torch_geometric.data")
    storage = importlib.import_module("torch_geometric.data.storage")
    inner = importlib.import_module("torch_geometric.data.data")
    own = {f"torch_geometric.data.data.{name}": getattr(inner, name) for name in ("DataEdgeAttr", "DataTensorAttr")}
    return own | {
        "torch_geometric.data.data.Data": data.Data,
        "torch_geometric.data.storage.GlobalStorage": storage.GlobalStorage,
        "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
        "torch.storage._load_from_bytes": _tensor_storage,
        "collections.OrderedDict": collections.OrderedDict,
    }


def _tensor_storage(data: bytes) -> object:
    import torch

    try:
        return torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:
        # The message of torch is not shown: it advises to load the file with `weights_only=False`.
        raise unpickling.RefusedError("a tensor in it cannot be loaded") from error


def _check_patient(patient: object, where: str, vocab_size: int, checked: set[int]) -> None:
    if not isinstance(patient, list) or len(patient) != NUM_VISITS:
        raise InputError(f"{where} has {len(patient)} visits; the notebook cuts batches into {NUM_VISITS} each.")
    for number, visit in enumerate(patient):
        # Only the padding is shared between patients, and need not be checked twice.
        if id(visit) not in checked:
            _check_visit(visit, f"{where}, visit {number}", vocab_size)
            checked.add(id(visit))
    shown = [visit["mask_v"] for visit in patient]
    if shown != sorted(shown, reverse=True) or not shown[0]:
        raise InputError(f"{where}: visits must come first and padding after them, as mask_v tells.")
    if len({id(visit) for visit in patient}) != NUM_VISITS:
        raise InputError(f"{where} has the same object twice; the notebook writes a number into each visit.")


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
