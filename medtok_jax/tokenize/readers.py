"""Read files of codes as a stream: CSV, JSON, JSON lines, Parquet. A row that cannot be used holds the reason."""

import codecs
import contextlib
import csv
import dataclasses
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from medtok_jax.lookup.code_names import shown
from preprocessing.common.errors import InputError

# Common names of columns in lower case, in order of preference.
COLUMNS = {
    "code": ("code", "med_code", "medical_code", "icd_code", "icd9_code", "concept_code", "ndc"),
    "system": ("system", "code_system", "vocabulary", "vocabulary_id", "coding_system"),
    "description": ("description", "desc", "concept_name", "long_title", "name"),
}
# Number of rows that are read from a Parquet file at once.
PARQUET_ROWS = 4096


@dataclasses.dataclass(slots=True)
class CodeRow:
    """Hold one row of a file.

    Attributes:
        number: 1 for the first row; a header and blank lines do not count.
        code: as it is written; None if `problem` is given.
        system, description: as they are written, or None.
        graph: node-link JSON or a list of neighbors in JSON rows, see `new_codes.NewCode`; None otherwise.
        problem: reason for which the row cannot be used, or None.
    """

    number: int
    code: str | None = None
    system: str | None = None
    description: str | None = None
    graph: dict | list | None = None
    problem: str | None = None


def read_codes(path: str | Path, columns: dict[str, str | None], *, progress: bool = True) -> Iterator[CodeRow]:
    """Yield the rows of a file, in order, in constant memory.

    Args:
        path: ends in .csv, .json (a list of codes or of objects), .jsonl (one of these a line) or .parquet.
        columns: names of the columns `code`, `system` and `description`, None for those of `COLUMNS`.
        progress: whether to show a progress bar.

    Raises:
        InputError: the file is missing, of another kind or broken, or a column is missing.
    """
    path = Path(path)
    readers = {".csv": _read_csv, ".json": _read_json, ".jsonl": _read_lines, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path} ends in none of {', '.join(readers)}; give a file of one of these kinds.")
    if not path.is_file():
        raise InputError(f"The file {path} does not exist; correct the path.")
    with tqdm(total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True, disable=not progress) as bar:
        try:
            yield from reader(path, columns, bar)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror or error}).") from error


def pick_columns(names: list[str], columns: dict[str, str | None], path: Path) -> dict[str, str]:
    """Return the name of each kind of column that the file has.

    Raises:
        InputError: the file has no column of codes, or lacks a column that `columns` names.
    """
    by_plain = {name.strip().lower(): name for name in reversed(names)}
    found = {}
    for kind, given in columns.items():
        if given is not None and given not in names:
            raise InputError(
                f"{path} has no column {given!r} (it has {', '.join(names[:20])}); correct --{kind}_column."
            )
        name = given or next((by_plain[known] for known in COLUMNS[kind] if known in by_plain), None)
        if name is not None:
            found[kind] = name
    if "code" not in found:
        raise InputError(f"{path} has no column 'code' (it has {', '.join(names[:20])}); name it by --code_column.")
    return found


def _read_csv(path: Path, columns: dict[str, str | None], bar: tqdm) -> Iterator[CodeRow]:
    # Bytes that are not UTF-8 become lone surrogates, so that only their rows are rejected.
    with open(path, "rb") as raw, io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="") as text:
        lines = csv.reader(text)
        try:
            header = next(lines, [])
        except csv.Error as error:
            raise InputError(f"{path} has no readable header ({error}).") from error
        positions = {kind: header.index(name) for kind, name in pick_columns(header, columns, path).items()}
        for number in itertools.count(1):
            try:
                cells = next(lines)
                while not cells:
                    cells = next(lines)
            except StopIteration:
                break
            except csv.Error as error:
                yield CodeRow(number, problem=f"the line cannot be read ({error})")
                continue
            if len(cells) != len(header):
                yield CodeRow(number, problem=f"the row has {len(cells)} cells where the header has {len(header)}")
            else:
                yield _row(number, {kind: cells[position] for kind, position in positions.items()})
            if number % 1024 == 0:
                bar.update(raw.tell() - bar.n)
        bar.update(raw.tell() - bar.n)


def _read_lines(path: Path, columns: dict[str, str | None], bar: tqdm) -> Iterator[CodeRow]:
    with open(path, "rb") as lines:
        number = 0
        for line in lines:
            bar.update(len(line))
            if not line.strip():
                continue
            number += 1
            try:
                value = json.loads(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line)
            except (ValueError, RecursionError) as error:
                yield CodeRow(number, problem=f"the line is not JSON ({error})")
                continue
            yield _row_of_value(number, value, columns, path)


def _read_json(path: Path, columns: dict[str, str | None], bar: tqdm) -> Iterator[CodeRow]:
    import ijson

    with open(path, "rb") as file:
        head = file.read(4096)
        mark = 3 if head.startswith(codecs.BOM_UTF8) else 0
        file.seek(mark)
        first = head[mark:].lstrip()[:1]
        if first == b"{":
            # A .json file of objects that are not in a list is read as JSON lines.
            yield from _read_lines(path, columns, bar)
            return
        if first != b"[":
            raise InputError(
                f"{path} is not a list of codes: a .json file must begin with [, a .jsonl file must hold a code a line."
            )
        try:
            for number, value in enumerate(ijson.items(file, "item", use_float=True), 1):
                yield _row_of_value(number, value, columns, path)
                if number % 1024 == 0:
                    bar.update(file.tell() - bar.n)
        except ijson.JSONError as error:
            raise InputError(f"{path} is broken JSON ({' '.join(str(error).split())[:200]}).") from error
        bar.update(file.tell() - bar.n)


def _read_parquet(path: Path, columns: dict[str, str | None], bar: tqdm) -> Iterator[CodeRow]:
    try:
        with contextlib.closing(pq.ParquetFile(path)) as file:
            found = pick_columns(file.schema_arrow.names, columns, path)
            for kind, name in found.items():
                _check_text(file.schema_arrow.field(name), kind, path)
            number = 0
            rows = max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(PARQUET_ROWS, columns=list(found.values())):
                cells = {kind: batch[name].to_pylist() for kind, name in found.items()}
                for values in zip(*cells.values(), strict=True):
                    number += 1
                    yield _row(number, dict(zip(cells, values, strict=True)))
                bar.update(int(bar.total * number / rows) - bar.n)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable Parquet file ({str(error).splitlines()[0]}).") from error


def _check_text(field: pa.Field, kind: str, path: Path) -> None:
    value = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if not (pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value)):
        raise InputError(
            f"Column {field.name!r} of {path} holds {field.type}, but a {kind} must be text:"
            " numbers lose leading zeros, which are part of a code."
        )


def _row_of_value(number: int, value: object, columns: dict[str, str | None], path: Path) -> CodeRow:
    """Return the row of a JSON value, which is a code or an object."""
    if not isinstance(value, dict):
        return _row(number, {"code": value})
    try:
        found = pick_columns(list(value), columns, path)
    except InputError as error:
        if number == 1:
            raise
        return CodeRow(number, problem=str(error))
    row = _row(number, {kind: value[name] for kind, name in found.items()})
    graph = value.get("graph")
    if graph is not None and not isinstance(graph, (dict, list)):
        return CodeRow(number, row.code, row.system, problem="its graph is neither an object nor a list")
    return dataclasses.replace(row, graph=graph)


def _row(number: int, cells: dict[str, object]) -> CodeRow:
    """Return a row of cells after checking them."""
    kept = {}
    for kind, cell in cells.items():
        if cell is None or cell == "":
            continue
        if not isinstance(cell, str):
            return CodeRow(number, problem=f"its {kind} is {shown(cell)}, not text")
        if not cell.isascii() and any("\ud800" <= character <= "\udfff" for character in cell):
            return CodeRow(number, problem=f"its {kind} is not UTF-8")
        kept[kind] = cell
    if not kept.get("code", "").strip():
        return CodeRow(number, None, kept.get("system"), problem="it has no code")
    return CodeRow(number, **kept)
