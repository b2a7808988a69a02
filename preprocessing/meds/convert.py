"""Convert MIMIC-III or MIMIC-IV to a MEDS 0.4 data set (Medical Event Data Standard)."""

import collections
import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from preprocessing.common.atomic import check_replaceable, whole_folder
from preprocessing.common.errors import InputError, without_values
from preprocessing.common.extras import load
from preprocessing.common.rejects import Rejects
from preprocessing.download.manifest import Manifest
from preprocessing.linking.ndc_map import NdcMap
from preprocessing.meds import metadata as meds_metadata
from preprocessing.meds.layout import METADATA
from preprocessing.meds.mimic_codes import MimicCodes
from preprocessing.meds.mimic_events import EVENT, EVENTS, patients_of
from preprocessing.meds.mimic_files import MimicFiles, known, reject_rows
from preprocessing.meds.mimic_tables import LARGE, MimicTable, event_tables
from preprocessing.meds.shards import Shards

pl = load("polars")

CONVERSION, REJECTS, MALFORMED = "conversion.json", "rejects.csv", "malformed_codes.csv"
# Number to increase when the same files give another result.
_FORMAT = 1
# Patients per file: about a million events of MIMIC-IV.
PER_SHARD = 2000
# Codes whose description is the text of their events if no dictionary has one.
_DESCRIBED_BY_TEXT = ("NDC/", "MEDICATION//NDC//", "CPT4/", "HCPCS/", "HCPCS//")


@dataclasses.dataclass(frozen=True)
class MedsRequest:
    """Hold the input, the output and the options of a conversion.

    Attributes:
        input: directory of MIMIC.
        output: directory of the data set, which must be absent, empty, or one that this module made.
        version: `mimic3` or `mimic4`; None to detect it from the files.
        also: tables that are read only if they are asked for, such as `chartevents`.
        subjects_per_shard: number of patients per file.
        progress: whether to show progress bars.
        ndc_map: file of codes of other systems that stand for NDCs, see `NdcMap`, or None.
    """

    input: Path
    output: Path
    version: str | None = None
    also: Sequence[str] = ()
    subjects_per_shard: int = PER_SHARD
    progress: bool = True
    ndc_map: Path | None = None


@dataclasses.dataclass(frozen=True)
class Conversion:
    """Hold the result of a conversion.

    Attributes:
        output: directory of the data set.
        done_already: whether it existed before.
        about: contents of `conversion.json`.
    """

    output: Path
    done_already: bool
    about: dict


@without_values()
def convert(request: MedsRequest) -> Conversion:
    """Convert MIMIC to MEDS, unless the output was made of the same files; the output appears once it is complete.

    Raises:
        InputError: the input is not MIMIC, lacks a table or a column, or the output cannot be written.
    """
    load("meds")  # Fails before any work.
    files = MimicFiles.find(request.input, request.version)
    tables = _chosen(files, request.also)
    options = {"also": sorted(request.also), "subjects_per_shard": request.subjects_per_shard}
    inputs = _inputs(files, tables)
    ndc_map = None
    if request.ndc_map is not None:
        ndc_map = NdcMap(request.ndc_map)
        inputs[str(request.ndc_map)] = size_and_time(request.ndc_map)
    stamp = {"format": _FORMAT, "version": files.version, "options": options, "inputs": inputs}
    check_output(request.output, files.root)
    if (about := finished(request.output)) is not None and {name: about.get(name) for name in stamp} == stamp:
        return Conversion(request.output, True, about)
    with writing(request.output), whole_folder(request.output) as folder:
        metadata = folder / METADATA
        scratch = folder / ".unsorted"
        metadata.mkdir()
        scratch.mkdir()
        with Rejects(metadata / REJECTS, root=files.root, with_rows=False) as rejects:
            about = stamp | _Conversion(request, files, rejects, folder, scratch, ndc_map).run(tables)
        scratch.rmdir()
        about["outputs"] = {
            path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*.parquet"))
        }
        (metadata / CONVERSION).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return Conversion(request.output, False, about)


class _Conversion:
    """Convert the tables in one pass; see `convert`."""

    def __init__(
        self,
        request: MedsRequest,
        files: MimicFiles,
        rejects: Rejects,
        folder: Path,
        scratch: Path,
        ndc_map: NdcMap | None,
    ):
        self.request = request
        self.ndc_map = ndc_map
        self.files = files
        self.rejects = rejects
        self.folder = folder
        self.scratch = scratch
        self.codes = MimicCodes()
        self.rows: collections.Counter[str] = collections.Counter()
        self.events: collections.Counter[str] = collections.Counter()
        self.stays = pl.DataFrame()

    def run(self, tables: Sequence[MimicTable]) -> dict:
        """Write data and metadata, and return the numbers for `conversion.json`."""
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
            tally = shards.finish(_is_described_by_text, meds.DataSchema.validate, self.request.progress)
        described = meds_metadata.descriptions(self.files, self.rejects)
        metadata = self.folder / METADATA
        meds_metadata.write_codes(metadata, tally.events, tally.texts, described, self.ndc_map)
        meds_metadata.write_splits(metadata, subjects, shards.split)
        meds_metadata.write_dataset(
            metadata,
            self.files.version,
            release_of(self.files.root),
            [name for name in EVENT if name not in _CORE],
            meds.__version__,
        )
        meds_metadata.write_malformed(metadata / MALFORMED, self.codes.malformed)
        return self._summary(tables, len(subjects), shifted, tally.rows)

    def _read(self, table: MimicTable):
        for frame in self.files.read(table.name, table.columns, table.optional, self.rejects, self.request.progress):
            self.rows[table.name] += len(frame)
            yield frame

    def _read_all(self, table: MimicTable) -> "pl.DataFrame":
        """Return all rows of a small table.

        Raises:
            InputError: the table has no rows.
        """
        frames = list(self._read(table))
        if not frames:
            raise InputError(f"{self.files.path(table.name)} has no rows; fetch it again.")
        return pl.concat(frames)

    def _read_stays(self, table: MimicTable) -> "pl.DataFrame":
        """Read the table of admissions, each stay once, and keep the times of all stays."""
        frame = self._read_all(table)
        path = self.files.path(table.name)
        frame, _ = reject_rows(
            path, frame, frame["hadm_id"].is_null(), "no hadm_id", "the row names no stay", self.rejects
        )
        frame, _ = reject_rows(
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

    def _read_patients(self, table: MimicTable, stays: "pl.DataFrame") -> tuple["pl.DataFrame", int]:
        frame = self._read_all(table)
        repeated = ~frame["subject_id"].is_first_distinct()
        path = self.files.path(table.name)
        frame, _ = reject_rows(path, frame, repeated, "repeated", "a patient twice", self.rejects)
        ends = stays.select("subject_id", admitted="admittime", died_there="deathtime")
        return patients_of(self.files.version, frame, ends)

    def _of_patients(self, table: MimicTable, frame: "pl.DataFrame", subjects: np.ndarray) -> "pl.DataFrame":
        unknown = ~known(frame["subject_id"], subjects)
        reason = "its subject_id is not in the table of patients"
        return reject_rows(self.files.path(table.name), frame, unknown, "no such patient", reason, self.rejects)[0]

    def _in_stays(self, table: MimicTable, frame: "pl.DataFrame") -> "pl.DataFrame":
        """Add `admitted` and `discharged` of each row's stay, null for rows without one; reject wrong stays."""
        if "hadm_id" not in frame.columns:
            return frame
        path = self.files.path(table.name)
        frame = frame.join(self.stays, on="hadm_id", how="left", maintain_order="left")
        if table.of_stay:
            lost = frame["discharged"].is_null()
            frame, _ = reject_rows(
                path, frame, lost, "no such stay", "its hadm_id is not in the table of admissions", self.rejects
            )
        other = (frame["subject_of_stay"] != frame["subject_id"]).fill_null(False)
        frame, _ = reject_rows(
            path, frame, other, "another patient's stay", "the stay is of another patient", self.rejects
        )
        return frame

    def _add(self, shards: Shards, table: MimicTable, frame: "pl.DataFrame") -> None:
        events = pl.concat(EVENTS[self.files.version][table.name](frame, self.codes))
        path = self.files.path(table.name)
        first = frame["line"].min() or 0
        has_event = np.zeros((frame["line"].max() or 0) - first + 1, bool)
        has_event[events["line"].to_numpy() - first] = True
        without_event = pl.Series(~has_event[frame["line"].to_numpy() - first], dtype=pl.Boolean)
        reject_rows(path, frame, without_event, "no code", "the row has no code", self.rejects)
        timeless = events["time"].is_null() & ~events["code"].str.starts_with("GENDER//")
        events, _ = reject_rows(path, events, timeless, "no time", "the row has no time", self.rejects)
        self.events[table.name] += len(events)
        shards.add(events)

    def _summary(self, tables: Sequence[MimicTable], patients: int, shifted: int, outputs: dict[str, int]) -> dict:
        rejected = collections.Counter()
        for (file, _), count in self.rejects.counts.items():
            rejected[file] += count
        listed = {}
        for table in tables:
            name = self.files.path(table.name).relative_to(self.files.root).as_posix()
            counts = {"rows": self.rows[table.name], "events": self.events[table.name], "rejected": rejected[name]}
            listed[table.name] = {"file": name, **counts}
        absent = [table.name for table in event_tables(self.files.version) if table not in tables]
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


def _is_described_by_text(code: str) -> bool:
    return code.startswith(_DESCRIBED_BY_TEXT)


def _chosen(files: MimicFiles, also: Sequence[str]) -> list[MimicTable]:
    """Return the tables to read, among those that exist.

    Raises:
        InputError: a table that is needed or asked for does not exist.
    """
    names = [table.name for table in event_tables(files.version) if table.scope is LARGE]
    unknown = [name for name in also if name not in names]
    if unknown:
        raise InputError(f"--also={unknown[0]} is not known; for {files.version} give one of: {', '.join(names)}.")
    chosen = []
    for table in event_tables(files.version):
        if table.needed or table.name in also:
            files.path(table.name)
        if table.name in files.paths and (table.scope is not LARGE or table.name in also):
            chosen.append(table)
    return chosen


def _inputs(files: MimicFiles, tables: Sequence[MimicTable]) -> dict[str, list[int]]:
    """Return the size (bytes) and modification time (ns) of every file that is read, by name."""
    read = {files.paths[table.name] for table in tables}
    read |= {path for name, path in files.paths.items() if name.startswith("d_")}
    return {path.relative_to(files.root).as_posix(): size_and_time(path) for path in sorted(read)}


def size_and_time(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def release_of(root: Path) -> str | None:
    """Return the version of MIMIC that `preprocessing.mimic` downloaded; None if the files came another way."""
    try:
        versions = {entry["version"] for entry in Manifest.read(root).files.values()}
    except InputError:  # The manifest.json is of another program.
        return None
    return versions.pop() if len(versions) == 1 else None


def check_output(output: Path, root: Path) -> None:
    if root.resolve().is_relative_to(output.resolve()):
        raise InputError(f"--output={output} would replace the input; choose another directory.")
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file; choose another --output.")
    check_replaceable(output, f"{METADATA}/{CONVERSION}")


@contextlib.contextmanager
def writing(output: Path) -> Iterator[None]:
    """Turn errors of writing into an `InputError` that names the output; readers report their own errors."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{output} cannot be written ({error.strerror or error}); choose another --output.") from error


def finished(output: Path) -> dict | None:
    """Return the contents of `conversion.json` of a complete data set; None if there is none or a file is missing."""
    try:
        about = json.loads((output / METADATA / CONVERSION).read_text(encoding="utf-8"))
        there = {name: (output / name).stat().st_size for name in about["outputs"]}
        return about if there == about["outputs"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def show(conversion: Conversion, console: Console) -> None:
    """Print the numbers of rows read, events written and rows rejected."""
    about = conversion.about
    listing = Table(title=f"{conversion.output}", title_justify="left", title_style="bold")
    listing.add_column("table")
    for header in ("rows", "events", "rejected"):
        listing.add_column(header, justify="right")
    for name, counts in about["tables"].items():
        listing.add_row(name, *(f"{counts[header]:,}" for header in ("rows", "events", "rejected")))
    console.print(listing)
    if about["tables_not_read"]:
        console.print(f"Tables not found or not asked for: {', '.join(about['tables_not_read'])}.", highlight=False)
    if about["events_with_malformed_codes"]:
        counts = ", ".join(f"{name} {count:,}" for name, count in about["events_with_malformed_codes"].items())
        console.print(
            f"Some events have a code that does not have the shape of its system and was kept: {counts}; see"
            f" {conversion.output / METADATA / MALFORMED}.",
            highlight=False,
        )
    if about["rejected"]:
        console.print(f"Rejected rows are listed in {conversion.output / METADATA / REJECTS}.", highlight=False)
    done = "existed already" if conversion.done_already else "was written"
    console.print(
        f"{about['events']:,} events of {about['patients']:,} patients: {conversion.output} {done}.", highlight=False
    )
