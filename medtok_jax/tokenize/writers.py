"""Write files of tokens as a stream: JSON, JSON lines, CSV, Parquet. They appear only when they are complete."""

import contextlib
import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medtok_jax.lookup.code_tokens import CodeTokens
from preprocessing.common.atomic import whole_file
from preprocessing.common.errors import InputError

HEADER = ("row", "code", "key", "source", "ids", "weights")
REJECTS_HEADER = ("row", "code", "system", "reason")


class Format(NamedTuple):
    """Define a kind of file.

    Attributes:
        prepare: returns the written form of a code's tokens, which is cached.
        opened: opens a file for a number of tokens a code; its function writes rows of (number, code, written form).
    """

    prepare: Callable[[CodeTokens], object]
    opened: Callable[[Path, int], contextlib.AbstractContextManager]


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
        lines = csv.writer(file)
        lines.writerow(REJECTS_HEADER)
        yield lines.writerow


def _as_json(tokens: CodeTokens) -> str:
    weights = ", ".join(map(str, tokens.weights))
    head = json.dumps({"key": tokens.key, "source": tokens.source})[1:-1]
    return f'{head}, "ids": {tokens.ids.tolist()}, "weights": [{weights}]}}'


def _as_cells(tokens: CodeTokens) -> tuple[str, ...]:
    return tokens.key, tokens.source, " ".join(map(str, tokens.ids)), " ".join(map(str, tokens.weights))


@contextlib.contextmanager
def _json_list(path: Path, width: int) -> Iterator[Callable]:
    with open(path, "w", encoding="utf-8") as file:
        separator = "[\n"

        def write(rows: list[tuple[int, str, str]]) -> None:
            nonlocal separator
            for number, code, body in rows:
                file.write(f'{separator}{{"row": {number}, "code": {json.dumps(code)}, {body}')
                separator = ",\n"

        yield write
        file.write("[]\n" if separator == "[\n" else "\n]\n")


@contextlib.contextmanager
def _json_lines(path: Path, width: int) -> Iterator[Callable]:
    with open(path, "w", encoding="utf-8") as file:
        yield lambda rows: file.writelines(
            f'{{"row": {number}, "code": {json.dumps(code)}, {body}\n' for number, code, body in rows
        )


@contextlib.contextmanager
def _csv(path: Path, width: int) -> Iterator[Callable]:
    with open(path, "w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(HEADER)
        yield lambda rows: lines.writerows((number, code, *cells) for number, code, cells in rows)


@contextlib.contextmanager
def _parquet(path: Path, width: int) -> Iterator[Callable]:
    kinds = (pa.int64(), *(pa.string(),) * 3, *(pa.list_(kind, width) for kind in (pa.int32(), pa.float32())))
    schema = pa.schema(list(zip(HEADER, kinds, strict=True)))
    with pq.ParquetWriter(path, schema) as file:

        def write(rows: list[tuple[int, str, CodeTokens]]) -> None:
            if not rows:
                return
            numbers, codes, tokens = zip(*rows, strict=True)
            lists = [
                pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(arrays)), width)
                for arrays in ([one.ids for one in tokens], [one.weights for one in tokens])
            ]
            columns = [numbers, codes, [one.key for one in tokens], [one.source for one in tokens]]
            arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds[:4], strict=True)]
            file.write_table(pa.Table.from_arrays([*arrays, *lists], schema=schema))

        yield write
