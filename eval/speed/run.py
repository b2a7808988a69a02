"""Measure one complete training run from a prepared data set: packing, encoding of texts, training, tokens.

Nothing is reused from earlier runs: texts are encoded and functions compiled again. `--scale=release
--encoder=bert-base --config=configs/paper.py` runs the recipe of the paper at full size, on generated data.
"""

import shutil
import tempfile
from pathlib import Path

import jax
from ml_collections import ConfigDict

from eval.speed.isolation import in_child
from eval.speed.setup import Setting, accelerator_peak, facts
from eval.speed.timing import Phases, Timing, folder_size
from medtok_jax import config as configuration
from preprocessing import medtok_codes


def run(setting: Setting) -> dict:
    """Measure in a separate process, delete its caches and work directory, and return facts and rows."""
    setting.folder.mkdir(parents=True, exist_ok=True)
    setting = setting.prepared()
    medtok_codes.prepare(setting.config.data.name, str(configuration.data_dir(setting.config)))
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=setting.folder))
    try:
        found, rows = in_child(measure, setting, str(folder))
        sizes = {part.name: folder_size(part) for part in sorted(folder.iterdir())}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found |= {f"bytes of {name}": size for name, size in sizes.items()}
    found["bytes of the data set"] = folder_size(configuration.data_dir(setting.config) / setting.config.data.name)
    return {"facts": {"scale": setting.scale} | found, "rows": rows}


def measure(setting: Setting, folder: str) -> tuple[dict, list[dict]]:
    """Return facts about the run, a row for each phase, and a row for the complete run."""
    from medtok_jax import train
    from medtok_jax.data import code_table, dataset
    from medtok_jax.inference import vocabulary
    from medtok_jax.inference.trained import TrainedModel
    from medtok_jax.text.encoder_files import resolve_text_encoder
    from medtok_jax.training import reporting
    from medtok_jax.training.checkpoints import CheckpointWriter
    from medtok_jax.training.setup import set_up

    config = ConfigDict(setting.config.to_dict())
    config.data.cache_dir, workdir = str(Path(folder) / "caches"), Path(folder) / "workdir"
    phases = Phases()
    with phases.phase("read and pack the data set"):
        builder = medtok_codes.open_prepared(config.data.name, configuration.data_dir(config))
        code_table.load(builder, configuration.cache_dir(config))
    with phases.phase("encode the texts"):
        data = dataset.load_data(config, encoder_dir=resolve_text_encoder(config.model.text_encoder_model))
    codes = len(data.selected)
    del data
    with phases.phase("set up"):
        ready = set_up(config, workdir)
        writer = CheckpointWriter(workdir, ready.metadata)
        log = reporting.Log(workdir, step=0, regions=ready.programs.structure.regions)
    steps = ready.plan.last_step - ready.plan.first_step
    with phases.phase("train", steps * config.train.batch_size, "codes"):
        state = train.train(ready, log, writer)
    with phases.phase("tokens of all codes", codes, "codes"):
        trained = TrainedModel.restore(workdir, config, ready.inputs, ready.programs, like=state)
        vocabulary.write_tokenizer(trained, workdir / vocabulary.DIRECTORY, with_model=True)
    log.close()
    rows = phases.report()["rows"]
    seconds = sum(phase.seconds for phase in phases.phases)
    peak = {"peak_bytes": max(phase.peak_bytes for phase in phases.phases)}
    rows.append(Timing("the complete run", (seconds,), 0, more=peak).report())
    found = facts(ready) | {"steps": steps, "compilations": len(ready.programs.train_step.compile_seconds)}
    found["seconds of compiling steps"] = round(sum(ready.programs.train_step.compile_seconds), 1)
    device = accelerator_peak()
    return found | ({"bytes on the accelerator": device} if jax.default_backend() != "cpu" and device else {}), rows
