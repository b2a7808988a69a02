"""Write files of tokens as a stream: JSON, JSON lines, CSV, Parquet. They appear only when they are complete."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medtok_jax.lookup.code_tokens import CodeTokens
from medtok_jax.tokenize.kept import KeptColumn, as_array, as_json, as_text
from preprocessing.common.atomic import whole_file
from preprocessing.common.errors import InputError
from preprocessing.common.spreadsheets import TableWriter

HEADER = ("row", "code", "key", "source", "ids", "weights")
REJECTS_HEADER = ("row", "code", "system", "reason")


class Written(NamedTuple):
    """Hold one row to write: its number, its code, the written form of its tokens, and the values of kept columns."""

    number: int
    code: str
    form: object
    others: Sequence[object]


class Format(NamedTuple):
    """Define a kind of file.

    Attributes:
        prepare: returns the written form of a code's tokens, which is cached.
        opened: opens a file for a number of tokens a code and kept columns; its function writes a list of `Written`.
    """

    prepare: Callable[[CodeTokens], object]
    opened: Callable[[Path, int, Sequence[KeptColumn]], contextlib.AbstractContextManager]


def format_of(path: Path) -> Format:
    """Return the kind of file of a path by its suffix.

    Raises:
        InputError: the suffix is not known.
    """
    kinds = {
        ".json": Format(_as_json, _json_list),
        ".jsonl": Format(_as_json, _json_lines),
        ".csv": Format(_as_cells, _csv),
        ".parquet": Format(lambda tokens: tokens, _parquet),
    }
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path} ends in none of {', '.join(kinds)}; give the output one of these endings.")
    return kind


@contextlib.contextmanager
def rejects_file(path: Path) -> Iterator[Callable]:
    """Open a file of rejected rows, and yield a function that writes one: number, code, system, reason."""
    with whole_file(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        lines = TableWriter(file, line_end="\r\n")
        lines.row(REJECTS_HEADER)
        yield lines.row


def _as_json(tokens: CodeTokens) -> str:
    weights = ", ".join(map(str, tokens.weights))
    head = json.dumps({"key": tokens.key, "source": tokens.source})[1:-1]
    return f'{head}, "ids": {tokens.ids.tolist()}, "weights": [{weights}]'


def _as_cells(tokens: CodeTokens) -> tuple[str, ...]:
    return tokens.key, tokens.source, " ".join(map(str, tokens.ids)), " ".join(map(str, tokens.weights))


def _object(row: Written, names: Sequence[str]) -> str:
    """Return a row as a JSON object, with kept columns whose names are JSON already."""
    others = "".join(f", {name}: {as_json(value)}" for name, value in zip(names, row.others, strict=True))
    return f'{{"row": {row.number}, "code": {as_json(row.code)}, {row.form}{others}}}'


def _json_names(kept: Sequence[KeptColumn]) -> list[str]:
    return [json.dumps(column.written) for column in kept]


@contextlib.contextmanager
def _json_list(path: Path, width: int, kept: Sequence[KeptColumn]) -> Iterator[Callable]:
    with open(path, "w", encoding="utf-8") as file:
        separator, names = "[\n", _json_names(kept)

        def write(rows: list[Written]) -> None:
            nonlocal separator
            for row in rows:
                file.write(f"{separator}{_object(row, names)}")
                separator = ",\n"

        yield write
        file.write("[]\n" if separator == "[\n" else "\n]\n")


@contextlib.contextmanager
def _json_lines(path: Path, width: int, kept: Sequence[KeptColumn]) -> Iterator[Callable]:
    names = _json_names(kept)
    with open(path, "w", encoding="utf-8") as file:
        yield lambda rows: file.writelines(f"{_object(row, names)}\n" for row in rows)


@contextlib.contextmanager
def _csv(path: Path, width: int, kept: Sequence[KeptColumn]) -> Iterator[Callable]:
    with open(path, "w", newline="", encoding="utf-8") as file:
        lines = TableWriter(file, line_end="\r\n")
        lines.row((*HEADER, *(column.written for column in kept)))
        yield lambda rows: lines.rows((row.number, row.code, *row.form, *map(as_text, row.others)) for row in rows)


@contextlib.contextmanager
def _parquet(path: Path, width: int, kept: Sequence[KeptColumn]) -> Iterator[Callable]:
    kinds = (pa.int64(), *(pa.string(),) * 3, *(pa.list_(kind, width) for kind in (pa.int32(), pa.float32())))
    fields = [*zip(HEADER, kinds, strict=True), *((column.written, column.type) for column in kept)]
    schema = pa.schema(fields)
    with pq.ParquetWriter(path, schema) as file:

        def write(rows: list[Written]) -> None:
            if not rows:
                return
            numbers, codes, tokens, others = zip(*rows, strict=True)
            lists = [
                pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(arrays)), width)
                for arrays in ([one.ids for one in tokens], [one.weights for one in tokens])
            ]
            columns = [numbers, codes, [one.key for one in tokens], [one.source for one in tokens]]
            arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds[:4], strict=True)]
            arrays += [*lists, *map(as_array, zip(*others, strict=True), (column.type for column in kept))]
            file.write_table(pa.Table.from_arrays(arrays, schema=schema))

        yield write
