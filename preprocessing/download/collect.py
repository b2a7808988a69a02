"""Brings one source into its folder, fetched or given by hand, and records it in the manifest."""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from preprocessing.common.atomic import whole_file
from preprocessing.common.checksums import sha256_of
from preprocessing.common.errors import InputError, UserError
from preprocessing.download.archives import member_names, unzip
from preprocessing.download.fetch import Patience, fetch
from preprocessing.download.http_session import FetchError
from preprocessing.download.listings import KEY_VARIABLE, Located, locate
from preprocessing.download.manifest import Manifest
from preprocessing.download.source import Source, matches

DOWNLOADS = ".downloads"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one source.

    Attributes:
        state: `fetched` now; taken `by hand`; `there` already and unchanged; `not needed` because of another source;
            `missing`, because it needs what only the user has; `failed`.
        reason: a sentence for the last two.
    """

    source: Source
    state: Literal["fetched", "by hand", "there", "not needed", "missing", "failed"]
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to collect.

    Attributes:
        output: folder of the group.
        from_dir: folder of files fetched by hand.
        offline: fetch nothing.
        all_files: also what no stage of the pipeline reads.
        progress: show progress bars.
        patience: of transfers.
    """

    output: Path
    from_dir: Path | None = None
    offline: bool = False
    all_files: bool = False
    progress: bool = True
    patience: Patience = dataclasses.field(default_factory=Patience)


def collect(source: Source, manifest: Manifest, settings: Settings) -> Outcome:
    """Takes a source from the folder of files given by hand, leaves it if it is there, or else fetches it.

    Never raises for what is wrong with this one source: the reason is in the outcome.
    """
    try:
        if settings.from_dir and (given := find_given(source, settings.from_dir, settings.output)):
            return Outcome(source, "by hand" if _take_given(source, given, manifest, settings) else "there")
        if is_there(source, manifest, settings.all_files):
            return Outcome(source, "there")
        if reason := _lacking(source, settings):
            return Outcome(source, "missing", reason)
        if settings.offline:
            return Outcome(source, "failed", f"{source.name} is not there, and nothing is fetched with --offline.")
        _fetch(source, manifest, settings)
        return Outcome(source, "fetched")
    except UserError as error:
        if source.access == "umls" and isinstance(error, FetchError) and error.status in (401, 403):
            return Outcome(source, "failed", f"the NLM does not accept {KEY_VARIABLE} for {source.name}; {source.how}.")
        return Outcome(source, "failed", str(error))


def is_there(source: Source, manifest: Manifest, all_files: bool = False) -> bool:
    """Whether the manifest has all files of a source, in the catalogue's release, and they are on disk unchanged."""
    names = manifest.names(source.name)
    if not _has_required(source, [Path(name).name for name in names]):
        return False
    checksums = {download.sha256 for download in source.downloads if download.sha256}
    recorded = {Path(name).name for name in names}
    if not any(manifest.files[name].get("by_hand") for name in names):
        for download in source.downloads:
            if not download.is_archive and download.name not in recorded and (all_files or not download.optional):
                return False
        of_archives = {manifest.files[name].get("archive_sha256") for name in names} - {None}
        if of_archives and checksums and not of_archives <= checksums:
            return False
    return all(manifest.problem(name) is None for name in names)


def find_given(source: Source, folder: Path, output: Path | None = None) -> list[Path]:
    """Files of a source in a folder of files fetched by hand: unpacked ones, or else the archives that hold them.

    Raises:
        InputError: the folder does not exist, holds several that fit where one is needed, or only a part.
    """
    if not folder.is_dir():
        raise InputError(f"--from_dir={folder} is not a folder.")
    files = sorted(_files_below(folder, output), key=lambda path: (len(path.parts), path))
    loose: dict[str, Path] = {}
    for path in files:
        if source.wants(path.name):
            other = loose.setdefault(path.name.lower(), path)
            if other is not path and len(other.parts) == len(path.parts):
                raise InputError(f"{other} and {path} both fit {source.name}; leave only one of them in {folder}.")
    if _has_required(source, list(loose)):
        return list(loose.values())
    archives = [path for path in files if any(matches(pattern, path.name) for pattern in source.archives)]
    known = {download.name for download in source.downloads if download.is_archive}
    if exact := [path for path in archives if path.name in known]:
        archives = exact
    if loose and not archives:
        held = ", ".join(path.name for path in loose.values())
        raise InputError(
            f"{folder} holds only {held} of {source.name}, which needs: {_looked_for(source)}; add what lacks, or take "
            "it away to have all fetched."
        )
    if len(archives) > max(1, len(known)):
        raise InputError(
            f"{', '.join(path.name for path in archives)} in {folder} all fit {source.name}; leave only one release."
        )
    return archives


def _files_below(folder: Path, output: Path | None) -> Iterator[Path]:
    """Files of a folder and its subfolders, without those that were collected into `output`."""
    without = output.resolve() if output else None
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if (Path(root) / name).resolve() != without and name[0] != ".")
        yield from (Path(root) / name for name in names)


def _has_required(source: Source, names: Sequence[str]) -> bool:
    return all(any(matches(pattern, name) for name in names) for pattern in source.required)


def _lacking(source: Source, settings: Settings) -> str:
    """Why a source cannot be fetched without its user: a sentence, or nothing."""
    if source.access == "hand" or (source.access == "umls" and not os.environ.get(KEY_VARIABLE)):
        return f"{source.name} ({source.license}) is not fetched for you: {source.how}."
    return ""


def _take_given(source: Source, given: list[Path], manifest: Manifest, settings: Settings) -> bool:
    """Copies or unpacks files given by hand; False when exactly these were taken before."""
    checksums = {path: sha256_of(path) for path in given}
    published = {download.name: download.sha256 for download in source.downloads if download.sha256}
    for path in given:
        # Names of archives say which release they are; those of other files do not.
        if _is_archive(path) and published.get(path.name, checksums[path]) != checksums[path]:
            raise InputError(
                f"{path} is not the file that the publisher offers under this name: its sha256 is {checksums[path]}, "
                f"where {published[path.name]} is expected; get it again, or rename it if it is another release."
            )
    entries = [manifest.files[name] for name in manifest.names(source.name)]
    before = {entry.get("archive_sha256", entry["sha256"]) for entry in entries}
    if before == set(checksums.values()) and is_there(source, manifest):
        return False
    placed: dict[str, dict] = {}
    for path in given:
        verified = published.get(path.name) == checksums[path]
        known = {
            "source": f"given by hand: {path.name}",
            "version": source.version if verified else "as given by hand",
            "by_hand": True,
            "verified": verified,
        }
        if _is_archive(path):
            placed |= _unpack(source, path, checksums[path], known, settings)
        else:
            target = settings.output / source.folder / path.name
            copy_file(path, target)
            placed[_name(target, settings)] = known
    _check_found(source, placed)
    _record(source, placed, manifest, settings)
    _retire(source, set(placed), manifest, settings)
    return True


def _fetch(source: Source, manifest: Manifest, settings: Settings) -> None:
    """Fetches what is not there yet; each download is recorded as soon as its files are in place."""
    wanted = [download for download in source.downloads if settings.all_files or not download.optional]
    kept: set[str] = set()
    for located in locate(source, wanted, os.environ.get(KEY_VARIABLE), settings.patience):
        names = _names_of(located, source, manifest)
        if not names:
            names = _fetch_one(source, located, manifest, settings)
        kept |= names
    _check_found(source, kept)
    _retire(source, kept, manifest, settings)


def _names_of(located: Located, source: Source, manifest: Manifest) -> set[str]:
    """Files that are there from exactly this download; empty where one of them is missing or differs."""
    names = {name for name in manifest.names(source.name) if manifest.files[name]["source"] == located.url}
    for name in names:
        entry = manifest.files[name]
        found = entry.get("archive_sha256", entry["sha256"])
        if (located.expected.sha256 or found) != found or manifest.problem(name):
            return set()
    return names


def _fetch_one(source: Source, located: Located, manifest: Manifest, settings: Settings) -> set[str]:
    download = located.download
    path = settings.output / (DOWNLOADS if download.is_archive else source.folder) / download.name
    expected = located.expected
    # A whole archive is left over when the process was stopped between fetching and recording.
    if not (download.is_archive and path.exists() and expected.sha256 in (None, sha256_of(path))):
        fetch(
            located.url,
            path,
            expected=expected,
            access=located.access,
            patience=settings.patience,
            progress=settings.progress,
        )
    known = {
        "source": located.url,
        "version": located.version,
        "by_hand": False,
        "verified": bool(expected.sha256 or expected.md5),
    }
    if download.is_archive:
        placed = _unpack(source, path, sha256_of(path), known, settings)
    else:
        placed = {_name(path, settings): known}
    _record(source, placed, manifest, settings)
    if download.is_archive:
        path.unlink()
    return set(placed)


def _unpack(source: Source, archive: Path, sha256: str, known: dict, settings: Settings) -> dict[str, dict]:
    """Unpacks what a source wants of an archive; entries of the manifest without size and checksum, by name.

    A fetched archive that cannot be used is deleted, so that it is fetched again.
    """
    folder = settings.output / source.folder

    def wanted(name: str) -> bool:
        return source.wants(name.rpartition("/")[2])

    try:
        if not any(wanted(name) for name in member_names(archive)):
            raise InputError(f"{archive} holds no file of {source.name}; these are looked for: {_looked_for(source)}.")
        files = unzip(archive, folder, max_bytes=source.max_bytes, wanted=wanted, flatten=True)
    except InputError:
        if archive.parent.name == DOWNLOADS:
            archive.unlink(missing_ok=True)
        raise
    known = {**known, "archive": archive.name, "archive_sha256": sha256}
    return {_name(file, settings): known for file in files}


def _record(source: Source, placed: dict[str, dict], manifest: Manifest, settings: Settings) -> None:
    for name, known in placed.items():
        path = settings.output / name
        size, sha256 = path.stat().st_size, sha256_of(path)
        manifest.record(name, license=source.license, size=size, sha256=sha256, catalogue=source.name, **known)
    manifest.write()


def _retire(source: Source, kept: set[str], manifest: Manifest, settings: Settings) -> None:
    """Removes what a former release left in the source's folder."""
    inside = f"{source.folder}/" if source.folder else None
    former = {name for name in manifest.files if inside and name.startswith(inside)} | set(manifest.names(source.name))
    for name in former - kept:
        (settings.output / name).unlink(missing_ok=True)
        manifest.remove(name)
    if former - kept:
        manifest.write()


def tidy(outcomes: Iterable[Outcome], output: Path) -> None:
    """Removes what a killed process may have left of sources that are there now."""
    folder = output / DOWNLOADS
    for outcome in outcomes:
        if outcome.state not in ("missing", "failed"):
            for download in outcome.source.downloads:
                for leftover in folder.glob(f"{download.name}*"):
                    leftover.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _check_found(source: Source, names: Iterable[str]) -> None:
    if not _has_required(source, [Path(name).name for name in names]):
        raise InputError(f"not all files of {source.name} were found; these are needed: {_looked_for(source)}.")


def copy_file(source: Path, target: Path) -> None:
    """Copies a file, which appears under its name when it is complete.

    Raises:
        InputError: the file system refuses.
    """
    try:
        with whole_file(target) as partial:
            shutil.copyfile(source, partial)
    except OSError as error:
        raise InputError(f"{source} cannot be copied to {target} ({error.strerror}).") from error


def _name(path: Path, settings: Settings) -> str:
    return path.relative_to(settings.output).as_posix()


def _looked_for(source: Source) -> str:
    return ", ".join(pattern.replace("\\", "") for pattern in source.required)


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() == ".zip"
