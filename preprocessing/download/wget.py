"""Fetch a file that needs a password with the user's GNU Wget, for servers that accept only programs they know.

The password reaches wget through a `.netrc` file in a folder that only this user can open, which is wget's HOME and is
removed when wget ends. It is in no argument, no environment variable and no log. The next call removes the folders that
killed processes leave (in `$XDG_RUNTIME_DIR`, else in the folder for temporary files).

Bytes arrive in `NAME.partial`, from which a later call resumes; `NAME` itself appears by a rename, after its checksum
was compared.
"""

import contextlib
import dataclasses
import os
import re
import shutil
import subprocess  # nosec B404 # It starts GNU Wget.
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from preprocessing.common.atomic import put_in_place
from preprocessing.common.checksums import sha256_of
from preprocessing.common.errors import InputError, UserError
from preprocessing.common.locks import exclusive
from preprocessing.common.progress import Bar, draws
from preprocessing.download.fetch import RetryPolicy
from preprocessing.download.http_session import FetchError, check_url, is_loopback

_FOLDER = "medtok_jax-login-"
# A run that received this many bytes is no failure: a long transfer may break off any number of times.
_ENOUGH = 1 << 20
_REDIRECTS = 5
# Seconds between two looks at how much has arrived.
_LOOK_SECONDS = 1.0
_RETRIED = "408,425,429,500,502,503,504"
# Variables of the environment that wget receives; others may hold passwords.
_KEPT = re.compile(r"PATH|LANG|LC_\w+|TERM|COLUMNS|(DY)?LD_LIBRARY_PATH|SSL_CERT_(FILE|DIR)|(OPENSSL|GNUTLS)_\w+")
_STATUS_LINE = re.compile(r"\s*HTTP/[\d.]+ (\d{3})\b ?(.*)")
_LOCATION = re.compile(r"\s*Location: *(\S+)", re.IGNORECASE)
# https://www.gnu.org/software/wget/manual/html_node/Exit-Status.html
_FILE_ERROR, _NETWORK_FAILURE, _TLS_FAILURE, _LOGIN_FAILURE, _SERVER_ERROR = 3, 4, 5, 6, 8


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """Hold the result of one run of wget.

    Attributes:
        code: exit status.
        statuses: HTTP statuses of all answers of the server, such as `(403, "Forbidden")`.
        location: target of the redirect in the last answer, or None.
    """

    code: int
    statuses: list[tuple[int, str]]
    location: str | None


def executable() -> str:
    """Return the path of GNU Wget 1, even if the command `wget` is Wget2, whose options differ.

    Raises:
        InputError: GNU Wget 1 is not installed.
    """
    for name in ("wget", "wget1"):
        path = shutil.which(name)
        if path and _version(path).startswith("GNU Wget 1."):
            return os.path.abspath(path)
    raise InputError(
        "files that need a password are fetched with GNU Wget 1, which is not on PATH; install it (for example: apt "
        "install wget), or fetch the files by hand and give their folder as --from_dir."
    )


def fetch(
    url: str,
    path: str | os.PathLike,
    login: tuple[str, str],
    *,
    sha256: str | None = None,
    retry: RetryPolicy | None = None,
    progress: bool = True,
) -> str:
    """Fetch `url` into the file `path`, which it replaces.

    Args:
        url: https, or http on this machine.
        path: target; its folder is created if it does not exist.
        login: user name and password, sent only to the host of the URL, and only if it asks for them.
        sha256: expected SHA-256 (hex); a transfer resumes from a partial file only if it is given.
        retry: attempts, the longest wait between them, timeouts.
        progress: whether to show how far the transfer is.

    Returns:
        SHA-256 of the file (hex).

    Raises:
        FetchError: the server refuses or does not answer, or the file is not the expected one (nothing is kept then).
        InputError: wget is missing, the URL cannot be used, the file cannot be written or is being fetched already.
    """
    path = Path(path)
    retry = retry or RetryPolicy()
    check_url(url)
    program = executable()
    partial = path.with_name(path.name + ".partial")
    with _only_writer(path, partial) as lock:

        def transfer() -> bool:
            return _transfer(program, url, partial, login, retry, progress, lock)

        if sha256 is None:
            _empty(partial)
        joined = transfer()
        found = sha256_of(partial)
        if sha256 and found != sha256.lower() and joined:  # The part of an earlier run may be wrong.
            _empty(partial)
            transfer()
            found = sha256_of(partial)
        size = partial.stat().st_size
        if not size or (sha256 and found != sha256.lower()):
            _empty(partial)
            wrong = f"has the sha256 {found} where {sha256} is expected" if size else "is empty"
            raise FetchError(f"{url} {wrong}; nothing was kept.")
        put_in_place(partial, path)
    return found


def _version(path: str) -> str:
    try:
        command = [path, "--version"]
        environment = {**_environment(), "LC_ALL": "C"}
        return subprocess.run(  # nosec B603 # A list, without a shell.
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        return ""


@contextlib.contextmanager
def _only_writer(path: Path, partial: Path) -> Iterator[int]:
    """Lock the file and create the partial file, and remove the latter at the end if it is empty.

    Yields:
        The descriptor that holds the lock. wget inherits it, so a wget that outlives this process keeps the lock.
    """
    with exclusive(path.parent, file=path.name, advice="choose another folder") as lock:
        try:
            partial.touch()
        except OSError as error:
            raise InputError(f"{partial} cannot be written ({error.strerror}); choose another folder.") from error
        try:
            yield lock
        finally:
            if partial.is_file() and not partial.stat().st_size:
                partial.unlink()


def _empty(partial: Path) -> None:
    partial.write_bytes(b"")


def _transfer(
    program: str, url: str, partial: Path, login: tuple[str, str], retry: RetryPolicy, progress: bool, lock: int
) -> bool:
    """Run wget until the partial file is complete; return whether it was joined from several answers."""
    address = url
    redirects = 0
    joined = partial.stat().st_size > 0
    while True:
        before = partial.stat().st_size
        with _login(urlsplit(url).hostname, login) as (folder, environment):
            log = folder / "log"
            drawn = progress and draws()
            command = _command(program, address, partial, log, retry, drawn)
            bar = Bar(
                desc=partial.name,
                initial=before,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                show=progress and not drawn,
            )
            with bar:
                outcome = _read_log(_run(command, partial, environment, drawn, bar, lock), log)
        joined = joined or any(status == 206 for status, _ in outcome.statuses)
        if outcome.code == 0:
            return joined
        if outcome.location and redirects < _REDIRECTS:
            address = _redirected(address, outcome.location)
            redirects += 1
        elif outcome.code != _NETWORK_FAILURE or partial.stat().st_size - before < _ENOUGH:
            raise _failure(outcome, address, partial)


def _run(command: list[str], partial: Path, environment: dict[str, str], drawn: bool, bar: Bar, lock: int) -> int:
    """Run wget in the folder of the file and return its exit status; an interruption kills it.

    Args:
        command: of wget.
        partial: the file that it writes.
        environment: of the process.
        drawn: whether wget draws a progress bar.
        bar: counts the bytes that arrived.
        lock: descriptor that wget inherits.
    """
    with subprocess.Popen(  # nosec B603 # A list, without a shell.
        command,
        cwd=partial.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        # Messages go into the log; only the progress bar goes to stderr.
        stderr=None if drawn else subprocess.DEVNULL,
        pass_fds=(lock,),
    ) as process:
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(_LOOK_SECONDS)
                bar.update(partial.stat().st_size - bar.n)
        except BaseException:
            process.kill()
            process.wait()  # `subprocess` itself would wait for a quarter of a second.
            raise


def _command(program: str, url: str, partial: Path, log: Path, retry: RetryPolicy, progress: bool) -> list[str]:
    options = [
        "--quiet",
        "--server-response",
        f"--output-file={log}",
        "--continue",
        f"--output-document={partial.name}",
        f"--tries={retry.attempts}",
        f"--timeout={retry.read_timeout:g}",
        f"--connect-timeout={retry.connect_timeout:g}",
        f"--waitretry={retry.longest_wait:g}",
        f"--retry-on-http-error={_RETRIED}",
        # `_transfer` follows redirects, because wget would also follow one from https to http.
        "--max-redirect=0",
    ]
    if progress:
        options.append("--show-progress")
    # requests reads the same variables.
    if authorities := os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE"):
        kind = "directory" if os.path.isdir(authorities) else "certificate"
        options.append(f"--ca-{kind}={os.path.abspath(authorities)}")
    return [program, *options, "--", url]


@contextlib.contextmanager
def _login(host: str, login: tuple[str, str]) -> Iterator[tuple[Path, dict[str, str]]]:
    """Make a temporary folder with a netrc file for one host, and an environment in which wget reads only that file.

    wget looks for netrc files and settings in HOME, and at the paths in NETRC and WGETRC.

    Yields:
        The folder and the environment.

    Raises:
        InputError: the folder cannot be made, or a netrc file cannot hold the user name or password.
    """
    entry = f"machine {host} login {_quoted(login[0])} password {_quoted(login[1])}\n"
    base = _base()
    _remove_left_over(base)
    try:
        temporary = tempfile.TemporaryDirectory(prefix=f"{_FOLDER}{os.getpid()}-", dir=base)
    except OSError as error:
        raise InputError(f"{base} cannot be written ({error.strerror}); set TMPDIR to another folder.") from error
    with temporary as name:
        folder = Path(name)
        netrc = folder / ".netrc"
        with open(os.open(netrc, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(entry)
        yield folder, {**_environment(), "HOME": name, "NETRC": str(netrc)}


def _base() -> Path:
    """Return a folder for secrets that only this user can read, if there is one, and never the folder of the output."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    usable = runtime and os.path.isdir(runtime) and os.access(runtime, os.W_OK | os.X_OK)
    return Path(runtime if usable else tempfile.gettempdir()).absolute()


def _remove_left_over(base: Path) -> None:
    """Remove the folders of processes that were killed."""
    for folder in base.glob(f"{_FOLDER}*"):
        process = folder.name.removeprefix(_FOLDER).partition("-")[0]
        if not process.isdigit():
            continue
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (OSError, OverflowError):  # Another user's.
            continue


def _quoted(text: str) -> str:
    """Quote a value for a netrc file in the way that wget reads it."""
    if any(ord(character) < 32 for character in text):
        raise InputError("the user name or password holds a line break or control character; set it again.")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        # wget reads only the lower-case names.
        if value := os.environ.get(name) or os.environ.get(name.upper()):
            kept[name] = value
    return kept


def _read_log(code: int, log: Path) -> _Outcome:
    statuses = []
    location = None
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    for line in text.splitlines():
        if match := _STATUS_LINE.fullmatch(line):
            statuses.append((int(match[1]), match[2].strip()))
            location = None
        elif match := _LOCATION.fullmatch(line):
            location = match[1]
    redirects = code == _SERVER_ERROR and statuses and 300 <= statuses[-1][0] < 400
    return _Outcome(code, statuses, location if redirects else None)


def _redirected(url: str, location: str) -> str:
    target = urljoin(url, location)
    if urlsplit(target).scheme != "https" and not (is_loopback(target) and is_loopback(url)):
        raise FetchError(f"{url} redirects to an address that is not https; it is not followed.")
    check_url(target)
    return target


def _failure(outcome: _Outcome, url: str, partial: Path) -> UserError:
    """Return the error for a failed run, without the text of the log, in which wget may quote the netrc file."""
    host = urlsplit(url).hostname
    status, reason = outcome.statuses[-1] if outcome.statuses else (None, "")
    if outcome.code == _FILE_ERROR:
        return InputError(f"{partial} cannot be written; make room or choose another folder.")
    if outcome.code == _TLS_FAILURE:
        return FetchError(
            f"the certificate of {host} is not trusted here, so nothing is fetched from it; behind a proxy that "
            "replaces certificates, set REQUESTS_CA_BUNDLE to the file of its authority."
        )
    if outcome.code == _LOGIN_FAILURE or (status and status >= 300):
        status = status or 401
        return FetchError(f"{url} cannot be fetched: the server answers {f'{status} {reason}'.strip()}.", status)
    if outcome.code == _NETWORK_FAILURE and status:
        have = partial.stat().st_size
        return FetchError(
            f"{url} could not be fetched: the connection broke off after {have:,} bytes; run the same command again to "
            "resume."
        )
    if outcome.code == _NETWORK_FAILURE:
        return FetchError(f"{url} could not be fetched: {host} does not answer (is there a network?).")
    return FetchError(f"{url} could not be fetched: wget ended with status {outcome.code}.")
