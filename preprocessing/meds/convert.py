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
from preprocessing.meds import contradictions
from preprocessing.meds import metadata as meds_metadata
from preprocessing.meds.layout import METADATA
from preprocessing.meds.mimic_codes import MimicCodes
from preprocessing.meds.mimic_events import EVENT, LAB_TIMES, event_makers, with_births
from preprocessing.meds.mimic_files import MimicFiles, known, reject_rows, size_and_time
from preprocessing.meds.mimic_tables import MimicTable, event_tables
from preprocessing.meds.shards import Shards

pl = load("polars")

CONVERSION, REJECTS, MALFORMED = "conversion.json", "rejects.csv", "malformed_codes.csv"
# Number to increase when the same files give another result.
_FORMAT = 2
# Kinds of entries in the list of rejects whose row is in the data set nevertheless.
_KEPT = ("bad encoding", "no time of an event")
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
        lab_time: time of laboratory values: `store`, when they were known, or `chart`, when the specimen was taken.
        verify: whether to compare the files with the SHA256SUMS.txt that lies beside them.
        strict: whether to refuse rejected rows, unresolved contradictions and files that are not as published.
    """

    input: Path
    output: Path
    version: str | None = None
    also: Sequence[str] = ()
    subjects_per_shard: int = PER_SHARD
    progress: bool = True
    ndc_map: Path | None = None
    lab_time: str = "store"
    verify: bool = True
    strict: bool = False


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
        InputError: the input is not MIMIC, lacks a table or a column, the output cannot be written, or `strict` forbids
            a fault of the records.
    """
    load("meds")  # Fails before any work.
    files = MimicFiles.find(request.input, request.version)
    tables = files.chosen(request.also)
    if request.lab_time not in LAB_TIMES:
        raise InputError(f"--lab_time={request.lab_time} is not known; give one of: {', '.join(LAB_TIMES)}.")
    options = {"also": sorted(request.also), "subjects_per_shard": request.subjects_per_shard}
    options |= {"lab_time": request.lab_time, "verify": request.verify}
    inputs = {files.relative(path): size_and_time(path) for path in files.read_with(tables)}
    ndc_map = None
    if request.ndc_map is not None:
        ndc_map = NdcMap(request.ndc_map)
        inputs[str(request.ndc_map)] = size_and_time(request.ndc_map)
    stamp = {"format": _FORMAT, "version": files.version, "options": options, "inputs": inputs}
    check_output(request.output, files.root)
    if (about := finished(request.output)) is not None and {name: about.get(name) for name in stamp} == stamp:
        if request.strict:
            contradictions.refuse_faults(about)
        return Conversion(request.output, True, about)
    with writing(request.output), whole_folder(request.output) as folder:
        metadata = folder / METADATA
        scratch = folder / ".unsorted"
        metadata.mkdir()
        scratch.mkdir()
        with Rejects(metadata / REJECTS, root=files.root, with_rows=False) as rejects:
            about = stamp | _Conversion(request, files, rejects, folder, scratch, ndc_map).run(tables)
            about["checksums"] = files.verify(files.read_with(tables), request.progress) if request.verify else None
            if request.strict:
                contradictions.refuse_faults(about)
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
        self.found = contradictions.Contradictions()
        self.makers = event_makers(files.version, request.lab_time)
        # Of each table: all rows, those with events, those that need none, events, and doses without a number.
        self.rows: collections.Counter[str] = collections.Counter()
        self.bearing: collections.Counter[str] = collections.Counter()
        self.absorbed: collections.Counter[str] = collections.Counter()
        self.events: collections.Counter[str] = collections.Counter()
        self.doses: collections.Counter[str] = collections.Counter()
        self.stays = pl.DataFrame()
        self.people = pl.DataFrame()

    def run(self, tables: Sequence[MimicTable]) -> dict:
        """Write data and metadata, and return the numbers for `conversion.json`."""
        meds = load("meds")
        admissions, patients, *others = tables
        stays, lost = self._read_stays(admissions, others)
        people, shifted = self._read_patients(patients, stays, lost)
        subjects = self.people["subject_id"].to_numpy()
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
        source = (table.name, table.columns, table.optional)
        yield from self.files.read(*source, self.rejects, self.request.progress, self.rows)

    def _read_all(self, table: MimicTable) -> "pl.DataFrame":
        """Return all rows of a small table.

        Raises:
            InputError: the table has no rows.
        """
        frames = list(self._read(table))
        if not frames:
            raise InputError(f"{self.files.path(table.name)} has no rows; fetch it again.")
        return pl.concat(frames)

    def _read_stays(self, table: MimicTable, others: Sequence[MimicTable]) -> tuple["pl.DataFrame", "pl.DataFrame"]:
        """Read the table of admissions, each stay once with its end, and the rows without a stay; keep all times."""
        frame = self._read_all(table)
        path = self.files.path(table.name)
        nameless = frame["hadm_id"].is_null()
        lost = frame.filter(nameless)
        frame, _ = reject_rows(path, frame, nameless, "no hadm_id", "the row names no stay", self.rejects)
        frame, _ = reject_rows(
            path, frame, ~frame["hadm_id"].is_first_distinct(), "repeated", "a stay twice", self.rejects
        )
        last_events = self._last_events(frame, others)
        frame = contradictions.end_stays(frame, last_events, self.found)
        self.stays = frame.select(
            "hadm_id",
            pl.col("subject_id").alias("subject_of_stay"),
            pl.col("admittime").alias("admitted"),
            "discharged",
        )
        return frame, lost

    def _last_events(self, stays: "pl.DataFrame", tables: Sequence[MimicTable]) -> "pl.DataFrame":
        """Return `hadm_id` and `last`, the time of the last event, of stays whose end only that tells."""
        times = [pl.DataFrame(schema={"hadm_id": pl.Int64, "last": pl.Datetime("us")})]
        nothing = pl.lit(None, pl.Datetime("us"))
        for table in tables:
            wanted = contradictions.needing(table.name, stays).select("subject_id", "hadm_id")
            if "hadm_id" not in table.columns or not len(wanted):
                continue
            source = (table.name, table.columns, table.optional)
            for frame in self.files.read(*source, Rejects(None), self.request.progress):
                frame = frame.join(wanted, on=["subject_id", "hadm_id"], how="semi", maintain_order="left")
                frame = frame.with_columns(admitted=nothing, discharged=nothing)
                events = pl.concat(self.makers[table.name](frame, MimicCodes()))
                times.append(events.select("hadm_id", last="time").drop_nulls())
        return pl.concat(times).group_by("hadm_id").agg(pl.col("last").max())

    def _read_patients(
        self, table: MimicTable, stays: "pl.DataFrame", lost: "pl.DataFrame"
    ) -> tuple["pl.DataFrame", int]:
        """Read the table of patients with the times of birth and death; keep those of death, sorted by patient."""
        frame = self._read_all(table)
        repeated = ~frame["subject_id"].is_first_distinct()
        path = self.files.path(table.name)
        frame, _ = reject_rows(path, frame, repeated, "repeated", "a patient twice", self.rejects)
        frame = contradictions.with_deaths(frame, stays, lost, self.found)
        frame, shifted = with_births(self.files.version, frame)
        contradictions.count_patients(frame, self.found)
        self.people = frame.select("subject_id", "died").sort("subject_id")
        return frame, shifted

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
            lost = frame["subject_of_stay"].is_null()
            frame, _ = reject_rows(
                path, frame, lost, "no such stay", "its hadm_id is not in the table of admissions", self.rejects
            )
        other = (frame["subject_of_stay"] != frame["subject_id"]).fill_null(False)
        frame, _ = reject_rows(
            path, frame, other, "another patient's stay", "the stay is of another patient", self.rejects
        )
        return frame

    def _add(self, shards: Shards, table: MimicTable, frame: "pl.DataFrame") -> None:
        name, path = table.name, self.files.path(table.name)
        events = pl.concat(self.makers[name](frame, self.codes))
        timeless = events["time"].is_null() & ~events["code"].str.starts_with("GENDER//")
        kept = events.filter(~timeless)
        coded = _has_line(frame["line"], events["line"])
        bearing = _has_line(frame["line"], kept["line"])
        if name == "patients":  # A patient without a known sex, birth or death has the events of other tables.
            self.absorbed[name] += int((~coded).sum())
        else:
            reject_rows(path, frame, ~coded, "no code", "the row has no code", self.rejects)
        reject_rows(path, frame, coded & ~bearing, "no time", "the row has no time", self.rejects)
        partly = timeless & _has_line(events["line"], kept["line"])
        reject_rows(path, events, partly, "no time of an event", "one event of the row has no time", self.rejects)
        self.bearing[name] += int(bearing.sum())
        self.events[name] += len(kept)
        if "dose_val_rx" in frame.columns:
            self.doses["given"] += frame["dose_val_rx"].count()
            self.doses["not_read"] += frame["dose_val_rx"].count() - events["numeric_value"].count()
        self._count_contradictions(name, frame, kept)
        shards.add(kept)

    def _count_contradictions(self, name: str, frame: "pl.DataFrame", events: "pl.DataFrame") -> None:
        row = self.people["subject_id"].search_sorted(events["subject_id"])
        contradictions.count_events(name, frame, events, self.people["died"].gather(row).to_numpy(), self.found)

    def _summary(self, tables: Sequence[MimicTable], patients: int, shifted: int, outputs: dict[str, int]) -> dict:
        rejected = collections.Counter()
        for (file, kind), count in self.rejects.counts.items():
            rejected[file] += 0 if kind in _KEPT else count
        listed, columns_absent = {}, {}
        for table in tables:
            name, path = table.name, self.files.relative(self.files.path(table.name))
            counts = {"rows": self.rows[name], "with_events": self.bearing[name], "rejected": rejected[path]}
            counts["absorbed"] = self.absorbed[name]
            counts["unaccounted"] = 2 * counts["rows"] - sum(counts.values())
            listed[name] = {"file": path, **counts, "events": self.events[name]}
            if missing := self.files.absent(table):
                columns_absent[path] = missing
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
            "columns_not_found": columns_absent,
            "files_not_known": self.files.unknown(self.request.output),
            "doses": dict(self.doses),
            "contradictions": self.found.summary(),
            "events_with_malformed_codes": dict(sorted(malformed.items())),
            "rejected": sum(self.rejects.counts.values()),
            "rejected_kinds": rejected_kinds(self.rejects),
        }


def rejected_kinds(rejects: Rejects) -> list[dict]:
    """Return file, kind and number of the rows that were rejected, the most frequent first."""
    most_first = sorted(rejects.counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"file": file, "kind": kind, "count": count} for (file, kind), count in most_first]


_CORE = ("subject_id", "time", "code", "numeric_value", "text_value")


def _has_line(lines: "pl.Series", among: "pl.Series") -> "pl.Series":
    """Return the mask of the numbers `lines` that are in `among`, of the same block, bool [len(lines)]."""
    if not len(lines):
        return pl.Series([], dtype=pl.Boolean)
    first = lines.min()
    there = np.zeros(lines.max() - first + 1, bool)
    there[among.to_numpy() - first] = True
    return pl.Series(there[lines.to_numpy() - first], dtype=pl.Boolean)


def _is_described_by_text(code: str) -> bool:
    return code.startswith(_DESCRIBED_BY_TEXT)


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
    """Print the rows of each table and what became of them, the contradictions, and what is missing."""
    about = conversion.about
    listing = Table(title=f"{conversion.output}", title_justify="left", title_style="bold")
    listing.add_column("table")
    columns = {"rows": "rows", "with events": "with_events", "rejected": "rejected", "absorbed": "absorbed"}
    columns["events"] = "events"
    for header in columns:
        listing.add_column(header, justify="right")
    for name, counts in about["tables"].items():
        listing.add_row(name, *(f"{counts[column]:,}" for column in columns.values()))
    console.print(listing)
    if about.get("contradictions"):
        console.print(contradictions.listing(about["contradictions"]))
    for line in (*contradictions.remarks(about), *contradictions.faults(about)):
        console.print(line, highlight=False, soft_wrap=True)
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
