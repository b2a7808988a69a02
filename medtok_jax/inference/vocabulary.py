"""The tokens of a whole vocabulary: passes of the trained model in parts that survive an interruption, then the files.

Tokenizing with the same checkpoint, data set and batch size gives the same bytes, interrupted or not.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from medtok_jax.data.code_table import SPLITS
from medtok_jax.data.dataset import by_length
from medtok_jax.data.input_pipeline import eval_batches
from medtok_jax.devices import sharding
from medtok_jax.devices.run_lock import only_run
from medtok_jax.inference import model_writer
from medtok_jax.lookup import directory
from medtok_jax.lookup.directory import Tokens
from medtok_jax.training import checkpoints
from medtok_jax.training.metrics import describe_usage
from medtok_jax.training.setup import Run
from medtok_jax.training.state import TrainState
from preprocessing.common.atomic import whole_file, write_text

DIRECTORY = "tokenizer"
# From so many batches on, less padding saves more time than compiling for each length takes.
SORTED_BATCHES = 100
# Batches between two files on disk.
PART = 64


def write_tokenizer(
    run: Run, output: Path, *, embeddings: bool = False, with_model: bool = False, progress: bool = True
) -> dict[str, float]:
    """Tokenizes all codes in use with the run's best checkpoint (the last where there is no best) into a directory.

    Args:
        run: a run whose checkpoints are saved.
        output: the tokenizer directory. Finished parts lie beside it in `OUTPUT.parts` until it is whole.
        embeddings: whether to keep the embeddings before quantization too.
        with_model: whether to add what encodes codes never seen: model and knowledge graph.
        progress: whether to show a bar.

    Returns:
        Quantization metrics, utilization and perplexity over these codes.
    """
    directory.check_replaceable(output)
    with only_run(output.parent, file=output.name, advice="choose another --output"):
        return _write_tokenizer(run, output, embeddings, with_model, progress)


def _write_tokenizer(run: Run, output: Path, embeddings: bool, with_model: bool, progress: bool) -> dict[str, float]:
    found = checkpoints.find(run.workdir, prefer="best")
    state = found.restore(run.state)
    parts = Parts(output, _plan(run, found.step, embeddings))
    rows = _ordered(run)
    _tokenize_parts(run, state, rows, parts, embeddings, progress)
    arrays, state = parts.read(), sharding.whole(state, run.mesh)
    if jax.process_index() == 0:
        add = (lambda folder: model_writer.export(run, folder, state)) if with_model else None
        directory.write(output, _to_tokens(run, state, arrays), _about(run, found.step), add)
        parts.remove()
    return _metrics(arrays, run)


class Parts:
    """Finished pieces of a long pass, as files that only the first process writes.

    Args:
        output: what they will become; they lie in `OUTPUT.parts`.
        plan: what is being done. Pieces of another plan are thrown away.
    """

    def __init__(self, output: Path, plan: dict):
        self.folder = output.with_name(f"{output.name}.parts")
        self.plan = json.dumps(plan, indent=1, sort_keys=True)

    def begin(self) -> int:
        """Number of pieces that are there already; they are done in order."""
        done = 0
        if jax.process_index() == 0:
            named = self.folder / "plan.json"
            if not named.is_file() or named.read_text() != self.plan:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir(parents=True)
                write_text(named, self.plan)
            done = len(list(self.folder.glob("[0-9]*.npz")))
        return int(multihost_utils.broadcast_one_to_all(np.int32(done))) if jax.process_count() > 1 else done

    def save(self, number: int, arrays: dict[str, np.ndarray]) -> None:
        """Writes one piece."""
        if jax.process_index() == 0:
            with whole_file(self.folder / f"{number:06d}.npz") as partial:
                np.savez(partial, **arrays)

    def read(self) -> dict[str, np.ndarray]:
        """All pieces end to end; what was summed up over a piece gets a row for each."""
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("parts written")
        pieces = [dict(np.load(path)) for path in sorted(self.folder.glob("[0-9]*.npz"))]
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("parts read")
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def remove(self) -> None:
        """Throws the pieces away."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _plan(run: Run, step: int, embeddings: bool) -> dict:
    return {
        "run": str(run.workdir.resolve()),
        "step": step,
        "fingerprint": run.about["fingerprint"],
        "encoder": run.about["encoder"],
        "config": hashlib.sha256(json.dumps(run.config.to_dict(), sort_keys=True).encode()).hexdigest(),
        "codes": len(run.data.selected),
        "embeddings": embeddings,
        "part": PART,
    }


def _ordered(run: Run) -> np.ndarray:
    rows = run.data.selected
    return by_length(run.data, rows) if len(rows) > SORTED_BATCHES * run.config.train.batch_size else rows


def _tokenize_parts(
    run: Run, state: TrainState, rows: np.ndarray, parts: Parts, embeddings: bool, progress: bool
) -> None:
    size = PART * run.config.train.batch_size
    done = parts.begin()
    with tqdm(total=len(rows), desc="Tokenizing", unit=" codes", unit_scale=True, disable=not progress) as bar:
        bar.update(min(done * size, len(rows)))
        for number in range(done, -(-len(rows) // size)):
            piece = rows[number * size : (number + 1) * size]
            arrays = _tokenize_rows(run, state, piece, bar.update)
            if not embeddings:
                del arrays["embeddings"]
            parts.save(number, arrays)


def _tokenize_rows(run: Run, state: TrainState, rows: np.ndarray, update: Callable) -> dict[str, np.ndarray]:
    """`row`, `ids`, `weights`, `embeddings` of some codes, and their summed metrics with a leading axis of one."""
    found, running, total, left = [], [], None, len(rows)
    for batch in eval_batches(run.eval_source(rows)):
        placed = sharding.place_batch(batch, run.mesh)
        *arrays, window = run.tokenize_step(state.params, state.fixed, placed, run.tables)
        running.append(arrays)
        # The batch before is fetched while the device works on this one.
        if len(running) > 1:
            found.append([np.asarray(array) for array in running.pop(0)])
        total = window if total is None else total.merge(window)
        update(min(run.config.train.batch_size, left))
        left -= run.config.train.batch_size
    found += [[np.asarray(array) for array in arrays] for arrays in running]
    row, ids, weights, embeddings = (np.concatenate(column) for column in zip(*found, strict=True))
    valid = row >= 0
    arrays = {"row": row, "ids": ids, "weights": weights, "embeddings": embeddings.astype(np.float16)}
    arrays = {name: array[valid] for name, array in arrays.items()}
    arrays["usage"] = np.asarray(total.usage.counts)[None]
    arrays["weight"] = np.asarray(total.scalars.weight)[None]
    return arrays | {f"sum/{name}": np.asarray(value)[None] for name, value in total.scalars.total.items()}


def _metrics(arrays: dict[str, np.ndarray], run: Run) -> dict[str, float]:
    weight = arrays["weight"].sum(dtype=np.float64)
    means = {
        name.removeprefix("sum/"): float(array.sum(dtype=np.float64) / weight)
        for name, array in arrays.items()
        if name.startswith("sum/")
    }
    return means | describe_usage(arrays["usage"].sum(0), run.structure.regions)


def _to_tokens(run: Run, state: TrainState, arrays: dict[str, np.ndarray]) -> Tokens:
    table, rows = run.data.table, arrays["row"]
    strings = {name: getattr(table, name)[rows] for name in ("key", "system", "code", "description")}
    return Tokens(
        strings=strings | {"split": np.array(SPLITS)[table.split[rows]]},
        ids=arrays["ids"],
        weights=arrays["weights"],
        has_text=table.has_text[rows],
        has_graph=table.num_nodes[rows] > 0,
        codebook=np.asarray(run.structure.model(state.params, state.fixed).quantizer.codebook()),
        embeddings=arrays.get("embeddings"),
    )


def _about(run: Run, step: int) -> dict:
    config = run.config.to_dict()
    return {
        "regions": run.structure.regions,
        "num_top_k_tokens": config["model"]["num_top_k_tokens"],
        "quantizer_kind": config["model"]["quantizer_kind"],
        "prefer": [],
        "data_set": {"name": config["data"]["name"], "fingerprint": run.about["fingerprint"]},
        "text_encoder": {"name": config["model"]["text_encoder_model"], "identity": run.about["encoder"]},
        "training": {"step": step} | {name: config[name] for name in ("seed", "model", "loss", "train")},
    }
