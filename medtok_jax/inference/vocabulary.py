"""Tokenize all codes of a data set with a trained model, in parts that survive an interruption, and write the files.

Tokenizing with the same checkpoint, data set and batch size gives the same bytes, interrupted or not.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
from jax.experimental import multihost_utils

from medtok_jax import config as configuration
from medtok_jax.batch import Batch, Tables
from medtok_jax.data import further_codes
from medtok_jax.data.code_table import SPLITS, CodeTable
from medtok_jax.data.dataset import by_length
from medtok_jax.data.further_codes import FurtherCodes
from medtok_jax.data.input_pipeline import EvalSource, eval_batches
from medtok_jax.devices import sharding
from medtok_jax.devices.processes import first_goes_ahead, wait_for_others
from medtok_jax.devices.run_lock import only_run
from medtok_jax.inference import model_writer
from medtok_jax.inference.distinct import separate
from medtok_jax.inference.trained import TrainedModel
from medtok_jax.lookup import directory
from medtok_jax.lookup.directory import KnownCode, Tokens
from medtok_jax.regions import Regions, parts_of, positions_of
from medtok_jax.text.encoder_files import resolve_text_encoder
from medtok_jax.training.inputs import make_builder
from medtok_jax.training.metrics import describe_usage
from preprocessing import medtok_codes
from preprocessing.common.atomic import named_path, whole_file, write_text
from preprocessing.common.progress import Bar
from preprocessing.dataset.known_codes import CODE, read_known_codes

DIRECTORY = "tokenizer"
# From so many batches on, less padding saves more time than compiling for each length takes.
SORTED_BATCHES = 100
# Batches between two files on disk.
PART = 64


def write_tokenizer(
    trained: TrainedModel, output: Path, *, embeddings: bool = False, with_model: bool = False, progress: bool = True
) -> dict[str, float]:
    """Tokenize all codes in use, categories and codes of earlier editions, and write a tokenizer directory.

    Args:
        trained: the model with its data.
        output: the tokenizer directory. Finished parts lie beside it in `OUTPUT.parts` until it is complete.
        embeddings: whether to keep the embeddings before quantization too.
        with_model: whether to add what encodes codes never seen: model and knowledge graph.
        progress: whether to show a bar.

    Returns:
        Quantization metrics, utilization and perplexity over these codes; in the first process also how many codes were
        `separated` from codes of the same tokens, and how many could not be; see `distinct`.
    """
    directory.check_replaceable(output)
    with only_run(output.parent, file=output.name, advice="choose another --output"):
        return _write_tokenizer(trained, output, embeddings, with_model, progress)


def _write_tokenizer(
    trained: TrainedModel, output: Path, embeddings: bool, with_model: bool, progress: bool
) -> dict[str, float]:
    plan = _plan(trained)
    parts = Parts(output, plan)
    passed = _Pass.of_codes(trained)
    _tokenize_parts(trained, passed, parts, progress)
    arrays = parts.read()
    found = [_Rows(passed.table, np.full(len(arrays["row"]), CODE), arrays)]
    known = read_known_codes(_builder(trained))
    further = _further(trained, known, progress)
    if further is not None:
        more = Parts(output.with_name(f"{output.name}.further"), plan | {"further": len(further.data.table)})
        _tokenize_parts(trained, _Pass.of_further(trained, further), more, progress)
        written = more.read()
        found.append(_Rows(further.data.table, further.kinds[written["row"]], written))
    trained = trained.gathered()
    codebook, separated = trained.codebook(), {}
    if jax.process_index() == 0:
        add = functools.partial(model_writer.write_model, trained) if with_model else None
        tokens, separated = _to_tokens(found, known, codebook, trained)
        tokens = tokens if embeddings else dataclasses.replace(tokens, embeddings=None)
        directory.write(output, tokens, _about(trained, separated), add)
        parts.remove()
        if further is not None:
            more.remove()
    return _metrics(arrays, trained.programs.structure.regions) | separated


def _builder(trained: TrainedModel):
    config = trained.config
    return medtok_codes.open_prepared(config.data.name, configuration.data_dir(config))


def _further(trained: TrainedModel, known: pa.Table, progress: bool) -> FurtherCodes | None:
    """Return the codes to encode beside those of the data set; of several processes the first encodes the texts."""
    config = trained.config
    encoder_dir = resolve_text_encoder(config.model.text_encoder_model)
    with first_goes_ahead("further codes ready"):
        return further_codes.prepare(config, trained.inputs.data, known, encoder_dir, progress=progress)


@dataclasses.dataclass(frozen=True)
class _Pass:
    """Hold what a pass over some codes reads: their table, the rows in order, batches of these, and facts of nodes."""

    table: CodeTable
    rows: np.ndarray
    batches: Callable[[np.ndarray], Iterator[Batch]]
    tables: Tables

    @classmethod
    def of_codes(cls, trained: TrainedModel) -> "_Pass":
        """Return the pass over the codes in use."""
        inputs = trained.inputs
        rows = inputs.data.selected
        ordered = by_length(inputs.data, rows) if len(rows) > SORTED_BATCHES * inputs.batch_size else rows
        return cls(inputs.data.table, ordered, inputs.eval_batches, inputs.tables)

    @classmethod
    def of_further(cls, trained: TrainedModel, further: FurtherCodes) -> "_Pass":
        """Return the pass over categories and codes of earlier editions."""
        inputs, data = trained.inputs, further.data
        builder = make_builder(trained.config, data, inputs.mesh)

        def batches(rows: np.ndarray) -> Iterator[Batch]:
            for batch in eval_batches(EvalSource(builder, rows, inputs.batch_size)):
                yield sharding.place_batch(batch, inputs.mesh)

        tables = sharding.place_everywhere(further.tables(), inputs.mesh)
        return cls(data.table, by_length(data, data.selected), batches, tables)


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
            if not named.is_file() or named.read_bytes() != self.plan.encode():
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir(parents=True)
                write_text(named, self.plan)
            done = next(number for number in itertools.count() if not self._is_whole(number))
            for path in self._files()[done:]:
                path.unlink()
        return int(multihost_utils.broadcast_one_to_all(np.int32(done))) if jax.process_count() > 1 else done

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*.npz"))

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"

    def _is_whole(self, number: int) -> bool:
        """Return whether a piece is there and intact: the archive holds a checksum of each array."""
        try:
            with zipfile.ZipFile(self._file(number)) as file:
                return file.testzip() is None
        except Exception:  # Damaged archives raise errors of many kinds.
            return False

    def save(self, number: int, arrays: dict[str, np.ndarray]) -> None:
        """Write one piece."""
        if jax.process_index() == 0:
            with whole_file(self._file(number)) as partial:
                np.savez(partial, **arrays)

    def read(self) -> dict[str, np.ndarray]:
        """Return all pieces end to end; what was summed up over a piece has a row for each."""
        wait_for_others("parts written")
        pieces = [dict(np.load(path)) for path in self._files()]
        wait_for_others("parts read")
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def remove(self) -> None:
        """Delete the pieces."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _plan(trained: TrainedModel) -> dict:
    return {
        "run": str(trained.workdir.resolve()),
        "step": trained.step,
        "fingerprint": trained.metadata["fingerprint"],
        "encoder": trained.metadata["encoder"],
        "config": hashlib.sha256(json.dumps(trained.config.to_dict(), sort_keys=True).encode()).hexdigest(),
        "codes": len(trained.inputs.data.selected),
        "part": PART,
    }


def _tokenize_parts(trained: TrainedModel, passed: _Pass, parts: Parts, progress: bool) -> None:
    rows, size = passed.rows, PART * trained.inputs.batch_size
    done = parts.begin()
    with Bar(total=len(rows), desc="Tokenizing", unit=" codes", unit_scale=True, show=progress) as bar:
        bar.update(min(done * size, len(rows)))
        for number in range(done, -(-len(rows) // size)):
            piece = rows[number * size : (number + 1) * size]
            parts.save(number, _tokenize_rows(trained, passed, piece, bar.update))


def _tokenize_rows(trained: TrainedModel, passed: _Pass, rows: np.ndarray, update: Callable) -> dict[str, np.ndarray]:
    """Return `row`, `ids`, `weights`, `embeddings` of some codes, and summed metrics with a leading axis of one."""
    state = trained.state
    found, running, total, left = [], [], None, len(rows)
    for batch in passed.batches(rows):
        index, tokens, window = trained.programs.tokenize_step(state.params, state.fixed, batch, passed.tables)
        running.append((index, tokens.ids, tokens.weights, tokens.embeddings))
        # The batch before is fetched while the device works on this one.
        if len(running) > 1:
            found.append([np.asarray(array) for array in running.pop(0)])
        total = window if total is None else total.merge(window)
        update(min(trained.inputs.batch_size, left))
        left -= trained.inputs.batch_size
    found += [[np.asarray(array) for array in arrays] for arrays in running]
    row, ids, weights, embeddings = (np.concatenate(column) for column in zip(*found, strict=True))
    valid = row >= 0
    arrays = {"row": row, "ids": ids, "weights": weights, "embeddings": embeddings.astype(np.float16)}
    arrays = {name: array[valid] for name, array in arrays.items()}
    arrays["usage"] = np.asarray(total.usage.counts)[None]
    arrays["weight"] = np.asarray(total.scalars.weight)[None]
    return arrays | {f"sum/{name}": value[None] for name, value in total.scalars.sums().items()}


def _metrics(arrays: dict[str, np.ndarray], regions: Regions) -> dict[str, float]:
    weight = arrays["weight"].sum(dtype=np.float64)
    means = {
        name.removeprefix("sum/"): float(array.sum(dtype=np.float64) / weight)
        for name, array in arrays.items()
        if name.startswith("sum/")
    }
    return means | describe_usage(arrays["usage"].sum(0), regions)


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Hold the tokens of some rows of a table of codes, and the kind of each."""

    table: CodeTable
    kinds: np.ndarray
    arrays: dict[str, np.ndarray]

    def strings(self) -> dict[str, np.ndarray]:
        table, rows = self.table, self.arrays["row"]
        splits = np.array(SPLITS)[table.split[rows]]
        return {
            "key": table.key[rows],
            "description": table.description[rows],
            "split": np.where(self.kinds == CODE, splits, "none"),
            "kind": self.kinds,
        }


def _to_tokens(
    found: list[_Rows], known: pa.Table, codebook: np.ndarray, trained: TrainedModel
) -> tuple[Tokens, dict[str, int]]:
    """Return the tokens of all passes, codes that the systems know beside these, and how many codes were separated."""
    joined = {name: np.concatenate([part.arrays[name] for part in found]) for name in ("ids", "weights", "embeddings")}
    strings = [part.strings() for part in found]
    strings = {name: np.concatenate([part[name] for part in strings]).astype(object) for name in strings[0]}
    has_text = np.concatenate([part.table.has_text[part.arrays["row"]] for part in found])
    counts, model = {}, trained.config.model
    if model.distinct_tokens and model.quantizer_kind == "pursuit":
        # Nothing is known by which codes without a description differ.
        _, text = np.unique(np.where(has_text, strings["description"], "").astype(str), return_inverse=True)
        regions = trained.programs.structure.regions
        apart = separate(**joined, codebook=codebook, texts=text, parts=parts_of(model), regions=regions)
        joined |= {"ids": apart.ids, "weights": apart.weights}
        counts = {"separated": int(apart.moved.sum()), "not_separated": int(apart.left.sum())}
    keys = strings["key"]
    held = set(keys.tolist())
    pairs = zip(known["key"].to_pylist(), known["kind"].to_pylist(), strict=True)
    tokens = Tokens(
        strings=strings,
        has_text=has_text,
        has_graph=np.concatenate([part.table.num_nodes[part.arrays["row"]] > 0 for part in found]),
        codebook=codebook,
        others=[KnownCode(key, kind) for key, kind in pairs if key not in held],
        **joined,
    )
    return tokens, counts


def _about(trained: TrainedModel, separated: dict[str, int]) -> dict:
    config, metadata = trained.config.to_dict(), trained.metadata
    return {
        "regions": trained.programs.structure.regions,
        "positions": positions_of(parts_of(config["model"])),
        "quantizer_kind": config["model"]["quantizer_kind"],
        "prefer": [],
        "data_set": {"name": config["data"]["name"], "fingerprint": metadata["fingerprint"]},
        "text_encoder": {"name": config["model"]["text_encoder_model"], "identity": metadata["encoder"]},
        "training": {"step": trained.step}
        | separated
        | {name: config[name] for name in ("seed", "model", "loss", "train")},
    }
