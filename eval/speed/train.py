"""Measure the parts of a training step, relative to the rate of a matmul and to PyTorch.

Rows of the table:

- `matmul`: a square matmul, whose rate the others are compared with;
- `input`: batches made by one thread while nothing else runs;
- `step`: the compiled step on batches that are on the device;
- `training`: both at once, with batches prepared in advance;
- `PyTorch ...`: see `eval.speed.torch`.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from eval.speed import torch
from eval.speed.isolation import in_child
from eval.speed.setup import LAST_STEP, Setting, accelerator_peak, activation_dtype, facts, open_run, reports, trace
from eval.speed.timing import Timing, jax_flops, peak_memory, repeat
from medtok_jax.data.input_pipeline import train_batches
from medtok_jax.devices import sharding
from medtok_jax.training.setup import Training
from medtok_jax.training.state import TrainState


def run(setting: Setting) -> dict:
    """Measure JAX and each variant of PyTorch, each in a separate process, and return facts and rows."""
    setting = setting.prepared()
    found, rows = in_child(measure, setting)
    for variant in torch.variants(setting):
        rows.append(in_child(torch.measure, setting, variant, JAX_PLATFORMS="cpu"))
    jax_row = next(row for row in rows if row["name"] == "training")
    for row in rows:
        if row["name"].startswith("PyTorch") and "per_second" in row:
            row["jax_speedup"] = jax_row["per_second"] / row["per_second"]
    return {"facts": {"scale": setting.scale} | found, "rows": rows}


def measure(setting: Setting) -> tuple[dict, list[dict]]:
    """Return facts about the run, and the rows of JAX."""
    ready = open_run(setting)
    rate = jax_flops(activation_dtype(setting.config))
    timings = [Timing("matmul", (1.0,), 0, "", {"flops": rate}), _input(ready, setting)]
    # A step donates its state; that of `ready` is left to others.
    steps, state = _steps(ready, jax.tree.map(jnp.copy, ready.state), setting)
    timings += [steps, _together(ready, state, setting)]
    return facts(ready), reports(timings, rate)


def _input(ready: Training, setting: Setting) -> Timing:
    source, step = ready.inputs.train_source(LAST_STEP), iter(range(10**6))
    seconds = repeat(lambda: source[next(step)], setting.repeats * setting.steps, warm_up=4)
    # One repetition has as many batches as in the other rows.
    rounds = np.reshape(seconds, (setting.repeats, setting.steps)).sum(1)
    return Timing("input", tuple(rounds), setting.steps * setting.config.train.batch_size)


def _steps(ready: Training, state: TrainState, setting: Setting) -> tuple[Timing, TrainState]:
    """Time steps on the same batches, each after the one before, as in training."""
    inputs, train_step = ready.inputs, ready.programs.train_step
    source = inputs.train_source(LAST_STEP)
    batches = [sharding.place_batch(source[number], inputs.mesh) for number in range(setting.steps)]
    window = ready.programs.empty_window()
    for batch in batches:
        train_step.compile(state, window, batch, inputs.tables)
    flops = sum(_flops(ready, batch) for batch in batches)

    def steps() -> None:
        nonlocal state, window
        for batch in batches:
            state, window, _ = train_step(state, window, batch, inputs.tables)
        jax.block_until_ready((state, window))

    seconds = repeat(steps, setting.repeats)
    trace(setting, steps)
    memory = train_step.memory
    more = {
        "flops": flops,
        "compile_seconds": sum(train_step.compile_seconds),
        "compile_count": len(train_step.executables),
        "peak_bytes": accelerator_peak() or peak_memory(),
        "planned_bytes": memory.total if memory else None,
    }
    return Timing("step", seconds, setting.steps * setting.config.train.batch_size, more=more), state


def _flops(ready: Training, batch) -> float:
    """Return the floating-point operations of a step on all devices, as XLA counts them in the compiled program."""
    cost = ready.programs.train_step.executable(ready.state, None, batch).cost_analysis() or {}
    return cost.get("flops", 0.0) * ready.inputs.mesh.devices.size


def _together(ready: Training, state: TrainState, setting: Setting) -> Timing:
    """Time the training loop without logs: batches from a thread, and at most four steps in flight."""
    inputs, train_step = ready.inputs, ready.programs.train_step
    compiled_before = len(train_step.executables)
    window, pending, rounds = ready.programs.empty_window(), [], []
    batches = train_batches(inputs.train_source(LAST_STEP), setting.steps)
    for number in range(setting.repeats + 1):
        start = time.perf_counter()
        for _ in range(setting.steps):
            placed = sharding.place_batch(next(batches), inputs.mesh)
            if train_step.compile(state, window, placed, inputs.tables):
                start += train_step.compile_seconds[-1]
            state, window, checked = train_step(state, window, placed, inputs.tables)
            pending.append(checked)
            jax.block_until_ready(pending[max(len(pending) - 4, 0)])
        jax.block_until_ready(state)
        if number:
            rounds.append(time.perf_counter() - start)
    more = {
        "compile_seconds": sum(train_step.compile_seconds),
        "compile_count": len(train_step.executables),
        "compiled_while_timed": len(train_step.executables) - compiled_before,
        "peak_bytes": accelerator_peak() or peak_memory(),
    }
    return Timing("training", tuple(rounds), setting.steps * setting.config.train.batch_size, more=more)
