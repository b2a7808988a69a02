"""Changes that keep a command short; each is made in the process of the command before it starts."""

import functools
import importlib
import json
import subprocess
import sys
from pathlib import Path

from ml_collections import ConfigDict


def stop_before_training() -> None:
    """End the training command when everything is set up for its first step."""
    from medtok_jax import train

    assert callable(train.train)
    train.train = lambda *_: sys.exit(0)


def stop_before_data() -> None:
    """End the training command where it begins to read the data: its flags, checkpoint and data set are checked."""
    from medtok_jax.training import setup

    assert callable(setup.load_data)
    setup.load_data = lambda *_, **__: sys.exit(0)


def stop_before_measuring() -> None:
    """End a benchmark where it begins to measure: everything that its flags say has been read."""
    from eval.speed import benchmarks

    for name in benchmarks.BENCHMARKS:
        benchmarks.BENCHMARKS[name] = functools.partial(_only_set_up, name)


def stop_before_records() -> None:
    """End a benchmark on patients where it opens the records: its flags, tasks, tokenizers and models are checked."""
    from eval.ehr import run

    assert callable(run.exclusive)
    run.exclusive = lambda *_, **__: sys.exit(0)


def _only_set_up(name: str, given) -> dict:
    from eval.speed import benchmarks

    setting = benchmarks._setting(given, name)
    assert setting.config.model.codebook_size == 120
    importlib.import_module(f"eval.speed.{name}")
    return {"facts": {}, "rows": []}


def write_training_commands() -> None:
    """Write the trainings that a command starts to `started.json` instead of starting them."""

    def record(command: list[str], **_) -> subprocess.CompletedProcess:
        path = Path("started.json")
        started = json.loads(path.read_text()) if path.exists() else []
        path.write_text(json.dumps([*started, command[1:]]))
        return subprocess.CompletedProcess(command, 1)

    subprocess.run = record


def train_baselines_briefly() -> None:
    """Let baselines that are trained take two steps, and read the texts that the finished run has encoded."""
    from configs import default
    from eval.baselines import make

    default_config = default.get_config

    def with_cached_texts(variant: str = "") -> ConfigDict:
        config = default_config(variant).copy_and_resolve_references().unlock()
        config.data.cache_dtype = "float32"
        return config.lock()

    default.get_config = with_cached_texts

    whole = make.make
    make.make = lambda *arguments, **options: whole(*arguments, **options | {"steps": 2, "size": 120})
