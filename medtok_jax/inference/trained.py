"""Open a trained model with its data, to be used."""

import dataclasses
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from medtok_jax import config as configuration
from medtok_jax.data.dataset import load_data
from medtok_jax.devices import sharding
from medtok_jax.text.encoder_files import resolve_text_encoder
from medtok_jax.training import checkpoints
from medtok_jax.training.inputs import ModelInputs
from medtok_jax.training.programs import Programs
from medtok_jax.training.setup import assemble
from medtok_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """Hold the best model of a run (the last where there is no best), with the data that it reads.

    Attributes:
        workdir: of the run.
        config: that it was trained with, and is used with.
        inputs: data and batches.
        programs: compiled functions.
        state: of the checkpoint, on the devices.
        metadata: of the checkpoint, see `checkpoints`.
    """

    workdir: Path
    config: ConfigDict
    inputs: ModelInputs
    programs: Programs
    state: TrainState
    metadata: dict

    @classmethod
    def restore(
        cls, workdir: Path, config: ConfigDict, inputs: ModelInputs, programs: Programs, *, like: TrainState
    ) -> "TrainedModel":
        """Read the best checkpoint of a work directory; its state is laid out as `like` is.

        Raises:
            InputError: there is none, or it cannot be read.
        """
        found = checkpoints.find(workdir, prefer="best")
        return cls(workdir, config, inputs, programs, found.restore(like), found.metadata())

    @property
    def step(self) -> int:
        """Return the step of the checkpoint."""
        return int(self.state.step)

    def codebook(self) -> np.ndarray:
        """Return the rows of the codebook as they are searched, `[N, width]` float32. All processes must call it."""
        return self.programs.codebook(self.state)

    def gathered(self) -> "TrainedModel":
        """Return the same with its state replicated on every device. All processes must call it."""
        return dataclasses.replace(self, state=sharding.gather(self.state, self.programs.mesh))


def open_trained(
    workdir: Path, *, data_dir: str = "", all_codes: bool = False, batch_size: int = 0, progress: bool = True
) -> TrainedModel:
    """Open the best model of a run (the last where there is no best) with the configuration of its checkpoint.

    Args:
        workdir: of the run.
        data_dir: where its data set lies now; empty for where it lay.
        all_codes: whether all codes of the data set are in use, also where training saw a sample.
        batch_size: codes a batch; 0 for that of training.
        progress: whether to show bars.

    Raises:
        InputError: there is no checkpoint, or the data set or the text encoder is not the one it was trained with.
    """
    found = checkpoints.find(workdir, prefer="best")
    metadata = found.metadata()
    config = ConfigDict(metadata["config"])
    config.train.num_devices, config.train.model_parallel = 0, 1
    config.data.data_dir = data_dir or config.data.data_dir
    config.train.batch_size = batch_size or config.train.batch_size
    if all_codes:
        config.data.sample_size = 0
    devices = sharding.use_devices(0)
    configuration.validate(config, len(devices))
    encoder_dir = resolve_text_encoder(config.model.text_encoder_model)
    data = load_data(config, encoder_dir=encoder_dir, progress=progress)
    found.check_origin(data.table.fingerprint, data.cache.encoder)
    opened = assemble(
        config,
        data,
        sharding.make_mesh(devices),
        encoder_dir,
        source=found,
        first_step=metadata["first_step"],
        last_step=metadata["last_step"],
    )
    return TrainedModel(workdir, config, opened.inputs, opened.programs, opened.state, metadata)
