"""Train a model: from a configuration to checkpoints, metrics and the tokens of every code."""

import time
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from medtok_jax.data.input_pipeline import train_batches
from medtok_jax.devices import processes, sharding
from medtok_jax.devices.interruption import Interrupted, Interruption
from medtok_jax.devices.run_lock import only_run
from medtok_jax.inference import vocabulary
from medtok_jax.inference.trained import TrainedModel
from medtok_jax.lookup import difference
from medtok_jax.lookup.config import CONFIG
from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.training import reporting
from medtok_jax.training.checkpoints import CheckpointWriter
from medtok_jax.training.codebook_fit import fit_codebook
from medtok_jax.training.evaluation import evaluate, validation_rows
from medtok_jax.training.setup import Training, set_up
from medtok_jax.training.state import TrainState
from medtok_jax.training.steps import CHECKED, NonFiniteLoss
from preprocessing.common.progress import Bar


def train_and_evaluate(config: ConfigDict, workdir: str | Path) -> dict:
    """Train to the end, or go on where an earlier call with the same work directory stopped; then tokenize all codes.

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
    workdir = Path(workdir)
    with only_run(workdir, advice="choose another --workdir"):
        return _train_and_evaluate(config, workdir)


def _train_and_evaluate(config: ConfigDict, workdir: Path) -> dict:
    progress = jax.process_index() == 0
    training = set_up(config, workdir, progress=progress)
    inputs, programs, last_step = training.inputs, training.programs, training.plan.last_step
    step = int(training.state.step)
    if finished := reporting.finished_summary(workdir, step=step, last_step=last_step):
        reporting.print_summary(finished)
        return finished
    reporting.print_start(config, inputs, training.state, last_step=last_step, workdir=workdir)
    logged, regions = training.metadata["logged"], programs.structure.regions
    log = reporting.Log(workdir, step=step, regions=regions, logged=logged)
    writer = CheckpointWriter(workdir, training.metadata)
    state = train(training, log, writer)
    trained = TrainedModel.restore(workdir, config, inputs, programs, like=state)
    metrics = vocabulary.write_tokenizer(trained, workdir / vocabulary.DIRECTORY, with_model=True, progress=progress)
    summary = reporting.summarize(
        log,
        metrics,
        data=inputs.data,
        last_step=last_step,
        best_total_loss=writer.best_total_loss,
        since_start=_since_start(config.resume_from or config.init_from, workdir),
    )
    log.close()
    # None says that the run has finished before the first process has written all of it.
    processes.wait_for_others("run finished")
    return summary


def _since_start(start: str, workdir: Path) -> list[str]:
    """Return how the tokens differ from those of the run or checkpoint `start`; nothing where there are none."""
    path = Path(start).expanduser() if start else workdir
    runs = [folder / vocabulary.DIRECTORY for folder in (path, *path.parents[:3])]
    earlier = next((folder for folder in runs if (folder / CONFIG).is_file()), None)
    if not start or earlier is None or jax.process_index() != 0:
        return []
    pair = [TokenizerDirectory.read(folder) for folder in (earlier, workdir / vocabulary.DIRECTORY)]
    return [f"Compared with the tokenizer of {start}:", *difference.compare(*pair).sentences()]


def train(training: Training, log: reporting.Log, writer: CheckpointWriter) -> TrainState:
    """Take the steps from where the state stands to the last, with logs, validations and checkpoints.

    Returns:
        The state after the last step.

    Raises:
        NonFiniteLoss: naming step and term; the last good checkpoint stays.
        Interrupted: after Ctrl-C or SIGTERM, when everything is saved.
    """
    inputs, programs, plan, state = training.inputs, training.programs, training.plan, training.state
    config, tables = training.config.train, inputs.tables
    seed, model = training.config.seed, training.config.model
    validated = validation_rows(inputs.data, training.config)
    step = saved_step = int(state.step)
    window, pending = programs.empty_window(), []
    batches = train_batches(inputs.train_source(plan.last_step), step) if step < plan.last_step else ()
    bar = Bar(
        total=(plan.last_step - plan.first_step) * config.batch_size,
        initial=(step - plan.first_step) * config.batch_size,
        desc="Training",
        unit=" codes",
        unit_scale=True,
        show=jax.process_index() == 0,
    )
    with Interruption() as interruption, bar:
        clock = time.monotonic()
        for batch in batches:
            if step == plan.first_step + plan.kmeans_step:
                state = fit_codebook(state, programs, inputs, seed=seed, model=model, anew=True)
            placed = sharding.place_batch(batch, inputs.mesh)
            if config.gradient_norms_every and step % config.gradient_norms_every == 0:
                log.scalars(step, programs.term_gradient_norms(state, placed, tables))
            if programs.train_step.compile(state, window, placed, tables):
                reporting.say_memory(programs.train_step)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, window, checked = programs.train_step(state, window, placed, tables)
            pending.append((step, checked))
            # Few steps are under way at once, so that the bar and the memory for batches follow the device.
            jax.block_until_ready(pending[max(len(pending) - 4, 0)])
            step += 1
            bar.update(config.batch_size)
            last = step == plan.last_step
            if config.profile:
                _profile(state, step - plan.first_step, writer.workdir)
            if last and plan.refits:
                check_finite(pending)
                state = fit_codebook(state, programs, inputs, seed=seed, model=model, anew=False)
            if step % config.log_every == 0 or last:
                check_finite(pending)
                seconds, clock = time.monotonic() - clock, time.monotonic()
                bar.set_postfix_str(log.train(step, window, seconds=seconds, batch_size=config.batch_size))
                window = programs.empty_window()
            if (step % config.eval_every == 0 or last) and len(validated):
                check_finite(pending)
                scalars = evaluate(state, programs, inputs, validated)
                log.validation(step, scalars, programs.codebook(state))
                # The best checkpoint has a fitted codebook; a refitted one is taken whatever its loss.
                loss, best = scalars["total_loss"], writer.best_total_loss
                better = best is None or loss < best or (last and plan.refits)
                if better and np.isfinite(loss) and step > plan.first_step + plan.kmeans_step:
                    writer.save_best(state, loss, logged=log.entries)
                clock = time.monotonic()
            stopping = interruption.asked(step, config.log_every)
            if step % config.checkpoint_every == 0 or last or stopping:
                check_finite(pending)
                writer.save_last(state, logged=log.entries)
                saved_step = step
            if stopping:
                break
    if interruption.signal and step < plan.last_step:
        reporting.say(f"Stopped and saved at step {saved_step}; run the same command again to go on from there.")
        log.close()
        raise Interrupted(interruption.signal, saved_step)
    return state


def check_finite(pending: list[tuple[int, jax.Array]]) -> None:
    """Refuse loss terms and gradient norms that are NaN or infinite, and forget the others.

    Args:
        pending: steps and their figures, in the order of `CHECKED`; emptied.

    Raises:
        NonFiniteLoss: naming the first such step and its terms.
    """
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


def _profile(state: TrainState, steps_done: int, workdir: Path) -> None:
    """Trace steps 10 to 15 into the work directory, from the first process."""
    if jax.process_index() != 0:
        return
    if steps_done == 10:
        jax.profiler.start_trace(str(workdir / "profile"))
    elif steps_done == 15:
        jax.block_until_ready(state)
        jax.profiler.stop_trace()
