"""Fetches one file over https: resumed where it broke off, retried, verified, and there only when it is complete.

Bytes arrive in `NAME.partial`, with `NAME.partial.json` beside it saying which version of which URL they belong to. A
later call goes on from there by `Range` with `If-Range` (RFC 9110, sections 13.1.5 and 14.2), so that a server whose
file has changed sends the whole new one. `NAME` itself appears by a rename, after size and checksums were compared.
"""

import contextlib
import dataclasses
import email.utils
import errno
import logging
import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from tqdm import tqdm

from preprocessing.common.atomic import put_in_place
from preprocessing.common.checksums import md5_of, sha256_of
from preprocessing.common.errors import InputError
from preprocessing.download.http_session import FetchError, Session, check_url
from preprocessing.download.partial_file import PartialFile

# What is read of a chunk when the connection breaks off is lost.
_CHUNK = 1 << 16
# An attempt that brought this much was no failure: a long transfer may break off any number of times.
_ENOUGH = 1 << 20
_RETRIED = (408, 425, 429)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclasses.dataclass(frozen=True)
class Expected:
    """What is known of a file beforehand; None is not compared. Checksums in hex."""

    size: int | None = None
    sha256: str | None = None
    md5: str | None = None


@dataclasses.dataclass(frozen=True)
class Access:
    """What a server wants to see.

    Attributes:
        secret_parameters: added to the URL's query when it is sent, and to nothing that is printed or written.
    """

    secret_parameters: Mapping[str, str] | None = dataclasses.field(default=None, repr=False)


@dataclasses.dataclass(frozen=True)
class Patience:
    """How often and how long to try.

    Attributes:
        attempts: failures in a row before giving up.
        first_wait, longest_wait: seconds; the wait doubles from the one to the other, less a random part of up to half.
        connect_timeout, read_timeout: seconds without a connection, and without a byte.
        sleep: waits that many seconds.
    """

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 120.0
    connect_timeout: float = 15.0
    read_timeout: float = 60.0
    sleep: Callable[[float], None] = time.sleep


@dataclasses.dataclass(frozen=True)
class Fetched:
    """A complete file: its path, size in bytes and sha256 (hex)."""

    path: Path
    size: int
    sha256: str


def fetch(
    url: str,
    path: str | os.PathLike,
    *,
    expected: Expected | None = None,
    access: Access | None = None,
    patience: Patience | None = None,
    progress: bool = True,
) -> Fetched:
    """Fetches `url` into the file `path`, which it replaces.

    Args:
        url: https, or http on this machine.
        path: its folder is made where it does not exist.
        expected: size and checksums to compare.
        access: secret parameters.
        patience: attempts, waits, timeouts.
        progress: show a progress bar, where stderr is a terminal.

    Raises:
        FetchError: the server refuses, or does not answer in spite of all attempts, or what it sends is not what is
            expected (nothing is kept then).
        InputError: the URL cannot be used, or the file cannot be written.
    """
    path, expected, access = Path(path), expected or Expected(), access or Access()
    patience = patience or Patience()
    check_url(url)
    partial = PartialFile(path, url, has_checksum=bool(expected.sha256 or expected.md5))
    with _writable(path), _session(access) as session:
        path.parent.mkdir(parents=True, exist_ok=True)
        failures = 0
        while True:
            before = partial.size()
            try:
                if not partial.is_complete():
                    _attempt(session, partial, expected, access, patience, progress)
                return _finish(partial, expected)
            except _Interrupted as interruption:
                failures = 1 if partial.size() - before >= _ENOUGH else failures + 1
                if failures >= min(patience.attempts, interruption.attempts):
                    raise FetchError(
                        f"{url} could not be fetched: {interruption}, {_times(failures)}; run the same command again "
                        "to go on from there.",
                        interruption.status,
                    ) from interruption
                patience.sleep(_wait(interruption, failures, patience))


def read(url: str, *, access: Access | None = None, patience: Patience | None = None) -> bytes:
    """Contents of a small file, such as a listing; see `fetch`."""
    with tempfile.TemporaryDirectory() as folder:
        return fetch(url, Path(folder) / "reply", access=access, patience=patience, progress=False).path.read_bytes()


class _Interrupted(Exception):
    """An attempt failed in a way that another attempt may mend; the text is part of a sentence.

    Attributes:
        status: of HTTP, where there was an answer.
        wait: seconds that the server asks for.
        attempts: how many are enough, where patience would take more.
    """

    def __init__(
        self, reason: str, status: int | None = None, wait: float | None = None, attempts: float = float("inf")
    ):
        super().__init__(reason)
        self.status = status
        self.wait = wait
        self.attempts = attempts


@contextlib.contextmanager
def _session(access: Access) -> Iterator[requests.Session]:
    if access.secret_parameters:
        # At its debug level urllib3 logs the query of every request.
        logging.getLogger("urllib3").setLevel(logging.INFO)
    with Session() as session:
        # `identity`, for sizes and ranges count the bytes on the wire.
        session.headers.update({"Accept": "*/*", "Accept-Encoding": "identity"})
        yield session


def _attempt(
    session: requests.Session,
    partial: PartialFile,
    expected: Expected,
    access: Access,
    patience: Patience,
    progress: bool,
) -> None:
    """One request: appends to the partial file, or starts it again.

    Raises:
        _Interrupted: it broke off, or the server asks to come again.
        FetchError: trying again would not help.
    """
    have, validator = partial.resumable()
    headers = {"Range": f"bytes={have}-"} if have else {}
    if validator:
        headers["If-Range"] = validator
    try:
        with session.get(
            partial.url,
            params=access.secret_parameters,
            headers=headers,
            timeout=(patience.connect_timeout, patience.read_timeout),
            stream=True,
        ) as response:
            _check_status(response, partial, patience)
            total = _begin(response, partial, have, validator, expected)
            _receive(response, partial, total, progress)
    except requests.TooManyRedirects as error:
        raise FetchError(f"{partial.url} redirects in a circle; it cannot be fetched.") from error
    except requests.RequestException as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            host = urlsplit(partial.url).hostname
            raise FetchError(
                f"the certificate of {host} is not trusted here, so nothing is fetched from it; behind a proxy that "
                "replaces certificates, set REQUESTS_CA_BUNDLE to the file of its authority."
            ) from None
        if _is_unknown_name(error):
            name = urlsplit(partial.url).hostname
            raise _Interrupted(f"the name {name} is not known here (is there a network?)", attempts=2) from None
        # Not the exception's own text, which holds the URL with its secret parameters.
        raise _Interrupted(_reason(error, partial.url, patience)) from None
    if total is not None and partial.size() != total:
        raise _Interrupted(f"the connection broke off after {partial.size():,} of {total:,} bytes")


def _check_status(response: requests.Response, partial: PartialFile, patience: Patience) -> None:
    status = response.status_code
    if status in (200, 206):
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind == "text/html" and not partial.path.name.endswith((".html", ".htm")):
            raise FetchError(
                f"{partial.url} answers with a web page instead of {partial.path.name}; open it in a browser to see "
                "what it asks for.",
                status,
            )
    elif status == 416:
        partial.discard()
        raise _Interrupted("the server does not have the rest of the file", status)
    elif status in _RETRIED or status >= 500:
        wait = _retry_after(response.headers.get("Retry-After"))
        if wait is not None and wait > patience.longest_wait:
            raise FetchError(
                f"{partial.url} answers {_status(response)} and asks to come again in {wait:,.0f} seconds; run the "
                "same command again then.",
                status,
            )
        raise _Interrupted(f"the server answers {_status(response)}", status, wait)
    else:
        raise FetchError(f"{partial.url} cannot be fetched: the server answers {_status(response)}.", status)


def _begin(
    response: requests.Response, partial: PartialFile, have: int, validator: str | None, expected: Expected
) -> int | None:
    """Makes the partial file fit the answer; returns how many bytes the whole file has, where that is known."""
    if response.status_code == 206:
        total = _check_continues(response, partial, have, validator)
        partial.joined = True
    else:
        encoded = response.headers.get("Content-Encoding", "identity") != "identity"
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() and not encoded else None
        partial.restart(_validator(response), total)
    size = expected.size
    if size is not None and total is not None and total != size:
        partial.discard()
        raise FetchError(f"{partial.url} has {total:,} bytes where {size:,} are expected; nothing was kept.")
    free = shutil.disk_usage(partial.path.parent).free
    if total is not None and total - partial.size() > free:
        raise InputError(
            f"{partial.path} needs {total - partial.size():,} bytes more, but only {free:,} are free; make room or "
            "choose another folder."
        )
    return total


def _check_continues(response: requests.Response, partial: PartialFile, have: int, validator: str | None) -> int:
    """Total size that a 206 answer states; it must go on exactly where the bytes end, in the same version."""
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
    total = partial.state().get("total")
    current = _validator(response)
    same = validator is None or current is None or current == validator
    same = same and response.headers.get("Content-Encoding", "identity") == "identity"
    if not have or not match or int(match[1]) != have or total not in (None, int(match[3])) or not same:
        partial.discard()
        raise _Interrupted("the server goes on with something else than what was begun")
    return int(match[3])


def _receive(response: requests.Response, partial: PartialFile, total: int | None, progress: bool) -> None:
    with (
        partial.file.open("ab") as file,
        tqdm(
            desc=partial.path.name,
            total=total,
            initial=partial.size(),
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            leave=False,
            disable=None if progress else True,
        ) as bar,
    ):
        for chunk in response.iter_content(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))


def _finish(partial: PartialFile, expected: Expected) -> Fetched:
    """Compares, then renames."""
    size = partial.size()
    found = {"sha256": sha256_of(partial.file)}
    if expected.md5:
        found["md5"] = md5_of(partial.file)
    wrong = None
    if size == 0 or (expected.size is not None and size != expected.size):
        wanted = "some" if expected.size is None else f"{expected.size:,}"
        wrong = f"has {size:,} bytes where {wanted} are expected"
    for name in ("sha256", "md5"):
        wanted = getattr(expected, name)
        if not wrong and wanted and found[name] != wanted.lower():
            wrong = f"has the {name} {found[name]} where {wanted.lower()} is expected"
    if wrong:
        joined = partial.joined
        partial.discard()
        if joined:  # The part that was there before may be what is wrong.
            raise _Interrupted(f"the file put together from parts {wrong}")
        raise FetchError(f"{partial.url} {wrong}; nothing was kept.")
    put_in_place(partial.file, partial.path)
    partial.discard()
    return Fetched(partial.path, size, found["sha256"])


def _validator(response: requests.Response) -> str | None:
    """What `If-Range` takes: a strong entity tag, else the date of the last change."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _retry_after(value: str | None) -> float | None:
    """Seconds that `Retry-After` asks for: a number, or a date."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _wait(interruption: _Interrupted, failures: int, patience: Patience) -> float:
    if interruption.wait is not None:
        return interruption.wait
    # A random part keeps many clients of one server from coming back all at once.
    return min(patience.longest_wait, patience.first_wait * 2.0 ** (failures - 1)) * random.uniform(0.5, 1.0)


def _is_unknown_name(error: requests.RequestException) -> bool:
    cause = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(cause, urllib3.exceptions.NameResolutionError)


def _reason(error: requests.RequestException, url: str, patience: Patience) -> str:
    host = urlsplit(url).hostname
    if isinstance(error, requests.ConnectTimeout):
        return f"{host} did not answer within {patience.connect_timeout:g} seconds"
    if isinstance(error, requests.ReadTimeout) or isinstance(
        error.args[0] if error.args else None, urllib3.exceptions.ReadTimeoutError
    ):
        return f"{host} sent nothing for {patience.read_timeout:g} seconds"
    if isinstance(error, requests.exceptions.SSLError):
        return f"no trusted TLS connection to {host}"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy refuses"
    return f"the connection to {host} failed or broke off"


def _status(response: requests.Response) -> str:
    return f"{response.status_code} {response.reason or ''}".strip()


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times in a row"


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Turns what the file system refuses into one sentence."""
    try:
        yield
    except requests.RequestException:  # Is an OSError too.
        raise
    except OSError as error:
        if error.errno is None:
            raise
        advice = "make room or " if error.errno in _DISK_FULL else ""
        raise InputError(f"{path} cannot be written ({error.strerror}); {advice}choose another folder.") from error
