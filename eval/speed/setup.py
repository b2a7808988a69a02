"""Prepare the benchmarks of the model: data of a scale, and a run that is ready to train."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from eval.speed.generated_source import SOURCES, write_source
from eval.speed.random_text import random_states, write_encoder
from eval.speed.timing import Timing
from medtok_jax.data.dataset import load_data
from medtok_jax.devices import sharding
from medtok_jax.text.encoder_files import EMBEDDED, resolve_text_encoder
from medtok_jax.training.setup import Training, assemble
from preprocessing import medtok_codes

# Widths of encoders that need not be downloaded where their states are random; they share the embedded wordpieces.
WIDTHS = {"bert-base-uncased": 768}
# Of runs that are only measured: more than any of them takes.
LAST_STEP = 10**6


@dataclasses.dataclass(frozen=True)
class Setting:
    """Hold the settings of a measurement, which can be sent to another process.

    Attributes:
        config: configuration of training.
        scale: `icd`, `primekg` or `release`.
        folder: folder of generated data.
        codes: number of codes to use, 0 for all.
        repeats: number of repetitions of each timing.
        steps: number of batches in one repetition.
        encoder: shape of an encoder with random weights, empty for the encoder of the configuration.
        quick: whether to measure little, to check that the benchmark works.
        profile: folder of the traces of JAX's profiler, None for none.
    """

    config: ConfigDict
    scale: str
    folder: Path
    codes: int = 0
    repeats: int = 5
    steps: int = 8
    encoder: str = ""
    quick: bool = False
    profile: Path | None = None

    def prepared(self) -> "Setting":
        """Build the generated data set, and return the setting with its name in the configuration."""
        config = ConfigDict(self.config.to_dict())
        config.data.sample_size = self.codes or config.data.sample_size
        if self.scale in SOURCES:
            # Each size of data set has its own directory.
            data_folder = self.folder / f"{self.scale}-{self.codes or 'all'}"
            config.data.name, config.data.data_dir = f"medtok_codes/{self.scale}", str(data_folder / "data")
            config.data.sample_size, config.data.include = 0, ()
            source = write_source(self.scale, data_folder / "source", codes=self.codes or None)
            medtok_codes.prepare(config.data.name, data_folder / "data", source_dir=source)
        if self.encoder:
            config.model.text_encoder_model = str(write_encoder(self.folder / "encoders", self.encoder))
        return dataclasses.replace(self, config=config)

    def encoder_and_width(self) -> tuple[Path, int]:
        """Return the directory of the encoder, or of the embedded one for its wordpieces, and the width of states."""
        name = self.config.model.text_encoder_model
        if name in WIDTHS:
            return resolve_text_encoder(EMBEDDED), WIDTHS[name]
        path = resolve_text_encoder(name)
        return path, json.loads((path / "config.json").read_text(encoding="utf-8"))["hidden_size"]


def open_run(setting: Setting, *, progress: bool = True, on_disk: bool = True) -> Training:
    """Set up a new run on random text states.

    Args:
        setting: a prepared setting.
        progress: whether to show progress bars.
        on_disk: whether states are in a file as large as a real one, which is not needed where nothing is computed.
    """
    config = setting.config
    encoder_dir, width = setting.encoder_and_width()
    encode = functools.partial(random_states, width=width, folder=setting.folder if on_disk else None)
    data = load_data(config, encoder_dir=encoder_dir, progress=progress, encode=encode)
    mesh = sharding.make_mesh(sharding.use_devices(config.train.num_devices), config.train.model_parallel)
    return assemble(config, data, mesh, encoder_dir, first_step=0, last_step=LAST_STEP)


def facts(ready: Training) -> dict[str, int | str]:
    """Return facts about the data, the model and the device of a run, for the report."""
    config, data, device = ready.config, ready.inputs.data, jax.devices()[0]
    return {
        "codes": len(data.selected),
        "batch": config.train.batch_size,
        "codebook": config.model.codebook_size,
        "text width": data.cache.states.shape[1],
        "tokens a code": round(float(data.num_tokens(data.selected).mean()), 1),
        "nodes a code": round(float(data.table.num_nodes[data.selected].mean()), 1),
        "edges a code": round(float(data.table.num_edges[data.selected].mean()), 1),
        "activations": "bfloat16" if config.train.mixed_precision else "float32",
        "device": f"{len(ready.inputs.mesh.devices.flat)} x {device.device_kind} ({device.platform})",
        "jax": jax.__version__,
    }


def trace(setting: Setting, function: Callable[[], None]) -> None:
    """Run a function once more, after it was timed, and trace it into the folder of the setting, if there is one."""
    if setting.profile is not None:
        with jax.profiler.trace(str(setting.profile)):
            function()


def activation_dtype(config: ConfigDict) -> type:
    """Return the dtype of activations, for the matmul to compare with."""
    return jnp.bfloat16 if config.train.mixed_precision else jnp.float32


def accelerator_peak() -> int | None:
    """Return the peak memory of the accelerator in bytes, None where it is unknown."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def reports(timings: list[Timing], matmul: float | None = None) -> list[dict]:
    """Return the rows of timings in values for JSON.

    Args:
        timings: timings.
        matmul: floating-point operations per second of a matmul, to compare with.
    """
    return [timing.report(matmul) for timing in timings]
