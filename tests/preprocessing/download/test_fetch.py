"""Against a real server on this machine that breaks off, forgets, lies and refuses."""

import hashlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from preprocessing.common.errors import InputError
from preprocessing.download.fetch import Access, Expected, RetryPolicy, fetch, read
from preprocessing.download.http_session import FetchError
from tests.helpers.file_server import FileServer, Served

CONTENT = random.Random(7).randbytes(3_000_000)


@pytest.fixture
def server():
    with FileServer() as running:
        yield running


@pytest.fixture
def waits():
    return []


@pytest.fixture
def retry(waits):
    return RetryPolicy(attempts=4, first_wait=1.0, connect_timeout=5.0, read_timeout=5.0, sleep=waits.append)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def ranges(server, path="/f"):
    return [asked.headers.get("range") for asked in server.requests(path)]


def test_a_file_arrives_with_its_size_and_checksum(server, tmp_path):
    server.files["/f"] = Served(CONTENT)
    expected = Expected(size=len(CONTENT), sha256=server.files["/f"].sha256, md5=hashlib.md5(CONTENT).hexdigest())
    fetched = fetch(f"{server.url}/f", tmp_path / "deep" / "f.bin", expected=expected, progress=False)
    assert fetched.path.read_bytes() == CONTENT
    assert (fetched.size, fetched.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert files(tmp_path / "deep") == ["f.bin"]
    # Ranges and sizes would count compressed bytes otherwise.
    assert server.asked[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("validators", [{"etag": '"v1"'}, {"last_modified": "Wed, 01 Apr 2026 00:00:00 GMT"}])
def test_a_broken_transfer_goes_on_where_it_broke_off(server, tmp_path, retry, validators):
    server.files["/f"] = Served(CONTENT, cuts=[1_000_000, 900_000], **validators)
    fetch(f"{server.url}/f", tmp_path / "f", retry=retry, progress=False)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert files(tmp_path) == ["f"]
    first, second, third = ranges(server)
    assert first is None
    assert 0 < int(second[6:-1]) <= 1_000_000
    assert int(second[6:-1]) < int(third[6:-1]) <= 1_900_000
    assert server.asked[1].headers["if-range"] == next(iter(validators.values()))


def test_a_file_that_changed_meanwhile_is_fetched_from_the_start(server, tmp_path, retry):
    changed = random.Random(8).randbytes(2_500_000)

    def change(served, count):
        if count == 2:
            served.content, served.etag = changed, '"v2"'

    server.files["/f"] = Served(CONTENT, etag='"v1"', cuts=[1_500_000], before=change)
    fetch(f"{server.url}/f", tmp_path / "f", retry=retry, progress=False)
    assert (tmp_path / "f").read_bytes() == changed


def test_a_server_that_goes_on_with_a_changed_file_is_not_believed(server, tmp_path, retry):
    """It ignores If-Range and sends the rest of another version; the entity tag gives it away."""
    changed = random.Random(8).randbytes(len(CONTENT))

    def change(served, count):
        if count == 2:
            served.content, served.etag = changed, '"v2"'
            served.last_modified = '"v1"'  # What the condition of the request is compared with, too.

    server.files["/f"] = Served(CONTENT, etag='"v1"', cuts=[1_500_000], before=change)
    fetch(f"{server.url}/f", tmp_path / "f", retry=retry, progress=False)
    assert ranges(server)[1] is not None
    assert ranges(server)[2] is None
    assert (tmp_path / "f").read_bytes() == changed


def test_a_server_that_ignores_ranges_starts_from_zero(server, tmp_path, retry):
    server.files["/f"] = Served(CONTENT, etag='"v1"', cuts=[1_000_000], ignores_range=True)
    fetch(f"{server.url}/f", tmp_path / "f", retry=retry, progress=False)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert ranges(server)[1] is not None


def test_without_a_validator_parts_are_joined_only_if_a_checksum_is_known(server, tmp_path, retry):
    server.files["/f"] = Served(CONTENT, cuts=[1_000_000])
    fetch(f"{server.url}/f", tmp_path / "f", retry=retry, progress=False)
    assert ranges(server) == [None, None]
    server.files["/g"] = Served(CONTENT, cuts=[1_000_000])
    expected = Expected(sha256=server.files["/g"].sha256)
    fetch(f"{server.url}/g", tmp_path / "g", expected=expected, retry=retry, progress=False)
    assert ranges(server, "/g")[1] is not None
    assert (tmp_path / "f").read_bytes() == (tmp_path / "g").read_bytes() == CONTENT


def test_joined_parts_that_do_not_fit_are_fetched_again(server, tmp_path, retry):
    """The part on disk is damaged: the checksum tells, and the file is fetched whole."""
    server.files["/f"] = Served(CONTENT, etag='"v1"', cuts=[1_000_000])
    expected = Expected(sha256=server.files["/f"].sha256)
    with pytest.raises(FetchError):
        fetch(f"{server.url}/f", tmp_path / "f", expected=expected, retry=RetryPolicy(attempts=1), progress=False)
    partial = tmp_path / "f.partial"
    partial.write_bytes(b"\0" * partial.stat().st_size)
    fetch(f"{server.url}/f", tmp_path / "f", expected=expected, retry=retry, progress=False)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert ranges(server)[2] is None


def test_a_part_of_another_url_is_not_used(server, tmp_path, retry):
    server.files["/f"] = Served(CONTENT, etag='"v1"', cuts=[1_000_000])
    server.files["/g"] = Served(CONTENT[::-1], etag='"v1"')
    with pytest.raises(FetchError):
        fetch(f"{server.url}/f", tmp_path / "f", retry=RetryPolicy(attempts=1), progress=False)
    fetch(f"{server.url}/g", tmp_path / "f", retry=retry, progress=False)
    assert (tmp_path / "f").read_bytes() == CONTENT[::-1]
    assert ranges(server, "/g") == [None]


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        (Expected(sha256="0" * 64), "sha256"),
        (Expected(md5="0" * 32), "md5"),
        (Expected(size=5), "5 are expected"),
    ],
)
def test_wrong_bytes_are_not_kept_and_not_fetched_twice(server, tmp_path, retry, expected, words):
    server.files["/f"] = Served(CONTENT, etag='"v1"')
    with pytest.raises(FetchError, match=words) as caught:
        fetch(f"{server.url}/f", tmp_path / "f", expected=expected, retry=retry, progress=False)
    assert files(tmp_path) == []
    assert len(server.asked) == 1
    assert caught.value.exit_status == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again_when_it_says(server, tmp_path, retry, waits, status):
    server.files["/f"] = Served(CONTENT, failures=[status], headers={"Retry-After": "0"})
    fetch(f"{server.url}/f", tmp_path / "f", retry=retry, progress=False)
    assert waits == [0.0]
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_retry_after_may_be_a_date_and_may_be_too_far(server, tmp_path, retry, waits):
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    server.files["/f"] = Served(CONTENT, failures=[503], headers={"Retry-After": date})
    fetch(f"{server.url}/f", tmp_path / "f", retry=retry, progress=False)
    assert 25 < waits[0] <= 30
    server.files["/g"] = Served(CONTENT, failures=[503], headers={"Retry-After": "86400"})
    with pytest.raises(FetchError, match="86,400 seconds"):
        fetch(f"{server.url}/g", tmp_path / "g", retry=retry, progress=False)


def test_waits_double_less_a_random_part_until_attempts_end(server, tmp_path, waits):
    server.files["/f"] = Served(CONTENT, failures=[503] * 9)
    retry = RetryPolicy(attempts=5, first_wait=2.0, longest_wait=7.0, sleep=waits.append)
    with pytest.raises(FetchError, match="5 times in a row") as caught:
        fetch(f"{server.url}/f", tmp_path / "f", retry=retry, progress=False)
    assert caught.value.status == 503
    assert len(server.asked) == 5
    for wait, longest in zip(waits, [2.0, 4.0, 7.0, 7.0], strict=True):
        assert longest / 2 <= wait <= longest


def test_progress_resets_the_number_of_failures(server, tmp_path, waits):
    """Ten cuts, each after more than a megabyte, with a policy of two attempts."""
    content = random.Random(9).randbytes(16_000_000)
    server.files["/f"] = Served(content, etag='"v1"', cuts=[1_500_000] * 10)
    fetch(f"{server.url}/f", tmp_path / "f", retry=RetryPolicy(attempts=2, sleep=waits.append), progress=False)
    assert (tmp_path / "f").read_bytes() == content
    assert len(server.asked) > 10


def test_a_trickle_is_no_progress(server, tmp_path, waits):
    server.files["/f"] = Served(CONTENT, etag='"v1"', cuts=[200_000] * 9)
    with pytest.raises(FetchError, match=r"broke off.*3 times in a row"):
        fetch(f"{server.url}/f", tmp_path / "f", retry=RetryPolicy(attempts=3, sleep=waits.append), progress=False)
    assert (tmp_path / "f.partial").stat().st_size > 300_000


def test_a_server_that_is_not_there(tmp_path, retry, waits):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(FetchError, match="4 times in a row"):
        fetch(f"http://127.0.0.1:{port}/f", tmp_path / "f", retry=retry, progress=False)
    assert len(waits) == 3


def test_without_a_network_it_is_not_long_tried(tmp_path, retry, waits, monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(FetchError, match=r"not known here .* 2 times in a row"):
        fetch("https://no-such-host.invalid/f", tmp_path / "f", retry=retry, progress=False)
    assert len(waits) == 1


def test_a_cut_answer_of_unknown_length_is_seen_by_its_checksum(server, tmp_path, retry):
    whole = hashlib.sha256(CONTENT).hexdigest()
    server.files["/f"] = Served(CONTENT, cuts=[500_000], hides_length=True)
    with pytest.raises(FetchError, match="sha256"):
        fetch(f"{server.url}/f", tmp_path / "f", expected=Expected(sha256=whole), retry=retry, progress=False)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("served", "words"), [(Served(b""), "0 bytes"), (Served(b"<html>", kind="text/html"), "web page")]
)
def test_an_empty_answer_and_a_web_page_are_no_files(server, tmp_path, served, words):
    server.files["/f"] = served
    with pytest.raises(FetchError, match=words):
        fetch(f"{server.url}/f", tmp_path / "table.csv", retry=RetryPolicy(attempts=1), progress=False)
    assert not (tmp_path / "table.csv").exists()


def test_no_room_is_told_before_the_transfer(server, tmp_path):
    server.files["/f"] = Served(b"x", headers={"Content-Length": str(1 << 60)})
    server.files["/f"].hides_length = True
    with pytest.raises(InputError, match="are free"):
        fetch(f"{server.url}/f", tmp_path / "f", progress=False)


def test_a_folder_that_cannot_be_written_is_told(server, tmp_path):
    server.files["/f"] = Served(CONTENT)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="choose another folder"):
        fetch(f"{server.url}/f", tmp_path / "file" / "f", progress=False)


def test_credentials_of_a_netrc_file_are_not_sent(server, tmp_path, monkeypatch):
    """Neither at once, nor after a redirect."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login other password else\nmachine 127.0.0.1 login other password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.files["/same"] = Served(redirect="/g")
    server.files["/f"] = Served(redirect=f"{server.other_url}/g")
    server.files["/g"] = Served(CONTENT)
    for path in ("/same", "/f", "/g"):
        fetch(f"{server.url}{path}", tmp_path / "f", progress=False)
    assert len(server.asked) == 5
    assert not any("authorization" in asked.headers for asked in server.asked)


def test_the_server_is_told_who_asks(server, tmp_path):
    server.files["/f"] = Served(CONTENT)
    fetch(f"{server.url}/f", tmp_path / "f", progress=False)
    assert re.fullmatch(r"medtok_jax(/\S+)? \(python-requests/\S+\)", server.asked[0].headers["user-agent"])


def test_secret_parameters_are_sent_but_not_shown(server, tmp_path, caplog):
    caplog.set_level("DEBUG")
    access = Access(secret_parameters={"apiKey": "hunter2"})
    server.files["/f"] = Served(CONTENT, etag='"v1"', cuts=[1_000_000])
    with pytest.raises(FetchError) as caught:
        fetch(f"{server.url}/f?a=1", tmp_path / "f", access=access, retry=RetryPolicy(attempts=1), progress=False)
    assert server.asked[0].query == {"a": ["1"], "apiKey": ["hunter2"]}
    written = "".join(path.read_text() for path in tmp_path.glob("*.json"))
    assert written
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__} {written} {caplog.text} {access}"


def test_a_listing_is_read(server):
    server.files["/list"] = Served(b'{"a": 1}', kind="application/json")
    assert json.loads(read(f"{server.url}/list")) == {"a": 1}


PROGRAM = """
import sys
from preprocessing.download.fetch import fetch
fetch(sys.argv[1], sys.argv[2], progress=False)
"""


@pytest.mark.integration
def test_a_killed_process_leaves_what_the_next_one_goes_on_from(server, tmp_path):
    server.files["/f"] = Served(CONTENT, etag='"v1"', stall=0.05)
    command = [sys.executable, "-c", PROGRAM, f"{server.url}/f", str(tmp_path / "f")]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    partial = tmp_path / "f.partial"
    deadline = time.monotonic() + 30
    while not (partial.exists() and partial.stat().st_size > 500_000):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = partial.stat().st_size
    assert not (tmp_path / "f").exists()
    server.files["/f"].stall = 0.0
    fetch(f"{server.url}/f", tmp_path / "f", progress=False)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert ranges(server) == [None, f"bytes={kept}-"]
