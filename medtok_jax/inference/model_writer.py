"""Write the model part of a tokenizer directory; `model_reader` describes its files and reads them."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from safetensors.numpy import save

from medtok_jax import config as configuration
from medtok_jax.batch import InputSizes
from medtok_jax.data.further_codes import order_of
from medtok_jax.inference.model_reader import CONFIG, FORMAT_VERSION, GRAPH, SECTIONS, VARIABLES, Neighborhood
from medtok_jax.inference.trained import TrainedModel
from medtok_jax.models.medtok import MedTok
from medtok_jax.training import checkpoints
from preprocessing import medtok_codes
from preprocessing.common.atomic import whole_folder, write_bytes, write_json
from preprocessing.common.checksums import sealed, sha256_of_files
from preprocessing.common.errors import InputError
from preprocessing.dataset.name import parse_name
from preprocessing.graph.knowledge_graph import KnowledgeGraph

MACHINE_PATHS = ("data_dir", "cache_dir")
# What only training uses of a model.
TRAINING_ONLY = "params.link_head."
# Examples read to see whether codes are nodes.
EXAMPLES = 256


@dataclasses.dataclass(frozen=True)
class _Exported:
    """Hold what is written of a model.

    Attributes:
        metadata: of its checkpoint.
        variables: by dotted name.
        graph: knowledge graph of its data set.
        codes_are_nodes: whether codes are nodes of the graph.
    """

    metadata: dict
    variables: dict[str, np.ndarray]
    graph: KnowledgeGraph
    codes_are_nodes: bool


def export(path: str | Path, folder: str | Path, *, with_graph: bool = True) -> Path:
    """Write the best model of a finished run (the last where there is no best) into a tokenizer directory.

    Args:
        path: a work directory or one of its checkpoints.
        folder: the tokenizer directory; made where it is absent.
        with_graph: whether to copy the knowledge graph too. Without it neighbors are known by their names alone.

    Returns:
        `folder`.

    Raises:
        InputError: there is no checkpoint, its data set is absent, or the folder cannot be written.
    """
    found = checkpoints.find(path, prefer="best")
    metadata = found.metadata()
    config = ConfigDict(metadata["config"])
    builder = medtok_codes.open_prepared(config.data.name, configuration.data_dir(config))
    exported = _Exported(
        metadata=metadata,
        variables=flatten(found.restore_variables()),
        graph=builder.knowledge_graph,
        codes_are_nodes=_codes_are_nodes(builder),
    )
    return _write(exported, folder, with_graph=with_graph)


def write_model(trained: TrainedModel, folder: str | Path) -> Path:
    """Write a trained model into a tokenizer directory; its state must be replicated, see `TrainedModel.gathered`.

    Returns:
        `folder`.

    Raises:
        InputError: the folder cannot be written.
    """
    state, table = trained.state, trained.inputs.data.table
    variables = {"params": nnx.to_pure_dict(state.params), "fixed": nnx.to_pure_dict(state.fixed)}
    exported = _Exported(
        metadata=trained.metadata,
        variables={name: np.asarray(array) for name, array in flatten(variables).items()},
        graph=table.graph,
        codes_are_nodes=bool((table.self_node >= 0).any()),
    )
    return _write(exported, folder, with_graph=True)


def _write(exported: _Exported, folder: str | Path, *, with_graph: bool) -> Path:
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        digests = {VARIABLES: _write_variables(exported.variables, folder)}
        if with_graph:
            digests[GRAPH] = _write_graph(exported.graph, folder)
        write_json(folder / CONFIG, sealed(_describe(exported) | {"sha256": digests}))
    except OSError as error:
        raise InputError(
            f"The model cannot be written to {folder} ({error.strerror}); choose another directory."
        ) from error
    return folder


def _codes_are_nodes(builder) -> bool:
    """Return whether any of the first codes is a node of the graph."""
    source = builder.as_data_source("train")
    return any(example["self_node"] >= 0 for example in source.__getitems__(range(min(EXAMPLES, len(source)))))


def _learned_missing_graph(config: ConfigDict, sizes: InputSizes, variables: dict[str, np.ndarray]) -> bool:
    """Return whether training moved the vector that stands for a missing graph.

    Where every code of the training data has a graph it gets no gradient.
    """

    @jax.jit
    def initial() -> jax.Array:
        return MedTok(config.model, sizes, rngs=nnx.Rngs(config.seed)).node_features.missing_vector[...]

    return not np.allclose(initial(), variables["params.node_features.missing_vector"], atol=1e-6)


def _describe(exported: _Exported) -> dict:
    """Return the content of `model_config.json` but for the digests."""
    metadata, variables, graph = exported.metadata, exported.variables, exported.graph
    config = {name: metadata["config"][name] for name in SECTIONS}
    config["data"] = {name: value for name, value in config["data"].items() if name not in MACHINE_PATHS}
    options = parse_name(config["data"]["name"])
    sizes = InputSizes(
        text_width=variables["params.text_head.kernel"].shape[0],
        num_node_types=len(metadata["node_types"]),
        num_relations=len(metadata["relation_names"]),
        num_nodes=graph.num_nodes,
        max_nodes=options.max_nodes,
    )
    order = order_of(graph)
    neighborhood = Neighborhood(
        options.max_nodes, options.hub_cap, tuple(order.PRIORITY), tuple(order.FIRST_KEPT), exported.codes_are_nodes
    )
    return {
        "format_version": FORMAT_VERSION,
        "step": metadata["step"],
        "fingerprint": metadata["fingerprint"],
        "encoder": metadata["encoder"],
        "config": config,
        "sizes": dataclasses.asdict(sizes),
        "node_types": metadata["node_types"],
        "relation_names": metadata["relation_names"],
        "reverse": list(graph.reverse),
        "neighborhood": dataclasses.asdict(neighborhood),
        "learned_missing_graph": _learned_missing_graph(ConfigDict(metadata["config"]), sizes, variables),
    }


def _write_variables(variables: dict[str, np.ndarray], folder: Path) -> str:
    kept = {name: array for name, array in variables.items() if not name.startswith(TRAINING_ONLY)}
    write_bytes(folder / VARIABLES, save({name: np.ascontiguousarray(array) for name, array in kept.items()}))
    return sha256_of_files([folder / VARIABLES])


def _write_graph(graph: KnowledgeGraph, folder: Path) -> str:
    with whole_folder(folder / GRAPH) as partial:
        graph.save(partial)
    return sha256_of_files(sorted((folder / GRAPH).iterdir()))


def flatten(tree: dict, prefix: str = "") -> dict:
    """Return the leaves of nested dictionaries by their keys joined with dots."""
    leaves = {}
    for key, value in tree.items():
        leaves |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves
