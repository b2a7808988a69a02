"""PhysioNet's addresses on a local server; no real credentials, no patient's data."""

import dataclasses
import gzip
import hashlib
import json
import os
import pty
import shutil
import subprocess
import sys
import zipfile

import pytest

from preprocessing import mimic
from preprocessing.common.errors import InputError
from preprocessing.download import physionet
from preprocessing.download.fetch import RetryPolicy
from preprocessing.download.http_session import FetchError
from preprocessing.download.manifest import FILE_NAME, Manifest
from preprocessing.meds.dataset import MedsDataset
from preprocessing.meds.mimic_events import event_makers
from preprocessing.meds.mimic_tables import TABLES as DECLARED
from preprocessing.meds.mimic_tables import DownloadScope, event_tables
from tests.helpers import mimic_copies
from tests.helpers.file_server import FileServer, Served
from tests.helpers.forked import run_module
from tests.helpers.mimic_copies import always_fetched
from tests.helpers.permissions import readable_by_others

USER, PASSWORD = "ada", "correct horse"
TABLES = {
    name: gzip.compress(f"header of {name}\n".encode(), mtime=0)
    for name in (
        *(f"{table}.csv.gz" for table in always_fetched("mimic4")),
        "hosp/labevents.csv.gz",
        "icu/chartevents.csv.gz",
    )
}
DEMO3 = {f"{table}.csv": f"header of {table}\n".encode() for table in (*always_fetched("mimic3"), "CHARTEVENTS")}


def checksums(files):
    """Return a list as `sha256sum` writes it; PhysioNet's lists other files too."""
    lines = [f"{hashlib.sha256(content).hexdigest()} {name}" for name, content in files.items()]
    return "\n".join([f"{'AB' * 32} LICENSE.TXT", *lines, ""]).encode()


@pytest.fixture
def server():
    with FileServer() as running:
        for name, content in TABLES.items():
            running.files[f"/files/mimiciv/3.1/{name}"] = Served(content, etag='"1"', auth=(USER, PASSWORD))
        listing = Served(checksums(TABLES), auth=(USER, PASSWORD), kind="text/plain")
        running.files["/files/mimiciv/3.1/SHA256SUMS.txt"] = listing
        for name, content in DEMO3.items():
            running.files[f"/files/mimiciii-demo/1.4/{name}"] = Served(content)
        running.files["/files/mimiciii-demo/1.4/SHA256SUMS.txt"] = Served(checksums(DEMO3), kind="text/plain")
        yield running


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch, tmp_path):
    for name in (physionet.USER_VARIABLE, physionet.PASSWORD_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))
    monkeypatch.setattr("sys.stdin", open(os.devnull, encoding="utf-8"))  # noqa: SIM115


@pytest.fixture
def logged_in(monkeypatch):
    monkeypatch.setenv(physionet.USER_VARIABLE, USER)
    monkeypatch.setenv(physionet.PASSWORD_VARIABLE, PASSWORD)


@pytest.fixture
def request4(server, tmp_path):
    retry = RetryPolicy(attempts=2, longest_wait=0)
    return mimic.MimicRequest(
        "mimic4", tmp_path / "mimic4", base_url=f"{server.url}/files", progress=False, retry=retry
    )


needs_wget = pytest.mark.skipif(not shutil.which("wget"), reason="wget is not installed")


@needs_wget
def test_the_tables_that_are_used_are_fetched_and_verified(server, request4, logged_in):
    names = mimic.get(request4)
    assert sorted(names) == sorted(f"{table}.csv.gz" for table in always_fetched("mimic4"))
    for name in names:
        assert (request4.output / name).read_bytes() == TABLES[name]
    assert readable_by_others(request4.output) == []
    manifest = Manifest.read(request4.output)
    manifest.verify()
    entry = manifest.files["hosp/patients.csv.gz"]
    assert entry["source"] == f"{server.url}/files/mimiciv/3.1/hosp/patients.csv.gz"
    assert (entry["version"], entry["verified"]) == ("3.1", True)
    asked = len(server.asked)
    assert mimic.get(request4) == names
    assert {request.path.rpartition("/")[2] for request in server.asked[asked:]} == {"SHA256SUMS.txt"}


@needs_wget
def test_all_tables(request4, logged_in):
    assert sorted(mimic.get(dataclasses.replace(request4, all_tables=True))) == sorted(TABLES)


def test_the_demo_needs_no_credentials_and_sends_none(server, request4, logged_in, tmp_path):
    demo = dataclasses.replace(request4, version="mimic3", demo=True, output=tmp_path / "demo")
    names = mimic.get(demo)
    assert sorted(names) == sorted(f"{table}.csv" for table in always_fetched("mimic3"))
    assert not any("authorization" in asked.headers for asked in server.asked)
    assert {asked.headers["user-agent"].partition("/")[0] for asked in server.asked} == {"medtok_jax"}


def test_without_wget_nobody_is_asked_for_a_password(server, request4, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"GNU Wget 1, which is not on PATH.*--from_dir"):
        mimic.get(request4)
    demo = dataclasses.replace(request4, version="mimic3", demo=True, output=tmp_path / "demo")
    assert mimic.get(demo)


@needs_wget
def test_a_table_with_another_checksum_is_not_kept(server, request4, logged_in):
    server.files["/files/mimiciv/3.1/icu/icustays.csv.gz"].content = b"something else"
    with pytest.raises(FetchError, match="nothing was kept"):
        mimic.get(request4)
    assert not list((request4.output / "icu").iterdir())


@needs_wget
def test_interrupted_and_gone_on_with(server, request4, logged_in):
    big = os.urandom(2_000_000)
    with_big = TABLES | {"hosp/patients.csv.gz": big}
    served = server.files["/files/mimiciv/3.1/hosp/patients.csv.gz"]
    served.content, served.cuts = big, [700_000]
    server.files["/files/mimiciv/3.1/SHA256SUMS.txt"].content = checksums(with_big)
    mimic.get(request4)
    assert (request4.output / "hosp/patients.csv.gz").read_bytes() == big
    last = server.requests("/files/mimiciv/3.1/hosp/patients.csv.gz")[-1]
    assert last.headers["range"].startswith("bytes=")
    assert "authorization" in last.headers


@needs_wget
@pytest.mark.parametrize(("status", "words"), [(401, "user name and password"), (403, "data use agreement")])
def test_a_refusal_says_what_to_do(server, request4, logged_in, status, words):
    server.files["/files/mimiciv/3.1/SHA256SUMS.txt"].failures = [status]
    with pytest.raises(FetchError, match=words) as caught:
        mimic.get(request4)
    assert "https://physionet.org/" in str(caught.value)
    assert PASSWORD not in str(caught.value)


@needs_wget
def test_a_wrong_password_is_not_shown(request4, logged_in, monkeypatch):
    monkeypatch.setenv(physionet.PASSWORD_VARIABLE, "hunter2")
    with pytest.raises(FetchError, match="does not accept") as caught:
        mimic.get(request4)
    assert "hunter2" not in str(caught.value)


@needs_wget
@pytest.mark.parametrize(
    "base_url",
    [
        "https://example.org/files",
        "http://physionet.org/files",
        "https://physionet.org.example.org",
        "https://xphysionet.org",
    ],
)
def test_credentials_go_to_physionet_only(request4, logged_in, base_url):
    with pytest.raises(InputError) as caught:
        mimic.get(dataclasses.replace(request4, base_url=base_url))
    assert PASSWORD not in str(caught.value)
    assert physionet.credentials("https://physionet.org/files") == (USER, PASSWORD)
    assert physionet.credentials("https://www.physionet.org/files") == (USER, PASSWORD)


def netrc(path, text, mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


LINES = f"machine example.org login x password y\nmachine physionet.org\n  login {USER}\n  password hunter2\n"


def test_netrc(tmp_path, monkeypatch):
    monkeypatch.setenv("NETRC", str(netrc(tmp_path / "a", LINES)))
    assert physionet.credentials() == (USER, "hunter2")
    monkeypatch.setenv(physionet.USER_VARIABLE, "someone else")
    with pytest.raises(InputError, match="asks for credentials"):
        physionet.credentials()
    monkeypatch.setenv(physionet.USER_VARIABLE, USER)
    assert physionet.credentials() == (USER, "hunter2")
    monkeypatch.delenv("NETRC")
    monkeypatch.setenv("HOME", str(tmp_path))
    netrc(tmp_path / ".netrc", LINES.replace("hunter2", "hunter3"))
    assert physionet.credentials() == (USER, "hunter3")
    monkeypatch.setenv(physionet.PASSWORD_VARIABLE, PASSWORD)
    assert physionet.credentials() == (USER, PASSWORD)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_netrc_that_others_can_read_is_refused(tmp_path, monkeypatch, mode):
    monkeypatch.setenv("NETRC", str(netrc(tmp_path / "a", LINES, mode)))
    with pytest.raises(InputError, match="chmod 600") as caught:
        physionet.credentials()
    assert "hunter2" not in str(caught.value)
    netrc(tmp_path / "a", "machine example.org login x password y\n", mode)
    with pytest.raises(InputError, match="asks for credentials"):
        physionet.credentials()


def test_a_damaged_netrc_is_not_quoted(tmp_path, monkeypatch):
    monkeypatch.setenv(
        "NETRC", str(netrc(tmp_path / "a", f"machine physionet.org login {USER} password two hunter2\n"))
    )
    with pytest.raises(InputError, match="is not understood") as caught:
        physionet.credentials()
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


def command(*arguments, **environment):
    return [sys.executable, "-m", "preprocessing.mimic", *map(str, arguments)], {**os.environ, **environment}


@pytest.mark.integration
@needs_wget
def test_asked_for_at_a_terminal(server, request4):
    arguments, environment = command(
        "--version=mimic4", f"--output={request4.output}", f"--base_url={request4.base_url}"
    )
    process, terminal = pty.fork()
    if process == 0:
        os.execve(arguments[0], arguments, environment)
    shown = b""
    answers = [(b"user name: ", f"{USER}\n"), (b"password: ", f"{PASSWORD}\n")]
    try:
        while block := os.read(terminal, 4096):
            shown += block
            if answers and shown.endswith(answers[0][0]):
                os.write(terminal, answers.pop(0)[1].encode())
    except OSError:
        pass  # The terminal is closed when the program ends.
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, shown
    assert PASSWORD.encode() not in shown
    assert (request4.output / "hosp" / "patients.csv.gz").exists()


@pytest.mark.integration
def test_there_is_no_argument_for_a_password(tmp_path):
    for flag in ("--password=hunter2", "--username=ada"):
        arguments, environment = command("--version=mimic4", f"--output={tmp_path}", flag)
        done = run_module(*arguments[2:], env=environment)
        assert done.returncode == 2
        assert "hunter2" not in done.stderr


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_a_folder_as_wget_leaves_it(server, request4, tmp_path):
    root = tmp_path / "got" / "physionet.org" / "files" / "mimiciv" / "3.1"
    write(root, TABLES | {"SHA256SUMS.txt": checksums(TABLES)})
    given = dataclasses.replace(request4, from_dir=tmp_path / "got")
    names = mimic.get(given)
    assert len(names) == len(always_fetched("mimic4"))
    assert not server.asked
    manifest = Manifest.read(given.output)
    manifest.verify()
    assert {entry["verified"] for entry in manifest.files.values()} == {True}
    assert {entry["by_hand"] for entry in manifest.files.values()} == {True}
    write(root, {"hosp/patients.csv.gz": b"changed"})
    with pytest.raises(InputError, match="not the published file"):
        mimic.get(given)
    (root / "hosp/patients.csv.gz").unlink()
    with pytest.raises(InputError, match="is missing"):
        mimic.get(given)


def test_a_table_that_was_decompressed_by_hand_is_taken_and_told(request4, tmp_path, capsys):
    files = {name.removesuffix(".gz"): gzip.decompress(content) for name, content in TABLES.items()}
    write(tmp_path / "got", files | {"SHA256SUMS.txt": checksums(TABLES)})
    names = mimic.get(dataclasses.replace(request4, from_dir=tmp_path / "got"))
    assert "hosp/patients.csv" in names
    assert "cannot be compared" in capsys.readouterr().err
    assert not Manifest.read(request4.output).files["hosp/patients.csv"]["verified"]


def test_the_archive_of_the_project(request4, tmp_path):
    (tmp_path / "got").mkdir()
    with zipfile.ZipFile(tmp_path / "got" / "mimic-iii-clinical-database-demo-1.4.zip", "w") as archive:
        for name, content in (DEMO3 | {"SHA256SUMS.txt": checksums(DEMO3)}).items():
            archive.writestr(f"mimic-iii-clinical-database-demo-1.4/{name}", content)
    demo = dataclasses.replace(request4, version="mimic3", demo=True, from_dir=tmp_path / "got")
    names = mimic.get(demo)
    assert {name: (demo.output / name).read_bytes() for name in names} == {name: DEMO3[name] for name in names}
    assert sorted(path.name for path in demo.output.iterdir()) == sorted([*names, FILE_NAME])


def test_a_folder_of_something_else(request4, tmp_path):
    write(tmp_path / "got", DEMO3 | {"SHA256SUMS.txt": checksums(DEMO3)})
    with pytest.raises(InputError, match="holds no SHA256SUMS"):
        mimic.get(dataclasses.replace(request4, from_dir=tmp_path / "got"))


@needs_wget
def test_a_version_without_a_table(server, request4, logged_in):
    fewer = {name: content for name, content in TABLES.items() if "icustays" not in name}
    server.files["/files/mimiciv/3.1/SHA256SUMS.txt"].content = checksums(fewer)
    with pytest.raises(InputError, match="does not list the table icu/icustays"):
        mimic.get(request4)


@pytest.mark.parametrize("text", ["", "nonsense\n", f"{'0' * 64}  ../../etc/passwd\n", f"{'0' * 64}  /etc/passwd\n"])
def test_damaged_checksums(tmp_path, text):
    (tmp_path / "SHA256SUMS.txt").write_text(text)
    with pytest.raises(InputError, match="get the file again"):
        physionet.read_checksums(tmp_path / "SHA256SUMS.txt")


def test_checksums_as_tools_write_them(tmp_path):
    (tmp_path / "SHA256SUMS.txt").write_text(f"{'AB' * 32} a b.csv\n{'cd' * 32}  ./x/y.csv\n{'ef' * 32} *z\r\n")
    assert physionet.read_checksums(tmp_path / "SHA256SUMS.txt") == {
        "a b.csv": "ab" * 32,
        "x/y.csv": "cd" * 32,
        "z": "ef" * 32,
    }


@pytest.mark.integration
def test_prepared_as_patient_records(tmp_path):
    """The command reads files as wget leaves them, with a table listed that was not fetched."""
    root = mimic_copies.write(tmp_path / "got", "mimic4", gzipped=True, without=("hosp/emar", "icu/chartevents"))
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.gz")}
    (root / "SHA256SUMS.txt").write_bytes(checksums(files))
    (root / "hosp" / "omr.csv.gz").unlink()
    arguments, environment = command(
        "--version=mimic4", f"--from_dir={root}", f"--output={tmp_path / 'out'}", "--prepare"
    )
    for state in ("was written", "existed already"):
        done = run_module(*arguments[2:], env=environment)
        assert done.returncode == 0, done.stderr
        assert state in " ".join(done.stdout.split())
    dataset = MedsDataset.open(tmp_path / "out" / mimic.MEDS)
    assert dataset.subjects().tolist() == [10000021, 10000022, 10000023]
    about = json.loads((dataset.root / "metadata" / "dataset.json").read_text())
    assert about["dataset_version"] == "3.1"
    Manifest.read(tmp_path / "out").verify()


def test_the_download_follows_the_declaration_of_tables():
    """The conversion reads what the download fetches: one list, with the tables that the project is known to use."""
    assert always_fetched("mimic3") == [
        *("ADMISSIONS", "PATIENTS", "DIAGNOSES_ICD", "PROCEDURES_ICD", "PRESCRIPTIONS", "ICUSTAYS"),
        *("D_ICD_DIAGNOSES", "D_ICD_PROCEDURES"),
    ]
    for_records = [table.file for table in DECLARED["mimic4"] if table.scope is DownloadScope.FOR_RECORDS]
    names = ("transfers", "drgcodes", "hcpcsevents", "omr", "labevents", "d_labitems", "d_hcpcs")
    assert for_records == [f"hosp/{name}" for name in names]
    for version in DECLARED:
        assert {table.name for table in event_tables(version)} == set(event_makers(version, "store"))


def test_the_download_needs_no_package_of_an_extra():
    code = "import sys; sys.modules['polars'] = sys.modules['meds'] = None; import preprocessing.mimic"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
