"""Download the tables of MIMIC that this project uses from PhysioNet, verified against the published checksums.

    python -m preprocessing.mimic --version=mimic4 --output=DIR/mimic4
    python -m preprocessing.mimic --version=mimic3 --demo --output=DIR/mimic3demo

The full data sets need a credentialed PhysioNet account that has signed the data use agreement, and GNU Wget, the
program that PhysioNet's instructions use; the demos (100 patients) need neither. Credentials come from
PHYSIONET_USERNAME and PHYSIONET_PASSWORD in the environment, from ~/.netrc, or from the terminal; they cannot be given
as arguments, which all users of the machine could read.

Files keep their names and folders (`hosp/patients.csv.gz`). `--from_dir` takes a folder that was fetched with wget, or
that holds the archive of the project. `--prepare` also gets the other tables of patient records, such as laboratory
values, and converts all tables to MEDS in OUTPUT/meds (see `python -m preprocessing.meds --help`).
"""

import dataclasses
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from absl import flags
from rich.console import Console

from preprocessing.common import command_line
from preprocessing.common.atomic import private
from preprocessing.common.checksums import sha256_of
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.progress import Bar
from preprocessing.download import wget
from preprocessing.download.archives import member_names, unzip
from preprocessing.download.collect import copy_file
from preprocessing.download.fetch import RetryPolicy
from preprocessing.download.manifest import Manifest
from preprocessing.download.physionet import (
    BASE_URL,
    CHECKSUMS,
    PROJECTS,
    Project,
    credentials,
    fetch_checksums,
    fetch_file,
    read_checksums,
)
from preprocessing.meds.mimic_tables import TABLES, DownloadScope, MimicTable

# Folder of the patient records that `--prepare` makes, below the output.
MEDS = "meds"
_ENDINGS = (".csv", ".csv.gz")
# The largest table, gzipped, has 3.3 GB; unpacked demos are small.
_MAX_BYTES = 64 << 30


@dataclasses.dataclass(frozen=True)
class MimicRequest:
    """Hold the tables to get and the options of the download.

    Attributes:
        version: `mimic3` or `mimic4`.
        output: folder to write into.
        demo: whether to get the open subset of 100 patients.
        release: release of the project instead of the one in `PROJECTS`, such as `2.2`.
        all_tables: whether to get all tables of the project, not only those that this package uses.
        further: whether to get the tables that only patient records need, too.
        from_dir: folder with files fetched by hand; nothing is fetched then.
        base_url: address of PhysioNet's projects.
        progress: whether to show progress bars.
        retry: retry policy of transfers.
    """

    version: str
    output: Path
    demo: bool = False
    release: str | None = None
    all_tables: bool = False
    further: bool = False
    from_dir: Path | None = None
    base_url: str = BASE_URL
    progress: bool = True
    retry: RetryPolicy = dataclasses.field(default_factory=RetryPolicy)

    @property
    def project(self) -> Project:
        """Return the PhysioNet project of the request."""
        project = PROJECTS[self.version, self.demo]
        return dataclasses.replace(project, version=self.release) if self.release else project


@private()
def get(request: MimicRequest) -> list[str]:
    """Get the tables that are not there yet or have changed.

    Returns:
        Names of all files, relative to the output.

    Raises:
        FetchError: PhysioNet refuses or does not answer.
        InputError: credentials or wget are missing, or files supplied by hand are missing or wrong.
    """
    try:
        request.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output={request.output} cannot be written ({error.strerror}).") from error
    manifest = Manifest.read(request.output)
    if request.from_dir:
        return _take(request, manifest)
    login = None
    if not request.project.is_open:
        wget.executable()  # Fails before the user is asked for a password.
        login = credentials(request.base_url)
    where = (request.output, login, request.retry, request.base_url)
    checksums = fetch_checksums(request.project, *where)
    names = chosen(request, checksums)
    for name in Bar(names, desc=request.project.name, unit=" files", show=request.progress):
        if _is_there(manifest, name, checksums[name]):
            continue
        sha256 = fetch_file(request.project, name, *where, sha256=checksums[name], progress=request.progress)
        _record(request, manifest, name, sha256, verified=True)
    return names


def chosen(request: MimicRequest, checksums: Mapping[str, str]) -> list[str]:
    """Return the names of the wanted files among those that the PhysioNet project lists.

    Raises:
        InputError: a table that this package uses is not among them.
    """
    by_name = {name.lower(): name for name in checksums if name.lower().endswith(_ENDINGS)}
    names = []
    for table in _wanted_tables(request):
        found = [by_name[name] for name in _file_names(table) if name in by_name]
        if not found and table.scope is DownloadScope.FOR_RECORDS:
            continue
        if not found:
            raise InputError(
                f"{request.project.name} {request.project.version} does not list the table {table.file}; is it "
                "the right version?"
            )
        names.append(found[-1])
    return sorted(by_name.values()) if request.all_tables else names


def _wanted_tables(request: MimicRequest) -> list[MimicTable]:
    levels = {DownloadScope.ALWAYS, DownloadScope.FOR_RECORDS} if request.further else {DownloadScope.ALWAYS}
    return [table for table in TABLES[request.version] if table.scope in levels]


def _file_names(table: MimicTable) -> list[str]:
    """Return the names that the file of a table may have, in lower case."""
    return [table.file.lower() + ending for ending in _ENDINGS]


def _take(request: MimicRequest, manifest: Manifest) -> list[str]:
    """Copy the tables out of a folder, or out of the project's archive in it."""
    folder = request.from_dir
    if not folder.is_dir():
        raise InputError(f"--from_dir={folder} is not a folder; check the path.")
    roots = [path.parent for path in sorted(folder.rglob(CHECKSUMS), key=lambda path: (len(path.parts), path))]
    for root in roots:
        checksums = read_checksums(root / CHECKSUMS)
        if _lists_tables(request, checksums):
            return _copy_from(request, manifest, root, checksums)
    for archive in sorted(folder.rglob("*.zip")):
        inside = [name for name in member_names(archive) if PurePosixPath(name).name == CHECKSUMS]
        unpacked = request.output / ".unpacked"
        try:
            for name in sorted(inside, key=lambda name: name.count("/"))[:1]:
                _unzip_tables(request, archive, name, unpacked)
                checksums = read_checksums(unpacked / name)
                if _lists_tables(request, checksums):
                    return _copy_from(request, manifest, (unpacked / name).parent, checksums)
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)
    raise InputError(
        f"{folder} holds no {CHECKSUMS} of {request.project.name}, neither in a subfolder nor in an archive; give the "
        "folder as wget fetched it, or one with the archive of the project."
    )


def _lists_tables(request: MimicRequest, checksums: Mapping[str, str]) -> bool:
    try:
        chosen(request, checksums)
    except InputError:
        return False
    return True


def _unzip_tables(request: MimicRequest, archive: Path, checksums_name: str, unpacked: Path) -> None:
    """Unpack the checksums and the wanted tables beside them."""
    prefix = checksums_name.removesuffix(CHECKSUMS)
    tables = {CHECKSUMS.lower(), *(name for table in _wanted_tables(request) for name in _file_names(table))}

    def wanted(name: str) -> bool:
        return name.startswith(prefix) and (request.all_tables or name.removeprefix(prefix).lower() in tables)

    unzip(archive, unpacked, max_bytes=_MAX_BYTES, wanted=wanted)


def _copy_from(request: MimicRequest, manifest: Manifest, root: Path, checksums: Mapping[str, str]) -> list[str]:
    """Copy and verify the tables; report a table that was decompressed by hand, which cannot be verified."""
    names = []
    for listed in chosen(request, checksums):
        name = listed
        if not (root / name).is_file() and (root / name.removesuffix(".gz")).is_file():
            name = name.removesuffix(".gz")
        source = root / name
        if not source.is_file() and _is_further(request, name):
            continue
        if not source.is_file():
            raise InputError(f"{source} is missing; get it from {request.project.page}.")
        checksum = sha256_of(source)
        verified = name in checksums
        if verified and checksum != checksums[name]:
            raise InputError(
                f"{source} is not the published file: its sha256 is {checksum}, where {CHECKSUMS} says "
                f"{checksums[name]}; get it again, or leave this command out and use that folder as it is."
            )
        if not verified:
            print(f"{source} is decompressed, so its checksum cannot be compared.", file=sys.stderr)
        if not _is_there(manifest, name, checksum):
            copy_file(source, request.output / name)
            _record(request, manifest, name, checksum, verified=verified, by_hand=True)
        names.append(name)
    return names


def _is_further(request: MimicRequest, name: str) -> bool:
    further = [table for table in TABLES[request.version] if table.scope is DownloadScope.FOR_RECORDS]
    return any(name.lower() in _file_names(table) for table in further)


def _is_there(manifest: Manifest, name: str, sha256: str) -> bool:
    return name in manifest.files and manifest.files[name]["sha256"] == sha256 and manifest.problem(name) is None


def _record(
    request: MimicRequest, manifest: Manifest, name: str, sha256: str, *, verified: bool, by_hand: bool = False
):
    project = request.project
    manifest.record(
        name,
        source=f"given by hand: {name}" if by_hand else project.url(name, request.base_url),
        version=project.version,
        license=project.license,
        size=(request.output / name).stat().st_size,
        sha256=sha256,
        catalogue=project.name,
        by_hand=by_hand,
        verified=verified,
    )
    manifest.write()


def main(argv: list[str]) -> None:
    """Get the data set that the flags name."""
    command_line.expect_arguments(argv, 0, "python -m preprocessing.mimic --version=mimic4 --output=DIR")
    if not flags.FLAGS.version or not flags.FLAGS.output:
        raise InputError(
            "--version or --output is missing; run: python -m preprocessing.mimic --version=mimic4 --output=DIR"
        )
    request = MimicRequest(
        version=flags.FLAGS.version,
        output=Path(flags.FLAGS.output),
        demo=flags.FLAGS.demo,
        release=flags.FLAGS.release,
        all_tables=flags.FLAGS.all_tables,
        further=flags.FLAGS.prepare,
        from_dir=Path(flags.FLAGS.from_dir) if flags.FLAGS.from_dir else None,
        base_url=flags.FLAGS.base_url,
    )
    if flags.FLAGS.prepare:  # Fails before hours of download.
        for package in ("polars", "meds"):
            load(package)
    names = get(request)
    size = sum((request.output / name).stat().st_size for name in names)
    project = request.project
    print(f"{project.name} {project.version} is in {request.output}: {len(names)} files, {size:,} bytes")
    if flags.FLAGS.prepare:
        prepare(request)


def prepare(request: MimicRequest) -> None:
    """Convert the downloaded tables to patient records; see `preprocessing.meds`."""
    # Their packages are an extra.
    from preprocessing.meds.conversion import MedsRequest, show
    from preprocessing.meds.convert import convert

    asked = MedsRequest(request.output, request.output / MEDS, request.version, progress=request.progress)
    show(convert(asked), Console())


if __name__ == "__main__":
    flags.DEFINE_enum("version", None, ["mimic3", "mimic4"], "MIMIC-III or MIMIC-IV")
    flags.DEFINE_string("output", None, "folder to download into")
    flags.DEFINE_bool("demo", False, "the open subset of 100 patients, which needs no credentials")
    flags.DEFINE_string("release", None, "another version of the data set, such as 2.2 of MIMIC-IV")
    flags.DEFINE_bool("all_tables", False, "all tables of the data set, not only those that this project uses")
    flags.DEFINE_bool("prepare", False, "then convert to MEDS, in OUTPUT/meds; gets further tables for it")
    flags.DEFINE_string("from_dir", None, "folder of files fetched by hand, as wget leaves them or as archive")
    flags.DEFINE_string("base_url", BASE_URL, "address of PhysioNet's projects, for tests")
    command_line.run(main)
