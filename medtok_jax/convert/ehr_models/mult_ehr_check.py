"""Check the arrays and labels for MulT-EHR against everything that its trainers assume."""

from pathlib import Path

import numpy as np

from medtok_jax.convert.ehr_models import unpickling
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading

NAME = "medtok"
# Relation -> types of its source and target nodes.
RELATIONS = {
    "makes": ("patient", "visit"),
    "diagnosed": ("visit", "diagnosis"),
    "prescribed": ("visit", "prescription"),
    "treated": ("visit", "procedure"),
}
TYPES = ("patient", "visit", "diagnosis", "procedure", "prescription")
CLASSES = {"mort_pred": 2, "readm": 2, "los": 10}


def check_mult_ehr(folder: Path) -> dict[str, int]:
    """Read the files that `mult_ehr` wrote, and return the number of nodes of each type and of labels of each task.

    Raises:
        InputError: names the first value that MulT-EHR cannot use.
    """
    with reading(folder, "the files of MulT-EHR", "convert again"):
        return _check_files(Path(folder))


def _check_files(folder: Path) -> dict[str, int]:
    mapping = unpickling.load(folder / f"{NAME}_entity_mapping.pkl")
    labels = unpickling.load(folder / f"{NAME}_labels.pkl")
    if not isinstance(mapping, dict) or set(mapping) != set(TYPES):
        raise InputError(f"{folder}/{NAME}_entity_mapping.pkl must map the types {', '.join(TYPES)}.")
    for kind, names in mapping.items():
        if list(names.values()) != list(range(len(names))) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{folder}/{NAME}_entity_mapping.pkl: nodes of {kind} must be text, numbered from 0.")
    sizes = {kind: len(names) for kind, names in mapping.items()}
    with np.load(folder / "graph.npz", allow_pickle=False) as arrays:
        _check_graph(folder, arrays, sizes)
    _check_labels(folder, labels, sizes["visit"])
    return sizes | {task: len(labels[task]) for task in (*CLASSES, "drug_rec")}


def _check_graph(folder: Path, arrays: np.lib.npyio.NpzFile, sizes: dict[str, int]) -> None:
    where = f"{folder}/graph.npz"
    if set(arrays) != {*RELATIONS, *(f"{array}_{kind}" for kind in TYPES for array in ("num", "feat"))}:
        raise InputError(f"{where} must hold the edges of four relations and five types of nodes, and nothing else.")
    for relation, ends in RELATIONS.items():
        index = arrays[relation]
        if index.dtype != np.int64 or index.ndim != 2 or len(index) != 2 or not index.shape[1]:
            raise InputError(
                f"{where}: {relation} must be [2, edges] int64 with at least one edge; it is {index.dtype} of shape"
                f" {index.shape}."
            )
        if index.min() < 0 or (index.max(1) >= [sizes[end] for end in ends]).any():
            raise InputError(f"{where}: {relation} has edges beyond its {sizes[ends[0]]} and {sizes[ends[1]]} nodes.")
        if len(np.unique(index, axis=1).T) != index.shape[1]:
            raise InputError(f"{where}: {relation} has an edge twice.")
    if (np.bincount(arrays["makes"][1], minlength=sizes["visit"]) != 1).any():
        raise InputError(f"{where}: every visit must belong to exactly one patient.")
    widths = {arrays[f"feat_{kind}"].shape[1:] for kind in TYPES}
    for kind in TYPES:
        feat = arrays[f"feat_{kind}"]
        if arrays[f"num_{kind}"] != sizes[kind] or len(feat) != sizes[kind] or len(widths) != 1:
            raise InputError(
                f"{where}: feat_{kind} has the shape {feat.shape}; it needs {sizes[kind]} rows and the width of the"
                " others."
            )
        if feat.dtype != np.float32 or not np.isfinite(feat).all():
            raise InputError(f"{where}: feat_{kind} must hold finite float32.")


def _check_labels(folder: Path, labels: object, visits: int) -> None:
    where = f"{folder}/{NAME}_labels.pkl"
    if not isinstance(labels, dict) or set(labels) != {*CLASSES, "drug_rec", "all_drugs"}:
        raise InputError(f"{where} must hold {', '.join(CLASSES)}, drug_rec and all_drugs.")
    for task in (*CLASSES, "drug_rec"):
        if not labels[task]:
            raise InputError(
                f"{where}: no visit has a label for {task}; labels need visits with codes of all three kinds."
            )
        if not all(isinstance(visit, int) and 0 <= visit < visits for visit in labels[task]):
            raise InputError(f"{where}: the visits of {task} must be from 0 to {visits - 1}.")
    for task, classes in CLASSES.items():
        if not set(labels[task].values()) <= set(range(classes)):
            raise InputError(f"{where}: the labels of {task} must be from 0 to {classes - 1}.")
    drugs = {drug for of_visit in labels["drug_rec"].values() for drug in of_visit}
    if labels["all_drugs"] != sorted(drugs):
        raise InputError(f"{where}: all_drugs must list the drugs of drug_rec, sorted.")
