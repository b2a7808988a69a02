"""Report a run to people: the table at its start, TensorBoard files, the picture of the codebook, the final table."""

import io
import json
import sys
import time
from pathlib import Path

import jax
import matplotlib
import numpy as np
from clu.parameter_overview import get_parameter_overview
from flax import nnx
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from medtok_jax.data.code_table import SPLITS
from medtok_jax.data.dataset import Data
from medtok_jax.devices import sharding
from medtok_jax.devices.compiled_step import CompiledStep
from medtok_jax.devices.memory import StepMemory, device_memory
from medtok_jax.regions import EMBEDDINGS, REGIONS, SHARED, Regions
from medtok_jax.training.event_file import EventFile
from medtok_jax.training.inputs import ModelInputs
from medtok_jax.training.metrics import Window, describe_usage
from medtok_jax.training.state import TrainState
from preprocessing.common.atomic import write_bytes, write_json, write_text
from preprocessing.common.checksums import sealed, unsealed
from preprocessing.common.errors import InputError
from preprocessing.common.lines import append_line, read_lines
from preprocessing.common.progress import aside

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SUMMARY = "summary.json"
PARAMETERS = "parameters.txt"
HISTORY = "metrics.jsonl"
ADVICE = "make room there, and run the same command again to go on from the last checkpoint"
LOSSES = ("total_loss", "quantization_loss", "packing_loss", "kl_loss")
# Okabe and Ito's colors, which color-blind readers can tell apart too.
COLORS = {"text": "#0072B2", "graph": "#D55E00", "shared": "#009E73"}


def say(text: str) -> None:
    """Print a line, from the first process only."""
    if jax.process_index() == 0:
        Console().print(text, highlight=False)


def say_memory(train_step: CompiledStep) -> None:
    """Print the memory that the newest executable of a step needs, unless an earlier one needs as much."""
    newest = StepMemory.of(list(train_step.executables.values())[-1])
    if newest is None or newest != train_step.memory:
        return
    device = jax.local_devices()[0]
    limit = device_memory(device)
    of = f" of the {_gib(limit)} of" if limit else " of"
    with aside():
        say(
            f"A step needs {_gib(newest.total)}{of} each {device.device_kind}: arguments {_gib(newest.arguments)},"
            f" results {_gib(newest.outputs)}, scratch {_gib(newest.scratch)}."
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def print_start(config: ConfigDict, inputs: ModelInputs, state: TrainState, *, last_step: int, workdir: Path) -> None:
    """Print what is about to be trained, on what data and devices, and list the parameters in the work directory.

    All processes must call it.
    """
    params = sharding.gather(state.params, inputs.mesh)
    if jax.process_index() != 0:
        return
    data, devices = inputs.data, inputs.mesh.devices.size
    model, batch_size = config.model, inputs.batch_size
    counts = {split: len(data.rows(split)) for split in SPLITS}
    parameters = sum(x.size for x in jax.tree.leaves(state.params))
    no_graph, no_text = missing_parts(data)
    kept = inputs.tables.token_states
    rows = {
        "Data set": f"{config.data.name}, {len(data.selected):,} of {len(data.table):,} codes",
        "Splits": ", ".join(f"{split} {count:,}" for split, count in counts.items()),
        "Descriptions": f"{data.num_texts:,} distinct, {data.cache.num_cut:,} cut at {config.data.max_length} tokens",
        "Missing parts": f"{no_graph:,} codes without a subgraph, {no_text:,} without a description",
        "Text encoder": f"{model.text_encoder_model}, {'trained' if model.text_encoder_trainable else 'frozen'}"
        + (f", states on the device ({_gib(kept.nbytes)})" if kept is not None else ""),
        "Graph encoder": model.graph_encoder_type,
        "Codebook": f"{model.codebook_size:,} x {model.embedding_dim}, {4 * model.num_top_k_tokens} tokens a code",
        "Parameters": f"{parameters:,}, listed in {workdir / PARAMETERS}",
        "Devices": f"{devices} x {jax.devices()[0].device_kind}, {jax.process_count()} processes",
        "Batch": f"{batch_size} codes, {batch_size // inputs.mesh.shape['data']} a device",
        "Steps": f"{int(state.step):,} to {last_step:,}",
    }
    write_text(workdir / PARAMETERS, get_parameter_overview(nnx.to_pure_dict(params)) + "\n", advice=ADVICE)
    table = Table(title="MedTok", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)


def missing_parts(data: Data) -> tuple[int, int]:
    """Count the codes in use without a subgraph, and without a description (described by system and code)."""
    table, rows = data.table, data.selected
    return int((table.num_nodes[rows] == 0).sum()), int((~table.has_text[rows]).sum())


class Log:
    """Log metrics to TensorBoard files and `metrics.jsonl`, from the first process.

    Args:
        workdir: where these files go.
        step: of the state that the run goes on from; later entries of the files are dropped.
        regions: of the codebook.
        logged: entries that the log had at that step; where it has lost some, a warning says so.

    Attributes:
        history: logged training windows of this work directory, `{"step": ..., name: value, ...}`.
        validations: logged validations, likewise.
        seconds: time spent in this process.
    """

    def __init__(self, workdir: Path, *, step: int, regions: Regions, logged: int = 0):
        self.workdir, self.regions = workdir, regions
        self.start, self.active = time.monotonic(), jax.process_index() == 0
        self.path = workdir / HISTORY
        kept = [entry for entry in _read_history(self.path) if entry["step"] <= step]
        self.history = [entry for entry in kept if entry["kind"] == "train"]
        self.validations = [entry for entry in kept if entry["kind"] == "validation"]
        self.writer = None
        if self.active and len(kept) < logged:
            print(
                f"warning: {self.path} has lost {logged - len(kept)} of the {logged} entries up to step {step:,}; the"
                " run goes on, and its summary tells of the others.",
                file=sys.stderr,
            )
        if self.active:
            # What was logged after the checkpoint gone on from will be logged again.
            write_text(self.path, "".join(json.dumps(sealed(entry)) + "\n" for entry in kept), advice=ADVICE)
            self.writer = EventFile(workdir / "logs", step, ADVICE)

    @property
    def entries(self) -> int:
        """Return the number of entries of this work directory's log."""
        return len(self.history) + len(self.validations)

    @property
    def seconds(self) -> float:
        """Return the seconds since this log was opened."""
        return time.monotonic() - self.start

    def scalars(self, step: int, scalars: dict[str, float], prefix: str = "train") -> None:
        """Write scalars to TensorBoard."""
        if self.writer:
            for name, value in scalars.items():
                self.writer.scalar(f"{prefix}/{name}", float(value), step)

    def train(self, step: int, window: Window, *, seconds: float, batch_size: int) -> str:
        """Log a window of training steps that took so many seconds; return a line for the progress bar."""
        scalars = window.scalars.compute() | describe_usage(window.usage.compute(), self.regions)
        codes = float(window.scalars.weight)
        scalars |= {"codes_per_second": codes / seconds, "step_seconds": seconds / max(codes / batch_size, 1.0)}
        self.scalars(step, scalars)
        self._keep(self.history, {"kind": "train", "step": step} | scalars)
        return f"loss {scalars['total_loss']:.3f}, utilization {scalars['codebook_utilization']:.0%}"

    def validation(self, step: int, scalars: dict[str, float], codebook: np.ndarray) -> None:
        """Log a validation and draw the codebook `[N, width]`."""
        self.scalars(step, scalars, "validation")
        self._keep(self.validations, {"kind": "validation", "step": step} | scalars)
        if self.writer:
            figure = draw_codebook(codebook, self.regions, step)
            picture = io.BytesIO()
            figure.savefig(picture, format="png", dpi=110)
            plt.close(figure)
            self.writer.picture("codebook", picture.getvalue(), step)
            write_bytes(self.workdir / "codebook.png", picture.getvalue(), advice=ADVICE)
            self.writer.flush()

    def _keep(self, entries: list[dict], entry: dict) -> None:
        entries.append(entry)
        if self.active:
            append_line(self.path, json.dumps(sealed(entry)), advice=ADVICE)

    def close(self) -> None:
        """End the TensorBoard file."""
        if self.writer:
            self.writer.close()


def _read_history(path: Path) -> list[dict]:
    """Return the logged entries of a work directory, without half a line that a killed run left at the end.

    Raises:
        InputError: a line is damaged.
    """
    entries = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            entry = unsealed(json.loads(line))
            entries.append(entry | {"step": int(entry["step"]), "kind": str(entry["kind"])})
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path} is damaged in line {number}; remove that line to go on.") from error
    return entries


def draw_codebook(rows: np.ndarray, regions: Regions, step: int) -> plt.Figure:
    """Draw the codebook's rows on their two principal axes, by region, beside each region's singular values.

    Args:
        rows: `[N, width]`.
        regions: of the codebook.
        step: for the title.
    """
    centered = rows - rows.mean(0)
    _, _, axes = np.linalg.svd(centered, full_matrices=False)
    points = centered @ axes[:2].T
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    for region in REGIONS:
        part = slice(*regions.bounds(region))
        left.scatter(*points[part].T, s=3, alpha=0.5, color=COLORS[region], label=f"{region} ({len(rows[part]):,})")
        values = np.linalg.svd(rows[part] - rows[part].mean(0), compute_uv=False)
        right.plot(np.arange(1, len(values) + 1), values / values.sum(), color=COLORS[region], label=region)
    left.set(title=f"Codebook at step {step:,}", xlabel="first principal axis", ylabel="second")
    left.legend(markerscale=4, loc="best")
    right.set(title="Spread over directions", xlabel="direction", ylabel="share of singular values", yscale="log")
    right.legend()
    return figure


def finished_summary(workdir: Path, *, step: int, last_step: int) -> dict | None:
    """Return the summary of a run that has nothing left to do, else None; a damaged one is none.

    Args:
        workdir: of the run.
        step: of the state that it would go on from.
        last_step: where it ends.
    """
    path = workdir / SUMMARY
    if step < last_step:
        return None
    try:
        summary = unsealed(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return None
    return summary if summary["step"] == last_step else None


def summarize(
    log: Log,
    metrics: dict[str, float],
    *,
    data: Data,
    last_step: int,
    best_total_loss: float | None,
    since_start: list[str],
) -> dict:
    """Write and print the final summary.

    Args:
        log: of the finished run.
        metrics: quantization metrics over the tokens of all codes in use.
        data: of the run.
        last_step: where it ended.
        best_total_loss: validation loss of the best checkpoint.
        since_start: sentences on how the tokens differ from those of the run that this one started from.
    """
    trend = {
        name: {"first": values[0], "max": max(values), "last": values[-1]}
        for name in LOSSES
        if (values := [entry[name] for entry in log.history])
    }
    validation = log.validations[-1] if log.validations else {}
    no_graph, no_text = missing_parts(data)
    summary = {
        "step": last_step,
        "seconds": log.seconds,
        "codes": len(data.selected),
        "losses": trend,
        "validation": {name: validation[name] for name in LOSSES if name in validation},
        "all_codes": metrics,
        "missing_graph": no_graph,
        "missing_description": no_text,
        "best_total_loss": best_total_loss,
        "since_start": since_start,
    }
    if jax.process_index() == 0:
        write_json(log.workdir / SUMMARY, sealed(summary), advice=ADVICE)
        print_summary(summary)
    return summary


def print_summary(summary: dict) -> None:
    """Print the final tables."""
    if jax.process_index() != 0:
        return
    metrics, console = summary["all_codes"], Console()
    losses = Table("Loss", "first", "highest", "last", "validation", title=f"Trained to step {summary['step']:,}")
    for name, trend in summary["losses"].items():
        figures = [trend["first"], trend["max"], trend["last"], summary["validation"].get(name, float("nan"))]
        losses.add_row(name, *(f"{value:.4f}" for value in figures))
    codebook = Table("Region", "utilization", "perplexity", title=f"Codebook over {summary['codes']:,} codes")
    for region in REGIONS:
        utilization, perplexity = (metrics[f"codebook_{what}_{region}"] for what in ("utilization", "perplexity"))
        codebook.add_row(region, f"{utilization:.1%}", f"{perplexity:,.0f}")
    quality = ("cosine", "reconstruction_error", "spread")
    embeddings = Table("Embedding", "cosine(e, ê)", "reconstruction error", "spread", title="Quantization")
    for name in (name for name in (*EMBEDDINGS, SHARED) if f"cosine_{name}" in metrics):
        embeddings.add_row(name, *(f"{metrics[f'{metric}_{name}']:.3f}" for metric in quality))
    for table in (losses, codebook, embeddings):
        console.print(table)
    no_graph, no_text = summary["missing_graph"], summary["missing_description"]
    console.print(f"{no_graph:,} codes without a subgraph, {no_text:,} without a description.", highlight=False)
    for sentence in summary["since_start"]:
        console.print(sentence, highlight=False)
