"""Lower the steps of a configuration for devices that need not be there, with shapes in place of arrays."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from eval.speed.accelerators.targets import Target
from eval.speed.memory import UNDER_WAY, abstract
from eval.speed.random_text import POSITIONS, SHAPES, VOCABULARY, random_states
from eval.speed.setup import LAST_STEP, WIDTHS, Setting
from medtok_jax import config as configuration
from medtok_jax.batch import Batch
from medtok_jax.data.dataset import load_data
from medtok_jax.devices import sharding
from medtok_jax.models.bert import Bert, BertConfig
from medtok_jax.models.kmeans import fit_regions
from medtok_jax.regions import REGIONS
from medtok_jax.text.cache import DTYPES
from medtok_jax.text.encode import activations, encode_texts_step, tokens_a_device
from medtok_jax.text.encoder_files import resolve_text_encoder
from medtok_jax.training import steps
from medtok_jax.training.inputs import ModelInputs, keeps_states, make_builder, make_sampler
from medtok_jax.training.metrics import empty_window
from medtok_jax.training.programs import compile_programs
from medtok_jax.training.state import create_optimizer, create_state, learning_rate
from medtok_jax.training.steps import Structure


@dataclasses.dataclass(frozen=True)
class AbsentDevice:
    """Stand for a device of the target where the library asks for platform and memory."""

    platform: str
    memory: int

    def memory_stats(self) -> dict[str, int]:
        """Return its memory in the way of `jax.Device`."""
        return {"bytes_limit": self.memory}


@dataclasses.dataclass(frozen=True)
class Step:
    """Hold one step that is ready to be compiled.

    Attributes:
        name: of the step, with the shapes of its batch.
        lowered: the step.
        waiting_bytes: of batches that lie on a device beside the one that the step works on.
        graph_sizes: numbers of nodes and edges, of a device and of all, that an array has which holds graphs.
        text_sizes: numbers of positions that an array has, within its codes, which holds token states.
        codes: number of codes of its batch.
        parts: what is promised float32 and must be found in it, see `promises.EXACT_PARTS`.
        compiles: whether it is compiled too; else promises are checked on the program that is lowered.
    """

    name: str
    lowered: jax.stages.Lowered
    waiting_bytes: int = 0
    graph_sizes: frozenset[int] = frozenset()
    text_sizes: frozenset[int] = frozenset()
    codes: int = 0
    parts: frozenset[str] = frozenset()
    compiles: bool = True


def lower(setting: Setting, target: Target, devices: list) -> tuple[dict, list[Step]]:
    """Return facts about the data and the model, and the steps: train, tokenize, text encoder, k-means.

    Batches have the longest texts and the largest graphs that the configuration allows, which need the most memory.

    Args:
        setting: a prepared setting.
        target: what to compile for.
        devices: those of the target.
    """
    config = setting.config
    configuration.validate(config, len(devices))
    mesh = sharding.make_mesh(devices, config.train.model_parallel)
    encoder_dir, width = setting.encoder_and_width()
    encode = functools.partial(random_states, width=width, folder=None)
    data = load_data(config, encoder_dir=encoder_dir, encode=encode)
    inputs = _inputs(config, data, target)
    schedule = learning_rate(config, first_step=0, last_step=LAST_STEP)
    optimizer = create_optimizer(config, schedule)
    graphdef, state = _state(lambda: create_state(config, data.sizes(), encoder_dir, optimizer, mesh))
    structure = Structure(graphdef, optimizer, schedule, config)
    programs = compile_programs(structure, state, mesh)
    batch, tables = _largest(inputs, config), _shapes(inputs.tables)
    names = (*programs.metric_names, *steps.NORMS)
    window = jax.eval_shape(lambda: empty_window(names, structure.regions.size))
    shape = f"{config.train.batch_size} codes of {batch.text.shape[1]} tokens, {batch.graph.senders.shape} edges"
    sizes = {"graph_sizes": _graph_sizes(batch), "text_sizes": _text_sizes(batch, inputs)}
    sizes |= {"codes": config.train.batch_size}
    waiting = (UNDER_WAY - 1) * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(batch)) // len(devices)
    train = programs.train_step.lower(state, window, batch, tables)
    tokenize = programs.tokenize_step.lower(state.params, state.fixed, batch, tables)
    found = [
        Step(f"train: {shape}", train, waiting, **sizes, parts=frozenset(("search", "logits"))),
        Step(f"tokenize: {shape}", tokenize, waiting, **sizes, parts=frozenset(("search",))),
        _text_encoder(setting, target, mesh),
    ]
    if config.model.kmeans_init or config.model.kmeans_refit:
        found.append(_kmeans(structure, state, mesh))
    facts = {
        "codes": len(data.selected),
        "batch": config.train.batch_size,
        "codebook": config.model.codebook_size,
        "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
        "activations": "bfloat16" if config.train.mixed_precision else "float32",
        "states on device": "yes" if inputs.builder.states_on_device else "no",
    }
    return facts, found


def _inputs(config: ConfigDict, data, target: Target) -> ModelInputs:
    """Return the inputs of a run on the target; nothing is placed on a device."""
    host = sharding.make_mesh(jax.devices("cpu")[: target.devices], config.train.model_parallel)
    sampler = make_sampler(config, data)
    on_device = keeps_states(config, data, AbsentDevice(target.platform, target.memory))
    return ModelInputs(
        data=data,
        mesh=host,
        sampler=sampler,
        builder=make_builder(config, data, host, sampler.sizes(), states_on_device=on_device),
        unmasked_builder=make_builder(config, data, host, states_on_device=on_device),
        tables=data.tables(with_states=on_device),
    )


def _state(create: Callable) -> tuple:
    """Return the structure and the shapes of the state that a function creates, without running it."""
    structures = []

    def state():
        graphdef, created = create()
        structures.append(graphdef)
        return created

    shapes = jax.eval_shape(state)
    return structures[0], shapes


def _shapes(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _largest(inputs: ModelInputs, config: ConfigDict) -> Batch:
    budgets = inputs.builder.budgets
    length = budgets.length(config.data.max_length)
    return _shapes(abstract(inputs, inputs.train_source(LAST_STEP)[0], length, budgets.graphs[-1]))


def _graph_sizes(batch: Batch) -> frozenset[int]:
    devices, edges = batch.graph.senders.shape
    nodes = batch.graph.nodes["node_id"].shape[1]
    return frozenset((nodes, edges, devices * nodes, devices * edges))


def _text_sizes(batch: Batch, inputs: ModelInputs) -> frozenset[int]:
    """Return the padded numbers of tokens and of nodes of a code."""
    return frozenset((batch.text.shape[1], inputs.data.sizes().max_nodes, *(batch.small or ())))


def _text_encoder(setting: Setting, target: Target, mesh: jax.sharding.Mesh) -> Step:
    """Return the step of the frozen encoder on the longest texts, with the batch that the target would get."""
    data, name = setting.config.data, setting.config.model.text_encoder_model
    gelu = setting.config.model.text_encoder_gelu
    if name in WIDTHS:
        config = BertConfig(vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, **SHAPES["bert-base"]).with_gelu(
            gelu
        )
    else:
        config = BertConfig.from_directory(resolve_text_encoder(name), gelu=gelu)
    dtype = activations(DTYPES[data.cache_dtype], target.platform)
    graphdef, state = nnx.split(nnx.eval_shape(lambda: Bert(config, dtype=dtype, rngs=nnx.Rngs(0))))
    shape = (mesh.size * max(tokens_a_device(target.memory) // data.max_length, 1), data.max_length)
    # As `compile_encoder`: whole weights everywhere, a share of the batch each.
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(mesh.axis_names))
    run = jax.jit(
        functools.partial(encode_texts_step, graphdef=graphdef),
        in_shardings=(sharding.replicated(mesh), split, split),
    )
    ids, mask = (jax.ShapeDtypeStruct(shape, kind) for kind in (jnp.int32, jnp.bool_))
    lowered = run.lower(state, ids, mask)
    name = f"text encoder: {shape[0]} texts of {shape[1]} tokens in {jnp.dtype(dtype).name}"
    return Step(name, lowered, text_sizes=frozenset(shape[1:]))


def _kmeans(structure: Structure, state, mesh: jax.sharding.Mesh) -> Step:
    """Return the fit of the codebook; it runs but twice in a run, so that its program is lowered only."""
    model = structure.config.model

    def fit(params, fixed, points):
        quantizer = structure.model(params, fixed).quantizer
        key = jax.random.key(structure.config.seed)
        return fit_regions(key, points, quantizer, iterations=model.kmeans_iterations, rounds=model.joint_fit_rounds)

    points = jax.ShapeDtypeStruct((model.kmeans_samples, model.embedding_dim), jnp.float32)
    lowered = jax.jit(fit, in_shardings=sharding.replicated(mesh)).lower(
        state.params, state.fixed, dict.fromkeys(REGIONS, points)
    )
    return Step("k-means, as lowered", lowered, parts=frozenset(("k-means",)), compiles=False)
