"""Collect the files of one source, fetched or supplied by hand, in its folder, and record them in the manifest."""

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
from preprocessing.download.fetch import RetryPolicy, fetch
from preprocessing.download.http_session import FetchError
from preprocessing.download.listings import KEY_VARIABLE, Located, locate
from preprocessing.download.manifest import Manifest
from preprocessing.download.source import DownloadSource, matches

DOWNLOADS = ".downloads"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Hold the outcome of collecting one source.

    Attributes:
        source: the source.
        state: `fetched` now; taken `by hand` from the user's folder; `there` already and unchanged; `not needed`
            because of another source; `missing`, because only the user has access to it; `failed`.
        reason: a sentence for `missing` and `failed`.
    """

    source: DownloadSource
    state: Literal["fetched", "by hand", "there", "not needed", "missing", "failed"]
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Hold the settings of a download.

    Attributes:
        output: folder of the group.
        from_dir: folder of files fetched by hand.
        offline: whether to fetch nothing.
        all_files: whether to get also the files that no stage of the pipeline reads.
        progress: whether to show progress bars.
        retry: retry policy of transfers.
    """

    output: Path
    from_dir: Path | None = None
    offline: bool = False
    all_files: bool = False
    progress: bool = True
    retry: RetryPolicy = dataclasses.field(default_factory=RetryPolicy)


def collect(source: DownloadSource, manifest: Manifest, settings: Settings) -> Outcome:
    """Take a source from the user's folder, keep it if it is complete, or else fetch it.

    Errors of this source are not raised; the outcome gives the reason.
    """
    try:
        if settings.from_dir and (given := find_given(source, settings.from_dir, settings.output)):
            return Outcome(source, "by hand" if _take_given(source, given, manifest, settings) else "there")
        if is_there(source, manifest, settings.all_files):
            return Outcome(source, "there")
        if reason := _lacking(source, settings):
            return Outcome(source, "missing", reason)
        if settings.offline:
            return Outcome(source, "failed", f"{source.name} is not there, and --offline fetches nothing.")
        _fetch(source, manifest, settings)
        return Outcome(source, "fetched")
    except UserError as error:
        if source.access == "umls" and isinstance(error, FetchError) and error.status in (401, 403):
            return Outcome(source, "failed", f"the NLM does not accept {KEY_VARIABLE} for {source.name}; {source.how}.")
        return Outcome(source, "failed", str(error))


def is_there(source: DownloadSource, manifest: Manifest, all_files: bool = False) -> bool:
    """Return whether all files of a source are on disk, unchanged and in the release of the catalogue."""
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


def find_given(source: DownloadSource, folder: Path, output: Path | None = None) -> list[Path]:
    """Return the files of a source in the user's folder, either unpacked ones or the archives that hold them.

    Args:
        source: the source.
        folder: folder of files fetched by hand, searched with its subfolders.
        output: folder below `folder` that is not searched, or None.

    Raises:
        InputError: the folder does not exist, holds several matching files of which one is needed, or only a part.
    """
    if not folder.is_dir():
        raise InputError(f"--from_dir={folder} is not a folder; check the path.")
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
            f"{folder} holds only {held} of {source.name}, which needs: {_looked_for(source)}; add the missing files, "
            "or remove these to have all fetched."
        )
    if len(archives) > max(1, len(known)):
        raise InputError(
            f"{', '.join(path.name for path in archives)} in {folder} all fit {source.name}; leave only one release."
        )
    return archives


def _files_below(folder: Path, output: Path | None) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders, except those in `output` and in hidden folders."""
    without = output.resolve() if output else None
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if (Path(root) / name).resolve() != without and name[0] != ".")
        yield from (Path(root) / name for name in names)


def _has_required(source: DownloadSource, names: Sequence[str]) -> bool:
    return all(any(matches(pattern, name) for name in names) for pattern in source.required)


def _lacking(source: DownloadSource, settings: Settings) -> str:
    """Return a sentence if only the user can get a source, and "" otherwise."""
    if source.access == "hand" or (source.access == "umls" and not os.environ.get(KEY_VARIABLE)):
        return f"{source.name} ({source.license}) is not fetched for you: {source.how}."
    return ""


def _take_given(source: DownloadSource, given: list[Path], manifest: Manifest, settings: Settings) -> bool:
    """Copy or unpack files supplied by hand; return False if exactly these were taken before."""
    checksums = {path: sha256_of(path) for path in given}
    published = {download.name: download.sha256 for download in source.downloads if download.sha256}
    for path in given:
        # The name of an archive identifies its release; the names of other files do not.
        if _is_archive(path) and published.get(path.name, checksums[path]) != checksums[path]:
            raise InputError(
                f"{path} is not the file that the publisher offers under this name: its sha256 is {checksums[path]}, "
                f"where {published[path.name]} is expected; get it again, or rename it if it is another release."
            )
    entries = [manifest.files[name] for name in manifest.names(source.name)]
    before = {entry.get("archive_sha256", entry["sha256"]) for entry in entries}
    if before == set(checksums.values()) and is_there(source, manifest):
        return False
    collected: dict[str, dict] = {}
    for path in given:
        verified = published.get(path.name) == checksums[path]
        known = {
            "source": f"given by hand: {path.name}",
            "version": source.version if verified else "as given by hand",
            "by_hand": True,
            "verified": verified,
        }
        if _is_archive(path):
            collected |= _unpack(source, path, checksums[path], known, settings)
        else:
            target = settings.output / source.folder / path.name
            copy_file(path, target)
            collected[_name(target, settings)] = known
    _check_found(source, collected)
    _record(source, collected, manifest, settings)
    _retire(source, set(collected), manifest, settings)
    return True


def _fetch(source: DownloadSource, manifest: Manifest, settings: Settings) -> None:
    """Fetch the missing downloads of a source, and record each as soon as its files are complete."""
    wanted = [download for download in source.downloads if settings.all_files or not download.optional]
    kept: set[str] = set()
    for located in locate(source, wanted, os.environ.get(KEY_VARIABLE), settings.retry):
        names = _names_of(located, source, manifest)
        if not names:
            names = _fetch_one(source, located, manifest, settings)
        kept |= names
    _check_found(source, kept)
    _retire(source, kept, manifest, settings)


def _names_of(located: Located, source: DownloadSource, manifest: Manifest) -> set[str]:
    """Return the names of the files on disk from exactly this download; empty if one is missing or differs."""
    names = {name for name in manifest.names(source.name) if manifest.files[name]["source"] == located.url}
    for name in names:
        entry = manifest.files[name]
        found = entry.get("archive_sha256", entry["sha256"])
        if (located.expected.sha256 or found) != found or manifest.problem(name):
            return set()
    return names


def _fetch_one(source: DownloadSource, located: Located, manifest: Manifest, settings: Settings) -> set[str]:
    download = located.download
    path = settings.output / (DOWNLOADS if download.is_archive else source.folder) / download.name
    expected = located.expected
    # A complete archive remains if the process was stopped between fetching and recording.
    if not (download.is_archive and path.exists() and expected.sha256 in (None, sha256_of(path))):
        fetch(
            located.url,
            path,
            expected=expected,
            access=located.access,
            retry=settings.retry,
            progress=settings.progress,
        )
    known = {
        "source": located.url,
        "version": located.version,
        "by_hand": False,
        "verified": bool(expected.sha256 or expected.md5),
    }
    if download.is_archive:
        collected = _unpack(source, path, sha256_of(path), known, settings)
    else:
        collected = {_name(path, settings): known}
    _record(source, collected, manifest, settings)
    if download.is_archive:
        path.unlink()
    return set(collected)


def _unpack(source: DownloadSource, archive: Path, sha256: str, known: dict, settings: Settings) -> dict[str, dict]:
    """Unpack the files of a source from an archive; return their manifest entries, without size and checksum, by name.

    A fetched archive that cannot be used is deleted, so that the next run fetches it again.
    """
    folder = settings.output / source.folder

    def wanted(name: str) -> bool:
        return source.wants(name.rpartition("/")[2])

    try:
        if not any(wanted(name) for name in member_names(archive)):
            raise InputError(f"{archive} holds no file of {source.name}; it needs: {_looked_for(source)}.")
        files = unzip(archive, folder, max_bytes=source.max_bytes, wanted=wanted, flatten=True)
    except InputError:
        if archive.parent.name == DOWNLOADS:
            archive.unlink(missing_ok=True)
        raise
    known = {**known, "archive": archive.name, "archive_sha256": sha256}
    return {_name(file, settings): known for file in files}


def _record(source: DownloadSource, collected: dict[str, dict], manifest: Manifest, settings: Settings) -> None:
    for name, known in collected.items():
        path = settings.output / name
        size = path.stat().st_size
        sha256 = sha256_of(path)
        manifest.record(name, license=source.license, size=size, sha256=sha256, catalogue=source.name, **known)
    manifest.write()


def _retire(source: DownloadSource, kept: set[str], manifest: Manifest, settings: Settings) -> None:
    """Remove the files of a former release from the source's folder."""
    inside = f"{source.folder}/" if source.folder else None
    former = {name for name in manifest.files if inside and name.startswith(inside)} | set(manifest.names(source.name))
    for name in former - kept:
        (settings.output / name).unlink(missing_ok=True)
        manifest.remove(name)
    if former - kept:
        manifest.write()


def tidy(outcomes: Iterable[Outcome], output: Path) -> None:
    """Remove the leftovers of killed processes for sources that are complete now."""
    folder = output / DOWNLOADS
    for outcome in outcomes:
        if outcome.state not in ("missing", "failed"):
            for download in outcome.source.downloads:
                for leftover in folder.glob(f"{download.name}*"):
                    leftover.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _check_found(source: DownloadSource, names: Iterable[str]) -> None:
    if not _has_required(source, [Path(name).name for name in names]):
        raise InputError(f"not all files of {source.name} were found; these are needed: {_looked_for(source)}.")


def copy_file(source: Path, target: Path) -> None:
    """Copy a file atomically.

    Raises:
        InputError: the file cannot be read or written.
    """
    try:
        with whole_file(target) as partial:
            shutil.copyfile(source, partial)
    except OSError as error:
        raise InputError(f"{source} cannot be copied to {target} ({error.strerror}).") from error


def _name(path: Path, settings: Settings) -> str:
    return path.relative_to(settings.output).as_posix()


def _looked_for(source: DownloadSource) -> str:
    return ", ".join(pattern.replace("\\", "") for pattern in source.required)


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() == ".zip"
