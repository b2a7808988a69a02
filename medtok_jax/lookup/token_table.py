"""Open the table of a tokenizer, a safetensors file: codes with their tokens, and the other codes that systems know.

The file is memory-mapped and nothing is unpickled. With n rows (codes with tokens), m further codes without tokens,
T tokens a code and N codebook rows of width d, it holds

    ids [n, T] uint16 or uint32    weights [n, T] float16    codebook [N, d] float32
    key [n + m]           `SYSTEM/code`: those of the rows, sorted, then the others, sorted
    description [n]
    system, kind [n + m]  uint8, positions in `systems` of the metadata and in `KINDS`
    split, has_text, has_graph [n] uint8
    compact [n + m]       codes in capitals and without dots, sorted; `compact_entry` int32 is the position of their key

A column of strings is one array of their UTF-8 bytes, `NAME_text`, and one of `NAME_offsets` [strings + 1] int32.
This file imports only numpy, as it lies in every tokenizer directory.
"""

import functools
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing.common.checksums import sha256_once
from preprocessing.common.errors import InputError

TABLE = "tokens.safetensors"
# A code of the data set; a category, that is a code with codes below it; a code of an earlier edition.
KINDS = ("code", "category", "retired")
# `none` is that of codes that are not in the data set.
SPLITS = ("train", "validation", "test", "none")
_DTYPES = {"U8": "u1", "U16": "<u2", "U32": "<u4", "I32": "<i4", "F16": "<f2", "F32": "<f4"}


class Strings(Sequence[bytes]):
    """Hold many strings as one array of their bytes and one of their offsets; items are bytes.

    Args:
        content: uint8, the bytes of all strings.
        offsets: `[strings + 1]` int32, where each begins and the last one ends.
    """

    def __init__(self, content: np.ndarray, offsets: np.ndarray):
        self.content = content
        self.offsets = offsets
        # Items of this take a fifth of the time that those of an array do.
        self._starts = np.ascontiguousarray(offsets, np.int32).data

    @functools.cached_property
    def _bytes(self) -> bytes:
        return self.content.tobytes()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, position: int) -> bytes:  # type: ignore[override] # Nobody takes a slice.
        return self._bytes[self._starts[position] : self._starts[position + 1]]

    def to_bytes(self) -> list[bytes]:
        """Return all strings as bytes; a list is searched several times as fast."""
        whole = self._bytes
        return [whole[start:stop] for start, stop in itertools.pairwise(self.offsets.tolist())]

    def to_list(self) -> list[str]:
        """Return all strings."""
        return [text.decode() for text in self.to_bytes()]

    @classmethod
    def of(cls, strings: Iterable[str]) -> "Strings":
        """Pack strings."""
        encoded = [text.encode() for text in strings]
        offsets = np.zeros(len(encoded) + 1, np.int32)
        np.cumsum([len(text) for text in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Return the two arrays of a file that hold these strings."""
        # An empty array of a file cannot be mapped.
        content = self.content if len(self.content) else np.zeros(1, np.uint8)
        return {f"{name}_text": content, f"{name}_offsets": np.asarray(self.offsets, np.int32)}


def index_arrays(rows: Sequence[str], others: Sequence[str] = ()) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the arrays by which codes are found, and the names of their code systems.

    Args:
        rows: keys of the codes with tokens, in the order of their tokens.
        others: keys of further codes that the systems know.
    """
    keys = [*rows, *others]
    parts = [key.split("/", 1) for key in keys]
    systems = sorted({system for system, _ in parts})
    number = {system: position for position, system in enumerate(systems)}
    compact = [capitals(code).replace(".", "").encode("utf-8", "surrogatepass") for _, code in parts]
    order = sorted(range(len(keys)), key=lambda entry: (compact[entry], entry))
    sorted_codes = Strings.of(compact[entry].decode() for entry in order)
    arrays: dict[str, np.ndarray] = {
        "system": np.array([number[system] for system, _ in parts], np.uint8),
        "compact_entry": np.array(order, np.int32),
    }
    return arrays | Strings.of(keys).arrays("key") | sorted_codes.arrays("compact"), systems


def capitals(code: str) -> str:
    """Return an ASCII code in capitals and any other as it is: capitals of `ſ` would be the S of real codes."""
    return code.upper() if code.isascii() else code


def read_arrays(path: str | Path, sha256: str | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of a table, memory-mapped, and its metadata.

    Args:
        path: the file.
        sha256: that the file must have (hex), or None.

    Raises:
        InputError: the file is missing, is not a table of MedTok tokens, or has another SHA-256.
    """
    try:
        if sha256 and sha256_once(path) != sha256:
            raise ValueError("its sha256 is not the one in medtok.json")
        # It becomes a plain array, as every slice of a memmap costs microseconds.
        content = np.asarray(np.memmap(path, mode="r"))
        start = 8 + int(content[:8].view("<u8")[0])
        header = json.loads(content[8:start].tobytes())
        metadata = json.loads(header.pop("__metadata__")["medtok"])
        arrays = {}
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            flat = content[start + begin : start + end].view(_DTYPES[entry["dtype"]])
            arrays[name] = flat.reshape(entry["shape"])
        _check(arrays, metadata)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is not a readable table of MedTok tokens ({error}); copy or write it again."
        ) from error
    return arrays, metadata


def _check(arrays: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
    """Raise ValueError or KeyError unless the arrays fit one another."""
    entries = len(arrays["key_offsets"]) - 1
    rows, width = arrays["ids"].shape
    for name in ("system", "kind", "compact_entry"):
        if arrays[name].shape != (entries,):
            raise ValueError(f"{name} has the shape {arrays[name].shape} where there are {entries:,} codes")
    for name in ("split", "has_text", "has_graph"):
        if arrays[name].shape != (rows,):
            raise ValueError(f"{name} has the shape {arrays[name].shape} where there are {rows:,} rows")
    for name, count in (("key", entries), ("compact", entries), ("description", rows)):
        offsets = arrays[f"{name}_offsets"]
        if len(offsets) != count + 1 or offsets[0] != 0 or (np.diff(offsets) < 0).any():
            raise ValueError(f"the offsets of {name} do not fit")
        if offsets[-1] > len(arrays[f"{name}_text"]):
            raise ValueError(f"the text of {name} is cut")
    if not 0 < rows <= entries or arrays["weights"].shape != (rows, width) or arrays["codebook"].ndim != 2:
        raise ValueError("ids, weights, codebook and keys are of different sizes")
    for name, limit in (("system", len(metadata["systems"])), ("kind", len(KINDS)), ("split", len(SPLITS))):
        if arrays[name].max() >= limit:
            raise ValueError(f"{name} holds a number that has no name")
    if arrays["compact_entry"].min() < 0 or arrays["compact_entry"].max() >= entries:
        raise ValueError("the index names codes that are not there")


class TokenTable:
    """Hold the arrays of a table by name; see the head of this file.

    Args:
        path, sha256: see `read_arrays`.

    Raises:
        InputError: see `read_arrays`.
    """

    def __init__(self, path: str | Path, sha256: str | None = None):
        self.path = Path(path)
        self.arrays, self.metadata = read_arrays(path, sha256)
        self.ids, self.weights, self.codebook = (self.arrays[name] for name in ("ids", "weights", "codebook"))
        self.key = Strings(self.arrays["key_text"], self.arrays["key_offsets"])
        self.description = Strings(self.arrays["description_text"], self.arrays["description_offsets"])

    def __len__(self) -> int:
        """Return the number of codes with tokens, n."""
        return len(self.ids)

    def key_at(self, row: int) -> str:
        """Return the key, `SYSTEM/code`, of a row."""
        return self.key[row].decode()

    def description_at(self, row: int) -> str:
        """Return the description of a row."""
        return self.description[row].decode()

    def kind_at(self, row: int) -> str:
        """Return the kind of a row: `code`, `category` or `retired`."""
        return KINDS[self.arrays["kind"][row]]
