"""Find the tables of MIMIC-III and MIMIC-IV below a directory, and read their rows with types.

File names and headers may be in upper or lower case, files plain or gzipped, and MIMIC-IV's `hosp/` and `icu/` may be
anywhere below the directory, as wget leaves them.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from preprocessing.common.checksums import sha256_of
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.large_csv import Block, read_blocks
from preprocessing.common.rejects import Rejects
from preprocessing.download.physionet import CHECKSUMS, read_checksums
from preprocessing.meds.mimic_tables import END_OF_DAY, LARGE, MIMIC3, MIMIC4, TABLES, Kind, MimicTable, event_tables

pl = load("polars")

# Version -> a column of PATIENTS that only this version has.
_MARKS = {MIMIC3: "dob", MIMIC4: "anchor_age"}
_ENDINGS = (".csv.gz", ".csv")
_DEEPEST = 6
_BLOCK_BYTES = 32 << 20
# Beginnings of names of files that accompany the tables.
_COMPANIONS = ("license", "readme", "changelog", "sha256sums", "index.html", "robots.txt", "manifest.json")
# MIMIC-III and the first versions of MIMIC-IV call race ethnicity; one of these columns is enough.
_SAME = ("race", "ethnicity")


@dataclasses.dataclass(frozen=True)
class MimicFiles:
    """Hold the tables of one copy of MIMIC.

    Attributes:
        root: directory that the user gave.
        version: `mimic3` or `mimic4`.
        paths: lower-case name of a table, without folder and ending -> its file.
        home: folder of the table of patients.
    """

    root: Path
    version: str
    paths: Mapping[str, Path]
    home: Path

    @classmethod
    def find(cls, root: Path, version: str | None = None) -> "MimicFiles":
        """Find the tables below `root`, and detect the version from the columns of the table of patients.

        Raises:
            InputError: there is no copy of MIMIC, more than one, or one of another version than `version`.
        """
        root = Path(root)
        if not root.is_dir():
            raise InputError(f"{root} is not a directory; give the one with the tables of MIMIC.")
        found: dict[Path, dict[str, Path]] = {}
        # Plain files sort before their gzipped twins, which replace them.
        for path in sorted(root.rglob("*")):
            ending = next((ending for ending in _ENDINGS if path.name.lower().endswith(ending)), None)
            if ending and len(path.relative_to(root).parts) <= _DEEPEST and path.is_file():
                found.setdefault(path.parent, {})[path.name.lower().removesuffix(ending)] = path
        homes = [folder for folder, tables in found.items() if "patients" in tables]
        if not homes:
            raise InputError(
                f"{root} holds no table of patients of MIMIC (PATIENTS.csv or hosp/patients.csv.gz); check the path."
            )
        if len(homes) > 1:
            raise InputError(
                f"{root} holds several tables of patients, in {homes[0]} and {homes[1]}; give one of them."
            )
        detected = _detect(found[homes[0]]["patients"])
        if version is not None and version != detected:
            raise InputError(f"{homes[0]} holds {detected}, as its table of patients shows, and not {version}.")
        modules = [homes[0]]
        if detected == MIMIC4:
            modules += [homes[0].parent / name for name in ("core", "hosp", "icu") if name != homes[0].name]
        paths = {name: path for module in reversed(modules) for name, path in found.get(module, {}).items()}
        return cls(root, detected, paths, homes[0])

    def path(self, table: str) -> Path:
        """Return the file of a table.

        Raises:
            InputError: the table does not exist.
        """
        if table not in self.paths:
            name = table.upper() if self.version == MIMIC3 else table
            raise InputError(f"{self.root} lacks the table {name}.csv or {name}.csv.gz; fetch it.")
        return self.paths[table]

    def chosen(self, also: Sequence[str]) -> list[MimicTable]:
        """Return the tables to read, among those that exist.

        Args:
            also: names of large tables that are read, too.

        Raises:
            InputError: a table that is needed or asked for does not exist.
        """
        names = [table.name for table in event_tables(self.version) if table.scope is LARGE]
        unknown = [name for name in also if name not in names]
        if unknown:
            raise InputError(f"--also={unknown[0]} is not known; for {self.version} give one of: {', '.join(names)}.")
        chosen = []
        for table in event_tables(self.version):
            if table.needed or table.name in also:
                self.path(table.name)
            if table.name in self.paths and (table.scope is not LARGE or table.name in also):
                chosen.append(table)
        return chosen

    def read_with(self, tables: Iterable[MimicTable]) -> list[Path]:
        """Return the files of tables, and of all dictionaries, that are read for them, sorted."""
        dictionaries = {path for name, path in self.paths.items() if name.startswith("d_")}
        return sorted(dictionaries | {self.paths[table.name] for table in tables})

    def relative(self, path: Path) -> str:
        """Return the name of a file relative to `root`, with `/`."""
        return path.relative_to(self.root).as_posix()

    def unknown(self, output: Path) -> list[str]:
        """Return the sorted names of the files below `root` that are neither tables of this version nor in `output`."""
        known = {self.paths[table.name] for table in TABLES[self.version] if table.name in self.paths}
        output = output.resolve()
        return sorted(
            self.relative(path)
            for path in self.root.rglob("*")
            if path.is_file()
            and path not in known
            and not path.name.lower().startswith(_COMPANIONS)
            and not any(part.startswith(".") for part in path.relative_to(self.root).parts)
            and not path.resolve().is_relative_to(output)
        )

    def absent(self, table: MimicTable) -> list[str]:
        """Return the optional columns that the file of a table lacks; none if the file has no rows."""
        header = _header(self.path(table.name), table.optional)
        if header is None:
            return []
        return [
            name
            for name in table.optional
            if name not in header and not (name in _SAME and any(other in header for other in _SAME))
        ]

    def verify(self, paths: Iterable[Path], progress: bool) -> dict | None:
        """Compare files with the SHA256SUMS.txt of PhysioNet that lies beside the tables or above them.

        Args:
            paths: files to verify.
            progress: whether to show a progress bar.

        Returns:
            The name of the list, the number of files that are as published, and the names of those that `differ` from
            it and those that are `not_listed`; None if there is no list at or below `root`.

        Raises:
            InputError: the list cannot be read.
        """
        above = [folder for folder in (self.home, *self.home.parents) if folder.is_relative_to(self.root)]
        folder = next((folder for folder in above if (folder / CHECKSUMS).is_file()), None)
        if folder is None:
            return None
        published = read_checksums(folder / CHECKSUMS)
        result = {"list": self.relative(folder / CHECKSUMS), "as_published": 0, "differ": [], "not_listed": []}
        for path in tqdm(sorted(paths), desc="checksums", unit=" files", disable=None if progress else True):
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
        with tqdm(
            total=path.stat().st_size, desc=table, unit="B", unit_scale=True, disable=None if progress else True
        ) as bar:
            for block in blocks:
                if rows is not None:
                    rows[table] += block.rows
                yield _typed(path, block, {**columns, **optional}, rejects)
                bar.update(block.size)


def size_and_time(path: Path) -> list[int]:
    """Return the size (bytes) and the modification time (ns) of a file."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _header(path: Path, wanted: Iterable[str]) -> set[str] | None:
    """Return the columns among `wanted` that a file has; None if it has no rows."""
    block = next(read_blocks(path, [], Rejects(None), 1 << 10, optional=list(wanted), fold_case=True), None)
    return None if block is None else set(block.columns)


def _detect(path: Path) -> str:
    marks = _header(path, _MARKS.values()) or ()
    versions = [version for version, mark in _MARKS.items() if mark in marks]
    if len(versions) != 1:
        raise InputError(
            f"{path} is not a table of patients of MIMIC-III (column dob) or MIMIC-IV (column anchor_age), or has no "
            "rows; fetch it again."
        )
    return versions[0]


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
    if kind is Kind.NUMBER:
        return text.cast(pl.Float64, strict=False)
    if kind is Kind.INTEGER:  # Copies that went through other programs write 145834.0.
        return text.str.strip_suffix(".0").cast(pl.Int64, strict=False)
    moment = _moments(text)
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


def _moments(text: "pl.Series") -> "pl.Series":
    """Parse dates with times, which a letter T may separate and fractions of a second may follow."""
    moment = text.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="us")
    if moment.null_count() == text.null_count():
        return moment
    plain = text.str.replace("T", " ", literal=True).str.replace(r"\.[0-9]*$", "")
    return plain.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="us")


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


def known(values: "pl.Series", among: np.ndarray) -> "pl.Series":
    """Return the mask of the values that are among the sorted, distinct values `among`, bool [n]; False for null."""
    given = values.fill_null(-1).to_numpy()
    found = np.searchsorted(among, given)
    hit = np.zeros(len(given), bool) if not len(among) else among[np.minimum(found, len(among) - 1)] == given
    return pl.Series(hit & values.is_not_null().to_numpy())
