"""Check a tokenized ETHOS data set and its checkpoint, and refuse everything that would fail in ETHOS.

The rules are those of `ethos/datasets/base.py`, `_sharded_data.py`, `ethos/vocabulary.py`, `ethos/model.py` and
`ethos/utils.py` of github.com/ipolharvard/ethos-ares.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medtok_jax.convert.ethos import checkpoint as ethos_checkpoint
from medtok_jax.convert.ethos import directory
from medtok_jax.convert.ethos import vocabulary as ethos_vocabulary
from medtok_jax.convert.ethos.checkpoint import ModelSize, config_state, shapes
from medtok_jax.convert.ethos.directory import INTERVALS, QUANTILES, STAYS, Timelines
from medtok_jax.convert.ethos.files import events
from medtok_jax.convert.ethos.files.code_tokens import MEDTOK
from preprocessing.common import extras
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading

_STATISTICS = ("min", "q1", "mean", "median", "q3", "max")
_CHECKPOINT_KEYS = {
    *("iter_num", "model", "optimizer", "best_val_loss", "best_metric_score", "model_config"),
    *("vocab", "model_type", "wandb_path"),
}
_CONFIG = "transformers.models.gpt2.configuration_gpt2.GPT2Config"


@dataclasses.dataclass(frozen=True)
class Summary:
    """Count the patients, tokens and MedTok tokens of a data set, and the tokens of its vocabulary."""

    patients: int
    tokens: int
    medtok_tokens: int
    vocabulary: int


def check_ethos(folder: Path, codebook_size: int, *, n_positions: int = 2048) -> Summary:
    """Check a tokenized data set, and return counts of its contents.

    Args:
        folder: holds the files that `directory` lists.
        codebook_size: N; all of `MEDTOK//0` to `MEDTOK//{N-1}` must be in the vocabulary.
        n_positions: number of tokens of a timeline of the model that reads it.

    Raises:
        InputError: names the first value that ETHOS cannot use.
    """
    vocabulary = ethos_vocabulary.read(folder)
    known = set(vocabulary)
    _need(
        known.issuperset(ethos_vocabulary.required(codebook_size, 0)),
        lambda: (
            f"{folder}: the vocabulary lacks "
            f"{next(t for t in ethos_vocabulary.required(codebook_size, 0) if t not in known)!r}, which ETHOS looks up."
        ),
    )
    paths = directory.shard_paths(folder)
    _need(bool(paths), f"{folder} holds no timelines ([0-9]*.safetensors).")
    is_medtok = np.array([token.startswith(MEDTOK) for token in vocabulary])
    end = vocabulary.index("TIMELINE_END")
    static = directory.read_static(folder)
    seen = np.empty(0, np.int64)
    lengths = []
    medtok = 0
    stays = None
    for path in paths:
        shard = directory.read_shard(path)
        _check_shard(path, shard, len(vocabulary), end)
        repeated = np.intersect1d(seen, shard.patient_ids)
        _need(not len(repeated), f"{path}: {len(repeated):,} of its patients are in another file too.")
        seen = np.concatenate([seen, shard.patient_ids])
        _need(stays in (None, set(shard.stays)), f"{path} and the files before it differ in {', '.join(STAYS)}.")
        stays = set(shard.stays)
        lengths.append(len(shard))
        medtok += int(is_medtok[shard.tokens].sum())
    for path, length in list(zip(paths, lengths, strict=True))[1:-1]:
        _need(length >= n_positions, f"{path} holds {length:,} tokens, fewer than a timeline of {n_positions:,}.")
    _check_static(folder, static, seen, known)
    _check_json(folder, known)
    return Summary(len(seen), sum(lengths), medtok, len(vocabulary))


def _check_shard(path: Path, shard: Timelines, vocabulary_size: int, end: int) -> None:
    offsets = shard.patient_offsets
    events_count = len(shard)
    _need(events_count > 0 and len(shard.patient_ids) > 0, f"{path} is empty.")
    _need(
        len(shard.times) == events_count and len(offsets) == len(shard.patient_ids),
        f"{path} must hold a time for each token and an offset for each patient.",
    )
    _need(
        offsets[0] == 0 and bool((np.diff(offsets) > 0).all()) and offsets[-1] < events_count,
        f"{path}: patient_offsets must ascend from 0 and stay below {events_count:,}.",
    )
    _need(len(np.unique(shard.patient_ids)) == len(shard.patient_ids), f"{path} holds a patient twice.")
    low = int(shard.tokens.min())
    high = int(shard.tokens.max())
    _need(
        low >= 0 and high < vocabulary_size,
        f"{path}: token ids go from {low} to {high}; they must lie between 0 and {vocabulary_size - 1}.",
    )
    same = np.ones(events_count, bool)
    same[offsets] = False
    _need(bool((np.diff(shard.times)[same[1:]] >= 0).all()), f"{path}: the times of a patient must not descend.")
    last = np.append(offsets[1:], events_count) - 1
    _need(bool((shard.tokens[last] == end).all()), f"{path}: a patient does not end with TIMELINE_END.")
    _need(len(shard.stays) in (0, len(STAYS)), f"{path} must hold both of {' and '.join(STAYS)}, or none.")
    for name, values in shard.stays.items():
        _need(values.dtype == np.float64, f"{path}: {name} is {values.dtype}; it must be float64.")


def _check_static(folder: Path, static: dict, patients: np.ndarray, known: set[str]) -> None:
    path = folder / directory.STATIC
    missing = sum(patient not in static for patient in patients.tolist())
    _need(not missing, f"{path} lacks {missing:,} of the {len(patients):,} patients that have timelines.")
    prefixes = None
    for number, patient in enumerate(patients.tolist()):
        fields = static[patient]
        # Patients are named by their place, from 0, in the order of the timelines: an id is not for a message.
        where = f"{path}: patient number {number} of the timelines"
        _need(isinstance(fields, dict) and events.BIRTH in fields, f"{where} has no {events.BIRTH}.")
        prefixes = prefixes or list(fields)
        _need(
            list(fields) == prefixes, f"{where} has other kinds of data than the first; ETHOS needs the same for all."
        )
        for prefix, field in fields.items():
            codes = field.get("code")
            times = field.get("time")
            _need(
                isinstance(codes, list) and bool(codes) and all(isinstance(code, str) for code in codes),
                f"{where}: {prefix} has no codes.",
            )
            timed = isinstance(times, list) and len(times) == len(codes) and all(type(t) is int for t in times)
            if prefix == events.BIRTH:
                _need(timed and codes[0] == events.BIRTH, f"{where}: {prefix} must have its time in microseconds.")
                continue
            _need(len(codes) == 1 or (timed and times == sorted(times)), f"{where}: {prefix} needs ascending times.")
            _need(f"{prefix}//UNKNOWN" in known, f"{path}: {prefix}//UNKNOWN is not in the vocabulary.")
            _need(known.issuperset(codes), f"{where}: a code of {prefix} is not in the vocabulary.")


def _check_json(folder: Path, known: set[str]) -> None:
    path = folder / INTERVALS
    estimates = directory.read_json(path)
    for statistic in _STATISTICS:
        values = estimates.get(statistic)
        valid = isinstance(values, dict) and bool(values)
        _need(valid, f"{path} must hold {', '.join(_STATISTICS)}; it lacks {statistic!r}.")
        for token, value in values.items():
            _need(token in known, f"{path}: the interval {token!r} is not in the vocabulary.")
            valid = isinstance(value, (int, float)) and math.isfinite(value) and value >= 0
            _need(valid, f"{path}: {statistic} of {token!r} must be a number of microseconds from 0.")
    path = folder / QUANTILES
    for name, breaks in directory.read_json(path).items():
        valid = isinstance(breaks, list) and all(isinstance(b, (int, float)) for b in breaks)
        _need(valid and breaks == sorted(breaks), f"{path}: the breaks of {name!r} must be ascending numbers.")


def check_checkpoint(path: Path, vocabulary: Sequence[str], size: ModelSize) -> None:
    """Check an initial checkpoint, loading only tensors and the state of its configuration.

    Raises:
        InputError: the checkpoint cannot be read, or differs from what ETHOS loads.
    """
    checkpoint = _load(path)
    lacking = _CHECKPOINT_KEYS - checkpoint.keys()
    _need(not lacking, lambda: f"{path} lacks {', '.join(sorted(lacking))}.")
    ids = {token: number for number, token in enumerate(vocabulary)}
    _need(checkpoint["vocab"] == ids, f"{path} was made for another vocabulary.")
    state = vars(checkpoint["model_config"])
    for name, value in config_state(size, len(vocabulary)).items():
        _need(name in state and state[name] == value, f"{path}: {name} is {state.get(name)!r}, not {value!r}.")
    model = checkpoint["model"]
    wanted = shapes(size, len(vocabulary))
    _need(
        set(model) == set(wanted),
        lambda: f"{path}: weights are missing or unexpected: {sorted(set(model) ^ set(wanted))[:3]}.",
    )
    for name, shape in wanted.items():
        _need(tuple(model[name].shape) == shape, f"{path}: {name} is {tuple(model[name].shape)}, not {shape}.")
        _need(bool(model[name].isfinite().all()), f"{path}: {name} holds NaN or infinite values.")
    embedding = model["transformer.wte.weight"]
    _need(bool((embedding == model["lm_head.weight"]).all()), f"{path}: lm_head and wte must be the same.")
    rows = [number for token, number in ids.items() if token[len(MEDTOK) :].isdigit() and token.startswith(MEDTOK)]
    spread = float(embedding[rows].std())
    _need(
        abs(spread - ethos_checkpoint.STD) < 0.1 * ethos_checkpoint.STD,
        f"{path}: the rows of MedTok tokens have the standard deviation {spread:.4f}, not {ethos_checkpoint.STD}.",
    )


class _Configuration:
    """Hold the state of a checkpoint's configuration."""


def _load(path: Path) -> dict:
    torch = extras.load("torch")
    with (
        reading(path, "a checkpoint of ETHOS", "convert again"),
        torch.serialization.safe_globals([(_Configuration, _CONFIG)]),
    ):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    _need(isinstance(checkpoint, dict), f"{path} does not hold a dict.")
    return checkpoint


def _need(condition: bool, sentence) -> None:
    if not condition:
        raise InputError(sentence() if callable(sentence) else sentence)
