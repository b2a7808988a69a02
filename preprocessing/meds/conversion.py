"""Hold what conversions to MEDS of all sources share: request, result, one writing of the whole, and its summary."""

import collections
import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from preprocessing.common.atomic import check_replaceable, private, whole_folder
from preprocessing.common.errors import InputError
from preprocessing.common.rejects import Rejects
from preprocessing.download.manifest import Manifest
from preprocessing.meds import contradictions
from preprocessing.meds.layout import METADATA
from preprocessing.meds.mimic_codes import MimicCodes

CONVERSION, REJECTS, MALFORMED = "conversion.json", "rejects.csv", "malformed_codes.csv"
# Patients per file: about a million events of MIMIC-IV.
PER_SHARD = 2000
# Number of names that a sentence lists.
_SHOWN = 8
# Columns that MEDS defines.
CORE = ("subject_id", "time", "code", "numeric_value", "text_value")


@dataclasses.dataclass(frozen=True)
class MedsRequest:
    """Hold the input, the output and the options of a conversion.

    Attributes:
        input: directory with the files of a source.
        output: directory of the data set, which must be absent, empty, or one that a conversion made.
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


def convert_once(request: MedsRequest, root: Path, stamp: dict, make: Callable[[Path, Rejects], dict]) -> Conversion:
    """Make a data set, unless the output was made with the same stamp; the output appears once it is complete.

    Args:
        request: the output, and whether faults are refused.
        root: directory of the input, relative to which rejected rows name their files.
        stamp: what the output depends on, as JSON would give it back: format, version, options and inputs.
        make: writes data and metadata into a folder, and returns the numbers for `conversion.json`.

    Raises:
        InputError: the output cannot be written, there is no event, or `strict` forbids a fault of the records.
    """
    _check_output(request.output, root)
    if (about := _finished(request.output)) is not None and {name: about.get(name) for name in stamp} == stamp:
        if request.strict:
            refuse_faults(about)
        return Conversion(request.output, True, about)
    with private(), _writing(request.output), whole_folder(request.output) as folder:
        metadata = folder / METADATA
        metadata.mkdir()
        with Rejects(metadata / REJECTS, root=root, with_rows=False) as rejects:
            about = stamp | make(folder, rejects)
            about["rejected"] = sum(rejects.counts.values())
            about["rejected_kinds"] = _rejected_kinds(rejects)
            if not about["events"]:
                raise InputError(" ".join((f"{root} gives no event, so that nothing is written.", *faults(about)[:1])))
            if request.strict:
                refuse_faults(about)
        about["outputs"] = {
            path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*.parquet"))
        }
        (metadata / CONVERSION).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return Conversion(request.output, False, about)


def _rejected_kinds(rejects: Rejects) -> list[dict]:
    """Return file, kind and number of the rows that were rejected, the most frequent first."""
    most_first = sorted(rejects.counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"file": file, "kind": kind, "count": count} for (file, kind), count in most_first]


def events_with_malformed_codes(codes: MimicCodes) -> dict[str, int]:
    """Return the number of events whose code does not have the shape of its system, by system."""
    found = collections.Counter()
    for (system, _, _), count in codes.malformed.items():
        found[system] += count
    return dict(sorted(found.items()))


def release_of(root: Path) -> str | None:
    """Return the version of the release that this project downloaded; None if the files came another way."""
    try:
        versions = {entry["version"] for entry in Manifest.read(root).files.values()}
    except InputError:  # The manifest.json is of another program.
        return None
    return versions.pop() if len(versions) == 1 else None


def _check_output(output: Path, root: Path) -> None:
    if root.resolve().is_relative_to(output.resolve()):
        raise InputError(f"--output={output} would replace the input; choose another directory.")
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file; choose another --output.")
    check_replaceable(output, f"{METADATA}/{CONVERSION}")


@contextlib.contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Turn errors of writing into an `InputError` that names the output; readers report their own errors."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{output} cannot be written ({error.strerror or error}); choose another --output.") from error


def _finished(output: Path) -> dict | None:
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
    # Names of files and folders may hold what rich reads as markup.
    listing = Table(title=escape(str(conversion.output)), title_justify="left", title_style="bold")
    listing.add_column("table")
    columns = {"rows": "rows", "with events": "with_events", "rejected": "rejected", "absorbed": "absorbed"}
    columns["events"] = "events"
    for header in columns:
        listing.add_column(header, justify="right")
    for name, counts in about["tables"].items():
        listing.add_row(escape(name), *(f"{counts[column]:,}" for column in columns.values()))
    console.print(listing)
    if about.get("contradictions"):
        console.print(contradictions.listing(about["contradictions"]))
    for line in (*remarks(about), *faults(about)):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if about["events_with_malformed_codes"]:
        counts = ", ".join(f"{name} {count:,}" for name, count in about["events_with_malformed_codes"].items())
        console.print(
            f"Some events have a code that does not have the shape of its system and was kept: {counts}; see"
            f" {conversion.output / METADATA / MALFORMED}.",
            highlight=False,
            markup=False,
        )
    if about["rejected"]:
        rejected = f"Rejected rows are listed in {conversion.output / METADATA / REJECTS}."
        console.print(rejected, highlight=False, markup=False)
    done = "existed already" if conversion.done_already else "was written"
    whose = f"{about['patients']:,} patients"
    if "persons" in about:
        whose = f"{about['patients']:,} subjects, the stays of {about['persons']:,} patients"
    written = f"{about['events']:,} events of {whose}: {conversion.output} {done}."
    console.print(written, highlight=False, soft_wrap=True, markup=False)


def faults(about: dict) -> list[str]:
    """Return a sentence about each kind of fault that `--strict` forbids, of the contents of `conversion.json`."""
    found = []
    for counts in about["tables"].values():
        if counts.get("unaccounted"):
            found.append(f"{counts['file']} has {counts['unaccounted']:,} rows that were not accounted for.")
    if about["rejected"]:
        most = about["rejected_kinds"][0]
        found.append(
            f"{about['rejected']:,} rows or values were rejected or repaired, most of all {most['count']:,} of"
            f" {most['file']} ({most['kind']})."
        )
    if open_cases := [entry for entry in about.get("contradictions", ()) if not entry["resolved"]]:
        cases = ", ".join(f"{entry['kind']} ({entry['count']:,})" for entry in open_cases)
        found.append(f"Some contradictions in the records have no resolution: {cases}.")
    if (sums := about.get("checksums")) and sums["differ"]:
        found.append(f"Some files are not as {sums['list']} says they were published: {_some(sums['differ'])}.")
    return found


def refuse_faults(about: dict) -> None:
    """Refuse the faults of a conversion.

    Raises:
        InputError: there is a fault, which `faults` lists.
    """
    if found := faults(about):
        raise InputError(
            f"{found[0].removesuffix('.')}, and --strict does not allow that; convert without it to see all."
        )


def _some(names: Sequence[str]) -> str:
    """Return up to 8 names, and the number of the others."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def remarks(about: dict) -> list[str]:
    """Return sentences about what was not in the input, was not read, or was not verified."""
    lines = []
    if about["tables_not_read"]:
        lines.append(f"Tables not found or not asked for: {', '.join(about['tables_not_read'])}.")
    for file, columns in about.get("columns_not_found", {}).items():
        lines.append(f"{file} lacks optional columns, which are empty: {', '.join(columns)}.")
    if about.get("files_not_known"):
        lines.append(f"Files that are not known and were not read: {_some(about['files_not_known'])}.")
    if about.get("doses", {}).get("not_read"):
        given, lost = about["doses"]["given"], about["doses"]["not_read"]
        lines.append(f"{lost:,} of {given:,} doses are neither a number nor a range of two, and have no numeric_value.")
    if sums := about.get("checksums"):
        unlisted = f"; it does not list {_some(sums['not_listed'])}" if sums["not_listed"] else ""
        lines.append(f"{sums['as_published']} files are as {sums['list']} says{unlisted}.")
    return lines
