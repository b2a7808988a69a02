"""Fetch the files of PhysioNet projects with the user's credentials, which are sent nowhere else.

PhysioNet accepts a user name and password only from browsers and a few programs; its instructions use wget. Files that
need credentials are therefore fetched with the user's wget; open ones need no other program.
"""

import contextlib
import dataclasses
import getpass
import netrc
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading
from preprocessing.download import wget
from preprocessing.download.fetch import Expected, RetryPolicy, fetch
from preprocessing.download.http_session import FetchError, check_url, is_loopback

BASE_URL = "https://physionet.org/files"
HOST = "physionet.org"
CHECKSUMS = "SHA256SUMS.txt"
USER_VARIABLE, PASSWORD_VARIABLE = "PHYSIONET_USERNAME", "PHYSIONET_PASSWORD"
_CHECKSUM_LINE = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(.+)")


@dataclasses.dataclass(frozen=True)
class Project:
    """Hold one version of a PhysioNet project.

    Attributes:
        name: common name.
        slug, version: parts of its address.
        license: license that the manifest records.
        is_open: whether anybody may download it.
    """

    name: str
    slug: str
    version: str
    license: str
    is_open: bool

    @property
    def page(self) -> str:
        """Return the address of the project's page."""
        return f"https://{HOST}/content/{self.slug}/{self.version}/"

    def url(self, name: str, base_url: str = BASE_URL) -> str:
        """Return the address of the file `name` of the project."""
        return f"{base_url.rstrip('/')}/{self.slug}/{self.version}/{name}"


# (version of MIMIC, whether it is the open demo) -> project.
_CREDENTIALED = "PhysioNet Credentialed Health Data License 1.5.0"
_ODBL = "Open Data Commons Open Database License 1.0"
PROJECTS = {
    ("mimic3", False): Project("MIMIC-III", "mimiciii", "1.4", _CREDENTIALED, is_open=False),
    ("mimic3", True): Project("MIMIC-III demo", "mimiciii-demo", "1.4", _ODBL, is_open=True),
    ("mimic4", False): Project("MIMIC-IV", "mimiciv", "3.1", _CREDENTIALED, is_open=False),
    ("mimic4", True): Project("MIMIC-IV demo", "mimic-iv-demo", "2.2", _ODBL, is_open=True),
}


def credentials(base_url: str = BASE_URL) -> tuple[str, str]:
    """Return the user name and password from the environment, else from the netrc file, else from the terminal.

    Raises:
        InputError: there are none, others can read the netrc file, or `base_url` is not an address of PhysioNet.
    """
    check_url(base_url)
    host = urlsplit(base_url).hostname or ""
    if not (host == HOST or host.endswith(f".{HOST}") or is_loopback(base_url)):
        raise InputError(f"credentials of PhysioNet are not sent to {host}; give an address on {HOST}.")
    user, password = os.environ.get(USER_VARIABLE), os.environ.get(PASSWORD_VARIABLE)
    if user and password:
        return user, password
    if (found := _from_netrc(HOST)) and user in (None, "", found[0]):
        return found
    if sys.stdin.isatty():
        if not user:
            print("PhysioNet user name: ", end="", file=sys.stderr, flush=True)
            user = sys.stdin.readline().strip()
        password = getpass.getpass("PhysioNet password: ")
        if user and password:
            return user, password
    raise InputError(
        f"PhysioNet asks for credentials: set {USER_VARIABLE} and {PASSWORD_VARIABLE} in the environment, or add a "
        f"line 'machine {HOST} login USER password PASSWORD' to ~/.netrc (readable by you alone)."
    )


def _from_netrc(host: str) -> tuple[str, str] | None:
    """Return the user name and password of the host in NETRC or ~/.netrc, which only its owner may be able to read."""
    path = Path(os.environ.get("NETRC") or Path("~/.netrc").expanduser())
    try:
        mode = path.stat().st_mode
        found = netrc.netrc(path).hosts.get(host)
    except FileNotFoundError:
        return None
    except netrc.NetrcParseError as error:
        # The text of the error may quote a password, so it is not shown.
        raise InputError(f"{path} cannot be read: line {error.lineno} is not understood; correct it.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}).") from None
    if not found or not found[2]:
        return None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputError(f"{path} holds a password but others can read it; run: chmod 600 {path}")
    return found[0], found[2]


def fetch_checksums(
    project: Project, folder: Path, login: tuple[str, str] | None, retry: RetryPolicy, base_url: str = BASE_URL
) -> dict[str, str]:
    """Return the published SHA-256 (lower-case hex) of each file of a project, by file name.

    Raises:
        FetchError: the checksums cannot be fetched; if the account has no access, the message says how to get it.
        InputError: the file is not in the format of `sha256sum`, or wget is missing.
    """
    fetch_file(project, CHECKSUMS, folder, login, retry, base_url, progress=False)
    return read_checksums(folder / CHECKSUMS)


def fetch_file(
    project: Project,
    name: str,
    folder: Path,
    login: tuple[str, str] | None,
    retry: RetryPolicy,
    base_url: str = BASE_URL,
    *,
    sha256: str | None = None,
    progress: bool = True,
) -> str:
    """Fetch one file of a project into `folder/name`, with wget if `login` is given.

    Args:
        project: the project.
        name: path of the file inside the project.
        folder: folder to write into.
        login: user name and password, or None for an open project.
        retry: retry policy.
        base_url: address of the server's files.
        sha256: expected SHA-256 (hex), or None.
        progress: whether to show a progress bar.

    Returns:
        SHA-256 of the file (hex).

    Raises:
        FetchError: the file cannot be fetched, or has another checksum; if the account has no access, the message says
            how to get it.
        InputError: the file cannot be written, or wget is missing.
    """
    url = project.url(name, base_url)
    path = folder / name
    with _explained_refusals(project):
        if login:
            return wget.fetch(url, path, login, sha256=sha256, retry=retry, progress=progress)
        return fetch(url, path, expected=Expected(sha256=sha256), retry=retry, progress=progress).sha256


def read_checksums(path: Path) -> dict[str, str]:
    """Read a file in the format of `sha256sum`; return the SHA-256 (lower-case hex) of each file by name.

    Raises:
        InputError: the file is not in that format, or names a file outside its folder.
    """
    with reading(path, "a list of checksums"):
        return parse_checksums(path.read_text(encoding="utf-8", errors="replace"), str(path))


def parse_checksums(text: str, where: str) -> dict[str, str]:
    """Return the SHA-256 (lower-case hex) of each file by name from a list in the format of `sha256sum`.

    Args:
        text: the list.
        where: the path or address of the list, for messages.

    Raises:
        InputError: the text is not in that format, or names a file outside its folder.
    """
    checksums = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        match = _CHECKSUM_LINE.fullmatch(line.rstrip())
        name = PurePosixPath(match[2]) if match else PurePosixPath("/")
        if name.is_absolute() or ".." in name.parts:
            raise InputError(f"{where}, line {number} is not a checksum and the name of a file; get the file again.")
        checksums[str(name)] = match[1].lower()
    if not checksums:
        raise InputError(f"{where} is empty; get the file again.")
    return checksums


@contextlib.contextmanager
def _explained_refusals(project: Project) -> Iterator[None]:
    """Turn a refusal (401, 403) into a message that says what the user can do."""
    try:
        yield
    except FetchError as error:
        if error.status not in (401, 403):
            raise
        raise FetchError(_refusal(project, error.status), error.status) from None


def _refusal(project: Project, status: int) -> str:
    if project.is_open:
        return (
            f"PhysioNet refuses {project.name} {project.version} ({status}), although it is open; see {project.page}."
        )
    if status == 401:
        return f"PhysioNet does not accept this user name and password (401); try them at https://{HOST}/login/."
    return (
        f"this PhysioNet account may not see {project.name} {project.version} (403): it must be credentialed "
        f"(https://{HOST}/settings/credentialing/) and have signed the data use agreement at the bottom of "
        f"{project.page}."
    )
