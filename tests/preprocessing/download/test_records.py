"""Open patient records from a local server with the addresses of PhysioNet and UCI, up to their conversion to MEDS."""

import dataclasses
import hashlib
import io
import zipfile

import pytest

from preprocessing.download import catalogue, groups
from preprocessing.download.collect import Settings
from preprocessing.download.fetch import RetryPolicy
from preprocessing.download.manifest import Manifest
from preprocessing.meds.conversion import MedsRequest
from preprocessing.meds.open import convert
from tests.helpers import source_copies
from tests.helpers.file_server import FileServer, Served


@pytest.fixture
def server():
    with FileServer() as running:
        yield running


@pytest.fixture
def settings(tmp_path):
    return Settings(tmp_path / "out", progress=False, retry=RetryPolicy(attempts=2, sleep=lambda _: None))


def on(server, group):
    """The source of a group with the local server in place of its host."""
    (source,) = catalogue.select(group)
    hosts = ("https://physionet.org", "https://archive.ics.uci.edu")

    def local(url):
        for host in hosts:
            url = url.replace(host, server.url)
        return url

    downloads = tuple(dataclasses.replace(item, url=local(item.url)) for item in source.downloads)
    return dataclasses.replace(source, downloads=downloads, checksums=local(source.checksums))


def get(source, settings):
    (outcome,) = groups.download(source.group, settings, sources=[source])
    return outcome


@pytest.fixture
def physionet(server, tmp_path):
    """Serve the demo of eICU-CRD as PhysioNet does, with a table that is not wanted."""
    folder = source_copies.eicu(tmp_path / "published")
    (folder / "lab.csv.gz").write_bytes(b"large")
    sums = ""
    for path in sorted(folder.iterdir()):
        server.files[f"/files/eicu-crd-demo/2.0.1/{path.name}"] = Served(path.read_bytes())
        sums += f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.name}\n"
    server.files["/files/eicu-crd-demo/2.0.1/SHA256SUMS.txt"] = Served(sums.encode(), kind="text/plain")
    return server


def test_the_demo_of_eicu_is_fetched_verified_and_converted(physionet, settings, tmp_path):
    source = on(physionet, "eicu_demo")
    assert get(source, settings).state == "fetched"
    names = {path.name for path in settings.output.iterdir()}
    assert names == {"manifest.json", *(f"{table}.csv.gz" for table in source_copies.EICU)}
    manifest = Manifest.read(settings.output)
    manifest.verify()
    entry = manifest.files["patient.csv.gz"]
    assert (entry["version"], entry["verified"]) == ("2.0.1", True)
    assert entry["source"] == f"{physionet.url}/files/eicu-crd-demo/2.0.1/patient.csv.gz"
    asked = len(physionet.asked)
    assert get(source, settings).state == "there"
    assert len(physionet.asked) == asked
    made = convert(MedsRequest(settings.output, tmp_path / "meds", progress=False))
    assert made.about["version"] == "eicu"
    assert made.about["patients"] == 3
    assert '"dataset_version": "2.0.1"' in (made.output / "metadata" / "dataset.json").read_text()


def test_a_file_with_another_checksum_or_of_no_list_is_refused(physionet, settings):
    source = on(physionet, "eicu_demo")
    sums = physionet.files["/files/eicu-crd-demo/2.0.1/SHA256SUMS.txt"]
    right = sums.content
    sums.content = right.replace(right[:64], b"0" * 64)
    outcome = get(source, settings)
    assert outcome.state == "failed"
    assert "sha256" in outcome.reason
    sums.content = b"".join(line for line in right.splitlines(True) if b"treatment" not in line)
    assert "does not list treatment.csv.gz" in get(source, settings).reason
    sums.content = b"<html>moved</html>\n"
    assert "line 1 is not a checksum" in get(source, settings).reason
    sums.content = right
    assert get(source, settings).state == "fetched"


def test_diabetes130_is_fetched_and_unpacked_from_its_archive(server, settings, tmp_path):
    folder = source_copies.diabetes130(tmp_path / "published")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
        archive.writestr("readme.txt", b"-")
    address = "/static/public/296/diabetes+130-us+hospitals+for+years+1999-2008.zip"
    server.files[address] = Served(buffer.getvalue())
    source = on(server, "diabetes130")
    assert get(source, settings).state == "fetched"
    assert {path.name for path in settings.output.iterdir()} == {
        "manifest.json",
        "diabetic_data.csv",
        "IDS_mapping.csv",
    }
    assert len(server.requests(address)) == 1
    made = convert(MedsRequest(settings.output, tmp_path / "meds", progress=False))
    assert made.about["labels"] == {"readmission_30": 2, "readmitted": 2}


def test_an_archive_from_a_browser_is_taken(server, settings, tmp_path):
    folder = source_copies.diabetes130(tmp_path / "published")
    given = tmp_path / "given"
    given.mkdir()
    with zipfile.ZipFile(given / "diabetes+130-us+hospitals+for+years+1999-2008.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    outcome = get(on(server, "diabetes130"), dataclasses.replace(settings, from_dir=given))
    assert outcome.state == "by hand", outcome.reason
    assert not server.asked
