"""Convert MIMIC-III or MIMIC-IV to a MEDS 0.4 data set (Medical Event Data Standard)."""

import collections
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from preprocessing.common.errors import InputError, without_values
from preprocessing.common.extras import load
from preprocessing.common.rejects import Rejects
from preprocessing.linking.ndc_map import NdcMap
from preprocessing.meds import contradictions
from preprocessing.meds import metadata as meds_metadata
from preprocessing.meds.conversion import (
    CORE,
    MALFORMED,
    Conversion,
    MedsRequest,
    convert_once,
    events_with_malformed_codes,
    release_of,
)
from preprocessing.meds.layout import METADATA
from preprocessing.meds.mimic_codes import MimicCodes
from preprocessing.meds.mimic_events import EVENT, LAB_TIMES, event_makers, with_births
from preprocessing.meds.mimic_files import MimicFiles
from preprocessing.meds.mimic_tables import MimicTable, event_tables
from preprocessing.meds.shards import Shards
from preprocessing.meds.table_files import known, reject_rows, size_and_time

pl = load("polars")

# Number to increase when the same files give another result.
_FORMAT = 4
# Kinds of entries in the list of rejects whose row is in the data set nevertheless.
_KEPT = ("bad encoding", "no time of an event")
# Codes whose description is the text of their events if no dictionary has one.
_DESCRIBED_BY_TEXT = ("NDC/", "MEDICATION//NDC//", "CPT4/", "HCPCS/", "HCPCS//")


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
    inputs = files.stamps(files.read_with(tables), request.verify)
    ndc_map = None
    if request.ndc_map is not None:
        ndc_map = NdcMap(request.ndc_map)
        inputs[str(request.ndc_map)] = size_and_time(request.ndc_map)
    stamp = {"format": _FORMAT, "version": files.version, "options": options, "inputs": inputs}

    def make(folder: Path, rejects: Rejects) -> dict:
        about = _Conversion(request, files, rejects, folder, ndc_map).run(tables)
        about["checksums"] = files.verify(files.read_with(tables), request.progress) if request.verify else None
        return about

    return convert_once(request, files.root, stamp, make)


class _Conversion:
    """Convert the tables in one pass; see `convert`."""

    def __init__(
        self,
        request: MedsRequest,
        files: MimicFiles,
        rejects: Rejects,
        folder: Path,
        ndc_map: NdcMap | None,
    ):
        self.request = request
        self.ndc_map = ndc_map
        self.files = files
        self.rejects = rejects
        self.folder = folder
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
        with Shards(self.folder, subjects, per_shard, EVENT) as shards:
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
            [name for name in EVENT if name not in CORE],
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
            "events_with_malformed_codes": events_with_malformed_codes(self.codes),
        }


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
