"""Tokenize all codes of a data set with a trained model, in parts that survive an interruption, and write the files.

Tokenizing with the same checkpoint, data set and batch size gives the same bytes, interrupted or not.
"""

import functools
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
from medtok_jax.devices.run_lock import only_run
from medtok_jax.inference import model_writer
from medtok_jax.inference.trained import TrainedModel
from medtok_jax.lookup import directory
from medtok_jax.lookup.directory import Tokens
from medtok_jax.regions import Regions, positions_of
from medtok_jax.training.inputs import ModelInputs
from medtok_jax.training.metrics import describe_usage
from preprocessing.common.atomic import named_path, whole_file, write_text

DIRECTORY = "tokenizer"
# From so many batches on, less padding saves more time than compiling for each length takes.
SORTED_BATCHES = 100
# Batches between two files on disk.
PART = 64


def write_tokenizer(
    trained: TrainedModel, output: Path, *, embeddings: bool = False, with_model: bool = False, progress: bool = True
) -> dict[str, float]:
    """Tokenize all codes in use with a trained model and write a tokenizer directory.

    Args:
        trained: the model with its data.
        output: the tokenizer directory. Finished parts lie beside it in `OUTPUT.parts` until it is complete.
        embeddings: whether to keep the embeddings before quantization too.
        with_model: whether to add what encodes codes never seen: model and knowledge graph.
        progress: whether to show a bar.

    Returns:
        Quantization metrics, utilization and perplexity over these codes.
    """
    directory.check_replaceable(output)
    with only_run(output.parent, file=output.name, advice="choose another --output"):
        return _write_tokenizer(trained, output, embeddings, with_model, progress)


def _write_tokenizer(
    trained: TrainedModel, output: Path, embeddings: bool, with_model: bool, progress: bool
) -> dict[str, float]:
    parts = Parts(output, _plan(trained, embeddings))
    _tokenize_parts(trained, parts, embeddings, progress)
    arrays, trained = parts.read(), trained.gathered()
    codebook = trained.codebook()
    if jax.process_index() == 0:
        add = functools.partial(model_writer.write_model, trained) if with_model else None
        directory.write(output, _to_tokens(trained, arrays, codebook), _about(trained), add)
        parts.remove()
    return _metrics(arrays, trained.programs.structure.regions)


class Parts:
    """Keep finished pieces of a long pass as files, which only the first process writes.

    Args:
        output: what they will become; they lie in `OUTPUT.parts`.
        plan: identifies the pass. Pieces of another plan are deleted.
    """

    def __init__(self, output: Path, plan: dict):
        self.folder = named_path(output).with_name(f"{output.name}.parts")
        self.plan = json.dumps(plan, indent=1, sort_keys=True)

    def begin(self) -> int:
        """Return the number of pieces that are there already; they are made in order."""
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
        """Write one piece."""
        if jax.process_index() == 0:
            with whole_file(self.folder / f"{number:06d}.npz") as partial:
                np.savez(partial, **arrays)

    def read(self) -> dict[str, np.ndarray]:
        """Return all pieces end to end; what was summed up over a piece has a row for each."""
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("parts written")
        pieces = [dict(np.load(path)) for path in sorted(self.folder.glob("[0-9]*.npz"))]
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("parts read")
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def remove(self) -> None:
        """Delete the pieces."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _plan(trained: TrainedModel, embeddings: bool) -> dict:
    return {
        "run": str(trained.workdir.resolve()),
        "step": trained.step,
        "fingerprint": trained.metadata["fingerprint"],
        "encoder": trained.metadata["encoder"],
        "config": hashlib.sha256(json.dumps(trained.config.to_dict(), sort_keys=True).encode()).hexdigest(),
        "codes": len(trained.inputs.data.selected),
        "embeddings": embeddings,
        "part": PART,
    }


def _ordered(inputs: ModelInputs) -> np.ndarray:
    rows = inputs.data.selected
    return by_length(inputs.data, rows) if len(rows) > SORTED_BATCHES * inputs.batch_size else rows


def _tokenize_parts(trained: TrainedModel, parts: Parts, embeddings: bool, progress: bool) -> None:
    rows, size = _ordered(trained.inputs), PART * trained.inputs.batch_size
    done = parts.begin()
    with tqdm(total=len(rows), desc="Tokenizing", unit=" codes", unit_scale=True, disable=not progress) as bar:
        bar.update(min(done * size, len(rows)))
        for number in range(done, -(-len(rows) // size)):
            piece = rows[number * size : (number + 1) * size]
            arrays = _tokenize_rows(trained, piece, bar.update)
            if not embeddings:
                del arrays["embeddings"]
            parts.save(number, arrays)


def _tokenize_rows(trained: TrainedModel, rows: np.ndarray, update: Callable) -> dict[str, np.ndarray]:
    """Return `row`, `ids`, `weights`, `embeddings` of some codes, and summed metrics with a leading axis of one."""
    inputs, state = trained.inputs, trained.state
    found, running, total, left = [], [], None, len(rows)
    for batch in inputs.eval_batches(rows):
        index, tokens, window = trained.programs.tokenize_step(state.params, state.fixed, batch, inputs.tables)
        running.append((index, tokens.ids, tokens.weights, tokens.embeddings))
        # The batch before is fetched while the device works on this one.
        if len(running) > 1:
            found.append([np.asarray(array) for array in running.pop(0)])
        total = window if total is None else total.merge(window)
        update(min(inputs.batch_size, left))
        left -= inputs.batch_size
    found += [[np.asarray(array) for array in arrays] for arrays in running]
    row, ids, weights, embeddings = (np.concatenate(column) for column in zip(*found, strict=True))
    valid = row >= 0
    arrays = {"row": row, "ids": ids, "weights": weights, "embeddings": embeddings.astype(np.float16)}
    arrays = {name: array[valid] for name, array in arrays.items()}
    arrays["usage"] = np.asarray(total.usage.counts)[None]
    arrays["weight"] = np.asarray(total.scalars.weight)[None]
    return arrays | {f"sum/{name}": np.asarray(value)[None] for name, value in total.scalars.total.items()}


def _metrics(arrays: dict[str, np.ndarray], regions: Regions) -> dict[str, float]:
    weight = arrays["weight"].sum(dtype=np.float64)
    means = {
        name.removeprefix("sum/"): float(array.sum(dtype=np.float64) / weight)
        for name, array in arrays.items()
        if name.startswith("sum/")
    }
    return means | describe_usage(arrays["usage"].sum(0), regions)


def _to_tokens(trained: TrainedModel, arrays: dict[str, np.ndarray], codebook: np.ndarray) -> Tokens:
    table, rows = trained.inputs.data.table, arrays["row"]
    return Tokens(
        strings={
            "key": table.key[rows],
            "description": table.description[rows],
            "split": np.array(SPLITS)[table.split[rows]],
            "kind": np.full(len(rows), "code"),
        },
        ids=arrays["ids"],
        weights=arrays["weights"],
        has_text=table.has_text[rows],
        has_graph=table.num_nodes[rows] > 0,
        codebook=codebook,
        embeddings=arrays.get("embeddings"),
    )


def _about(trained: TrainedModel) -> dict:
    config, metadata = trained.config.to_dict(), trained.metadata
    return {
        "regions": trained.programs.structure.regions,
        "positions": positions_of(
            config["model"]["num_top_k_tokens"], searches_all=config["model"]["shared_search"] == "book"
        ),
        "quantizer_kind": config["model"]["quantizer_kind"],
        "prefer": [],
        "data_set": {"name": config["data"]["name"], "fingerprint": metadata["fingerprint"]},
        "text_encoder": {"name": config["model"]["text_encoder_model"], "identity": metadata["encoder"]},
        "training": {"step": trained.step} | {name: config[name] for name in ("seed", "model", "loss", "train")},
    }
