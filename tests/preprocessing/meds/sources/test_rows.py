"""A conversion of any source accounts for all rows, and names columns and files that are absent or not known."""

import io

import pytest
from rich.console import Console

from preprocessing.meds import table_files
from preprocessing.meds.conversion import MedsRequest, faults, remarks, show
from preprocessing.meds.open import convert
from preprocessing.meds.sources.writer import show_counted
from tests.helpers import source_copies

MAKERS = {"eicu": source_copies.eicu, "diabetes130": source_copies.diabetes130, "ehrshot": source_copies.ehrshot}


def run(source, output):
    return convert(MedsRequest(source, output, progress=False))


@pytest.mark.parametrize("source", MAKERS)
def test_rows_are_counted_in_the_file(source, tmp_path, monkeypatch):
    """A reader that loses rows is told of; its numbers do not agree by definition."""
    folder = MAKERS[source](tmp_path / "in")
    about = run(folder, tmp_path / "out").about
    for counts in about["tables"].values():
        assert counts["unaccounted"] == 0
        assert counts["rows"] == counts["with_events"] + counts["rejected"] + counts["absorbed"]
    typed = table_files._typed
    monkeypatch.setattr(table_files, "_typed", lambda *given: typed(*given).head(1))
    about = run(folder, tmp_path / "lost").about
    assert any("rows that were not accounted for" in fault for fault in faults(about))


def test_columns_and_files_are_named_where_they_are_not_there_or_not_known(tmp_path):
    folder = source_copies.eicu(tmp_path / "in")
    (folder / "vitalPeriodic.csv.gz").write_bytes(b"")
    (folder / "LICENSE.txt").write_text("open")
    names = source_copies.EICU_COLUMNS["diagnosis"].replace(",diagnosispriority", "")
    source_copies._write(folder / "diagnosis.csv.gz", names, [{"patientunitstayid": 11, "diagnosisoffset": 20}])
    about = run(folder, tmp_path / "out").about
    assert about["columns_not_found"] == {"diagnosis.csv.gz": ["diagnosispriority"]}
    assert about["files_not_known"] == ["vitalPeriodic.csv.gz"]
    assert remarks(about)[:2] == [
        "diagnosis.csv.gz lacks optional columns, which are empty: diagnosispriority.",
        "Files that are not known and were not read: vitalPeriodic.csv.gz.",
    ]


def test_names_of_folders_are_printed_as_they_are(tmp_path):
    """Brackets are markup for the library that prints, which would leave them out, or fail."""
    folder = source_copies.ehrshot(tmp_path / "in [old]")
    (folder / "benchmark" / "guo_los").rename(folder / "benchmark" / "los[b]")
    done = run(folder, tmp_path / "a[red]b[" / "out[bold]")
    console = Console(width=400, record=True, file=io.StringIO())
    show(done, console)
    show_counted(done, console)
    text = console.export_text()
    assert f"patients: {done.output} was written." in text
    assert f"labels of los[b]: {done.output}/labels/los[b]." in text
