"""Read the codes of the authors' release: `all_codes_mappings.parquet` of Harvard Dataverse doi:10.7910/DVN/7XNT3M.

Columns: `med_code`, `desc` and `pkg_index_list`, the PrimeKG indices (`x_index` of `kg.csv`) of the code's subgraph,
must be there; `code_system` and `med_code_node_mapping`, the index of the code's own nodes, may be absent. Lists of
indices are read as parquet lists, or as text such as `[1, 2, 3]`.

Every value that cannot be used is reported to `Rejects` with the number of its row, and the rest of the row is kept. A
code that occurs twice keeps the first text and the nodes of both rows.
"""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preprocessing import codes as coding
from preprocessing.codes import CodeRecord
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading
from preprocessing.common.progress import Bar
from preprocessing.common.rejects import Rejects

FILE = "all_codes_mappings.parquet"
NEEDED = ("med_code", "desc", "pkg_index_list")
OPTIONAL = ("code_system", "med_code_node_mapping")
UNKNOWN_SYSTEM = "Unknown"
# A spelling's letters and digits -> OMOP vocabulary. `ICD9` means diagnoses or procedures: see `system_of`.
_SPELLINGS = {
    "ICD9CM": "ICD9CM",
    "ICD9DX": "ICD9CM",
    "ICD9DIAG": "ICD9CM",
    "ICD9PROC": "ICD9Proc",
    "ICD9CMPROC": "ICD9Proc",
    "ICD9PCS": "ICD9Proc",
    "ICD9SG": "ICD9Proc",
    "ICD10CM": "ICD10CM",
    "ICD10": "ICD10CM",
    "ICD10DX": "ICD10CM",
    "ICD10PCS": "ICD10PCS",
    "ICD10PROC": "ICD10PCS",
    "SNOMED": "SNOMED",
    "SNOMEDCT": "SNOMED",
    "SNOMEDCTUS": "SNOMED",
    "SCTID": "SNOMED",
    "ATC": "ATC",
    "NDC": "NDC",
    "CPT": "CPT4",
    "CPT4": "CPT4",
    "HCPCS": "HCPCS",
    "RXNORM": "RxNorm",
    "RXCUI": "RxNorm",
}
_EITHER_ICD9 = ("ICD9", "ICD09")
_BATCH = 65_536
# Characters around the numbers of a list that pandas, numpy or Python wrote as text.
_WRAPPING = re.compile(r"(?:np\.|numpy\.)?(?:array|set|frozenset|int32|int64)\(|dtype=[\w.]+|[\[\](){}'\"]")
_NUMBER = re.compile(r"([0-9]+)(?:\.0*)?")


@dataclasses.dataclass(frozen=True)
class Release:
    """Hold the n codes of the release and the PrimeKG indices of their subgraphs.

    Attributes:
        records: the codes, keys unique, in the order of the file.
        index: PrimeKG indices of each code's subgraph, int64 [k], without repeats; the code's own nodes come first.
        anchors: int64 [n], number of leading indices that are the code's own nodes.
        lines: int64 [n], row of the file in which each code occurs first, from 1.
    """

    records: list[CodeRecord]
    index: list[np.ndarray]
    anchors: np.ndarray
    lines: np.ndarray


def system_of(spelling: str, code: str) -> str | None:
    """Return the OMOP vocabulary of a spelling such as `ICD-10-CM`, `snomed ct` or `rxnorm`; None if it is not known.

    The code decides a bare `ICD9`: procedures have their dot after two digits (`00.10`). Without a dot, two digits are
    a procedure, and longer codes, which may be either, are taken as diagnoses.
    """
    plain = re.sub("[^A-Z0-9]", "", spelling.upper())
    if plain in _EITHER_ICD9:
        return coding.ICD9PROC if re.fullmatch(r"[0-9]{2}(\.[0-9]{1,2})?", code.strip()) else coding.ICD9CM
    return _SPELLINGS.get(plain)


def read_release(path: Path, rejects: Rejects, *, progress: bool = True) -> Release:
    """Read `all_codes_mappings.parquet`.

    Raises:
        InputError: the file cannot be read, lacks a needed column or holds no code.
    """
    reader = _Reader(path, rejects)
    with reading(path, "parquet", f"fetch it with: python -m preprocessing.download release --output={path.parent}"):
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
    for column in NEEDED:
        if column not in names:
            raise InputError(f"{path} has no column {column!r}; its columns are: {', '.join(names)}.")
    for column in OPTIONAL:
        if column not in names:
            rejects.note(path, 0, f"no column {column}")
    present = [name for name in (*NEEDED, *OPTIONAL) if name in names]
    with (
        file,
        Bar(total=file.metadata.num_rows, desc=f"reading {path.name}", unit=" rows", show=progress) as bar,
        reading(path),
    ):
        for batch in file.iter_batches(_BATCH, columns=present):
            reader.add(batch)
            bar.update(len(batch))
    if not reader.records:
        raise InputError(f"{path} holds no code; fetch it again.")
    return Release(reader.records, reader.index, np.array(reader.anchors, np.int64), np.array(reader.lines, np.int64))


class _Reader:
    """Collect the codes of the rows of the file, and count the rows."""

    def __init__(self, path: Path, rejects: Rejects):
        self.records: list[CodeRecord] = []
        self.index: list[np.ndarray] = []
        self.anchors: list[int] = []
        self.lines: list[int] = []
        self._path = path
        self._rejects = rejects
        self._row = 0
        self._position: dict[tuple[str, str], int] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the rows of one batch."""
        absent = [None] * len(batch)
        columns = {name: batch[name] for name in batch.schema.names}
        texts = [_texts(columns[name]) if name in columns else absent for name in ("med_code", "desc", "code_system")]
        index = self._lists(columns["pkg_index_list"], "node list")
        own = self._lists(columns["med_code_node_mapping"], "own node") if OPTIONAL[1] in columns else iter(absent)
        for code, description, system, nodes, anchors in zip(*texts, index, own, strict=True):
            self._row += 1
            self._take(code, description, system, nodes, anchors)

    def _take(
        self, code: str | None, description: str | None, system: str | None, nodes: np.ndarray, own: np.ndarray | None
    ) -> None:
        code = _clean(code)
        if not code:
            self._reject("no code", "the row names no code; left out", description or "")
            return
        system, code = self._name(code, system)
        description = _clean(description)
        if not description:
            self._reject("empty description", "described by its system and code instead", f"{system}/{code}")
            description = f"{system} {code}"
        own = nodes[:0] if own is None else _distinct(own)
        record = CodeRecord(system, code, description)
        position = self._position.setdefault((system, code), len(self.records))
        if position == len(self.records):
            self.records.append(record)
            self.index.append(_distinct(np.concatenate([own, nodes])))
            self.anchors.append(len(own))
            self.lines.append(self._row)
        else:
            self._merge(position, record, own, nodes)

    def _merge(self, position: int, record: CodeRecord, own: np.ndarray, nodes: np.ndarray) -> None:
        """Add the nodes of a repeated code to those of its first row."""
        first = self.records[position]
        had = self.index[position]
        if first.description == record.description:
            self._reject("duplicate code", "the nodes of both rows are kept", record.key)
        else:
            reason = f"the first text is kept ({first.description}), and the nodes of both rows"
            self._reject("duplicate code with different text", reason, f"{record.key},{record.description}")
        anchors = _distinct(np.concatenate([had[: self.anchors[position]], own]))
        self.index[position] = _distinct(np.concatenate([anchors, had, nodes]))
        self.anchors[position] = len(anchors)

    def _name(self, code: str, spelling: str | None) -> tuple[str, str]:
        """Return the OMOP vocabulary and display form of a code, which may include its system (`ICD10CM/E11.9`)."""
        prefix, slash, rest = code.partition("/")
        if slash and system_of(prefix, rest):
            code = rest.strip()
            spelling = spelling or prefix
        system = system_of(spelling, code) if spelling else UNKNOWN_SYSTEM
        if system is None:
            system = re.sub("[^A-Za-z0-9_]", "", spelling) or UNKNOWN_SYSTEM
            self._reject("code system not known", f"kept under the name {system}", f"{spelling},{code}")
        if coding.is_wellformed(system, code):
            code = coding.display_code(system, code)
        elif system in coding.SYSTEMS:
            self._reject("code not in the form of its system", "kept unchanged", f"{system}/{code}")
        return system, code

    def _lists(self, column: pa.Array, what: str) -> Iterator[np.ndarray]:
        """Return an iterator over the int64 indices of each row of a column of lists, numbers or text."""
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            values = column.flatten()
            if pa.types.is_integer(values.type) and not values.null_count:
                lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
                numbers = values.cast(pa.int64()).to_numpy()
                return iter(np.split(numbers, np.cumsum(lengths)[:-1]))
        return (self._numbers(value, what, row) for row, value in enumerate(column.to_pylist(), self._row + 1))

    def _numbers(self, value: object, what: str, row: int) -> np.ndarray:
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="replace")
        if value is None or value != value or value in ("nan", "None"):
            return np.empty(0, np.int64)
        parts = value if isinstance(value, list) else re.split(r"[\s,;]+", _WRAPPING.sub(" ", str(value)))
        numbers = []
        wrong = []
        for part in parts:
            match = _NUMBER.fullmatch(str(part))
            if match and len(match[1]) < 19:
                numbers.append(int(match[1]))
            elif part not in ("", None):
                wrong.append(part)
        if wrong:
            reason = f"{wrong[0]!r} is not an index of a node; the others of the row are kept"
            self._rejects.add(self._path, row, f"{what} not readable", reason, str(value))
        return np.array(numbers, np.int64)

    def _reject(self, kind: str, reason: str, row: str) -> None:
        self._rejects.add(self._path, self._row, kind, reason, row)


def _texts(column: pa.Array) -> list[str | None]:
    """Return a column of strings, bytes or numbers as strings."""
    if pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    return [
        value.decode("utf-8", errors="replace") if isinstance(value, bytes) else None if value is None else str(value)
        for value in column.to_pylist()
    ]


def _clean(text: str | None) -> str:
    """Remove NUL bytes, collapse blanks, and return "" for `nan`, which pandas writes for an absent text."""
    text = " ".join((text or "").replace("\0", "").split())
    return "" if text == "nan" else text


def _distinct(values: np.ndarray) -> np.ndarray:
    """Return `values` without repeats, in the order of their first occurrence."""
    if len(values) < 2:
        return values
    _, first = np.unique(values, return_index=True)
    return values if len(first) == len(values) else values[np.sort(first)]
