"""Writes the model part of a tokenizer directory; `saved_model` tells what lies there and reads it back."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from safetensors.numpy import save

from medtok_jax import checkpoints
from medtok_jax import config as configuration
from medtok_jax.models.medtok import MedTok, Sizes
from medtok_jax.saved_model import CONFIG, FORMAT_VERSION, GRAPH, VARIABLES, Neighbourhood, digest
from preprocessing import icd_graph, medtok_codes, primekg
from preprocessing.dataset_name import parse_name
from preprocessing.errors import InputError
from preprocessing.knowledge_graph import KnowledgeGraph

SECTIONS = ("data", "model", "train", "seed")
MACHINE_PATHS = ("data_dir", "cache_dir")
# Modules that say in which order the subgraphs of their graph keep neighbours.
ORDERS = (icd_graph, primekg)
# Examples read to see whether codes are nodes.
EXAMPLES = 256


def export(workdir, folder: str | Path, *, with_graph: bool = True) -> Path:
    """Writes the best model of a finished run (the last where there is no best) into a tokenizer directory.

    Args:
        workdir: a work directory, one of its checkpoints, or the `Run` itself.
        folder: the tokenizer directory; made where it is absent.
        with_graph: whether to copy the knowledge graph too. Without it neighbours are known by their names alone.

    Returns:
        `folder`.

    Raises:
        InputError: there is no checkpoint, its data set is absent, or the folder cannot be written.
    """
    found = checkpoints.find(getattr(workdir, "workdir", workdir), prefer="best")
    about = found.about()
    if hasattr(workdir, "config"):
        about = about | {"config": workdir.config.to_dict()}
    config = ConfigDict(about["config"])
    builder = medtok_codes.open_prepared(config.data.name, configuration.data_dir(config))
    graph = KnowledgeGraph.load(medtok_codes.graph_path(builder))
    variables = flatten(found.restore_variables())
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        digests = {VARIABLES: _write_variables(variables, folder)}
        if with_graph:
            digests[GRAPH] = _write_graph(graph, folder)
        _write_config(_describe(about, variables, graph, _codes_are_nodes(builder)) | {"sha256": digests}, folder)
    except OSError as error:
        raise InputError(
            f"The model cannot be written to {folder} ({error.strerror}); choose another directory."
        ) from error
    return folder


def _codes_are_nodes(builder) -> bool:
    """Whether any of the first codes is a node of the graph."""
    source = builder.as_data_source("train")
    return any(example["self_node"] >= 0 for example in source.__getitems__(range(min(EXAMPLES, len(source)))))


def _learned_missing_graph(config: ConfigDict, sizes: Sizes, variables: dict[str, np.ndarray]) -> bool:
    """Whether the vector that stands for a missing graph is no longer as it was initialised.

    Where every code of the training data has a graph it gets no gradient.
    """
    initial = jax.jit(lambda: MedTok(config.model, sizes, rngs=nnx.Rngs(config.seed)).node_features.missing_vector[...])
    return not np.allclose(initial(), variables["params.node_features.missing_vector"], atol=1e-6)


def _describe(about: dict, variables: dict[str, np.ndarray], graph: KnowledgeGraph, codes_are_nodes: bool) -> dict:
    """What `model_config.json` says, but for the digests."""
    config = {name: about["config"][name] for name in SECTIONS}
    config["data"] = {name: value for name, value in config["data"].items() if name not in MACHINE_PATHS}
    options = parse_name(config["data"]["name"])
    sizes = Sizes(
        text_width=variables["params.text_head.kernel"].shape[0],
        num_node_types=len(about["node_types"]),
        num_relations=len(about["relation_names"]),
        num_nodes=graph.num_nodes,
        max_nodes=options.max_nodes,
    )
    order = max(ORDERS, key=lambda module: len(set(module.PRIORITY) & set(graph.relation_names)))
    neighbourhood = Neighbourhood(
        options.max_nodes, options.hub_cap, tuple(order.PRIORITY), tuple(order.FIRST_KEPT), codes_are_nodes
    )
    return {
        "format_version": FORMAT_VERSION,
        "step": about["step"],
        "fingerprint": about["fingerprint"],
        "encoder": about["encoder"],
        "config": config,
        "sizes": dataclasses.asdict(sizes),
        "node_types": about["node_types"],
        "relation_names": about["relation_names"],
        "reverse": list(graph.reverse),
        "neighbourhood": dataclasses.asdict(neighbourhood),
        "learned_missing_graph": _learned_missing_graph(ConfigDict(about["config"]), sizes, variables),
    }


def _write_variables(variables: dict[str, np.ndarray], folder: Path) -> str:
    partial = folder / f"{VARIABLES}.partial-{os.getpid()}"
    partial.write_bytes(save({name: np.ascontiguousarray(array) for name, array in variables.items()}))
    identity = digest([partial])
    partial.replace(folder / VARIABLES)
    return identity


def _write_graph(graph: KnowledgeGraph, folder: Path) -> str:
    partial = folder / f"{GRAPH}.partial-{os.getpid()}"
    graph.save(partial)
    identity = digest(sorted(partial.iterdir()))
    shutil.rmtree(folder / GRAPH, ignore_errors=True)
    partial.rename(folder / GRAPH)
    return identity


def _write_config(content: dict, folder: Path) -> None:
    partial = folder / f"{CONFIG}.partial-{os.getpid()}"
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / CONFIG)


def flatten(tree: dict, prefix: str = "") -> dict:
    """Leaves of nested dictionaries by their keys joined with dots."""
    leaves = {}
    for key, value in tree.items():
        leaves |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves
