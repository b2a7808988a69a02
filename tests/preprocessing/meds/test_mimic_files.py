"""Files of MIMIC: what is absent or not known, and the published checksums."""

import gzip
import hashlib
import io

import pytest
from rich.console import Console

from preprocessing.common.errors import InputError
from preprocessing.meds import conversion
from preprocessing.meds import convert as converter
from tests.helpers import mimic_copies


def run(source, output, **options):
    return converter.convert(converter.MedsRequest(source, output, progress=False, **options))


def test_what_the_input_lacks_and_what_is_not_known_is_named(tmp_path):
    complete = {
        name: run(mimic_copies.write(tmp_path / name, name), tmp_path / f"{name}_meds").about
        for name in mimic_copies.ROWS
    }
    assert complete["mimic4"]["columns_not_found"] == {}
    assert complete["mimic4"]["files_not_known"] == []
    # MIMIC-III does not tell when a laboratory value was stored.
    assert complete["mimic3"]["columns_not_found"] == {"LABEVENTS.csv": ["storetime"]}
    source = mimic_copies.write(tmp_path / "in", "mimic4")
    path = source / "hosp" / "prescriptions.csv"
    path.write_text(path.read_text().replace("route", "way").replace("stoptime", "stopped"))
    (source / "hosp" / "provider.csv").write_text("provider_id\n")
    (source / "note").mkdir()
    (source / "note" / "discharge.csv.gz").write_bytes(b"")
    (source / "LICENSE.txt").write_text("")
    (source / ".cache").mkdir()
    (source / ".cache" / "old.csv").write_text("")
    about = run(source, source / "meds").about
    assert about["columns_not_found"] == {"hosp/prescriptions.csv": ["stoptime", "route"]}
    assert about["files_not_known"] == ["hosp/provider.csv", "note/discharge.csv.gz"]
    console = Console(record=True, width=100, file=io.StringIO())
    conversion.show(conversion.Conversion(source / "meds", False, about), console)
    printed = console.export_text()
    assert "hosp/prescriptions.csv lacks optional columns, which are empty: stoptime, route." in printed
    assert "Files that are not known and were not read: hosp/provider.csv, note/discharge.csv.gz." in printed


def test_files_are_compared_with_the_published_checksums(tmp_path):
    source = mimic_copies.write(tmp_path / "in", "mimic4", gzipped=True)
    files = sorted(path.relative_to(source).as_posix() for path in source.rglob("*.csv.gz"))
    files.remove("hosp/omr.csv.gz")
    sums = "".join(f"{hashlib.sha256((source / name).read_bytes()).hexdigest()}  {name}\n" for name in files)
    (source / "SHA256SUMS.txt").write_text(sums)
    # The tables of chartevents and emar are not read.
    assert run(source, tmp_path / "out").about["checksums"] == {
        **{"list": "SHA256SUMS.txt", "as_published": len(files) - 2, "differ": []},
        "not_listed": ["hosp/omr.csv.gz"],
    }
    assert run(source, tmp_path / "out", strict=True).done_already
    path = source / "hosp" / "labevents.csv.gz"
    path.write_bytes(path.read_bytes() + gzip.compress(b""))
    assert run(source, tmp_path / "out").about["checksums"]["differ"] == ["hosp/labevents.csv.gz"]
    with pytest.raises(
        InputError, match=r"not as SHA256SUMS\.txt says they were published: hosp/labevents\.csv\.gz, and"
    ):
        run(source, tmp_path / "out", strict=True)
    assert run(source, tmp_path / "out2", verify=False, strict=True).about["checksums"] is None
    (source / "SHA256SUMS.txt").write_text("no list\n")
    with pytest.raises(InputError, match=r"SHA256SUMS\.txt, line 1 is not a checksum"):
        run(source, tmp_path / "out3")
