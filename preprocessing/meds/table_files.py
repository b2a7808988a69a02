"""Read the tables of any source of patient records as rows with types, and compare the files with their checksums.

Headers may be in upper or lower case, and files plain or gzipped.
"""

import collections
import dataclasses
import datetime
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from preprocessing.common.checksums import sha256_of
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.large_csv import Block, read_blocks
from preprocessing.common.progress import Bar
from preprocessing.common.rejects import Rejects
from preprocessing.download.physionet import CHECKSUMS, read_checksums
from preprocessing.meds.mimic_tables import END_OF_DAY, Kind

pl = load("polars")

_BLOCK_BYTES = 32 << 20
# Beginnings of names of files that accompany the tables.
_COMPANIONS = ("license", "readme", "changelog", "sha256sums", "index.html", "robots.txt", "manifest.json")
# The first and the last year that Python's dates have.
_YEARS = (datetime.MINYEAR, datetime.MAXYEAR)


@dataclasses.dataclass(frozen=True)
class TableFiles:
    """Hold the files of the tables of one copy of a source.

    Attributes:
        root: directory that the user gave, relative to which files are named.
        paths: lower-case name of a table, without folder and ending -> its file.
        home: folder of the main table; a list of published checksums lies there or above it.
    """

    root: Path
    paths: Mapping[str, Path]
    home: Path

    def path(self, table: str) -> Path:
        """Return the file of a table.

        Raises:
            InputError: the table does not exist.
        """
        if table not in self.paths:
            raise InputError(f"{self.root} lacks the table {table}.csv or {table}.csv.gz; fetch it.")
        return self.paths[table]

    def relative(self, path: Path) -> str:
        """Return the name of a file relative to `root`, with `/`."""
        return path.relative_to(self.root).as_posix()

    def stamps(self, paths: Iterable[Path], with_checksums: bool) -> dict[str, list[int]]:
        """Return `size_and_time` by name of files, sorted, and of the list of checksums if it is compared with them."""
        listing = self.checksum_list() if with_checksums else None
        return {self.relative(path): size_and_time(path) for path in sorted({*paths, *([listing] if listing else [])})}

    def checksum_list(self) -> Path | None:
        """Return PhysioNet's SHA256SUMS.txt beside the tables or above them, at or below `root`; None without one."""
        above = [folder for folder in (self.home, *self.home.parents) if folder.is_relative_to(self.root)]
        return next((folder / CHECKSUMS for folder in above if (folder / CHECKSUMS).is_file()), None)

    def others(self, known: Iterable[Path], output: Path) -> list[str]:
        """Return the sorted names of files below `root` that are neither `known`, nor companions, nor in `output`."""
        known, output = set(known), output.resolve()
        return sorted(
            self.relative(path)
            for path in self.root.rglob("*")
            if path.is_file()
            and path not in known
            and not path.name.lower().startswith(_COMPANIONS)
            and not any(part.startswith(".") for part in path.relative_to(self.root).parts)
            and not path.resolve().is_relative_to(output)
        )

    def lacking(self, table: str, optional: Iterable[str]) -> list[str]:
        """Return the columns among `optional` that the file of a table lacks; none if the file has no rows."""
        header = header_among(self.path(table), optional)
        return [] if header is None else [name for name in optional if name not in header]

    def verify(self, paths: Iterable[Path], progress: bool) -> dict | None:
        """Compare files with the list that `checksum_list` finds.

        Args:
            paths: files to verify.
            progress: whether to show a progress bar.

        Returns:
            The name of the list, the number of files that are as published, and the names of those that `differ` from
            it and those that are `not_listed`; None if there is no list.

        Raises:
            InputError: the list cannot be read.
        """
        listing = self.checksum_list()
        if listing is None:
            return None
        folder, published = listing.parent, read_checksums(listing)
        result = {"list": self.relative(listing), "as_published": 0, "differ": [], "not_listed": []}
        for path in Bar(sorted(paths), desc="checksums", unit=" files", show=progress):
            name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else ""
            if name not in published:
                result["not_listed"].append(self.relative(path))
            elif sha256_of(path) == published[name]:
                result["as_published"] += 1
            else:
                result["differ"].append(self.relative(path))
        return result

    def read(
        self,
        table: str,
        columns: Mapping[str, Kind],
        optional: Mapping[str, Kind],
        rejects: Rejects,
        progress: bool,
        rows: collections.Counter[str] | None = None,
    ) -> Iterator["pl.DataFrame"]:
        """Yield the rows of a table in blocks, with `line` as the first column; an empty value is null.

        Rows with a value that is not of its kind, or without subject_id, are rejected. An optional column that the
        file lacks is null. `rows`, if given, counts all rows of the table's file, rejected ones included.

        Raises:
            InputError: the table is absent or damaged, or lacks a column.
        """
        path = self.path(table)
        blocks = read_blocks(path, list(columns), rejects, _BLOCK_BYTES, optional=list(optional), fold_case=True)
        with Bar(total=path.stat().st_size, desc=table, unit="B", unit_scale=True, show=progress) as bar:
            for block in blocks:
                if rows is not None:
                    rows[table] += block.rows
                yield _typed(path, block, {**columns, **optional}, rejects)
                bar.update(block.size)


def size_and_time(path: Path) -> list[int]:
    """Return the size (bytes) and the modification time (ns) of a file."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def header_among(path: Path, wanted: Iterable[str]) -> set[str] | None:
    """Return the columns among `wanted` that a file has; None if it has no rows."""
    block = next(read_blocks(path, [], Rejects(None), 1 << 10, optional=list(wanted), fold_case=True), None)
    return None if block is None else set(block.columns)


def _typed(path: Path, block: Block, kinds: Mapping[str, Kind], rejects: Rejects) -> "pl.DataFrame":
    texts = {
        name: pl.Series(name, column.dictionary_decode()).str.strip_chars().replace("", None)
        for name, column in block.columns.items()
    }
    given = pl.DataFrame({"line": pl.Series(block.lines, dtype=pl.Int64), **texts})
    nothing = pl.Series([None], dtype=pl.String).new_from_index(0, len(given))
    frame = given.select("line", *(_parsed(texts.get(name, nothing), kind).alias(name) for name, kind in kinds.items()))
    for name, kind in kinds.items():
        if name in texts and kind is not Kind.TEXT:
            bad = frame[name].is_null() & given[name].is_not_null()
            frame, given = reject_rows(
                path, frame, bad, f"bad value of {name}", f"{name} is not {kind.value}", rejects, given
            )
    if "subject_id" in kinds:
        bad = frame["subject_id"].is_null()
        frame, _ = reject_rows(path, frame, bad, "no subject_id", "the row names no patient", rejects, given)
    return frame


def _parsed(text: "pl.Series", kind: Kind) -> "pl.Series":
    """Parse texts as values of a kind; a text that is not of this kind gives null."""
    if kind is Kind.TEXT:
        return text
    if kind is Kind.NUMERAL:  # Copies that went through other programs write 145834.0.
        return text.str.strip_suffix(".0")
    if kind is Kind.NUMBER:
        return text.cast(pl.Float64, strict=False)
    if kind is Kind.INTEGER:
        return text.str.strip_suffix(".0").cast(pl.Int64, strict=False)
    moment = moments(text)
    end_of_day = pl.duration(hours=END_OF_DAY.hour, minutes=END_OF_DAY.minute, seconds=END_OF_DAY.second)
    if kind is Kind.DATE:
        midnight = pl.col("moment").dt.time() == pl.time(0, 0, 0)
        moment = moment.to_frame("moment").select(
            pl.when(midnight).then(pl.col("moment") + end_of_day).otherwise("moment")
        )["moment"]
    if moment.null_count() == text.null_count():
        return moment
    day = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us")).to_frame("day")
    return moment.fill_null(day["day"] if kind is Kind.DAY else day.select(pl.col("day") + end_of_day)["day"])


def moments(text: "pl.Series") -> "pl.Series":
    """Parse dates with times, which a letter T may separate and fractions of a second may follow."""
    moment = text.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="us")
    if moment.null_count() == text.null_count():
        return moment
    # Some programs write minutes without seconds.
    plain = text.str.replace("T", " ", literal=True).str.strip_suffix(".").str.replace(r"^(\S+ \d\d:\d\d)$", "$1:00")
    return plain.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="us")


def reject_rows(
    path: Path,
    frame: "pl.DataFrame",
    bad: "pl.Series",
    kind: str,
    reason: str,
    rejects: Rejects,
    beside: "pl.DataFrame | None" = None,
) -> tuple["pl.DataFrame", "pl.DataFrame"]:
    """Reject the rows in the mask `bad` by their lines, and return the other rows of `frame` and of `beside`.

    Args:
        path: file of the rows.
        frame: rows, with `line`.
        bad: mask of the rows to reject, bool [n].
        kind: kind of the fault.
        reason: description of the fault.
        rejects: receives the rejected rows.
        beside: the same rows in another form; None for `frame`.
    """
    beside = frame if beside is None else beside
    if not bad.any():
        return frame, beside
    for line in frame["line"].filter(bad):
        rejects.add(path, line, kind, reason)
    return frame.filter(~bad), beside.filter(~bad)


def new_year(year: "pl.Expr") -> "pl.Expr":
    """Return the first of January of a year, null for years that no calendar has: of these, polars prints the value."""
    return pl.datetime(pl.when(year.is_between(*_YEARS)).then(year), 1, 1, time_unit="us")


def known(values: "pl.Series", among: np.ndarray) -> "pl.Series":
    """Return the mask of the values that are among the sorted, distinct values `among`, bool [n]; False for null."""
    given = values.fill_null(-1).to_numpy()
    found = np.searchsorted(among, given)
    hit = np.zeros(len(given), bool) if not len(among) else among[np.minimum(found, len(among) - 1)] == given
    return pl.Series(hit & values.is_not_null().to_numpy())
