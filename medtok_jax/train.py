"""The training loop: from a configuration to checkpoints, metrics and the tokens of every code."""

import time
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from medtok_jax.data.input_pipeline import train_batches
from medtok_jax.devices import sharding
from medtok_jax.devices.interruption import Interrupted, Interruption
from medtok_jax.devices.run_lock import only_run
from medtok_jax.inference import vocabulary
from medtok_jax.training import checkpoints, reporting
from medtok_jax.training.metrics import describe_usage
from medtok_jax.training.setup import Run, set_up
from medtok_jax.training.steps import CHECKED, NonFiniteLoss


def train_and_evaluate(config, workdir: str | Path) -> dict:
    """Trains to the end, or goes on where an earlier call with the same work directory stopped.

    Args:
        config: see `configs/default.py`.
        workdir: where checkpoints, logs, the tokenizer and the summary go.

    Returns:
        The summary that is also written to `WORKDIR/summary.json`.

    Raises:
        InputError: what was asked for cannot be done, or another run is at work in the work directory.
        NonFiniteLoss: naming step and term; the last good checkpoint stays.
        Interrupted: after Ctrl-C or SIGTERM, when everything is saved.
    """
    with only_run(Path(workdir), advice="choose another --workdir"):
        return _train_and_evaluate(config, Path(workdir))


def _train_and_evaluate(config, workdir: Path) -> dict:
    run = set_up(config, Path(workdir), progress=jax.process_index() == 0)
    finished = reporting.finished_summary(run)
    if finished:
        reporting.print_summary(finished)
        return finished
    reporting.print_start(run)
    log = reporting.Log(run)
    train(run, log)
    metrics = vocabulary.write_tokenizer(
        run, run.workdir / vocabulary.DIRECTORY, with_model=True, progress=jax.process_index() == 0
    )
    summary = reporting.summarize(run, log, metrics)
    log.close()
    return summary


def train(run: Run, log: "reporting.Log") -> None:
    """Steps from where the state stands to `run.last_step`."""
    config, step = run.config.train, int(run.state.step)
    window, pending, saved_step = run.empty_window(), [], step
    with Interruption() as interruption, _bar(run, step) as bar:
        clock = time.monotonic()
        for batch in train_batches(run.train_source(), step) if step < run.last_step else ():
            if step == run.first_step + run.kmeans_step:
                run.state = run.fit_codebook()
            placed = sharding.place_batch(batch, run.mesh)
            if config.gradient_norms_every and step % config.gradient_norms_every == 0:
                log.scalars(step, run.term_gradient_norms(run.state, placed, run.tables))
            if run.train_step.compile(run.state, window, placed, run.tables):
                reporting.say_memory(run)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                run.state, window, checked = run.train_step(run.state, window, placed, run.tables)
            pending.append((step, checked))
            # Few steps are under way at once, so that the bar and the memory for batches follow the device.
            jax.block_until_ready(pending[max(len(pending) - 4, 0)])
            step += 1
            bar.update(config.batch_size)
            last = step == run.last_step
            _profile(run, step)
            if last and run.refits:
                _check_finite(pending)
                run.state = run.fit_codebook()
            if step % config.log_every == 0 or last:
                _check_finite(pending)
                seconds, clock = time.monotonic() - clock, time.monotonic()
                bar.set_postfix_str(log.train(step, window, seconds))
                window = run.empty_window()
            if step % config.eval_every == 0 or last:
                _check_finite(pending)
                _validate(run, log, step, replace=last and run.refits)
                clock = time.monotonic()
            stopping = interruption.asked(step, config.log_every)
            if step % config.checkpoint_every == 0 or last or stopping:
                _check_finite(pending)
                save(run, "last")
                saved_step = step
            if stopping:
                break
    if interruption.signal and step < run.last_step:
        reporting.say(f"Stopped and saved at step {saved_step}; run the same command again to go on from there.")
        log.close()
        raise Interrupted(interruption.signal, saved_step)


def save(run: Run, kind: str) -> None:
    """Writes the `last` or `best` checkpoint."""
    checkpoints.save(run.workdir, kind, run.state, run.about | {"step": int(run.state.step)})


def _bar(run: Run, step: int) -> tqdm:
    size = run.config.train.batch_size
    return tqdm(
        total=(run.last_step - run.first_step) * size,
        initial=(step - run.first_step) * size,
        desc="Training",
        unit=" codes",
        unit_scale=True,
        disable=jax.process_index() != 0,
    )


def _check_finite(pending: list[tuple[int, jax.Array]]) -> None:
    """Looks at the loss terms and gradient norms of the steps since the last look, all at once."""
    for step, checked in pending:
        values = np.asarray(checked)
        if not np.isfinite(values).all():
            bad = ", ".join(
                f"{name}={value}" for name, value in zip(CHECKED, values, strict=True) if not np.isfinite(value)
            )
            raise NonFiniteLoss(
                f"The loss is not finite at step {step}: {bad}. The last good checkpoint is kept; lower train.lr or the"
                " weight of that term, or raise a temperature."
            )
    pending.clear()


def _validate(run: Run, log: "reporting.Log", step: int, *, replace: bool) -> None:
    """Validation metrics; a new best total loss is saved, but never one from before the codebook was fitted.

    With `replace` the state is saved as the best whatever its loss: it has the codebook that the tokens are to be of.
    """
    rows = run.data.rows("validation")
    if not len(rows):
        return
    if run.config.train.eval_codes:
        order = np.random.default_rng(run.config.seed).permutation(len(rows))
        rows = rows[order][: run.config.train.eval_codes]
    window = run.evaluate(
        rows, lambda batches: tqdm(batches, desc="Validating", leave=False, disable=jax.process_index() != 0)
    )
    scalars = window.scalars.compute() | describe_usage(window.usage.compute(), run.structure.regions)
    best = run.about["best_total_loss"]
    log.validation(step, scalars)
    if (
        np.isfinite(scalars["total_loss"])
        and step > run.first_step + run.kmeans_step
        and (replace or best is None or scalars["total_loss"] < best)
    ):
        run.about["best_total_loss"] = scalars["total_loss"]
        save(run, "best")


def _profile(run: Run, step: int) -> None:
    if not run.config.train.profile or jax.process_index() != 0:
        return
    if step == run.first_step + 10:
        jax.profiler.start_trace(str(run.workdir / "profile"))
    elif step == run.first_step + 15:
        jax.block_until_ready(run.state)
        jax.profiler.stop_trace()
