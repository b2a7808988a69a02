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
import numpy as np

from eval.speed import torch
from eval.speed.isolation import in_child
from eval.speed.setup import Setting, accelerator_peak, activation_dtype, facts, open_run, reports
from eval.speed.timing import Timing, jax_flops, peak_memory, repeat
from medtok_jax.data.input_pipeline import train_batches
from medtok_jax.devices import sharding
from medtok_jax.training.setup import Run


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
    timings += [_steps(ready, setting), _together(ready, setting)]
    return facts(ready), reports(timings, rate)


def _input(ready: Run, setting: Setting) -> Timing:
    source, step = ready.train_source(), iter(range(10**6))
    seconds = repeat(lambda: source[next(step)], setting.repeats * setting.steps, warm_up=4)
    # One repetition has as many batches as in the other rows.
    rounds = np.reshape(seconds, (setting.repeats, setting.steps)).sum(1)
    return Timing("input", tuple(rounds), setting.steps * setting.config.train.batch_size)


def _steps(ready: Run, setting: Setting) -> Timing:
    """Time steps on the same batches, each after the one before, as in training."""
    source = ready.train_source()
    batches = [sharding.place_batch(source[number], ready.mesh) for number in range(setting.steps)]
    window = ready.empty_window()
    for batch in batches:
        ready.train_step.compile(ready.state, window, batch, ready.tables)
    flops = sum(_flops(ready, batch) for batch in batches)

    def steps() -> None:
        nonlocal window
        for batch in batches:
            ready.state, window, _ = ready.train_step(ready.state, window, batch, ready.tables)
        jax.block_until_ready((ready.state, window))

    seconds = repeat(steps, setting.repeats)
    memory = ready.train_step.memory
    more = {
        "flops": flops,
        "compile_seconds": sum(ready.train_step.compile_seconds),
        "compile_count": len(ready.train_step.executables),
        "peak_bytes": accelerator_peak() or peak_memory(),
        "planned_bytes": memory.total if memory else None,
    }
    return Timing("step", seconds, setting.steps * setting.config.train.batch_size, more=more)


def _flops(ready: Run, batch) -> float:
    """Return the floating-point operations of a step on all devices, as XLA counts them in the compiled program."""
    cost = ready.train_step.executable(ready.state, None, batch).cost_analysis() or {}
    return cost.get("flops", 0.0) * ready.mesh.devices.size


def _together(ready: Run, setting: Setting) -> Timing:
    """Time the training loop without logs: batches from a thread, and at most four steps in flight."""
    compiled_before = len(ready.train_step.executables)
    window, pending, rounds = ready.empty_window(), [], []
    batches = train_batches(ready.train_source(), setting.steps)
    for number in range(setting.repeats + 1):
        start = time.perf_counter()
        for _ in range(setting.steps):
            placed = sharding.place_batch(next(batches), ready.mesh)
            if ready.train_step.compile(ready.state, window, placed, ready.tables):
                start += ready.train_step.compile_seconds[-1]
            ready.state, window, checked = ready.train_step(ready.state, window, placed, ready.tables)
            pending.append(checked)
            jax.block_until_ready(pending[max(len(pending) - 4, 0)])
        jax.block_until_ready(ready.state)
        if number:
            rounds.append(time.perf_counter() - start)
    more = {
        "compile_seconds": sum(ready.train_step.compile_seconds),
        "compile_count": len(ready.train_step.executables),
        "compiled_while_timed": len(ready.train_step.executables) - compiled_before,
        "peak_bytes": accelerator_peak() or peak_memory(),
    }
    return Timing("training", tuple(rounds), setting.steps * setting.config.train.batch_size, more=more)
