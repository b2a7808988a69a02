"""Set a training run up: check everything that can be checked, in an order that lets bad input fail early."""

import dataclasses
import tempfile
from pathlib import Path

from jax.sharding import Mesh
from ml_collections import ConfigDict

from medtok_jax import config as configuration
from medtok_jax.data.dataset import Data, load_data
from medtok_jax.devices import sharding
from medtok_jax.devices.compilation_cache import keep_compiled
from medtok_jax.text.encoder_files import resolve_text_encoder
from medtok_jax.training import checkpoints, reporting
from medtok_jax.training.checkpoints import Checkpoint
from medtok_jax.training.inputs import ModelInputs, make_inputs
from medtok_jax.training.programs import Programs, compile_programs
from medtok_jax.training.state import TrainState, create_optimizer, create_state, learning_rate
from medtok_jax.training.steps import Structure
from medtok_jax.training.warm_start import start_from
from preprocessing import medtok_codes
from preprocessing.common.errors import InputError


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """Say which steps a run takes, and when its codebook is fitted.

    Attributes:
        first_step, last_step: the run trains steps `first_step` to `last_step - 1`.
        kmeans_step: steps after the first before the codebook is fitted, -1 for never.
        refits: whether the codebook is fitted once more after the last step.
    """

    first_step: int
    last_step: int
    kmeans_step: int
    refits: bool

    @classmethod
    def of(cls, config: ConfigDict, first_step: int, last_step: int) -> "TrainingPlan":
        """Return the plan of a configuration.

        A run that starts from other weights, or goes on from those of another run, keeps their codebook: rows move by
        gradient alone, so that ids keep their meaning.
        """
        is_new = not config.init_from and not config.resume_from
        fits = config.model.kmeans_init and is_new
        return cls(
            first_step=first_step,
            last_step=last_step,
            kmeans_step=min(config.model.kmeans_step, (last_step - first_step) // 3) if fits else -1,
            refits=config.model.kmeans_refit and is_new,
        )


@dataclasses.dataclass(frozen=True)
class Training:
    """Hold a model that is ready to be trained.

    Attributes:
        config: of the run.
        inputs: data and batches.
        programs: compiled functions.
        state: of the model at its first step; training donates its arrays.
        plan: steps to take.
        metadata: of its checkpoints, see `checkpoints`.
    """

    config: ConfigDict
    inputs: ModelInputs
    programs: Programs
    state: TrainState
    plan: TrainingPlan
    metadata: dict


def set_up(config: ConfigDict, workdir: Path, *, progress: bool = True) -> Training:
    """Check everything that can be checked, then load or build the data, then make or restore the state.

    The state comes, in this order, from: the last checkpoint of `workdir`; `config.resume_from`; `config.init_from`;
    a fresh initialization.

    Raises:
        InputError: one sentence on what does not fit.
    """
    devices = sharding.use_devices(config.train.num_devices)
    configuration.validate(config, len(devices))
    medtok_codes.check_available(config.data.name, configuration.data_dir(config))
    encoder_dir = resolve_text_encoder(config.model.text_encoder_model)
    own = checkpoints.latest(workdir / "checkpoints" / "last")
    source = own or (checkpoints.find(config.resume_from) if config.resume_from else None)
    saved = source.metadata() if source else None
    if source:
        _check_configuration(source, saved["config"], config)
    if config.init_from and not source:
        checkpoints.find(config.init_from, prefer="best")
    _check_writable(workdir)
    if why_not := keep_compiled(configuration.cache_dir(config)):
        reporting.say(why_not)
    data = load_data(config, encoder_dir=encoder_dir, progress=progress)
    if source:
        source.check_origin(data.table.fingerprint, data.cache.encoder)
    first_step = saved["first_step"] if own else saved["step"] if source else 0
    last_step = first_step + configuration.total_steps(config, len(data.rows("train")))
    training = assemble(
        config,
        data,
        sharding.make_mesh(devices, config.train.model_parallel),
        encoder_dir,
        source=source,
        first_step=first_step,
        last_step=last_step,
    )
    best = checkpoints.latest(workdir / "checkpoints" / "best")
    score = best.metadata()["best_total_loss"] if best and best.step <= int(training.state.step) else None
    known = {"best_total_loss": score, "logged": saved["logged"] if own else 0}
    return dataclasses.replace(training, metadata=training.metadata | known)


def assemble(
    config: ConfigDict,
    data: Data,
    mesh: Mesh,
    encoder_dir: Path,
    *,
    source: Checkpoint | None = None,
    first_step: int,
    last_step: int,
) -> Training:
    """Make a model on data that is open, ready to be trained.

    Args:
        config: of the run.
        data: codes, texts, graphs.
        mesh: devices.
        encoder_dir: of the text encoder, read only where it is trained.
        source: checkpoint to go on from, if any.
        first_step, last_step: see `TrainingPlan`.
    """
    schedule = learning_rate(config, first_step=first_step, last_step=last_step)
    optimizer = create_optimizer(config, schedule)
    graphdef, state = create_state(config, data.sizes(), encoder_dir, optimizer, mesh)
    graph = data.table.graph
    names = {"node_types": list(graph.node_types), "relation_names": list(graph.relation_names)}
    if source:
        state = source.restore(state)
    elif config.init_from:
        state = start_from(config.init_from, state, names, config.model)
    metadata = {
        "config": config.to_dict(),
        "first_step": first_step,
        "last_step": last_step,
        "best_total_loss": None,
        "fingerprint": data.table.fingerprint,
        "encoder": data.cache.encoder,
    }
    return Training(
        config=config,
        inputs=make_inputs(config, data, mesh),
        programs=compile_programs(Structure(graphdef, optimizer, schedule, config), state, mesh),
        state=state,
        plan=TrainingPlan.of(config, first_step, last_step),
        metadata=metadata | names,
    )


def _check_configuration(source: Checkpoint, saved: dict, config: ConfigDict) -> None:
    changed = configuration.differences(saved, config)
    if changed:
        raise InputError(
            f"{source.folder.parent.parent} holds a checkpoint of another configuration ({'; '.join(changed)});"
            " use its settings, another --workdir, or --config.init_from to start from its weights."
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
