"""Read files of codes as a stream: delimited text, JSON, JSON lines, Parquet."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from medtok_jax.tokenize import delimited, json_rows
from medtok_jax.tokenize.columns import pick_columns
from medtok_jax.tokenize.rows import CodeRow, RawRow, checked
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading
from preprocessing.common.progress import Bar

# Number of rows that are read from a Parquet file at once.
PARQUET_ROWS = 4096
_TEXT = (".csv", ".tsv", ".txt")


def read_codes(
    path: str | Path, columns: Mapping[str, str | None], *, whole_numbers: bool = False, progress: bool = True
) -> Iterator[CodeRow]:
    """Yield the rows of a file, in order, in constant memory, without the columns that say nothing of the code.

    Args:
        path: ends in .csv, .tsv or .txt (text with the separator that its header has), .json (a list of codes or of
            objects), .jsonl (one of these a line) or .parquet; all but the last may be compressed (.csv.gz).
        columns: names of the columns `code`, `system`, `edition` and `description`; None, or no entry, for the common
            names.
        whole_numbers: see `checked`.
        progress: whether to show a progress bar.

    Raises:
        InputError: the file is missing, of another kind or broken, or a column is missing.
    """
    for raw in read_raw(path, columns, numbers=whole_numbers, progress=progress):
        yield checked(raw, whole_numbers=whole_numbers)


def read_raw(
    path: str | Path,
    columns: Mapping[str, str | None],
    *,
    keep: bool = False,
    numbers: bool = True,
    progress: bool = True,
) -> Iterator[RawRow]:
    """Yield the rows of a file as they are written; see `read_codes`.

    Args:
        path, columns, progress: see `read_codes`.
        keep: whether rows hold all other columns too.
        numbers: whether the codes of a Parquet file may be numbers.

    Raises:
        InputError: see `read_codes`.
    """
    path = Path(path)
    kind = kind_of(path)
    if not path.is_file():
        raise InputError(f"The file {path} does not exist; correct the path.")
    with Bar(total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True, show=progress) as bar:
        if kind == ".parquet":
            yield from _read_parquet(path, columns, bar, keep, numbers)
        elif kind in _TEXT:
            yield from delimited.read_rows(path, columns, bar, keep=keep)
        elif kind == ".json":
            yield from json_rows.read_list(path, columns, bar, keep=keep)
        else:
            yield from json_rows.read_lines(path, columns, bar, keep=keep)


def kind_of(path: Path) -> str:
    """Return the suffix of a file's name that tells its kind, in lower case and without .gz.

    Raises:
        InputError: it is none of those that are read.
    """
    known = (".csv", ".json", ".jsonl", ".parquet", ".tsv", ".txt")
    packed = path.suffix.lower() == ".gz"
    kind = (path.with_suffix("") if packed else path).suffix.lower()
    if kind not in known or (packed and kind == ".parquet"):
        raise InputError(
            f"{path} ends in none of {', '.join(known)}; give a file of one of these kinds (all but Parquet may be"
            " compressed and end in .gz)."
        )
    return kind


def other_fields(path: Path, columns: Mapping[str, str | None]) -> list[pa.Field] | None:
    """Return the columns beside the codes that all rows of a file have; None for JSON, whose objects may differ.

    Raises:
        InputError: see `read_codes`.
    """
    kind = kind_of(path)
    if kind == ".parquet":
        with reading(path, "parquet"), contextlib.closing(pq.ParquetFile(path)) as file:
            fields = list(file.schema_arrow)
            code = pick_columns(file.schema_arrow.names, columns, path)["code"]
            return [field for field in fields if field.name != code]
    if kind in _TEXT:
        header = delimited.read_header(path, columns)
        place = header.names.index(pick_columns(header.names, columns, path)["code"])
        names = delimited.unique_names(header.names)
        return [pa.field(name, pa.string()) for name in (*names[:place], *names[place + 1 :])]
    return None


def _read_parquet(
    path: Path, columns: Mapping[str, str | None], bar: Bar, keep: bool, numbers: bool
) -> Iterator[RawRow]:
    with reading(path, "parquet"), contextlib.closing(pq.ParquetFile(path)) as file:
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            raise InputError(f"{path} has two columns of one name; rename one of them.")
        found = pick_columns(names, columns, path)
        for kind, name in found.items():
            _check_type(kind, file.schema_arrow.field(name), path, numbers)
        number = 0
        rows = max(file.metadata.num_rows, 1)
        wanted = names if keep else list(found.values())
        for batch in file.iter_batches(PARQUET_ROWS, columns=wanted):
            values = {name: _values(batch[name]) for name in wanted}
            others = [name for name in wanted if name != found["code"]] if keep else []
            for position in range(len(batch)):
                number += 1
                yield RawRow(
                    number,
                    {kind: values[name][position] for kind, name in found.items()},
                    found["code"],
                    {name: values[name][position] for name in others},
                )
            bar.update(int(bar.total * number / rows) - bar.n)


def _values(column: pa.Array) -> list:
    """Return the values of a column: of Python where it has the same ones, and of Arrow otherwise."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return column.to_pylist() if _is_of_python(kind) else [one if one.is_valid else None for one in column]


def _is_of_python(kind: pa.DataType) -> bool:
    checks = (
        *(pa.types.is_boolean, pa.types.is_integer, pa.types.is_float32, pa.types.is_float64, pa.types.is_null),
        *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    )
    return any(check(kind) for check in checks)


def _check_type(kind: str, field: pa.Field, path: Path, numbers: bool) -> None:
    held = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    is_text = pa.types.is_string(held) or pa.types.is_large_string(held) or pa.types.is_string_view(held)
    is_number = pa.types.is_integer(held) or pa.types.is_float32(held) or pa.types.is_float64(held)
    if is_text or pa.types.is_null(held) or (is_number and (kind == "edition" or (kind == "code" and numbers))):
        return
    raise InputError(
        f"Column {field.name!r} of {path} holds {field.type}, but a {kind} must be text:"
        " numbers lose leading zeros, which are part of a code."
    )
