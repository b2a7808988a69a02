"""Read a trained model back from a tokenizer directory: enough to encode codes that no table holds.

`model.safetensors` holds all variables by their dotted names, `model_config.json` what they mean (configuration, sizes,
node types, relations, the text encoder's name and identity, digests of the other files) and `graph/` the knowledge
graph. Nothing is pickled, and reading executes nothing. `model_writer` writes them.
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from safetensors.numpy import load_file

from medtok_jax.batch import InputSizes
from medtok_jax.models.bert import Bert, BertConfig
from medtok_jax.models.medtok import MedTok
from preprocessing.common.atomic import recover
from preprocessing.common.checksums import sha256_of_files, unsealed
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading
from preprocessing.graph.knowledge_graph import KnowledgeGraph

FORMAT_VERSION = 2
# Sections and fields of the training configuration that are kept.
SECTIONS = ("data", "model", "train", "seed")
VARIABLES, CONFIG, GRAPH = "model.safetensors", "model_config.json", "graph"


@dataclasses.dataclass(frozen=True)
class Neighborhood:
    """Describe how the subgraphs of the training data were drawn; see `preprocessing.graph.neighborhoods`.

    `codes_are_nodes` tells whether codes are nodes of the graph or only hang on some.
    """

    max_nodes: int
    hub_cap: int
    priority: tuple[str, ...]
    first_kept: tuple[str, ...]
    codes_are_nodes: bool


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """Hold a model as it was trained, without its text encoder.

    Attributes:
        config: sections `data`, `model`, `train` of the training configuration, and `seed`.
        sizes: of the data it was trained on.
        node_types, relation_names: names of the rows of its embedding tables.
        reverse: position of each relation's reverse.
        neighborhood: how subgraphs were drawn.
        learned_missing_graph: whether training ever moved the vector that stands for a missing graph.
        encoder: identity of the text encoder; its name is `config.model.text_encoder_model`.
        fingerprint: of the data set.
        variables: all arrays by dotted name, `params...` and `fixed...`.
        graph: the knowledge graph, or None where it was left out.
    """

    config: ConfigDict
    sizes: InputSizes
    node_types: tuple[str, ...]
    relation_names: tuple[str, ...]
    reverse: tuple[int, ...]
    neighborhood: Neighborhood
    learned_missing_graph: bool
    encoder: str
    fingerprint: str
    variables: dict[str, np.ndarray]
    graph: KnowledgeGraph | None


def load(folder: str | Path) -> SavedModel:
    """Read the model part of a tokenizer directory and check that its files belong together.

    Raises:
        InputError: there is no model, or it is damaged, mixed with another one or of another format version.
    """
    folder = Path(folder).expanduser()
    recover(folder)
    content = _read_config(folder)
    with reading(folder, "a model", _AGAIN.rstrip(".")):
        digests = content["sha256"]
        _checkdigest(folder / VARIABLES, [folder / VARIABLES], digests[VARIABLES])
        graph = None
        if GRAPH in digests:
            recover(folder / GRAPH)
            _checkdigest(folder / GRAPH, sorted((folder / GRAPH).glob("*")), digests[GRAPH])
            graph = KnowledgeGraph.load(folder / GRAPH)
            if [*graph.node_types, *graph.relation_names] != [*content["node_types"], *content["relation_names"]]:
                raise InputError(f"The graph in {folder / GRAPH} is not the one of {folder / CONFIG}; {_AGAIN}")
        neighborhood = content["neighborhood"]
        return SavedModel(
            config=ConfigDict({name: content["config"][name] for name in SECTIONS}),
            sizes=InputSizes(**content["sizes"]),
            node_types=tuple(content["node_types"]),
            relation_names=tuple(content["relation_names"]),
            reverse=tuple(content["reverse"]),
            neighborhood=Neighborhood(
                **neighborhood | {name: tuple(neighborhood[name]) for name in ("priority", "first_kept")},
            ),
            learned_missing_graph=content["learned_missing_graph"],
            encoder=content["encoder"],
            fingerprint=content["fingerprint"],
            variables=load_file(folder / VARIABLES),
            graph=graph,
        )


_AGAIN = "export it again: python -m medtok_jax.tokenize vocabulary --workdir=DIR --output=TOK --with_model."


def _read_config(folder: Path) -> dict:
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(
            f"{folder} holds no model ({CONFIG} is missing), so only codes of its table have tokens; {_AGAIN}"
        )
    with reading(path, "the configuration of a model", _AGAIN.rstrip(".")):
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["format_version"]
    if version != FORMAT_VERSION:
        raise InputError(f"{path} has format version {version}, this code reads version {FORMAT_VERSION}; {_AGAIN}")
    try:
        return unsealed(content)
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); {_AGAIN}") from error


def _checkdigest(what: Path, files: list[Path], wanted: str) -> None:
    if not what.exists():
        raise InputError(f"{what} is missing; {_AGAIN}")
    if sha256_of_files(files) != wanted:
        raise InputError(f"{what} is not what {CONFIG} beside it describes (truncated or of another model); {_AGAIN}")


def structure(saved: SavedModel, sizes: InputSizes, encoder_dir: Path) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """Return structure and abstract variables (parameters, fixed) of the saved model at some sizes.

    Raises:
        InputError: the configuration describes no model.
    """
    dtype = jnp.bfloat16 if saved.config.train.mixed_precision else jnp.float32

    def build() -> MedTok:
        model, bert = saved.config.model, None
        if model.text_encoder_trainable:
            described = BertConfig.from_directory(encoder_dir, gelu=model.text_encoder_gelu)
            bert = Bert(described, dtype=dtype, rngs=nnx.Rngs(0))
        return MedTok(model, sizes, bert=bert, dtype=dtype, rngs=nnx.Rngs(0))

    try:
        return nnx.split(nnx.eval_shape(build), nnx.Param, ...)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{CONFIG} describes no model of this version ({reason}); {_AGAIN}") from error


def fill(state: nnx.State, variables: dict[str, np.ndarray], prefix: str) -> nnx.State:
    """Return abstract variables with their values, on the default device.

    Raises:
        InputError: a variable is missing or has another shape.
    """

    def value_of(tree: dict, path: str) -> dict:
        return {
            key: value_of(x, f"{path}.{key}") if isinstance(x, dict) else read(x, f"{path}.{key}")
            for key, x in tree.items()
        }

    def read(wanted, name: str) -> jax.Array:
        array = variables.get(name)
        if array is None or array.shape != wanted.shape:
            found = "absent" if array is None else f"of shape {list(array.shape)}"
            raise InputError(f"{name} is {found} in {VARIABLES}, but {CONFIG} calls for {list(wanted.shape)}; {_AGAIN}")
        return jnp.asarray(array, wanted.dtype)

    filled = jax.tree.map(lambda x: x, state)
    nnx.replace_by_pure_dict(filled, value_of(nnx.to_pure_dict(state), prefix))
    return filled
