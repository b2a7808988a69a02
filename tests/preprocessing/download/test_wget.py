"""The real wget against a real server on this machine; no real credentials."""

import base64
import dataclasses
import functools
import logging
import os
import random
import shutil
import signal
import ssl
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from preprocessing.common.errors import InputError
from preprocessing.download import physionet, wget
from preprocessing.download.fetch import RetryPolicy
from preprocessing.download.http_session import FetchError
from preprocessing.download.manifest import FILE_NAME
from tests.helpers.file_server import FileServer, Served
from tests.helpers.mimic_copies import always_fetched

CONTENT = random.Random(7).randbytes(3_000_000)
LOGIN = ("ada", "hunter2")
ENCODED = base64.b64encode(b"ada:hunter2").decode()
RETRY = RetryPolicy(attempts=3, longest_wait=0, connect_timeout=5, read_timeout=5)
needs_wget = pytest.mark.skipif(not shutil.which("wget"), reason="wget is not installed")


@pytest.fixture
def server():
    with FileServer() as running:
        running.files["/f"] = Served(CONTENT, etag='"1"', auth=LOGIN)
        yield running


@pytest.fixture(autouse=True)
def runtime(monkeypatch, tmp_path):
    """Return the folder that holds the netrc file while wget runs."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


@pytest.fixture
def path(tmp_path):
    return tmp_path / "output" / "deep" / "f"


def get(server, path, sha256="of the content", login=LOGIN, name="f", **fields):
    sha256 = server.files[f"/{name}"].sha256 if sha256 == "of the content" else sha256
    retry = dataclasses.replace(RETRY, **fields)
    return wget.fetch(f"{server.url}/{name}", path, login, sha256=sha256, retry=retry, progress=False)


def ranges(server):
    """Return the ranges of the requests that were let in."""
    return [asked.headers.get("range") for asked in server.requests("/f") if "authorization" in asked.headers]


@pytest.mark.integration
@needs_wget
def test_a_file_arrives(server, path, runtime):
    assert get(server, path) == server.files["/f"].sha256
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["f"]
    assert not list(runtime.iterdir())
    assert [asked.headers.get("authorization") for asked in server.asked] == [None, f"Basic {ENCODED}"]


@pytest.mark.integration
@needs_wget
def test_it_is_wget_that_asks(server, path):
    version = subprocess.run(["wget", "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    get(server, path)
    assert {asked.headers["user-agent"] for asked in server.asked} == {f"Wget/{version}"}


@pytest.mark.integration
@needs_wget
@pytest.mark.parametrize(
    "password", ["correct horse", 'quo"ted', "back\\slash\\", "#hash #", "'single'", "pässwörd", "machine", '"']
)
def test_all_passwords_pass_through_the_netrc_file(server, path, password):
    server.files["/f"].auth = ("ada l.", password)
    assert get(server, path, login=("ada l.", password))


def test_a_password_that_a_netrc_file_cannot_hold(path):
    with pytest.raises(InputError, match="line break") as caught, wget._login("localhost", ("ada", "hunter2\nx")):
        pass
    assert "hunter2" not in str(caught.value)


@pytest.mark.integration
@needs_wget
def test_a_later_call_goes_on(server, path):
    server.files["/f"].cuts = [500_000, 10, 10]
    with pytest.raises(FetchError, match="broke off after 500,020 bytes; run the same command again"):
        get(server, path)
    assert [file.name for file in path.parent.iterdir()] == ["f.partial"]
    get(server, path)
    assert path.read_bytes() == CONTENT
    assert ranges(server)[-1] == "bytes=500020-"


@pytest.mark.integration
@needs_wget
def test_attempts_count_from_the_last_progress(server, path):
    """A long transfer may break off any number of times."""
    server.files["/f"].cuts = [1_200_000, 1_200_000]
    get(server, path, attempts=1)
    assert path.read_bytes() == CONTENT


@pytest.mark.integration
@needs_wget
def test_all_bytes_were_there_already(server, path):
    path.parent.mkdir(parents=True)
    path.with_name("f.partial").write_bytes(CONTENT)
    get(server, path)
    assert path.read_bytes() == CONTENT
    assert ranges(server) == [f"bytes={len(CONTENT)}-"]


@pytest.mark.integration
@needs_wget
def test_a_wrong_password(server, path, runtime):
    with pytest.raises(FetchError, match="401") as caught:
        get(server, path, login=("ada", "hunter3"))
    assert caught.value.status == 401
    assert "hunter3" not in str(caught.value)
    assert not list(runtime.iterdir())


@pytest.mark.integration
@needs_wget
@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_a_certificate_must_be_trusted(path, tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
    subprocess.run([*command, *subject], check=True, capture_output=True)
    server = FileServer()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with server:
        server.files["/f"] = Served(b"content", auth=LOGIN)
        url = f"https://localhost:{server.port}/f"
        with pytest.raises(FetchError, match="certificate of localhost is not trusted"):
            wget.fetch(url, path, LOGIN, retry=RETRY)
        assert not server.asked
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        wget.fetch(url, path, LOGIN, retry=RETRY)
        assert path.read_bytes() == b"content"


@pytest.mark.integration
@needs_wget
def test_credentials_do_not_follow_a_redirect(server, path):
    server.files["/f"].redirect = f"{server.other_url}/g"
    server.files["/g"] = Served(redirect="/h")
    server.files["/h"] = Served(CONTENT)
    get(server, path, sha256=None)
    assert path.read_bytes() == CONTENT
    assert "authorization" in server.requests("/f")[-1].headers
    assert not any("authorization" in asked.headers for asked in server.requests("/g") + server.requests("/h"))
    server.files["/h"].auth = LOGIN
    with pytest.raises(FetchError, match="401"):
        get(server, path, sha256=None)
    assert not any("authorization" in asked.headers for asked in server.requests("/h"))


@pytest.mark.integration
@needs_wget
def test_a_redirect_to_itself_is_not_followed_for_ever(server, path):
    server.files["/f"].redirect = "/f"
    with pytest.raises(FetchError, match="302"):
        get(server, path)


@pytest.mark.integration
@needs_wget
def test_settings_of_the_user_do_not_interfere(server, path, tmp_path, monkeypatch):
    """Neither a `.wgetrc` nor a `.netrc`, by whatever way wget finds them."""
    settings, netrc = tmp_path / ".wgetrc", tmp_path / ".netrc"
    settings.write_text("user_agent = something else\nspider = on\n")
    netrc.write_text("machine 127.0.0.1 login other password else\n")
    for name, value in (("HOME", tmp_path), ("WGETRC", settings), ("NETRC", netrc)):
        monkeypatch.setenv(name, str(value))
    get(server, path)
    assert path.read_bytes() == CONTENT
    assert server.asked[0].headers["user-agent"].startswith("Wget/")


@pytest.mark.integration
@needs_wget
def test_proxies_of_the_environment_are_used(server, path, monkeypatch):
    """By their names in upper case too, as elsewhere in this program."""
    monkeypatch.setenv("HTTP_PROXY", server.url)
    for name in ("http_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server.files["/f"] = Served(CONTENT)
    wget.fetch("http://localhost:1/f", path, LOGIN, retry=RETRY)
    assert path.read_bytes() == CONTENT
    assert "authorization" not in server.asked[0].headers


@pytest.mark.integration
def test_wget_is_missing(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"install it.*--from_dir"):
        wget.fetch("https://localhost/f", path, LOGIN)
    assert not path.parent.exists()


@pytest.mark.integration
def test_another_program_of_that_name(path, tmp_path, monkeypatch):
    """Wget2 and BusyBox do not know all options."""
    program = tmp_path / "wget"
    program.write_text("#!/bin/sh\necho 'GNU Wget2 2.1.0 - multithreaded metalink/file/website downloader'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="GNU Wget 1"):
        wget.executable()
    program.with_name("wget1").write_text("#!/bin/sh\necho 'GNU Wget 1.24.5 built on linux-gnu.'\n")
    program.with_name("wget1").chmod(0o755)
    assert wget.executable() == str(tmp_path / "wget1")


def children(process):
    """Return the children of a process and of its threads."""
    lists = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for path in lists for child in path.read_text().split()]


def start(server, output, *arguments):
    """`preprocessing.mimic` in its own process, whose server is slow; stops where wget brings the large table."""
    tables = {f"{table}.csv.gz": b"content" for table in always_fetched("mimic4")} | {"hosp/patients.csv.gz": CONTENT}
    for name, content in tables.items():
        server.files[f"/files/mimiciv/3.1/{name}"] = Served(content, etag='"1"', auth=LOGIN)
    sums = "".join(f"{server.files[f'/files/mimiciv/3.1/{name}'].sha256} {name}\n" for name in tables)
    server.files["/files/mimiciv/3.1/SHA256SUMS.txt"] = Served(sums.encode(), auth=LOGIN)
    server.files["/files/mimiciv/3.1/hosp/patients.csv.gz"].stall = 0.05
    environment = {**os.environ, physionet.USER_VARIABLE: LOGIN[0], physionet.PASSWORD_VARIABLE: LOGIN[1]}
    flags = ("--version=mimic4", f"--output={output}", f"--base_url={server.url}/files")
    process = subprocess.Popen(
        [sys.executable, "-m", "preprocessing.mimic", *flags, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What runs in the background of a shell script ignores Ctrl-C, and so would what it starts.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    partial, deadline = output / "hosp" / "patients.csv.gz.partial", time.monotonic() + 30
    while not (partial.exists() and partial.stat().st_size > 200_000):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks into /proc")


@pytest.mark.integration
@needs_wget
@needs_proc
def test_the_password_appears_nowhere(server, tmp_path, runtime):
    """Not in the output, even of the most talkative level, nor in a file that stays, nor where `ps` looks."""
    process = start(server, tmp_path / "output", "--verbosity=1")
    (child,) = children(process.pid)
    command = Path(f"/proc/{child}/cmdline").read_text()
    seen = Path(f"/proc/{process.pid}/cmdline").read_text() + command + Path(f"/proc/{child}/environ").read_text()
    (folder,) = runtime.iterdir()
    netrc = folder / ".netrc"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(netrc.stat().st_mode) == 0o600
    assert netrc.read_text() == 'machine 127.0.0.1 login "ada" password "hunter2"\n'
    others = "".join(file.read_text() for file in folder.iterdir() if file != netrc)
    assert "206" in others or "200" in others
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert Path(command.split("\0")[0]).name == "wget"
    assert not list(runtime.iterdir())
    output = tmp_path / "output"
    assert (output / FILE_NAME).exists()
    written = "".join(file.read_text(errors="replace") for file in output.rglob("*") if file.is_file())
    for secret in (LOGIN[1], ENCODED):
        assert secret not in seen + others + out + err + written


@pytest.mark.integration
@needs_wget
@needs_proc
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_and_gone_on_with(server, tmp_path, runtime, number, status):
    output = tmp_path / "output"
    process = start(server, output)
    (child,) = children(process.pid)
    process.send_signal(number)
    err = process.communicate(timeout=30)[1]
    assert process.returncode == status
    assert "Traceback" not in err
    assert not Path(f"/proc/{child}").exists()
    assert not list(runtime.iterdir())
    assert not (output / "hosp" / "patients.csv.gz").exists()
    kept = (output / "hosp" / "patients.csv.gz.partial").stat().st_size
    served = server.files["/files/mimiciv/3.1/hosp/patients.csv.gz"]
    served.stall = 0
    url = f"{server.url}/files/mimiciv/3.1/hosp/patients.csv.gz"
    wget.fetch(url, output / "hosp" / "patients.csv.gz", LOGIN, sha256=served.sha256, retry=RETRY)
    assert server.asked[-1].headers["range"] == f"bytes={kept}-"


@pytest.mark.integration
@needs_wget
@needs_proc
def test_what_a_killed_process_leaves(server, path, tmp_path, runtime):
    """Its wget goes on alone: nobody else writes into its file; its netrc file is removed by the next call."""
    output = tmp_path / "output"
    process = start(server, output)
    (child,) = children(process.pid)
    process.kill()
    process.communicate()
    (left,) = runtime.iterdir()
    url = f"{server.url}/files/mimiciv/3.1/hosp/patients.csv.gz"
    with pytest.raises(
        InputError, match=r"patients.csv.gz is in use by process \d+ on \S+ since \S+; wait until it ends, or choose"
    ):
        wget.fetch(url, output / "hosp" / "patients.csv.gz", LOGIN, retry=RETRY)
    assert left.exists()
    get(server, path)
    assert not left.exists()
    os.kill(child, signal.SIGTERM)


@pytest.mark.integration
@needs_wget
def test_nothing_is_logged(server, path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    get(server, path)
    shown = capfd.readouterr()
    assert (caplog.text, shown.out, shown.err) == ("", "", "")


@pytest.mark.integration
@needs_wget
def test_without_a_runtime_folder(server, path, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    get(server, path)
    assert path.read_bytes() == CONTENT
