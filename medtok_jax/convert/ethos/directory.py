"""A tokenized ETHOS data set: its files, read and written.

    vocab_t{N}.csv             see `ethos_vocabulary`
    00000.safetensors, ...     int64 `tokens`, `times` (microseconds since 1970), `patient_ids`, `patient_offsets`;
                               float64 `hadm_id` and `icustay_id`, NaN for none
    static_data.pickle         {patient id: {prefix: {"code": [tokens], "time": [microseconds] or None}}}
    interval_estimates.json    {statistic: {interval token: microseconds}}
    quantiles.json             {measurement: breaks between its quantiles}

Source of the format: `ethos/datasets/base.py` and `_sharded_data.py` of github.com/ipolharvard/ethos-ares.
"""

import dataclasses
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from medtok_jax.convert.ehr_models import unpickling
from preprocessing.common.errors import InputError

STATIC = "static_data.pickle"
INTERVALS = "interval_estimates.json"
QUANTILES = "quantiles.json"
ARRAYS = ("tokens", "times", "patient_ids", "patient_offsets")
# ETHOS reads the second whenever the first is there.
STAYS = ("hadm_id", "icustay_id")
# ETHOS takes a timeline that passes the end of a file from the next file alone: files must be longer than a timeline.
SHARD_TOKENS = 5_000_000


@dataclasses.dataclass(frozen=True)
class Timelines:
    """Patients one after another.

    Attributes:
        tokens, times: `[events]` int64: ids, and microseconds since 1970.
        patient_ids, patient_offsets: `[patients]` int64: who, and the first event of each.
        stays: `[events]` float64 each, NaN for none: `hadm_id` and `icustay_id`; empty where the source has no stays.
    """

    tokens: np.ndarray
    times: np.ndarray
    patient_ids: np.ndarray
    patient_offsets: np.ndarray
    stays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.tokens)

    def patient_of(self) -> np.ndarray:
        """`[events]` int64: position of the patient of each event."""
        lengths = np.diff(self.patient_offsets, append=len(self.tokens))
        return np.repeat(np.arange(len(self.patient_ids)), lengths)


def concatenate(parts: list[Timelines]) -> Timelines:
    """Several in one."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part) for part in parts[:-1])])
    return Timelines(
        tokens=np.concatenate([part.tokens for part in parts]),
        times=np.concatenate([part.times for part in parts]),
        patient_ids=np.concatenate([part.patient_ids for part in parts]),
        patient_offsets=np.concatenate([p.patient_offsets + start for p, start in zip(parts, starts, strict=True)]),
        stays={name: np.concatenate([part.stays[name] for part in parts]) for name in parts[0].stays},
    )


class ShardWriter:
    """Writes timelines as numbered files of about `SHARD_TOKENS` tokens, in the order in which they come."""

    def __init__(self, folder: Path, shard_tokens: int = SHARD_TOKENS):
        self._folder, self._shard_tokens = folder, shard_tokens
        self._waiting: list[Timelines] = []
        self.shards = self.tokens = self.patients = 0

    def add(self, timelines: Timelines) -> None:
        """Takes some more patients."""
        if not len(timelines):
            return
        self._waiting.append(timelines)
        self.tokens += len(timelines)
        self.patients += len(timelines.patient_ids)
        if sum(map(len, self._waiting)) >= self._shard_tokens:
            self.flush()

    def flush(self) -> None:
        """Writes what waits, also when it is little."""
        if self._waiting:
            write_shard(self._folder / f"{self.shards:05}.safetensors", concatenate(self._waiting))
            self.shards, self._waiting = self.shards + 1, []


def write_shard(path: Path, timelines: Timelines) -> None:
    """Writes one file."""
    arrays = {name: np.ascontiguousarray(getattr(timelines, name), np.int64) for name in ARRAYS}
    save_file(arrays | {name: np.ascontiguousarray(v, np.float64) for name, v in timelines.stays.items()}, path)


def shard_paths(folder: Path) -> list[Path]:
    """The files of timelines, in the order in which ETHOS reads them."""
    return sorted(folder.glob("[0-9]*.safetensors"))


def read_shard(path: Path) -> Timelines:
    """Reads one file.

    Raises:
        InputError: it is none, or an array is missing or of another kind.
    """
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is no safetensors file ({error}).") from error
    for name in ARRAYS:
        if name not in arrays or arrays[name].dtype != np.int64 or arrays[name].ndim != 1:
            what = f"is {arrays[name].dtype} of shape {arrays[name].shape}" if name in arrays else "is missing"
            raise InputError(f"{path}: {name} {what}; it must be a row of int64.")
    stays = {name: arrays[name] for name in STAYS if name in arrays}
    for name, values in stays.items():
        if values.shape != arrays["tokens"].shape:
            raise InputError(f"{path}: {name} has the shape {values.shape}, tokens {arrays['tokens'].shape}.")
    return Timelines(**{name: arrays[name] for name in ARRAYS}, stays=stays)


def read_shards(folder: Path) -> Iterator[Timelines]:
    """All files of a directory, one at a time."""
    for path in shard_paths(folder):
        yield read_shard(path)


def write_static(folder: Path, static: dict) -> None:
    """Writes `static_data.pickle`."""
    with open(folder / STATIC, "wb") as file:
        pickle.dump(static, file)


def read_static(folder: Path) -> dict:
    """Reads `static_data.pickle`, in which nothing but dicts, lists, text and numbers may stand.

    Raises:
        InputError: it is missing or something else.
    """
    static = unpickling.load(folder / STATIC)
    if not isinstance(static, dict):
        raise InputError(f"{folder / STATIC} holds a {type(static).__name__}, not a dict of patients.")
    return static


def write_json(path: Path, content: dict) -> None:
    """Writes a JSON file."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict:
    """Reads a JSON file.

    Raises:
        InputError: it is missing, no JSON, or no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no readable JSON file ({error}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not an object.")
    return content


def is_tokenized(folder: Path) -> bool:
    """Whether this is a tokenized data set of ETHOS."""
    return any(folder.glob("vocab_t*.csv")) and bool(shard_paths(folder))
