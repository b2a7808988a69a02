"""Find the tables of MIMIC-III and MIMIC-IV below a directory, and read their rows with types.

File names and headers may be in upper or lower case, files plain or gzipped, and MIMIC-IV's `hosp/` and `icu/` may be
anywhere below the directory, as wget leaves them.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.large_csv import Block, read_blocks
from preprocessing.common.rejects import Rejects
from preprocessing.meds.mimic_tables import MIMIC3, MIMIC4, Kind

pl = load("polars")

# Version -> a column of PATIENTS that only this version has.
_MARKS = {MIMIC3: "dob", MIMIC4: "anchor_age"}
_ENDINGS = (".csv.gz", ".csv")
_DEEPEST = 6
_BLOCK_BYTES = 32 << 20


@dataclasses.dataclass(frozen=True)
class MimicFiles:
    """Hold the tables of one copy of MIMIC.

    Attributes:
        root: directory that the user gave.
        version: `mimic3` or `mimic4`.
        paths: lower-case name of a table, without folder and ending -> its file.
    """

    root: Path
    version: str
    paths: Mapping[str, Path]

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
        return cls(root, detected, paths)

    def path(self, table: str) -> Path:
        """Return the file of a table.

        Raises:
            InputError: the table does not exist.
        """
        if table not in self.paths:
            name = table.upper() if self.version == MIMIC3 else table
            raise InputError(f"{self.root} lacks the table {name}.csv or {name}.csv.gz; fetch it.")
        return self.paths[table]

    def read(
        self, table: str, columns: Mapping[str, Kind], optional: Mapping[str, Kind], rejects: Rejects, progress: bool
    ) -> Iterator["pl.DataFrame"]:
        """Yield the rows of a table in blocks, with `line` as the first column; an empty value is null.

        Rows with a value that is not of its kind, or without subject_id, are rejected. An optional column that the
        file lacks is null.

        Raises:
            InputError: the table is absent or damaged, or lacks a column.
        """
        path = self.path(table)
        blocks = read_blocks(path, list(columns), rejects, _BLOCK_BYTES, optional=list(optional), fold_case=True)
        with tqdm(
            total=path.stat().st_size, desc=table, unit="B", unit_scale=True, disable=None if progress else True
        ) as bar:
            for block in blocks:
                yield _typed(path, block, {**columns, **optional}, rejects)
                bar.update(block.size)


def _detect(path: Path) -> str:
    header = next(read_blocks(path, [], Rejects(None), 1 << 10, optional=list(_MARKS.values()), fold_case=True), None)
    marks = () if header is None else header.columns
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
    end_of_day = pl.duration(days=1, seconds=-1)
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
