"""Fetch one file over https, resuming broken transfers, retrying, and verifying the file before it appears.

Bytes arrive in `NAME.partial`; `NAME.partial.json` beside it states the version and URL to which they belong. A later
call resumes by `Range` with `If-Range` (RFC 9110, sections 13.1.5 and 14.2), so that a server whose file has changed
sends the complete new one. `NAME` itself appears by a rename, after size and checksums were compared.
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

from preprocessing.common.atomic import put_in_place
from preprocessing.common.checksums import md5_of, sha256_of
from preprocessing.common.errors import InputError
from preprocessing.common.progress import Bar
from preprocessing.download.http_session import FetchError, Session, check_url
from preprocessing.download.partial_file import PartialFile

# A chunk that is incomplete when the connection breaks off is lost.
_CHUNK = 1 << 16
# An attempt that received this many bytes is no failure: a long transfer may break off any number of times.
_ENOUGH = 1 << 20
_RETRIED = (408, 425, 429)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclasses.dataclass(frozen=True)
class Expected:
    """Hold the known size (bytes) and checksums (hex) of a file before it is fetched; None is not compared."""

    size: int | None = None
    sha256: str | None = None
    md5: str | None = None


@dataclasses.dataclass(frozen=True)
class Access:
    """Hold the credentials that a server needs.

    Attributes:
        secret_parameters: added to the query of the URL in requests, but never printed or written.
    """

    secret_parameters: Mapping[str, str] | None = dataclasses.field(default=None, repr=False)


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """Hold the numbers and times that limit the retries of a transfer (exponential backoff with jitter).

    Attributes:
        attempts: number of failures in a row before giving up.
        first_wait: seconds; the wait doubles with every failure, and is reduced by a random part of up to half.
        longest_wait: seconds; upper bound of the wait.
        connect_timeout: seconds without a connection.
        read_timeout: seconds without a byte.
        sleep: function that waits a number of seconds.
    """

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 120.0
    connect_timeout: float = 15.0
    read_timeout: float = 60.0
    sleep: Callable[[float], None] = time.sleep


@dataclasses.dataclass(frozen=True)
class Fetched:
    """Hold the path, size (bytes) and SHA-256 (hex) of a complete file."""

    path: Path
    size: int
    sha256: str


def fetch(
    url: str,
    path: str | os.PathLike,
    *,
    expected: Expected | None = None,
    access: Access | None = None,
    retry: RetryPolicy | None = None,
    progress: bool = True,
) -> Fetched:
    """Fetch `url` into the file `path`, which it replaces.

    Args:
        url: https, or http on this machine.
        path: target; its folder is created if it does not exist.
        expected: size and checksums to compare.
        access: secret parameters.
        retry: attempts, waits, timeouts.
        progress: whether to show how far the transfer is.

    Raises:
        FetchError: the server refuses, or does not answer after all attempts, or the file is not the expected one
            (nothing is kept then).
        InputError: the URL cannot be used, or the file cannot be written.
    """
    path = Path(path)
    expected = expected or Expected()
    access = access or Access()
    retry = retry or RetryPolicy()
    check_url(url)
    partial = PartialFile(path, url, has_checksum=bool(expected.sha256 or expected.md5))
    with _writable(path), _session(access) as session:
        path.parent.mkdir(parents=True, exist_ok=True)
        failures = 0
        while True:
            before = partial.size()
            try:
                if not partial.is_complete():
                    _attempt(session, partial, expected, access, retry, progress)
                return _finish(partial, expected)
            except _Interrupted as interruption:
                failures = 1 if partial.size() - before >= _ENOUGH else failures + 1
                if failures >= min(retry.attempts, interruption.attempts):
                    raise FetchError(
                        f"{url} could not be fetched: {interruption}, {_times(failures)}; run the same command again "
                        "to resume.",
                        interruption.status,
                    ) from interruption
                retry.sleep(_wait(interruption, failures, retry))


def read(url: str, *, access: Access | None = None, retry: RetryPolicy | None = None) -> bytes:
    """Fetch a small file, such as a listing, and return its contents; see `fetch`."""
    with tempfile.TemporaryDirectory() as folder:
        return fetch(url, Path(folder) / "reply", access=access, retry=retry, progress=False).path.read_bytes()


class _Interrupted(Exception):
    """Signal a failure that another attempt may resolve; the text is part of a sentence.

    Attributes:
        status: HTTP status if there was an answer.
        wait: seconds that the server asks to wait.
        attempts: maximum number of attempts for this failure.
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
        # urllib3 logs the query of every request at its debug level.
        logging.getLogger("urllib3").setLevel(logging.INFO)
    with Session() as session:
        # `identity`, because sizes and ranges count the bytes on the wire.
        session.headers.update({"Accept": "*/*", "Accept-Encoding": "identity"})
        yield session


def _attempt(
    session: requests.Session,
    partial: PartialFile,
    expected: Expected,
    access: Access,
    retry: RetryPolicy,
    progress: bool,
) -> None:
    """Send one request, and append its bytes to the partial file or restart it.

    Raises:
        _Interrupted: the transfer broke off, or the server asks to try later.
        FetchError: another attempt would not help.
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
            timeout=(retry.connect_timeout, retry.read_timeout),
            stream=True,
        ) as response:
            _check_status(response, partial, retry)
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
        # The text of the exception holds the URL with its secret parameters, so it is not shown.
        raise _Interrupted(_reason(error, partial.url, retry)) from None
    if total is not None and partial.size() != total:
        raise _Interrupted(f"the connection broke off after {partial.size():,} of {total:,} bytes")


def _check_status(response: requests.Response, partial: PartialFile, retry: RetryPolicy) -> None:
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
        if wait is not None and wait > retry.longest_wait:
            raise FetchError(
                f"{partial.url} answers {_status(response)} and asks to try again in {wait:,.0f} seconds; run the "
                "same command again then.",
                status,
            )
        raise _Interrupted(f"the server answers {_status(response)}", status, wait)
    else:
        raise FetchError(f"{partial.url} cannot be fetched: the server answers {_status(response)}.", status)


def _begin(
    response: requests.Response, partial: PartialFile, have: int, validator: str | None, expected: Expected
) -> int | None:
    """Prepare the partial file for the answer; return the size (bytes) of the complete file, None if unknown."""
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
    """Check that a 206 answer continues after the received bytes, in the same version; return the total size."""
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
    total = partial.state().get("total")
    current = _validator(response)
    same = validator is None or current is None or current == validator
    same = same and response.headers.get("Content-Encoding", "identity") == "identity"
    if not have or not match or int(match[1]) != have or total not in (None, int(match[3])) or not same:
        partial.discard()
        raise _Interrupted("the server does not continue the file that was begun")
    return int(match[3])


def _receive(response: requests.Response, partial: PartialFile, total: int | None, progress: bool) -> None:
    with (
        partial.file.open("ab") as file,
        Bar(
            desc=partial.path.name,
            total=total,
            initial=partial.size(),
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            leave=False,
            show=progress,
        ) as bar,
    ):
        for chunk in response.iter_content(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))


def _finish(partial: PartialFile, expected: Expected) -> Fetched:
    """Compare size and checksums with the expected ones, then rename the partial file."""
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
        if joined:  # The part of an earlier run may be wrong.
            raise _Interrupted(f"the file that was joined from parts {wrong}")
        raise FetchError(f"{partial.url} {wrong}; nothing was kept.")
    put_in_place(partial.file, partial.path)
    partial.discard()
    return Fetched(partial.path, size, found["sha256"])


def _validator(response: requests.Response) -> str | None:
    """Return the value for `If-Range`: a strong entity tag, else the date of the last change."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _retry_after(value: str | None) -> float | None:
    """Return the seconds that the header `Retry-After` asks for, as a number or a date; None if absent or malformed."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _wait(interruption: _Interrupted, failures: int, retry: RetryPolicy) -> float:
    if interruption.wait is not None:
        return interruption.wait
    longest = min(retry.longest_wait, retry.first_wait * 2.0 ** (failures - 1))
    # A random part keeps the clients of a server from returning at the same time.
    return longest * random.uniform(0.5, 1.0)  # nosec B311 # No secret.


def _is_unknown_name(error: requests.RequestException) -> bool:
    cause = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(cause, urllib3.exceptions.NameResolutionError)


def _reason(error: requests.RequestException, url: str, retry: RetryPolicy) -> str:
    host = urlsplit(url).hostname
    if isinstance(error, requests.ConnectTimeout):
        return f"{host} did not answer within {retry.connect_timeout:g} seconds"
    if isinstance(error, requests.ReadTimeout) or isinstance(
        error.args[0] if error.args else None, urllib3.exceptions.ReadTimeoutError
    ):
        return f"{host} sent nothing for {retry.read_timeout:g} seconds"
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
    """Turn errors of the file system into an `InputError` that names the path."""
    try:
        yield
    except requests.RequestException:  # This is an OSError, too.
        raise
    except OSError as error:
        if error.errno is None:
            raise
        advice = "make room or " if error.errno in _DISK_FULL else ""
        raise InputError(f"{path} cannot be written ({error.strerror}); {advice}choose another folder.") from error
