"""Read and write the files of a tokenized ETHOS data set.

    vocab_t{N}.csv             see `vocabulary`
    00000.safetensors, ...     int64 `tokens`, `times` (microseconds since 1970), `patient_ids`, `patient_offsets`;
                               float64 `hadm_id` and `icustay_id`, NaN for none
    static_data.pickle         {patient id: {prefix: {"code": [tokens], "time": [microseconds] or None}}}
    interval_estimates.json    {statistic: {interval token: microseconds}}
    quantiles.json             {measurement: breaks between its quantiles}

The format is that of `ethos/datasets/base.py` and `_sharded_data.py` of github.com/ipolharvard/ethos-ares.
"""

import dataclasses
import json
import pickle  # nosec B403 # It only writes.
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from medtok_jax.convert.ehr_models import unpickling
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading

STATIC = "static_data.pickle"
INTERVALS = "interval_estimates.json"
QUANTILES = "quantiles.json"
ARRAYS = ("tokens", "times", "patient_ids", "patient_offsets")
# ETHOS reads the second whenever a file holds the first.
STAYS = ("hadm_id", "icustay_id")
# ETHOS continues a timeline only into the next file, so each file must be longer than a timeline.
SHARD_TOKENS = 5_000_000


@dataclasses.dataclass(frozen=True)
class Timelines:
    """Hold the timelines of patients, one after another.

    Attributes:
        tokens, times: `[events]` int64, token ids, and microseconds since 1970.
        patient_ids, patient_offsets: `[patients]` int64, subject and first event of each patient.
        stays: `hadm_id` and `icustay_id`, `[events]` float64 each, NaN for none; empty if the source has no stays.
    """

    tokens: np.ndarray
    times: np.ndarray
    patient_ids: np.ndarray
    patient_offsets: np.ndarray
    stays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> np.ndarray:
        """Return the number of tokens of each patient, `[patients]` int64."""
        return np.diff(self.patient_offsets, append=len(self))


def concatenate(parts: list[Timelines]) -> Timelines:
    """Concatenate timelines of different patients."""
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
    """Write timelines as numbered files of about `SHARD_TOKENS` tokens, in the order in which they are added."""

    def __init__(self, folder: Path, shard_tokens: int = SHARD_TOKENS):
        self._folder = folder
        self._shard_tokens = shard_tokens
        self._waiting: list[Timelines] = []
        self.shards = self.tokens = self.patients = 0

    def add(self, timelines: Timelines) -> None:
        """Add the timelines of further patients, and write a file when enough are waiting."""
        if not len(timelines):
            return
        self._waiting.append(timelines)
        self.tokens += len(timelines)
        self.patients += len(timelines.patient_ids)
        if sum(map(len, self._waiting)) >= self._shard_tokens:
            self.flush()

    def flush(self) -> None:
        """Write the waiting timelines, however few they are."""
        if self._waiting:
            write_shard(self._folder / f"{self.shards:05}.safetensors", concatenate(self._waiting))
            self.shards += 1
            self._waiting = []


def write_shard(path: Path, timelines: Timelines) -> None:
    """Write one file of timelines."""
    arrays = {name: np.ascontiguousarray(getattr(timelines, name), np.int64) for name in ARRAYS}
    save_file(arrays | {name: np.ascontiguousarray(v, np.float64) for name, v in timelines.stays.items()}, path)


def timeline_bytes(lengths: np.ndarray) -> int:
    """Return the bytes of the files of timelines.

    Args:
        lengths: `[patients]` int64, tokens of each timeline.
    """
    return 8 * int((len(ARRAYS) - 2 + len(STAYS)) * lengths.sum() + 2 * len(lengths))


def shard_paths(folder: Path) -> list[Path]:
    """Return the files of timelines, in the order in which ETHOS reads them."""
    return sorted(folder.glob("[0-9]*.safetensors"))


def read_shard(path: Path) -> Timelines:
    """Read one file of timelines.

    Raises:
        InputError: the file is not safetensors, or an array is missing or of another shape or dtype.
    """
    with reading(path, "safetensors", "tokenize the records again"):
        arrays = load_file(path)
    for name in ARRAYS:
        if name not in arrays or arrays[name].dtype != np.int64 or arrays[name].ndim != 1:
            problem = f"is {arrays[name].dtype} of shape {arrays[name].shape}" if name in arrays else "is missing"
            raise InputError(f"{path}: {name} {problem}; it must be a one-dimensional array of int64.")
    stays = {name: arrays[name] for name in STAYS if name in arrays}
    for name, values in stays.items():
        if values.shape != arrays["tokens"].shape:
            raise InputError(f"{path}: {name} has the shape {values.shape}, tokens {arrays['tokens'].shape}.")
    return Timelines(**{name: arrays[name] for name in ARRAYS}, stays=stays)


def write_static(folder: Path, static: dict) -> None:
    """Write `static_data.pickle`."""
    with open(folder / STATIC, "wb") as file:
        pickle.dump(static, file)


def read_static(folder: Path) -> dict:
    """Read `static_data.pickle`, in which only dicts, lists, text and numbers are allowed.

    Raises:
        InputError: the file is missing, holds other objects, or is not a dict.
    """
    static = unpickling.load(folder / STATIC)
    if not isinstance(static, dict):
        raise InputError(f"{folder / STATIC} holds a {type(static).__name__}, not a dict of patients.")
    return static


def write_json(path: Path, content: dict) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict:
    """Read a JSON file that holds an object.

    Raises:
        InputError: the file is missing, is not JSON, or does not hold an object.
    """
    with reading(path, "JSON", "tokenize the records again"):
        content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not an object.")
    return content


def is_tokenized(folder: Path) -> bool:
    """Return True if the folder is a tokenized data set of ETHOS."""
    return any(folder.glob("vocab_t*.csv")) and bool(shard_paths(folder))
