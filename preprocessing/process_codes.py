"""Turn the official files of all code systems into one table of codes.

    python -m preprocessing.process_codes --input=DIR/medical_codes --output=DIR/processed_codes

`--input` holds one folder per system, as the download leaves them: ICD9CM, ICD10CM, ICD10PCS, SNOMED, RxNorm, NDC, ATC,
CPT4, HCPCS; an absent one is skipped. `--output` then holds

- `codes.csv`: the columns system, code, description, attributes (a JSON object, or empty), UTF-8, LF; systems in the
  order of `codes.SYSTEMS`, codes sorted; equal inputs give equal bytes;
- `rejects.csv`: rows that were not used, or used only in part;
- `report.json`: numbers of codes and rows of each system.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from absl import flags
from rich.console import Console
from rich.table import Table

from preprocessing.codes import ATC, CPT4, HCPCS, ICD9CM, ICD9PROC, ICD10CM, ICD10PCS, NDC, RXNORM, SNOMED, SYSTEMS
from preprocessing.common import command_line
from preprocessing.common.atomic import whole_file, write_json
from preprocessing.common.errors import InputError
from preprocessing.common.progress import Bar
from preprocessing.common.rejects import Rejects
from preprocessing.common.spreadsheets import TableWriter
from preprocessing.sources.atc import read_atc
from preprocessing.sources.code_entries import CodeEntries
from preprocessing.sources.cpt import read_cpt
from preprocessing.sources.hcpcs import read_hcpcs
from preprocessing.sources.icd_files import official_count, read_icd9, read_icd10
from preprocessing.sources.ndc import read_ndc
from preprocessing.sources.rxnorm import read_rxnorm
from preprocessing.sources.snomed import read_snomed

CODES = "codes.csv"
COLUMNS = ("system", "code", "description", "attributes")
# Both lists of ICD-9-CM come in one archive.
_FOLDERS = {system: system for system in SYSTEMS} | {ICD9PROC: ICD9CM}
_READERS: dict[str, Callable[[Path, Rejects, Path], CodeEntries | None]] = {
    ICD10CM: lambda folder, rejects, root: read_icd10(ICD10CM, folder, rejects),
    ICD10PCS: lambda folder, rejects, root: read_icd10(ICD10PCS, folder, rejects),
    ICD9CM: lambda folder, rejects, root: read_icd9(ICD9CM, folder, rejects),
    ICD9PROC: lambda folder, rejects, root: read_icd9(ICD9PROC, folder, rejects),
    SNOMED: lambda folder, rejects, root: read_snomed(folder, rejects),
    RXNORM: lambda folder, rejects, root: read_rxnorm(folder, rejects),
    NDC: lambda folder, rejects, root: read_ndc(folder, rejects, root / RXNORM),
    ATC: lambda folder, rejects, root: read_atc(folder, rejects, root / RXNORM),
    CPT4: lambda folder, rejects, root: read_cpt(folder, rejects),
    HCPCS: lambda folder, rejects, root: read_hcpcs(folder, rejects),
}
# Systems that may be read without their own folder: RxNorm's folder may hold ATC.
_WITHOUT_FOLDER = (ATC,)


class SystemReport(NamedTuple):
    """Hold the numbers of codes and rows of one system.

    Attributes:
        found: number of codes.
        expected: published number of codes, None if it is not known.
        empty: number of codes without description.
        duplicates: number of rows that only repeat another.
        rejected: numbers of rejected rows, by kind.
        counted: other counts of the reader, such as rows that it skips on purpose.
        files: names of the files that were read, relative to the input.
    """

    found: int
    expected: int | None
    empty: int
    duplicates: int
    rejected: dict[str, int]
    counted: dict[str, int]
    files: list[str]


class Report(NamedTuple):
    """Hold the outcome of processing all systems.

    Attributes:
        systems: system -> its report, for the systems that were read, in order.
        skipped: names of the systems that were skipped.
        repaired: numbers of repaired rows, by kind.
        remarks: sentences for the user.
    """

    systems: dict[str, SystemReport]
    skipped: list[str]
    repaired: dict[str, int]
    remarks: list[str]


def process_codes(source: Path, output: Path, rejects: Rejects, progress: bool = True) -> Report:
    """Read the folders of `source`, and write `codes.csv` and `report.json` into `output` atomically.

    Raises:
        InputError: `source` holds no folder of a system, a folder lacks its file, a file is empty or lacks a column,
            or a system has no codes at all.
    """
    if not source.is_dir():
        raise InputError(f"{source} is not a folder; give the folder that holds ICD9CM, ICD10CM, ... as --input.")
    report = Report({}, [], {}, [])
    with whole_file(output / CODES) as partial:
        with partial.open("w", encoding="utf-8", newline="") as file:
            writer = TableWriter(file)
            writer.row(COLUMNS)
            bar = Bar(SYSTEMS, desc="reading code systems", show=progress, leave=False)
            for system in bar:
                bar.set_postfix_str(system)
                _process(system, source, rejects, writer, report)
        if not report.systems:
            names = ", ".join(dict.fromkeys(_FOLDERS.values()))
            raise InputError(f"{source} holds none of the folders {names}; download them first.")
        for (_, kind), count in sorted(rejects.notes.items()):
            report.repaired[kind] = report.repaired.get(kind, 0) + count
        _write_report(report, output / "report.json")
    return report


def _process(system: str, source: Path, rejects: Rejects, writer: TableWriter, report: Report) -> None:
    folder = source / _FOLDERS[system]
    before = rejects.counts.copy()
    entries = _READERS[system](folder, rejects, source) if folder.is_dir() or system in _WITHOUT_FOLDER else None
    if entries is None:
        report.skipped.append(system)
        return
    if not len(entries):
        raise InputError(f"{entries.files[0]} holds no code of {system}; check that it is the right file.")
    for entry in entries:
        writer.row((system, *entry))
    rejected: Counter[str] = Counter()
    for (_, kind), count in (rejects.counts - before).items():
        rejected[kind] += count
    report.remarks.extend(entries.remarks)
    report.systems[system] = SystemReport(
        found=len(entries),
        expected=official_count(system, entries.files[0]),
        empty=entries.without_description,
        duplicates=entries.counts.pop("duplicates", 0),
        rejected=dict(sorted(rejected.items())),
        counted=dict(sorted(entries.counts.items())),
        files=[path.relative_to(source).as_posix() for path in entries.files],
    )


def _write_report(report: Report, path: Path) -> None:
    content = report._asdict() | {"systems": {name: found._asdict() for name, found in report.systems.items()}}
    write_json(path, content, ensure_ascii=False)


def report_table(report: Report) -> Table:
    """Return a table of the numbers of codes and rows of each system."""
    headers = ("system", "codes", "published", "no text", "repeated rows", "rejected rows")
    table = Table(title="Codes", title_justify="left", title_style="bold")
    for position, header in enumerate(headers):
        table.add_column(header, justify="right" if position else "left")
    for system, found in report.systems.items():
        published = "" if found.expected is None else f"{found.expected:,}"
        counts = (found.empty, found.duplicates, sum(found.rejected.values()))
        table.add_row(system, f"{found.found:,}", published, *(f"{count:,}" for count in counts))
    table.add_row("all", f"{sum(found.found for found in report.systems.values()):,}")
    return table


def print_report(report: Report, rejects: Rejects, console: Console) -> None:
    """Print the numbers of codes, rejected rows and repaired rows, the remarks, and the skipped systems."""
    console.print(report_table(report))
    if rejects.summary():
        console.print(rejects.table())
    sentences = list(report.remarks)
    for system, found in report.systems.items():
        if found.counted:
            sentences.append(f"{system}: {', '.join(f'{count:,} {what}' for what, count in found.counted.items())}")
    if report.skipped:
        sentences.append(f"skipped, because their files are absent: {', '.join(report.skipped)}")
    for sentence in sentences:
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)


def main(argv: list[str]) -> None:
    """Process the folders that the flags name."""
    example = "python -m preprocessing.process_codes --input=DIR/medical_codes --output=DIR/processed_codes"
    command_line.expect_arguments(argv, 0, example)
    source = Path(flags.FLAGS.input)
    output = Path(flags.FLAGS.output)
    with Rejects(output / "rejects.csv", root=source) as rejects:
        report = process_codes(source, output, rejects)
        print_report(report, rejects, Console())
        print(f"wrote {output / CODES}")
        rejects.finish(flags.FLAGS.strict)


if __name__ == "__main__":
    flags.DEFINE_string("input", None, "folder that holds one folder per code system, as the download leaves it")
    flags.DEFINE_string("output", None, "folder for codes.csv, rejects.csv and report.json")
    flags.DEFINE_bool("strict", False, "exit with status 1 if rows were rejected, after all was read and written")
    flags.mark_flags_as_required(["input", "output"])
    command_line.run(main)
