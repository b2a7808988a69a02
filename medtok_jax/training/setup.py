"""Everything a run needs, set up in the order that lets bad input fail before long work."""

import dataclasses
import functools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from medtok_jax import config as configuration
from medtok_jax.batch import NO_STATE, Tables
from medtok_jax.data.dataset import Data, load_data
from medtok_jax.data.input_pipeline import BatchBuilder, Budgets, EvalSource, TrainSource, eval_batches
from medtok_jax.data.sampling import Sampler, Sizes, draw
from medtok_jax.devices import sharding
from medtok_jax.devices.compiled_step import CompiledStep
from medtok_jax.devices.memory import device_memory
from medtok_jax.models.kmeans import fit_codebook
from medtok_jax.text.encoder_files import encoder_identity, resolve_text_encoder
from medtok_jax.training import checkpoints, steps
from medtok_jax.training.checkpoints import Found
from medtok_jax.training.metrics import CodebookUsage, WeightedSums, Window
from medtok_jax.training.state import TrainState, create_optimizer, create_state, learning_rate
from medtok_jax.training.steps import Structure
from medtok_jax.training.warm_start import start_from
from preprocessing import medtok_codes
from preprocessing.common.errors import InputError

# Share of an accelerator's memory that token states may take where the configuration leaves it open.
STATES_SHARE = 0.4


@dataclasses.dataclass
class Run:
    """A training run that is ready to step.

    Attributes:
        config, workdir: as asked for.
        data: codes, texts, graphs.
        mesh: devices.
        builder: makes training batches. whole_builder: those of codes of which nothing is masked.
        tables: facts of nodes, and of descriptions where there is room, on the devices.
        structure: static facts of the compiled functions.
        state: where the run stands.
        first_step, last_step: the run trains steps `first_step` to `last_step - 1`.
        kmeans_step: step before which the codebook is fitted, -1 for never.
        refits: whether the codebook is fitted once more after the last step.
        about: metadata of its checkpoints.
        train_step, eval_step, tokenize_step, encode_step, term_gradient_norms: compiled functions of `steps`.
    """

    config: object
    workdir: Path
    data: Data
    mesh: Mesh
    builder: BatchBuilder
    whole_builder: BatchBuilder
    tables: Tables
    structure: Structure
    state: TrainState
    first_step: int
    last_step: int
    kmeans_step: int
    refits: bool
    about: dict
    train_step: CompiledStep | None = None
    eval_step: object = None
    tokenize_step: object = None
    encode_step: object = None
    term_gradient_norms: object = None

    def __post_init__(self):
        whole, cut = sharding.replicated(self.mesh), sharding.spread(self.mesh)
        state = sharding.layout(self.mesh, self.state)
        bind = lambda name: functools.partial(getattr(steps, name), structure=self.structure)  # noqa: E731
        self.train_step = CompiledStep(
            bind("train_step"),
            batch_place=2,
            donate_argnums=(0, 1),
            in_shardings=(state, whole, cut, whole),
            out_shardings=(state, whole, whole),
        )
        variables = (state.params, state.fixed)
        inputs = dict.fromkeys(("eval_step", "tokenize_step", "encode_step"), variables)
        for name, first in (inputs | {"term_gradient_norms": (state,)}).items():
            setattr(self, name, jax.jit(bind(name), in_shardings=(*first, cut, whole), out_shardings=whole))

    def train_source(self) -> TrainSource:
        """Training batches by step."""
        return TrainSource(self.builder, make_sampler(self.config, self.data), self.last_step)

    def eval_source(self, rows: np.ndarray) -> EvalSource:
        """Batches that pass once over some rows."""
        return EvalSource(self.whole_builder, rows, self.config.train.batch_size)

    def empty_window(self) -> Window:
        """A window without batches, shaped as those of `train_step`."""
        names = [*steps.METRICS, *steps.NORMS]
        return self._zero_window(names)

    def empty_eval_window(self) -> Window:
        """A window without batches, shaped as those of `eval_step`."""
        return self._zero_window(list(steps.METRICS))

    def _zero_window(self, names: list[str]) -> Window:
        size = self.config.model.codebook_size
        window = Window(
            scalars=WeightedSums({name: np.zeros((), np.float32) for name in names}, np.zeros((), np.float32)),
            usage=CodebookUsage(np.zeros(size, np.float32)),
        )
        return sharding.place_everywhere(window, self.mesh)

    def fit_codebook(self) -> TrainState:
        """The state with its codebook fitted by k-means to embeddings of training codes, each as often as any other.

        Moments of the optimizer belong to the old rows and are forgotten.
        """
        source, points = self.train_source(), []
        size, codes = source.sampler.batch_size, source.sampler.rows
        wanted = min(self.config.model.kmeans_samples, len(codes))
        for step in range(-(-wanted // size)):
            rows = codes[draw(self.config.seed, step, size, len(codes))]
            batch = self.whole_builder(rows, np.ones(size, bool), np.full(size, -1))
            batch = sharding.place_batch(batch, self.mesh)
            points.append(self.encode_step(self.state.params, self.state.fixed, batch, self.tables))
        everything = jax.tree.map(lambda *parts: jnp.concatenate(parts), *points)
        regions = {
            "text": everything.text_specific,
            "graph": everything.graph_specific,
            "shared": jnp.concatenate([everything.text_cross, everything.graph_cross]),
        }
        model = self.structure.model(self.state.params, self.state.fixed)
        rows = fit_codebook(
            jax.random.key(self.config.seed), regions, model.quantizer, iterations=self.config.model.kmeans_iterations
        )
        model.quantizer.set_codebook(sharding.place_everywhere(np.asarray(rows), self.mesh))
        _, params, fixed = nnx.split(model, nnx.Param, ...)
        forget = lambda path, x: jnp.zeros_like(x) if _names_rows(path) else x  # noqa: E731
        opt_state = jax.tree_util.tree_map_with_path(forget, self.state.opt_state)
        state = TrainState(self.state.step, params, fixed, opt_state)
        return sharding.lay_out(state, self.mesh)

    def evaluate(self, rows: np.ndarray, wrap=lambda batches: batches) -> Window:
        """Metrics over some rows; `wrap` may put a progress bar around the batches."""
        window = self.empty_eval_window()
        for batch in wrap(eval_batches(self.eval_source(rows))):
            placed = sharding.place_batch(batch, self.mesh)
            window = window.merge(self.eval_step(self.state.params, self.state.fixed, placed, self.tables))
        return window


def _names_rows(path: tuple) -> bool:
    return any(getattr(part, "key", None) == "rows" for part in path)


def set_up(config, workdir: Path, *, progress: bool = True) -> Run:
    """Checks everything that can be checked, then loads or builds the data, then makes or restores the state.

    The state comes, in this order, from: the last checkpoint of `workdir`; `config.resume_from`; `config.init_from`;
    a fresh initialization.

    Raises:
        InputError: one sentence on what does not fit.
    """
    devices = sharding.use_devices(config.train.num_devices)
    configuration.validate(config, len(devices))
    medtok_codes.check_available(config.data.name, configuration.data_dir(config))
    encoder_dir = resolve_text_encoder(config.model.text_encoder_model)
    found = checkpoints.latest(workdir / "checkpoints" / "last")
    source = found or (checkpoints.find(config.resume_from) if config.resume_from else None)
    about = source.about() if source else None
    if about:
        _check_configuration(source, about, config)
    if config.init_from and not source:
        checkpoints.find(config.init_from, prefer="best")
    _check_writable(workdir)
    data = load_data(config, encoder_dir=encoder_dir, progress=progress)
    identity = {"fingerprint": data.table.fingerprint, "encoder": encoder_identity(encoder_dir)}
    if about:
        _check_identity(source, about, identity)
    mesh = sharding.make_mesh(devices, config.train.model_parallel)
    first_step = about["first_step"] if found else about["step"] if about else 0
    last_step = first_step + configuration.total_steps(config, len(data.rows("train")))
    return assemble(config, workdir, data, mesh, encoder_dir, source, first_step, last_step, identity)


def open_trained(
    workdir: Path, *, data_dir: str = "", whole: bool = False, batch_size: int = 0, progress: bool = True
) -> Run:
    """A run opened to be used, with the configuration and the state of its best checkpoint (the last without one).

    Args:
        workdir: of a training run.
        data_dir: where its data set lies now; empty for where it lay.
        whole: whether all codes of the data set are in use, also where training saw a sample.
        batch_size: codes a batch; 0 for that of training.
        progress: whether to show bars.

    Raises:
        InputError: there is no checkpoint, or the data set or the text encoder is not the one it was trained with.
    """
    source = checkpoints.find(workdir, prefer="best")
    about = source.about()
    config = configuration.with_later_fields(about["config"])
    config.train.num_devices, config.train.model_parallel = 0, 1
    config.data.data_dir = data_dir or config.data.data_dir
    config.train.batch_size = batch_size or config.train.batch_size
    if whole:
        config.data.sample_size = 0
    devices = sharding.use_devices(0)
    configuration.validate(config, len(devices))
    encoder_dir = resolve_text_encoder(config.model.text_encoder_model)
    data = load_data(config, encoder_dir=encoder_dir, progress=progress)
    identity = {"fingerprint": data.table.fingerprint, "encoder": encoder_identity(encoder_dir)}
    _check_identity(source, about, identity)
    steps = (about["first_step"], about["last_step"])
    return assemble(config, workdir, data, sharding.make_mesh(devices), encoder_dir, source, *steps, identity)


def make_sampler(config, data: Data) -> Sampler:
    """What draws the training batches of a configuration."""
    return Sampler(
        data,
        data.rows("train"),
        seed=config.seed,
        batch_size=config.train.batch_size,
        positive_relations=tuple(config.loss.positive_relations),
        mask_positives=config.augment.mask_positives,
        modality_dropout=config.augment.modality_dropout,
    )


def keeps_states(config, data: Data, device: jax.Device) -> bool:
    """Whether token states lie on each device, so that a step's are not sent to it: `data.states_on_device`.

    Raises:
        InputError: they are to, but do not fit.
    """
    asked, states = config.data.states_on_device, data.cache.states
    if config.model.text_encoder_trainable or asked == "no":
        return False
    limit = device_memory(device)
    fits = len(states) < NO_STATE and (limit is None or states.nbytes < limit)
    if asked == "yes" and not fits:
        raise InputError(
            f"data.states_on_device is 'yes', but {len(states):,} token states of {states.nbytes / 2**30:.1f} GiB do"
            f" not fit a device of {(limit or 0) / 2**30:.1f} GiB; set auto or no."
        )
    spare = device.platform != "cpu" and limit is not None and states.nbytes <= STATES_SHARE * limit
    return fits and (asked == "yes" or spare)


def make_builder(
    config, data: Data, mesh: Mesh, sizes: Sizes | None = None, *, states_on_device: bool = False
) -> BatchBuilder:
    """What makes batches of a configuration.

    Args:
        config, data, mesh: see `Run`.
        sizes: of codes that the batches' shapes are for; None for each code whole.
        states_on_device: whether token states are there, see `keeps_states`.
    """
    devices = mesh.shape["data"]
    return BatchBuilder(
        data,
        Budgets.fit(data, config.train.batch_size, devices, config.data.length_buckets, sizes),
        num_stacks=devices,
        local_stacks=sharding.local_stacks(mesh),
        token_ids=config.model.text_encoder_trainable,
        states_on_device=states_on_device,
        positive_relations=tuple(config.loss.positive_relations),
    )


def assemble(
    config,
    workdir: Path,
    data: Data,
    mesh: Mesh,
    encoder_dir: Path,
    source: Found | None,
    first_step: int,
    last_step: int,
    identity: dict,
) -> Run:
    """A run on data that is open.

    Args:
        config, workdir, data, mesh: see `Run`.
        encoder_dir: of the text encoder, read only where it is trained.
        source: checkpoint to go on from, if any.
        first_step, last_step: see `Run`.
        identity: fingerprint of the data set, and identity of the text encoder.
    """
    schedule = learning_rate(config, first_step=first_step, last_step=last_step)
    optimizer = create_optimizer(config, schedule)
    graphdef, state = create_state(config, data.sizes(), encoder_dir, optimizer, mesh)
    graph = data.table.graph
    names = {"node_types": list(graph.node_types), "relation_names": list(graph.relation_names)}
    if source:
        state = source.restore(state)
    elif config.init_from:
        state = start_from(config.init_from, state, names, config)
    fits = config.model.kmeans_init and not config.init_from
    best = checkpoints.latest(workdir / "checkpoints" / "best")
    score = best.about()["best_total_loss"] if best and best.step <= int(state.step) else None
    on_device = keeps_states(config, data, mesh.local_mesh.devices.flat[0])
    about = {"config": config.to_dict(), "first_step": first_step, "last_step": last_step, "best_total_loss": score}
    return Run(
        config=config,
        workdir=workdir,
        data=data,
        mesh=mesh,
        builder=make_builder(config, data, mesh, make_sampler(config, data).sizes(), states_on_device=on_device),
        whole_builder=make_builder(config, data, mesh, states_on_device=on_device),
        tables=sharding.place_everywhere(data.tables(with_states=on_device), mesh),
        structure=Structure(graphdef, optimizer, schedule, config),
        state=state,
        first_step=first_step,
        last_step=last_step,
        refits=config.model.kmeans_refit and not config.init_from,
        kmeans_step=min(config.model.kmeans_step, (last_step - first_step) // 3) if fits else -1,
        about=about | identity | names,
    )


def _check_configuration(source: Found, about: dict, config) -> None:
    changed = configuration.differences(about["config"], config)
    if changed:
        raise InputError(
            f"{source.folder.parent.parent} holds a checkpoint of another configuration ({'; '.join(changed)});"
            " use its settings, another --workdir, or --config.init_from to start from its weights."
        )


def _check_identity(source: Found, about: dict, identity: dict) -> None:
    for name, what in (("fingerprint", "data set"), ("encoder", "text encoder")):
        if about[name] != identity[name]:
            raise InputError(
                f"The checkpoint {source.folder / str(source.step)} was trained on another {what}"
                f" ({about[name][:12]} instead of {identity[name][:12]}); use that one, or --config.init_from."
            )


def _check_writable(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        # A name of its own: of several processes each tries.
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise InputError(
            f"The work directory {workdir} cannot be written ({error.strerror}); give another --workdir."
        ) from error
