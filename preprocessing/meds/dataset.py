"""Read patient records in the Medical Event Data Standard, from any source.

MEDS 0.4 and 0.3 (https://github.com/Medical-Event-Data-Standard/meds) are supported, and so are the MEDS releases of
EHRSHOT and MIMIC-IV: `data/**/*.parquet`, one row per event, each patient in only one file; `metadata/dataset.json` and
`metadata/subject_splits.parquet` may be absent. Columns that other versions name or type differently are converted to
one form; further columns are kept unchanged.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from preprocessing.common.atomic import recover
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.foreign_files import reading
from preprocessing.common.hashing import hash_strings
from preprocessing.meds import splits as subject_splits
from preprocessing.meds.layout import CODES, COLUMNS, DATA, DATASET, METADATA, OLD_CODES, SPLITS_FILE, TIME_IS_ORDER

pl = load("polars")

# Columns that a data set must have, and other names of columns: MEDS before 0.3.3 has patient_id, and EHRSHOT and the
# ETL for OMOP number visits.
_REQUIRED = ("subject_id", "time", "code")
_OTHER_NAMES = {"subject_id": ("patient_id",), "hadm_id": ("visit_id", "visit_occurrence_id")}


@dataclasses.dataclass(frozen=True)
class MedsDataset:
    """Hold a MEDS data set that has been opened and checked.

    Attributes:
        root: directory of the data set.
        version: version of MEDS that its metadata state; empty if they state none.
        shards: paths of the files of events, sorted.
        splits: subject_id -> `train`, `tuning` or `held_out`; None if the data set has no splits.
        further: type of each column of any file that is not in `COLUMNS`.
        time_is_order: True if its metadata state that times only order events, so that no interval has a meaning.
    """

    root: Path
    version: str
    shards: list[Path]
    splits: dict[int, str] | None
    further: dict[str, "pl.DataType"]
    time_is_order: bool = False

    @classmethod
    def open(cls, root: Path) -> "MedsDataset":
        """Open a directory, and check the names and types of the columns of every file.

        Raises:
            InputError: the directory is not a MEDS data set, or has a version that is not supported.
        """
        root = Path(root)
        if not is_meds(root):
            raise InputError(
                f"{root} is not a MEDS data set: it has no {DATA}/**/*.parquet; convert other records with"
                " `python -m preprocessing.meds --input=DIR --output=MEDS`."
            )
        shards = _shards(root)
        further: dict[str, pl.DataType] = {}
        for path in shards:
            schema = _schema(path)
            known = _column_names(path, schema).values()
            further |= {name: kind for name, kind in schema.items() if name not in known and name not in further}
        about = _about(root)
        version = str(about.get("meds_version") or "")
        return cls(root, version, shards, _read_splits(root), further, about.get(TIME_IS_ORDER) is True)

    def split_of(self, subject_ids: np.ndarray) -> np.ndarray:
        """Return the split of each subject, int64 [n] -> str [n]; a hash decides if the data set gives no split."""
        names = np.array(subject_splits.SUBJECT_SPLITS)[subject_splits.split_of(subject_ids)].astype(object)
        if self.splits is not None:
            names = np.array(
                [self.splits.get(int(i), name) for i, name in zip(subject_ids, names, strict=True)], object
            )
        return names.astype(str)

    def frames(self, split: str | None = None, columns: Sequence[str] | None = None) -> Iterator["pl.DataFrame"]:
        """Yield the events, one file at a time, sorted by subject_id and time; events without time (null) come first.

        Args:
            split: yield only the subjects of this split (see `split_of`), and skip files without any; None for all.
            columns: columns to read beside subject_id, time and code, among `COLUMNS` and `further`; None for all. A
                column that a file lacks is null.

        Raises:
            InputError: a column does not exist or has a wrong type, a file cannot be read, or the events of one
                subject are in two files.
        """
        unknown = [column for column in columns or () if column not in COLUMNS and column not in self.further]
        if unknown:
            raise InputError(
                f"{self.root} has no column {unknown[0]!r}; it has {', '.join(COLUMNS)} and {len(self.further)} others."
            )
        names = [name for name in COLUMNS if columns is None or name in _REQUIRED or name in columns]
        further = {name: kind for name, kind in self.further.items() if columns is None or name in columns}
        seen = np.empty(0, np.int64)
        for path in self.shards:
            frame = _read(path, names, further)
            ids = frame["subject_id"].unique(maintain_order=True).to_numpy()
            if repeated := int(np.isin(ids, seen).sum()):
                raise InputError(
                    f"{path} repeats {repeated:,} of its {len(ids):,} subjects: their events are in another file of"
                    f" {self.root} too; put all events of a subject into one file."
                )
            seen = np.union1d(seen, ids)
            if split is not None:
                frame = frame.filter(pl.col("subject_id").is_in(ids[self.split_of(ids) == split].tolist()))
            if split is None or len(frame):
                yield frame

    def subjects(self) -> np.ndarray:
        """Return all subject ids, int64, sorted."""
        ids = [frame["subject_id"].unique().to_numpy() for frame in self.frames(columns=())]
        return np.sort(np.concatenate(ids)) if ids else np.empty(0, np.int64)

    def codes(self) -> "pl.DataFrame":
        """Read `metadata/codes.parquet`: code, description, parent_codes and further columns; empty if it is absent.

        Raises:
            InputError: the file cannot be read.
        """
        path = self.root / METADATA / CODES
        if not path.is_file():
            schema = {"code": pl.String, "description": pl.String, "parent_codes": pl.List(pl.String)}
            return pl.DataFrame(schema=schema)
        return read_parquet(path)

    def parent_codes(self) -> dict[str, list[str]]:
        """Return the parents of every code that has some, nearest first, by code; empty if the data set names none.

        Raises:
            InputError: the file of codes cannot be read, or its column `parent_codes` holds no lists of codes.
        """
        return self._facts_of_codes("parent_codes", pl.List(pl.String), "lists of codes")

    def descriptions(self) -> dict[str, str]:
        """Return the description of every code that has one, by code; empty if the data set describes none.

        Raises:
            InputError: the file of codes cannot be read, or its column `description` holds no text.
        """
        return self._facts_of_codes("description", pl.String, "text")

    def _facts_of_codes(self, name: str, wanted: "pl.DataType", words: str) -> dict:
        """Return the values of a column of `codes` by code, without missing ones; `words` describes its type."""
        table = self.codes()
        kind = table.schema.get(name)
        if kind is None:
            return {}
        if kind != wanted:
            path = self.root / METADATA / CODES
            raise InputError(f"The column {name} of {path} is {kind}; write {words}, or leave it out.")
        table = table.drop_nulls(["code", name])
        return dict(zip(table["code"], table[name].to_list(), strict=True))


def is_meds(root: Path) -> bool:
    """Return whether a directory has the layout of a MEDS data set."""
    recover(root)
    return Path(root).is_dir() and bool(_shards(Path(root)))


def _shards(root: Path) -> list[Path]:
    folder = root / DATA
    hidden = (".", "_")
    return sorted(path for path in folder.rglob("*.parquet") if not path.name.startswith(hidden))


def _about(root: Path) -> dict:
    """Return the contents of `dataset.json`; empty if it is absent."""
    path = root / METADATA / DATASET
    if not path.is_file():
        return {}
    with reading(path, "JSON"):
        about = json.loads(path.read_text(encoding="utf-8"))
    return about if isinstance(about, dict) else {}


def _read_splits(root: Path) -> dict[int, str] | None:
    path = root / METADATA / SPLITS_FILE
    if not path.is_file():
        return None
    frame = read_parquet(path)
    ids = "subject_id" if "subject_id" in frame.columns else "patient_id"
    if ids not in frame.columns or "split" not in frame.columns:
        raise InputError(f"{path} must have the columns subject_id and split; write it again.")
    subjects, names = cast(path, frame[ids], pl.Int64), cast(path, frame["split"], pl.String)
    if unknown := int((~names.is_in(subject_splits.SUBJECT_SPLITS).fill_null(False)).sum()):
        raise InputError(
            f"{path} gives {unknown:,} subjects a split other than {', '.join(subject_splits.SUBJECT_SPLITS)}, which"
            " nothing would read; name their splits so, or remove these rows to split them by a hash."
        )
    pairs = pl.DataFrame({"subject": subjects, "split": names}).unique()
    if torn := len(pairs) - pairs["subject"].n_unique():
        raise InputError(f"{path} gives {torn:,} subjects several splits; keep one row of each subject.")
    return dict(zip(subjects.to_list(), names.to_list(), strict=True))


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> "pl.DataFrame":
    """Return the columns of a parquet file, or all of them.

    Raises:
        InputError: the file cannot be read; no value of it is quoted.
    """
    with reading(path, "parquet"):
        return pl.read_parquet(path, columns=columns)


def _schema(path: Path) -> dict[str, "pl.DataType"]:
    with reading(path, "parquet"):
        return dict(pl.read_parquet_schema(path))


def _column_names(path: Path, schema: Mapping[str, "pl.DataType"]) -> dict[str, str]:
    """Return the name in a file of each column of `COLUMNS` that the file has."""
    stored = {}
    for name in COLUMNS:
        found = [other for other in (name, *_OTHER_NAMES.get(name, ())) if other in schema]
        if found:
            stored[name] = found[0]
        elif name in _REQUIRED:
            advice = "; it nests events like MEDS before 0.3: convert it again" if "events" in schema else ""
            # Other names are not listed: a table made of a file without a header has its first row as names.
            raise InputError(f"{path} has no column {name!r} among its {len(schema)}{advice}; rename or add it.")
    kind = schema[stored["time"]]
    if not isinstance(kind, (pl.Datetime, pl.Date)):
        raise InputError(
            f"the column time of {path} has the type {kind.base_type()}, not a date and time; convert it again."
        )
    return stored


def _read(path: Path, names: Sequence[str], further: Mapping[str, "pl.DataType"]) -> "pl.DataFrame":
    """Read one file, in the form that `MedsDataset.frames` promises."""
    schema = _schema(path)
    stored = _column_names(path, schema)
    extra = [name for name in further if name in schema]
    frame = read_parquet(path, [*(stored[n] for n in names if n in stored), *extra])
    frame = frame.rename({stored[name]: name for name in names if name in stored})
    absent = (pl.lit(None, kind).alias(name) for name, kind in further.items() if name not in schema)
    frame = frame.select(*(_typed(path, frame, name) for name in names), *extra).with_columns(*absent)
    for name in ("subject_id", "code"):
        if frame[name].null_count():
            raise InputError(
                f"{path} has {frame[name].null_count():,} events without a {name}; remove or correct them."
            )
    return _sorted(frame.with_columns(pl.col("code").replace(OLD_CODES)).select(*names, *further))


def _typed(path: Path, frame: "pl.DataFrame", name: str) -> "pl.Series":
    """Return a column of `COLUMNS` in its type, all null if the file lacks it."""
    if name not in frame.columns:
        return pl.Series(name, [None] * len(frame), COLUMNS[name])
    series = frame[name]
    if name == "hadm_id" and series.dtype in (pl.String, pl.Categorical):
        return _numbered(series.cast(pl.String))
    return cast(path, series, COLUMNS[name])


def _numbered(names: "pl.Series") -> "pl.Series":
    """Convert names of stays to int64: their numbers if all are numbers, else stable hashes of 63 bits."""
    numbers = names.cast(pl.Int64, strict=False)
    if numbers.null_count() == names.null_count():
        return numbers
    unique = names.unique().drop_nulls()
    hashes = (hash_strings("hadm_id", unique.to_list()) >> np.uint64(1)).astype(np.int64)
    return names.replace_strict(unique, pl.Series(hashes), return_dtype=pl.Int64)


def _sorted(frame: "pl.DataFrame") -> "pl.DataFrame":
    """Sort events by subject and time; simultaneous events keep their order."""
    keys = frame.select("subject_id", pl.col("time").cast(pl.Int64).fill_null(np.iinfo(np.int64).min)).to_struct("keys")
    if keys.is_sorted():
        return frame
    return frame.sort("subject_id", "time", nulls_last=False, maintain_order=True)


def cast(path: Path, series: "pl.Series", kind: "pl.DataType") -> "pl.Series":
    """Return a column of the file `path` with another type.

    Raises:
        InputError: a value cannot be converted; it is not quoted, as polars does.
    """
    try:
        if series.dtype.is_float() and kind == pl.Int64 and (series != series.round()).any():
            raise pl.exceptions.InvalidOperationError
        if series.dtype.is_numeric() and kind == pl.Boolean and not series.drop_nulls().is_in([0, 1]).all():
            raise pl.exceptions.InvalidOperationError
        # Of a categorical column polars would convert the numbers of its categories, not their texts.
        texts = isinstance(series.dtype, (pl.Categorical, pl.Enum))
        return (series.cast(pl.String) if texts else series).cast(kind)
    except pl.exceptions.PolarsError:
        raise InputError(
            f"the column {series.name} of {path} has the type {series.dtype.base_type()}, which cannot become {kind}."
        ) from None
