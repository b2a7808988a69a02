"""Bring data to a model: the builders of its batches, and the tables that lie on its devices."""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from medtok_jax import config as configuration
from medtok_jax.batch import NO_STATE, Batch, Tables
from medtok_jax.data.dataset import Data
from medtok_jax.data.hard_negatives import HardNegatives
from medtok_jax.data.input_pipeline import BatchBuilder, Budgets, EvalSource, TrainSource, eval_batches
from medtok_jax.data.sampling import CodeSizes, Sampler
from medtok_jax.devices import sharding
from medtok_jax.devices.memory import device_memory
from medtok_jax.training.losses import distills
from preprocessing.common.errors import InputError

# Share of an accelerator's memory that token states may take where the configuration leaves it open.
STATES_SHARE = 0.4


@dataclasses.dataclass(frozen=True)
class ModelInputs:
    """Hold the data of a model on a mesh of devices.

    Attributes:
        data: codes, texts, graphs.
        mesh: devices.
        sampler: draws the codes of training steps, and what is masked of them.
        builder: makes training batches, of shapes that fit codes as the sampler draws and masks them.
        unmasked_builder: makes batches of codes of which nothing is masked.
        tables: facts of nodes, and token states where there is room, on the devices.
    """

    data: Data
    mesh: Mesh
    sampler: Sampler
    builder: BatchBuilder
    unmasked_builder: BatchBuilder
    tables: Tables

    @property
    def batch_size(self) -> int:
        """Return the codes of a batch over all devices."""
        return self.sampler.batch_size

    def train_source(self, num_steps: int) -> TrainSource:
        """Return training batches by step, on the host."""
        return TrainSource(self.builder, self.sampler, num_steps)

    def eval_source(self, rows: np.ndarray) -> EvalSource:
        """Return batches that pass once over some rows of the code table, on the host."""
        return EvalSource(self.unmasked_builder, rows, self.batch_size)

    def eval_batches(self, rows: np.ndarray) -> Iterator[Batch]:
        """Yield batches that pass once over some rows of the code table, on the devices."""
        for batch in eval_batches(self.eval_source(rows)):
            yield sharding.place_batch(batch, self.mesh)


def make_inputs(config: ConfigDict, data: Data, mesh: Mesh) -> ModelInputs:
    """Return the inputs of a configuration from data that is open.

    Raises:
        InputError: token states are to lie on the devices but do not fit.
    """
    sampler = make_sampler(config, data)
    on_device = keeps_states(config, data, mesh.local_mesh.devices.flat[0])
    return ModelInputs(
        data=data,
        mesh=mesh,
        sampler=sampler,
        builder=make_builder(config, data, mesh, sampler.sizes(), states_on_device=on_device),
        unmasked_builder=make_builder(config, data, mesh, states_on_device=on_device),
        tables=sharding.place_everywhere(data.tables(with_states=on_device), mesh),
    )


def make_sampler(config: ConfigDict, data: Data) -> Sampler:
    """Return the sampler of a configuration's training batches, with the near texts of all codes where it needs them.

    Raises:
        InputError: these cannot be written to the cache.
    """
    rows, hard = data.rows("train"), None
    if config.data.hard_negatives:
        hard = HardNegatives(data, rows, configuration.cache_dir(config), progress=jax.process_index() == 0)
    return Sampler(
        data,
        rows,
        seed=config.seed,
        batch_size=config.train.batch_size,
        positive_relations=tuple(config.loss.positive_relations),
        link_relations=tuple(config.loss.links) if config.loss.link_weight else (),
        hard_negatives=hard,
        hard_share=config.data.hard_negatives,
        mask_positives=config.augment.mask_positives,
        modality_dropout=config.augment.modality_dropout,
    )


def make_builder(
    config: ConfigDict, data: Data, mesh: Mesh, sizes: CodeSizes | None = None, *, states_on_device: bool = False
) -> BatchBuilder:
    """Return the builder of a configuration's batches.

    Args:
        config: of the run.
        data: codes that batches hold.
        mesh: devices that share a batch.
        sizes: of codes that the shapes of batches are fitted to; None for codes of which nothing is masked.
        states_on_device: whether token states lie on the devices, see `keeps_states`.
    """
    devices = mesh.shape["data"]
    return BatchBuilder(
        data,
        Budgets.fit(data, config.train.batch_size, devices, config.data.length_buckets, sizes),
        num_stacks=devices,
        local_stacks=sharding.local_stacks(mesh),
        token_ids=config.model.text_encoder_trainable,
        frozen_means=config.model.text_encoder_trainable and distills(config.loss),
        states_on_device=states_on_device,
        positive_relations=tuple(config.loss.positive_relations),
    )


def keeps_states(config: ConfigDict, data: Data, device: jax.Device) -> bool:
    """Decide by `data.states_on_device` whether token states lie on each device, so that batches need not bring them.

    Raises:
        InputError: they are to, but do not fit.
    """
    asked, states = config.data.states_on_device, data.cache.states
    if config.model.text_encoder_trainable or asked == "no":
        return False
    limit = device_memory(device)
    fits = 0 < len(states) < NO_STATE and (limit is None or states.nbytes < limit)
    if asked == "yes" and not fits:
        raise InputError(
            f"data.states_on_device is 'yes', but {len(states):,} token states of {states.nbytes / 2**30:.1f} GiB do"
            f" not fit a device of {(limit or 0) / 2**30:.1f} GiB; set auto or no."
        )
    spare = device.platform != "cpu" and limit is not None and states.nbytes <= STATES_SHARE * limit
    return fits and (asked == "yes" or spare)
