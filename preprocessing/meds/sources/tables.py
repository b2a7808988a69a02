"""Find and read the tables of a source other than MIMIC, and make events of their rows."""

import collections
import csv
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.foreign_files import BOM
from preprocessing.common.rejects import Rejects
from preprocessing.common.text_files import opened
from preprocessing.meds.layout import COLUMNS
from preprocessing.meds.mimic_codes import MimicCodes
from preprocessing.meds.mimic_tables import Kind
from preprocessing.meds.table_files import TableFiles, reject_rows

pl = load("polars")

ENDINGS = (".csv.gz", ".csv")
# Order of simultaneous events. A death precedes the discharge of its stay, and what is coded after the stay follows it.
ORDER = (
    *("GENDER", "BIRTH", "HOSPITAL_ADMISSION", "ICU_ADMISSION", "MEASUREMENT", "OBSERVATION", "DRUG", "PROCEDURE"),
    *("EVENT", "ICU_DISCHARGE", "DEATH", "HOSPITAL_DISCHARGE", "CODED"),
)
RANK = {name: position for position, name in enumerate(ORDER)}
_DEEPEST = 8


@dataclasses.dataclass(frozen=True)
class Source:
    """Describe a source of patient records.

    Attributes:
        name: name that `--source` takes.
        mark: lower-case name, without ending, of the file by which a copy of the source is recognized.
        mark_columns: columns in lower case that this file must have.
        tables: names of the tables that are read, as they are named in the summary.
        columns: columns of events that MEDS does not define, with their types.
        further: further entries of `dataset.json`.
    """

    name: str
    mark: str
    mark_columns: tuple[str, ...]
    tables: tuple[str, ...]
    columns: Mapping[str, "pl.DataType"]
    further: Mapping[str, object] = dataclasses.field(default_factory=dict)

    @property
    def event(self) -> dict[str, "pl.DataType"]:
        """Return the types of all columns of an event."""
        return {**COLUMNS, **self.columns}


def homes(root: Path, mark: str) -> list[Path]:
    """Return the files below `root` that are named `mark`, one for each folder, sorted.

    Args:
        root: directory to search.
        mark: lower-case name without ending.
    """
    found = {}
    for path in sorted(Path(root).rglob("*")):
        name = path.name.lower()
        if any(name == mark + ending for ending in ENDINGS) and len(path.relative_to(root).parts) <= _DEEPEST:
            found[path.parent] = path
    return [found[folder] for folder in sorted(found) if found[folder].is_file()]


def header(path: Path) -> list[str]:
    """Return the names of the columns of a CSV file in lower case.

    Raises:
        InputError: the file cannot be read.
    """
    with opened(path) as (file, _):
        line = file.readline().removeprefix(BOM).decode("utf-8", errors="replace")
    return [name.strip().lower() for name in next(csv.reader([line.strip("\r\n")]), [])]


def only_home(root: Path, source: Source) -> Path:
    """Return the one file below `root` by which a source is recognized.

    Raises:
        InputError: there is none, or there are several.
    """
    if not Path(root).is_dir():
        raise InputError(f"{root} is not a directory; give the one with the files of {source.name}.")
    found = [path for path in homes(root, source.mark) if set(source.mark_columns) <= set(header(path))]
    if not found:
        raise InputError(f"{root} holds no {source.mark}.csv of {source.name}; check the path.")
    if len(found) > 1:
        raise InputError(f"{root} holds several copies of {source.name}, {found[0]} and {found[1]}; give one of them.")
    return found[0]


def tables_in(folder: Path) -> dict[str, Path]:
    """Return the CSV files in a folder by their lower-case names without ending; a gzipped file replaces its twin."""
    found = {}
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        ending = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)
        if ending and path.is_file():
            found[path.name.lower().removesuffix(ending)] = path
    return found


class Tables:
    """Read the tables of one copy of a source, and count what becomes of their rows.

    Args:
        source: the source.
        files: the files of its tables.
        rejects: receives the rows that cannot be used.
        progress: whether to show progress bars.

    Attributes:
        codes: normalizes codes and counts malformed ones.
        counted: what was found, in words -> number of times.
        rows, read_rows, rejected_late, with_events: table -> rows of its file; rows that were read; of these, rows that
            were rejected later; rows that became events.
        events: table -> events.
        columns_absent: table -> optional columns that its file lacks.
    """

    def __init__(self, source: Source, files: TableFiles, rejects: Rejects, progress: bool):
        self.source = source
        self.files = files
        self.rejects = rejects
        self.progress = progress
        self.codes = MimicCodes()
        self.counted: collections.Counter[str] = collections.Counter()
        self.rows: collections.Counter[str] = collections.Counter()
        self.read_rows: collections.Counter[str] = collections.Counter()
        self.rejected_late: collections.Counter[str] = collections.Counter()
        self.with_events: collections.Counter[str] = collections.Counter()
        self.events: collections.Counter[str] = collections.Counter()
        self.columns_absent: dict[str, list[str]] = {}

    def has(self, table: str) -> bool:
        """Return whether the copy has a table."""
        return table in self.files.paths

    def read(
        self, table: str, columns: Mapping[str, Kind], optional: Mapping[str, Kind] | None = None
    ) -> Iterator["pl.DataFrame"]:
        """Yield the rows of a table in blocks, see `TableFiles.read`; nothing if the copy does not have it."""
        if not self.has(table):
            return
        if absent := self.files.lacking(table, optional or {}):
            self.columns_absent[table] = absent
        for frame in self.files.read(table, columns, optional or {}, self.rejects, self.progress, self.rows):
            self.read_rows[table] += len(frame)
            yield frame

    def read_all(
        self, table: str, columns: Mapping[str, Kind], optional: Mapping[str, Kind] | None = None
    ) -> "pl.DataFrame":
        """Return all rows of a table that the source must have.

        Raises:
            InputError: the table is absent or has no rows.
        """
        path = self.files.path(table)
        frames = list(self.read(table, columns, optional))
        if not frames:
            raise InputError(f"{path} has no rows; fetch it again.")
        return pl.concat(frames)

    def reject(
        self, table: str, frame: "pl.DataFrame", bad: "pl.Series", kind: str, reason: str, hidden: Sequence[str] = ()
    ) -> "pl.DataFrame":
        """Reject the rows in the mask `bad`, bool [n], and return the others.

        Args:
            table: table of the rows.
            frame: n rows, with `line`.
            bad: mask of the rows to reject; null counts as False.
            kind: kind of the fault.
            reason: description of the fault.
            hidden: columns that the report leaves out, as the table does not have them.
        """
        bad = bad.fill_null(False)
        shown = frame.drop(hidden, strict=False)
        kept, _ = reject_rows(self.files.path(table), frame, bad, kind, reason, self.rejects, shown)
        self.rejected_late[table] += len(frame) - len(kept)
        return kept

    def event(
        self, frame: "pl.DataFrame", rank: str, code: "pl.Expr | pl.Series", time: "pl.Expr", **values: "pl.Expr"
    ) -> "pl.DataFrame":
        """Make events of one kind, with all columns of the source's events, `line` and `rank`.

        Rows without a code are dropped.

        Args:
            frame: rows, with `line`, `subject_id` and `hadm_id`, which the events keep.
            rank: one of `ORDER`.
            code: code of each event.
            time: time of each event.
            values: further columns; those that are not given are null.
        """
        given = {"subject_id": pl.col("subject_id"), "hadm_id": pl.col("hadm_id"), **values, "time": time, "code": code}
        columns = [given.get(name, pl.lit(None)).cast(kind).alias(name) for name, kind in self.source.event.items()]
        made = frame.select("line", *columns).with_columns(rank=pl.lit(RANK[rank], pl.Int8))
        return made.filter(pl.col("code").is_not_null())

    def count(self, what: str, number: int) -> None:
        """Count something that the user should know, if it was found at all."""
        if number:
            self.counted[what] += int(number)

    def summary(self) -> dict[str, dict[str, object]]:
        """Return for each table its file and what became of its rows: events, rejected, or absorbed.

        An absorbed row is one that makes no event of its own by a rule of the source, such as a canceled order. Rows of
        a file that were neither read nor rejected are `unaccounted`.
        """
        rejected = collections.Counter()
        for (file, kind), count in self.rejects.counts.items():
            # Such a line is reported, but read.
            rejected[file] += count if kind != "bad encoding" else 0
        listed = {}
        for table, path in self.files.paths.items():
            if table not in self.source.tables and not self.rows[table]:
                continue  # It names ids and makes no events.
            name = self.files.relative(path)
            late = self.rejected_late[table]
            listed[table] = {
                "file": name,
                "rows": self.rows[table],
                "events": self.events[table],
                "with_events": self.with_events[table],
                "rejected": rejected[name],
                "absorbed": self.read_rows[table] - late - self.with_events[table],
                "unaccounted": self.rows[table] + late - self.read_rows[table] - rejected[name],
            }
        return listed


def named(kind: str, *parts: str) -> "pl.Expr":
    """Return the expression `KIND//<part>//<part>`, whose parts are columns; `UNK` stands for a missing one."""
    return pl.concat_str([pl.lit(kind), *(pl.col(part).fill_null("UNK") for part in parts)], separator="//")


def named_where(kind: str, *parts: str) -> "pl.Expr":
    """Return `named`, null where the first part is missing."""
    return pl.when(pl.col(parts[0]).is_not_null()).then(named(kind, *parts))
