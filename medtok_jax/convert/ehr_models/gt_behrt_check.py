"""Reads visit graphs as GT-BEHRT does, and holds them against all that its model takes for granted."""

import dataclasses
import importlib
import io
import json
import pickle
from pathlib import Path

import numpy as np

from medtok_jax.convert.ehr_models import unpickling
from preprocessing.common import extras
from preprocessing.common.errors import InputError

NUM_VISITS = 50
# Rows of the model's embeddings: numbers must be below.
LIMITS = {"age": 103, "time": 367, "delta": 144, "adm_type": 11, "los": 1192, "mask_v": 2, "label": 2, "mask": 2}
READOUT_EDGE = 6
_KEYS = {"x", "edge_index", "edge_attr", *LIMITS}


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a directory holds: numbers of patients, of their visits without padding, of labels that are 1, and the most
    nodes and edges of a visit."""

    patients: int
    visits: int
    positive: int
    most_nodes: int
    most_edges: int


def check_gt_behrt(folder: Path) -> Contents:
    """Reads what `gt_behrt` wrote.

    Raises:
        InputError: the first thing that the model could not use, with the patient and the visit it is in.
    """
    folder = Path(folder)
    patients = unpickling.load(folder / "data.pickle", _allowed())
    names = (folder / "node_vocabulary.txt").read_text(encoding="utf-8").splitlines()
    config = json.loads((folder / "model_config.json").read_text())
    matrix = np.load(folder / "initial_nodes.npy")
    if len(set(names)) != len(names) or config["vocab_size"] != len(names):
        raise InputError(f"{folder}: node_vocabulary.txt has repeated names, or not as many as model_config.json says.")
    if matrix.shape != (len(names), config["hidden_size"] // 5) or not np.isfinite(matrix).all():
        raise InputError(f"{folder}/initial_nodes.npy is {matrix.shape} or not finite; it needs a row for each node.")
    if not isinstance(patients, list) or not patients:
        raise InputError(f"{folder}/data.pickle holds no list of patients.")
    about = json.loads((folder / "samples.json").read_text())
    if any(len(column) != len(patients) for column in about.values()):
        raise InputError(f"{folder}/samples.json is not of the {len(patients)} patients in data.pickle.")
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
    """What a pickle of graphs asks for. Tensors lie in pickles of their own, which torch reads without code."""
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
        # Torch advises to load it without looking, which is just what must not happen.
        raise pickle.UnpicklingError("a tensor in it is none") from error


def _check_patient(patient: object, where: str, vocab_size: int, checked: set[int]) -> None:
    if not isinstance(patient, list) or len(patient) != NUM_VISITS:
        raise InputError(f"{where} has {len(patient)} visits; the notebook cuts batches into {NUM_VISITS} each.")
    for number, visit in enumerate(patient):
        # The notebook numbers visits within their patient, so that one may not stand in two places.
        if id(visit) not in checked:
            _check_visit(visit, f"{where}, visit {number}", vocab_size)
            checked.add(id(visit))
    shown = [visit["mask_v"] for visit in patient]
    if shown != sorted(shown, reverse=True) or not shown[0]:
        raise InputError(f"{where}: visits must come first and padding behind them; mask_v is {shown}.")
    if len({id(visit) for visit in patient}) != NUM_VISITS:
        raise InputError(f"{where} has the same object in two places; the notebook numbers the visits in place.")


def _check_visit(visit: object, where: str, vocab_size: int) -> None:
    if not hasattr(visit, "keys") or set(visit.keys()) != _KEYS:
        raise InputError(f"{where} is no graph with the fields {', '.join(sorted(_KEYS))}.")
    for name, limit in LIMITS.items():
        if not isinstance(visit[name], int) or not 0 <= visit[name] < limit:
            raise InputError(f"{where}: {name} is {visit[name]}; it must be from 0 to {limit - 1}.")
    if bool(visit["adm_type"]) != bool(visit["mask_v"]):
        raise InputError(f"{where}: adm_type is {visit['adm_type']}; it must be 0 in padding and there alone.")
    x, index, attr = (np.asarray(visit[name]) for name in ("x", "edge_index", "edge_attr"))
    if any(array.dtype != np.int64 for array in (x, index, attr)) or x.ndim != 1:
        raise InputError(f"{where}: x [nodes], edge_index and edge_attr must be int64.")
    if (x == 0).sum() != 1:
        raise InputError(f"{where} has {(x == 0).sum()} readout nodes (id 0); it must have exactly one.")
    if not _within(x, vocab_size):
        raise InputError(f"{where}: node ids go from {x.min()} to {x.max()}; there are {vocab_size} nodes.")
    if index.shape != (2, len(attr)) or attr.ndim != 1:
        raise InputError(f"{where}: edge_index is {index.shape} and edge_attr {attr.shape}.")
    if len(attr) and not (_within(index, len(x)) and _within(attr, READOUT_EDGE + 1)):
        raise InputError(f"{where}: edges must join nodes 0 to {len(x) - 1}, and be of the kinds 0 to {READOUT_EDGE}.")
    others = np.flatnonzero(x)
    readout = index[0, index[1] == int(np.flatnonzero(x == 0)[0])]
    if visit["mask_v"] and not (len(others) and np.isin(others, readout).all()):
        raise InputError(f"{where}: every node must have an edge to the readout node, and there must be one.")


def _within(numbers: np.ndarray, limit: int) -> bool:
    return numbers.min() >= 0 and numbers.max() < limit
