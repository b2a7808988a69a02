"""Promises that both transports keep, requests for most servers and wget for PhysioNet, against a real server."""

import random
import shutil
from pathlib import Path

import pytest

from preprocessing.common.errors import InputError
from preprocessing.download import fetch, wget
from preprocessing.download.fetch import Expected, RetryPolicy
from preprocessing.download.http_session import FetchError
from tests.helpers.file_server import FileServer, Served

CONTENT = random.Random(7).randbytes(3_000_000)
LOGIN = ("ada", "hunter2")


class Transport:
    """Fetches from a server without a login."""

    login: tuple[str, str] | None = None

    def __init__(self, server: FileServer, path: Path):
        self.server, self.path = server, path
        self.served = server.files["/f"] = Served(CONTENT, etag='"1"', auth=self.login)

    def fetch_url(self, url: str, sha256: str | None, retry: RetryPolicy) -> str:
        """Return the sha256 of what was fetched."""
        expected = Expected(sha256=sha256)
        return fetch.fetch(url, self.path, expected=expected, retry=retry, progress=False).sha256

    def fetch(
        self, url: str | None = None, sha256: str | None = None, attempts: int = 3, read_timeout: float = 5
    ) -> str:
        """Fetch the file of the server, or `url`, without waiting between attempts."""
        retry = RetryPolicy(attempts, 0, 0, connect_timeout=5, read_timeout=read_timeout, sleep=lambda _: None)
        return self.fetch_url(f"{self.server.url}/f" if url is None else url, sha256, retry)

    def ranges(self) -> list[str | None]:
        """Return what was asked for in the requests that were let in."""
        asked = self.server.requests("/f")
        return [one.headers.get("range") for one in asked if not self.login or "authorization" in one.headers]


class WgetTransport(Transport):
    """Fetches from a server that asks for a login."""

    login = LOGIN

    def fetch_url(self, url: str, sha256: str | None, retry: RetryPolicy) -> str:
        return wget.fetch(url, self.path, LOGIN, sha256=sha256, retry=retry, progress=False)


needs_wget = pytest.mark.skipif(not shutil.which("wget"), reason="wget is not installed")


@pytest.fixture(params=[Transport, pytest.param(WgetTransport, marks=[needs_wget, pytest.mark.integration])])
def transport(request, tmp_path, monkeypatch):
    (tmp_path / "runtime").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    with FileServer() as server:
        yield request.param(server, tmp_path / "output" / "deep" / "f")


def files(transport: Transport) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in transport.path.parent.iterdir()}


def test_a_file_arrives_alone_in_a_new_folder(transport):
    assert transport.fetch(sha256=transport.served.sha256) == transport.served.sha256
    assert files(transport) == {"f": CONTENT}
    assert transport.ranges() == [None]


def test_a_broken_transfer_goes_on_where_it_broke_off(transport):
    transport.served.cuts = [1_000_000, 900_000]
    transport.fetch(sha256=transport.served.sha256)
    assert files(transport) == {"f": CONTENT}
    first, second, third = transport.ranges()
    assert first is None
    assert 0 < int(second[6:-1]) <= 1_000_000
    assert int(second[6:-1]) < int(third[6:-1]) <= 1_900_000


def test_a_later_call_goes_on(transport):
    transport.served.cuts = [500_000, 10, 10]
    with pytest.raises(FetchError, match=r"broke off.*run the same command again"):
        transport.fetch(sha256=transport.served.sha256)
    assert not transport.path.exists()
    kept = transport.path.with_name("f.partial").stat().st_size
    assert 0 < kept <= 500_020
    transport.fetch(sha256=transport.served.sha256)
    assert files(transport) == {"f": CONTENT}
    assert transport.ranges()[-1] == f"bytes={kept}-"


@pytest.mark.parametrize("size", [1_000_000, 4_000_000])
@pytest.mark.parametrize("ignores_range", [True, False])
def test_a_partial_file_of_something_else_is_discarded(transport, size, ignores_range):
    transport.served.ignores_range = ignores_range
    transport.path.parent.mkdir(parents=True)
    transport.path.with_name("f.partial").write_bytes(b"x" * size)
    transport.fetch(sha256=transport.served.sha256)
    assert files(transport) == {"f": CONTENT}
    assert transport.ranges()[-1] is None


def test_without_a_checksum_nothing_of_unknown_origin_is_gone_on_with(transport):
    transport.path.parent.mkdir(parents=True)
    transport.path.with_name("f.partial").write_bytes(CONTENT[:1000])
    transport.fetch()
    assert files(transport) == {"f": CONTENT}
    assert transport.ranges() == [None]


@pytest.mark.parametrize(
    ("content", "words"), [(b"something else", "sha256.*nothing was kept"), (b"", "is empty|0 bytes")]
)
def test_wrong_bytes_are_not_kept_nor_fetched_twice_and_the_former_file_stays(transport, content, words):
    expected = transport.served.sha256
    transport.path.parent.mkdir(parents=True)
    transport.path.write_bytes(b"before")
    transport.served.content = content
    with pytest.raises(FetchError, match=words) as caught:
        transport.fetch(sha256=expected)
    assert files(transport) == {"f": b"before"}
    assert transport.ranges() == [None]
    assert caught.value.exit_status == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_is_told_at_once(transport, status):
    transport.served.failures = [status] * 10
    with pytest.raises(FetchError, match=f"the server answers {status}") as caught:
        transport.fetch()
    assert (caught.value.status, len(transport.server.asked)) == (status, 1)
    assert not files(transport)
    # The login lies in a file while wget runs.
    assert not list((transport.path.parents[2] / "runtime").iterdir())


def test_a_busy_server_is_asked_again(transport):
    transport.served.failures = [503, 429]
    transport.fetch()
    assert files(transport) == {"f": CONTENT}


def test_a_server_that_stays_busy_is_left(transport):
    transport.served.failures = [503] * 10
    with pytest.raises(FetchError, match="the server answers 503") as caught:
        transport.fetch(attempts=4)
    assert (caught.value.status, len(transport.server.asked)) == (503, 4)
    assert not files(transport)


def test_a_server_that_is_not_there(transport):
    with FileServer() as other:
        url = other.url
    with pytest.raises(FetchError, match=r"127\.0\.0\.1") as caught:
        transport.fetch(f"{url}/f")
    assert caught.value.status is None


def test_a_server_that_falls_silent_is_left_after_the_timeout(transport):
    transport.served.stall = 0.6
    with pytest.raises(FetchError, match=r"sent nothing for 0\.2 seconds|broke off"):
        transport.fetch(sha256=transport.served.sha256, attempts=1, read_timeout=0.2)


@pytest.mark.parametrize(
    "url",
    ["http://example.org/f", "ftp://example.org/f", "file:///etc/passwd", "f", "", "https://ada:hunter2@example.org/f"],
)
def test_only_https_is_fetched(transport, url):
    with pytest.raises(InputError) as caught:
        transport.fetch(url)
    assert "hunter2" not in str(caught.value)


def test_a_redirect_to_plain_http_elsewhere_is_not_followed(transport):
    transport.served.redirect = "http://example.org/f"
    with pytest.raises(FetchError, match="not https"):
        transport.fetch()
