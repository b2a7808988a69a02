"""Convert MIMIC-III or MIMIC-IV to a MEDS 0.4 data set (Medical Event Data Standard)."""

import collections
import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table as Listing

from preprocessing.common.atomic import whole_folder
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.rejects import Rejects
from preprocessing.download.manifest import Manifest
from preprocessing.meds import metadata as meds_metadata
from preprocessing.meds.layout import METADATA
from preprocessing.meds.mimic_codes import MimicCodes
from preprocessing.meds.mimic_events import EVENT, patients_of
from preprocessing.meds.mimic_files import MimicFiles, known, set_aside
from preprocessing.meds.mimic_tables import TABLES, Table
from preprocessing.meds.shards import Shards

pl = load("polars")

CONVERSION, REJECTS, MALFORMED = "conversion.json", "rejects.csv", "malformed_codes.csv"
# Raised when the same files give another result.
_FORMAT = 1
# Patients a file: of MIMIC-IV a million events or so.
PER_SHARD = 2000
# The codes whose description, where no dictionary has it, is the text that stands with them.
_TOLD_BY_TEXT = ("NDC/", "MEDICATION//NDC//", "CPT4/", "HCPCS/", "HCPCS//")


@dataclasses.dataclass(frozen=True)
class Request:
    """What to convert.

    Attributes:
        input: directory of MIMIC.
        output: directory of the data set, which must be absent, empty, or one that this module made.
        version: `mimic3` or `mimic4`; None to tell by the files.
        also: tables that are read only when they are asked for, such as `chartevents`.
        subjects_per_shard: patients a file.
        progress: whether to show progress bars.
    """

    input: Path
    output: Path
    version: str | None = None
    also: Sequence[str] = ()
    subjects_per_shard: int = PER_SHARD
    progress: bool = True


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What became of a request.

    Attributes:
        output: the data set. done_already: whether it was there.
        about: the content of `conversion.json`.
    """

    output: Path
    done_already: bool
    about: dict


def convert(request: Request) -> Conversion:
    """Makes the data set, which appears when it is whole.

    Raises:
        InputError: the input is no MIMIC, lacks a table or a column, or the output cannot be written.
    """
    load("meds")  # Before any work.
    files = MimicFiles.find(request.input, request.version)
    tables = _chosen(files, request.also)
    options = {"also": sorted(request.also), "subjects_per_shard": request.subjects_per_shard}
    stamp = {"format": _FORMAT, "version": files.version, "options": options, "inputs": _inputs(files, tables)}
    _check_output(request.output, files.root)
    if (about := _finished(request.output)) is not None and {name: about.get(name) for name in stamp} == stamp:
        return Conversion(request.output, True, about)
    with _writing(request.output), whole_folder(request.output) as folder:
        metadata, scratch = folder / METADATA, folder / ".unsorted"
        metadata.mkdir()
        scratch.mkdir()
        with Rejects(metadata / REJECTS, root=files.root) as rejects:
            about = stamp | _Conversion(request, files, rejects, folder, scratch).run(tables)
        scratch.rmdir()
        about["outputs"] = {
            path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*.parquet"))
        }
        (metadata / CONVERSION).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return Conversion(request.output, False, about)


class _Conversion:
    """One pass over the tables; see `convert`."""

    def __init__(self, request: Request, files: MimicFiles, rejects: Rejects, folder: Path, scratch: Path):
        self.request, self.files, self.rejects = request, files, rejects
        self.folder, self.scratch = folder, scratch
        self.codes = MimicCodes()
        self.rows: collections.Counter[str] = collections.Counter()
        self.events: collections.Counter[str] = collections.Counter()
        self.stays = pl.DataFrame()

    def run(self, tables: Sequence[Table]) -> dict:
        """Writes data and metadata, and returns what is to be told of it."""
        meds = load("meds")
        admissions, patients, *others = tables
        stays = self._read_stays(admissions)
        people, shifted = self._read_patients(patients, stays)
        subjects = np.sort(people["subject_id"].to_numpy())
        per_shard = self.request.subjects_per_shard
        with Shards(self.folder, self.scratch, subjects, per_shard, EVENT) as shards:
            self._add(shards, patients, people)
            self._add(shards, admissions, self._of_patients(admissions, stays, subjects))
            for table in others:
                for frame in self._read(table):
                    frame = self._of_patients(table, frame, subjects)
                    self._add(shards, table, self._in_stays(table, frame))
            tally = shards.finish(lambda code: code.startswith(_TOLD_BY_TEXT), _validator(meds), self.request.progress)
        told = meds_metadata.descriptions(self.files, self.rejects)
        metadata = self.folder / METADATA
        meds_metadata.write_codes(metadata, tally.events, tally.texts, told)
        meds_metadata.write_splits(metadata, subjects, shards.split)
        meds_metadata.write_dataset(
            metadata,
            self.files.version,
            _release(self.files.root),
            [name for name in EVENT if name not in _CORE],
            meds.__version__,
        )
        meds_metadata.write_malformed(metadata / MALFORMED, self.codes.malformed)
        return self._told(tables, len(subjects), shifted, tally.rows)

    def _read(self, table: Table):
        for frame in self.files.read(table.name, table.columns, table.optional, self.rejects, self.request.progress):
            self.rows[table.name] += len(frame)
            yield frame

    def _whole(self, table: Table) -> "pl.DataFrame":
        """All rows of a small table.

        Raises:
            InputError: it has none.
        """
        frames = list(self._read(table))
        if not frames:
            raise InputError(f"{self.files.path(table.name)} has no rows; fetch it again.")
        return pl.concat(frames)

    def _read_stays(self, table: Table) -> "pl.DataFrame":
        """The table of admissions, each stay once."""
        frame = self._whole(table)
        path = self.files.path(table.name)
        frame, _ = set_aside(
            path, frame, frame["hadm_id"].is_null(), "no hadm_id", "the row names no stay", self.rejects
        )
        frame, _ = set_aside(
            path, frame, ~frame["hadm_id"].is_first_distinct(), "repeated", "a stay twice", self.rejects
        )
        discharged = pl.coalesce("dischtime", "deathtime", "admittime")
        self.stays = frame.select(
            "hadm_id",
            pl.col("subject_id").alias("subject_of_stay"),
            pl.col("admittime").alias("admitted"),
            discharged=discharged,
        )
        return frame

    def _read_patients(self, table: Table, stays: "pl.DataFrame") -> tuple["pl.DataFrame", int]:
        frame = self._whole(table)
        repeated = ~frame["subject_id"].is_first_distinct()
        path = self.files.path(table.name)
        frame, _ = set_aside(path, frame, repeated, "repeated", "a patient twice", self.rejects)
        ends = stays.select("subject_id", admitted="admittime", died_there="deathtime")
        return patients_of(self.files.version, frame, ends)

    def _of_patients(self, table: Table, frame: "pl.DataFrame", subjects: np.ndarray) -> "pl.DataFrame":
        strangers = ~known(frame["subject_id"], subjects)
        reason = "its subject_id is not in the table of patients"
        return set_aside(self.files.path(table.name), frame, strangers, "no such patient", reason, self.rejects)[0]

    def _in_stays(self, table: Table, frame: "pl.DataFrame") -> "pl.DataFrame":
        """With `admitted` and `discharged` of the row's stay, null where it has none."""
        if "hadm_id" not in frame.columns:
            return frame
        path = self.files.path(table.name)
        frame = frame.join(self.stays, on="hadm_id", how="left", maintain_order="left")
        if table.of_stay:
            lost = frame["discharged"].is_null()
            frame, _ = set_aside(
                path, frame, lost, "no such stay", "its hadm_id is not in the table of admissions", self.rejects
            )
        other = (frame["subject_of_stay"] != frame["subject_id"]).fill_null(False)
        frame, _ = set_aside(
            path, frame, other, "another patient's stay", "the stay is of another patient", self.rejects
        )
        return frame

    def _add(self, shards: Shards, table: Table, frame: "pl.DataFrame") -> None:
        events = pl.concat(table.events(frame, self.codes))
        path = self.files.path(table.name)
        first = frame["line"].min() or 0
        told = np.zeros((frame["line"].max() or 0) - first + 1, bool)
        told[events["line"].to_numpy() - first] = True
        silent = pl.Series(~told[frame["line"].to_numpy() - first], dtype=pl.Boolean)
        set_aside(path, frame, silent, "no code", "the row has no code", self.rejects)
        timeless = events["time"].is_null() & ~events["code"].str.starts_with("GENDER//")
        events, _ = set_aside(path, events, timeless, "no time", "nothing tells when it happened", self.rejects)
        self.events[table.name] += len(events)
        shards.add(events)

    def _told(self, tables: Sequence[Table], patients: int, shifted: int, outputs: dict[str, int]) -> dict:
        rejected = collections.Counter()
        for (file, _), count in self.rejects.counts.items():
            rejected[file] += count
        listed = {}
        for table in tables:
            name = self.files.path(table.name).relative_to(self.files.root).as_posix()
            counts = {"rows": self.rows[table.name], "events": self.events[table.name], "rejected": rejected[name]}
            listed[table.name] = {"file": name, **counts}
        absent = [table.name for table in TABLES[self.files.version] if table not in tables]
        malformed = collections.Counter()
        for (system, _, _), count in self.codes.malformed.items():
            malformed[system] += count
        return {
            "patients": patients,
            "events": sum(outputs.values()),
            "births_moved_from_300_years_ago": shifted,
            "tables": listed,
            "tables_not_read": absent,
            "events_with_malformed_codes": dict(sorted(malformed.items())),
            "rejected": sum(self.rejects.counts.values()),
        }


_CORE = ("subject_id", "time", "code", "numeric_value", "text_value")


def _validator(meds):
    """Raises where a table does not have the schema of MEDS."""
    return meds.DataSchema.validate


def _chosen(files: MimicFiles, also: Sequence[str]) -> list[Table]:
    """The tables that are there and wanted.

    Raises:
        InputError: one that is needed or asked for is not there.
    """
    names = [table.name for table in TABLES[files.version] if table.asked]
    unknown = [name for name in also if name not in names]
    if unknown:
        raise InputError(f"--also={unknown[0]} is not known; of {files.version} it may be {', '.join(names)}.")
    chosen = []
    for table in TABLES[files.version]:
        if table.needed or table.name in also:
            files.path(table.name)
        if table.name in files.paths and (not table.asked or table.name in also):
            chosen.append(table)
    return chosen


def _inputs(files: MimicFiles, tables: Sequence[Table]) -> dict[str, list[int]]:
    """Size and time of change of every file that is read, by name."""
    read = {files.paths[table.name] for table in tables}
    read |= {path for name, path in files.paths.items() if name.startswith("d_")}
    found = {path.relative_to(files.root).as_posix(): path.stat() for path in sorted(read)}
    return {name: [status.st_size, status.st_mtime_ns] for name, status in found.items()}


def _release(root: Path) -> str | None:
    """The version of the data set, where the files were downloaded by `preprocessing.mimic`."""
    try:
        versions = {entry["version"] for entry in Manifest.read(root).files.values()}
    except InputError:  # Someone else's manifest.json.
        return None
    return versions.pop() if len(versions) == 1 else None


def _check_output(output: Path, root: Path) -> None:
    if root.resolve().is_relative_to(output.resolve()):
        raise InputError(f"--output={output} would take the place of the input; choose a directory of its own.")
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file; choose another --output.")
    if output.is_dir() and any(output.iterdir()) and not (output / METADATA / CONVERSION).is_file():
        raise InputError(f"{output} is not empty and was not made by this command; choose another --output.")


@contextlib.contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Turns what the file system refuses into one sentence; what reading raises is told by whoever reads."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{output} cannot be written ({error.strerror or error}); choose another --output.") from error


def _finished(output: Path) -> dict | None:
    """What is told of the data set that is there, or None where there is none or a file of it is gone."""
    try:
        about = json.loads((output / METADATA / CONVERSION).read_text(encoding="utf-8"))
        there = {name: (output / name).stat().st_size for name in about["outputs"]}
        return about if there == about["outputs"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def show(conversion: Conversion, console: Console) -> None:
    """Prints what was read and written."""
    about = conversion.about
    listing = Listing(title=f"{conversion.output}", title_justify="left", title_style="bold")
    listing.add_column("table")
    for header in ("rows", "events", "rejected"):
        listing.add_column(header, justify="right")
    for name, counts in about["tables"].items():
        listing.add_row(name, *(f"{counts[header]:,}" for header in ("rows", "events", "rejected")))
    console.print(listing)
    if about["tables_not_read"]:
        console.print(f"Not there or not asked for: {', '.join(about['tables_not_read'])}.", highlight=False)
    if about["events_with_malformed_codes"]:
        counts = ", ".join(f"{name} {count:,}" for name, count in about["events_with_malformed_codes"].items())
        console.print(
            f"Events whose code does not have the shape of its system, kept as they are: {counts}; see"
            f" {conversion.output / METADATA / MALFORMED}.",
            highlight=False,
        )
    if about["rejected"]:
        console.print(f"Rejected rows are listed in {conversion.output / METADATA / REJECTS}.", highlight=False)
    done = "was there already" if conversion.done_already else "was written"
    console.print(
        f"{about['events']:,} events of {about['patients']:,} patients: {conversion.output} {done}.", highlight=False
    )
