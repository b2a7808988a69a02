"""Carry the other columns of a file of codes into the file of tokens, with their types and under names of their own."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

# Whole numbers that a float, and a column of 64 bits, can hold.
_EXACT, _LONGEST = 2**53, 2**63
_ENCODER = json.JSONEncoder(allow_nan=False)


class KeptColumn(NamedTuple):
    """Define a column of the input that the output has too: its name there, its name here, and its type in Parquet."""

    name: str
    written: str
    type: pa.DataType


def choose_columns(fields: Iterable[pa.Field], taken: Sequence[str]) -> list[KeptColumn]:
    """Return the columns to keep, each under its own name or, where the output uses that, one that begins `input_`."""
    used = set(taken)
    kept = []
    fields = list(fields)
    names = {field.name for field in fields}
    for field in fields:
        written, number = field.name, 1
        while written in used or (written != field.name and written in names):
            written = f"input_{field.name}" if number == 1 else f"input_{field.name}_{number}"
            number += 1
        used.add(written)
        kept.append(KeptColumn(field.name, written, field.type))
    return kept


class JsonTypes:
    """Collect the names and types of the members of JSON objects, in the order of their first occurrence."""

    def __init__(self):
        self._kinds: dict[str, set[str]] = {}

    def add(self, members: Mapping[str, object]) -> None:
        """Count the members of one object."""
        for name, value in members.items():
            kinds = self._kinds.setdefault(name, set())
            if value is not None and value == value:
                kinds.add(_kind(value))

    def fields(self) -> list[pa.Field]:
        """Return the columns; values of several types in one column, lists and objects are text in Parquet."""
        return [pa.field(name, _arrow_type(kinds)) for name, kinds in self._kinds.items()]


def as_json(value: object) -> str:
    """Return a value as JSON; NaN is null, and what JSON has no type for is text."""
    if isinstance(value, str):
        return json.encoder.encode_basestring_ascii(value)
    try:
        return _ENCODER.encode(value)
    except (ValueError, TypeError):
        return _ENCODER.encode(_plain(value))


def as_text(value: object) -> str:
    """Return a value as the text of a cell; a missing one is empty."""
    value = _plain(value)
    if value is None:
        return ""
    return _writable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def as_array(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    """Return the values of a column as an array; in a column of text, what is not text is JSON."""
    if not pa.types.is_floating(kind):
        values = [None if isinstance(value, float) and value != value else value for value in values]
    if pa.types.is_string(kind):
        values = [value if value is None or isinstance(value, pa.Scalar) else as_text(value) for value in values]
    return pa.array(values, kind, from_pandas=False)


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if abs(value) < _EXACT else "long" if -_LONGEST <= value < _LONGEST else "mixed"
    return {float: "float", str: "str"}.get(type(value), "mixed")


def _arrow_type(kinds: set[str]) -> pa.DataType:
    if kinds == {"bool"}:
        return pa.bool_()
    if kinds and kinds <= {"int", "long"}:
        return pa.int64()
    if kinds and kinds <= {"int", "float"}:
        return pa.float64()
    return pa.string()


def _plain(value: object) -> object:
    """Return a value with what JSON has no type for as text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value if math.isfinite(value) else str(value)
    if isinstance(value, pa.Scalar):
        return _of_scalar(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(member) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(member) for member in value]
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def _of_scalar(value: pa.Scalar) -> object:
    if not value.is_valid:
        return None
    if pa.types.is_nested(value.type) or pa.types.is_floating(value.type):
        return _plain(value.as_py())
    try:
        return value.cast(pa.string()).as_py()
    except (pa.ArrowException, UnicodeDecodeError):
        return _plain(value.as_py())


def _writable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
