"""Writes the model part of a tokenizer directory; `saved_model` tells what lies there and reads it back."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from safetensors.numpy import save

from medtok_jax import config as configuration
from medtok_jax.batch import InputSizes
from medtok_jax.inference.model_reader import CONFIG, FORMAT_VERSION, GRAPH, SECTIONS, VARIABLES, Neighborhood
from medtok_jax.models.medtok import MedTok
from medtok_jax.training import checkpoints
from medtok_jax.training.setup import Run
from medtok_jax.training.state import TrainState
from preprocessing import medtok_codes, primekg
from preprocessing.common.atomic import whole_folder, write_bytes, write_json
from preprocessing.common.checksums import sha256_of_files
from preprocessing.common.errors import InputError
from preprocessing.dataset.name import parse_name
from preprocessing.graph import icd_graph
from preprocessing.graph.knowledge_graph import KnowledgeGraph

MACHINE_PATHS = ("data_dir", "cache_dir")
# Modules that say in which order the subgraphs of their graph keep neighbors.
ORDERS = (icd_graph, primekg)
# Examples read to see whether codes are nodes.
EXAMPLES = 256


@dataclasses.dataclass(frozen=True)
class _Trained:
    """What is exported: a checkpoint's metadata, its variables by dotted name, and facts of its data set."""

    about: dict
    variables: dict[str, np.ndarray]
    graph: KnowledgeGraph
    codes_are_nodes: bool


def export(workdir, folder: str | Path, state: TrainState | None = None, *, with_graph: bool = True) -> Path:
    """Writes the best model of a finished run (the last where there is no best) into a tokenizer directory.

    Args:
        workdir: a work directory, one of its checkpoints, or the `Run` itself.
        folder: the tokenizer directory; made where it is absent.
        state: the state to write, if `workdir` is a `Run`. Needed where several processes run, of which one exports:
            a checkpoint is read by all of them or none.
        with_graph: whether to copy the knowledge graph too. Without it neighbors are known by their names alone.

    Returns:
        `folder`.

    Raises:
        InputError: there is no checkpoint, its data set is absent, or the folder cannot be written.
    """
    trained = _of_run(workdir, state) if hasattr(workdir, "workdir") else _of_checkpoint(workdir)
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        digests = {VARIABLES: _write_variables(trained.variables, folder)}
        if with_graph:
            digests[GRAPH] = _write_graph(trained.graph, folder)
        write_json(folder / CONFIG, _describe(trained) | {"sha256": digests})
    except OSError as error:
        raise InputError(
            f"The model cannot be written to {folder} ({error.strerror}); choose another directory."
        ) from error
    return folder


def _of_run(run: Run, state: TrainState | None) -> _Trained:
    if state is None:
        state = checkpoints.find(run.workdir, prefer="best").restore(run.state)
    variables = {"params": nnx.to_pure_dict(state.params), "fixed": nnx.to_pure_dict(state.fixed)}
    return _Trained(
        about=run.about | {"step": int(state.step)},
        variables={name: np.asarray(array) for name, array in flatten(variables).items()},
        graph=run.data.table.graph,
        codes_are_nodes=bool((run.data.table.self_node >= 0).any()),
    )


def _of_checkpoint(path: str | Path) -> _Trained:
    found = checkpoints.find(path, prefer="best")
    about = found.about()
    config = configuration.with_later_fields(about["config"])
    builder = medtok_codes.open_prepared(config.data.name, configuration.data_dir(config))
    return _Trained(
        about=about,
        variables=flatten(found.restore_variables()),
        graph=KnowledgeGraph.load(medtok_codes.graph_path(builder)),
        codes_are_nodes=_codes_are_nodes(builder),
    )


def _codes_are_nodes(builder) -> bool:
    """Whether any of the first codes is a node of the graph."""
    source = builder.as_data_source("train")
    return any(example["self_node"] >= 0 for example in source.__getitems__(range(min(EXAMPLES, len(source)))))


def _learned_missing_graph(config: ConfigDict, sizes: InputSizes, variables: dict[str, np.ndarray]) -> bool:
    """Whether the vector that stands for a missing graph is no longer as it was initialized.

    Where every code of the training data has a graph it gets no gradient.
    """
    initial = jax.jit(lambda: MedTok(config.model, sizes, rngs=nnx.Rngs(config.seed)).node_features.missing_vector[...])
    return not np.allclose(initial(), variables["params.node_features.missing_vector"], atol=1e-6)


def _describe(trained: _Trained) -> dict:
    """What `model_config.json` says, but for the digests."""
    about, variables, graph = trained.about, trained.variables, trained.graph
    config = {name: about["config"][name] for name in SECTIONS}
    config["data"] = {name: value for name, value in config["data"].items() if name not in MACHINE_PATHS}
    options = parse_name(config["data"]["name"])
    sizes = InputSizes(
        text_width=variables["params.text_head.kernel"].shape[0],
        num_node_types=len(about["node_types"]),
        num_relations=len(about["relation_names"]),
        num_nodes=graph.num_nodes,
        max_nodes=options.max_nodes,
    )
    order = max(ORDERS, key=lambda module: len(set(module.PRIORITY) & set(graph.relation_names)))
    neighborhood = Neighborhood(
        options.max_nodes, options.hub_cap, tuple(order.PRIORITY), tuple(order.FIRST_KEPT), trained.codes_are_nodes
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
        "neighborhood": dataclasses.asdict(neighborhood),
        "learned_missing_graph": _learned_missing_graph(
            configuration.with_later_fields(about["config"]), sizes, variables
        ),
    }


def _write_variables(variables: dict[str, np.ndarray], folder: Path) -> str:
    write_bytes(folder / VARIABLES, save({name: np.ascontiguousarray(array) for name, array in variables.items()}))
    return sha256_of_files([folder / VARIABLES])


def _write_graph(graph: KnowledgeGraph, folder: Path) -> str:
    with whole_folder(folder / GRAPH) as partial:
        graph.save(partial)
    return sha256_of_files(sorted((folder / GRAPH).iterdir()))


def flatten(tree: dict, prefix: str = "") -> dict:
    """Leaves of nested dictionaries by their keys joined with dots."""
    leaves = {}
    for key, value in tree.items():
        leaves |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves
