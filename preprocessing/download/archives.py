"""Unpack zip archives without trusting them."""

import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from preprocessing.common.atomic import put_in_place, scratch_folder
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading

# Deflate reaches at most 1,032; the tables unpacked here reach about 15.
_MAX_RATIO = 200
# Below this size a high ratio is harmless: a few hundred equal lines reach it.
_RATIO_FREE = 1 << 20
_KIND, _AGAIN = "a complete zip archive", "delete it and get it again"
_MAX_MEMBERS = 50_000
_CHUNK = 1 << 20


def unzip(
    path: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    max_bytes: int,
    max_member_bytes: int | None = None,
    wanted: Callable[[str], bool] | None = None,
    flatten: bool = False,
) -> list[Path]:
    """Unpack a zip archive into `folder`, where only complete files appear.

    All members are first unpacked beside `folder`, with every checksum compared, and moved only after the last one.
    Files of `folder` that the archive does not hold are kept.

    Args:
        path: the archive.
        folder: target folder, created if it does not exist.
        max_bytes: limit of all unpacked members together.
        max_member_bytes: limit of one member (default: `max_bytes`).
        wanted: returns whether to unpack the member of a given name in the archive; None unpacks all.
        flatten: leave out the archive's folders; of members with the same file name the one nearest the root is taken.

    Returns:
        The unpacked files, in the order of their names.

    Raises:
        InputError: `path` is not a zip archive, is truncated or damaged, or any member (wanted or not) would leave
            `folder`, is a link, is encrypted, occurs twice, or exceeds a limit of size or compression ratio.
    """
    path = Path(path)
    folder = Path(folder)
    with reading(path, _KIND, _AGAIN):
        try:
            with zipfile.ZipFile(path) as archive:
                members = _members(archive, path, wanted, flatten)
                _check_sizes(members, path, max_bytes, max_member_bytes or max_bytes)
                return _unpack(archive, members, folder, path)
        except OSError as error:
            where = f" into {folder}" if path.exists() else ""
            raise InputError(f"{path} cannot be unpacked{where} ({error.strerror}).") from error


def member_names(path: str | os.PathLike) -> list[str]:
    """Return the names of the files in a zip archive.

    Raises:
        InputError: `path` is not a zip archive, or is truncated.
    """
    with reading(Path(path), _KIND, _AGAIN), zipfile.ZipFile(path) as archive:
        return [info.filename for info in archive.infolist() if not info.is_dir()]


def _members(
    archive: zipfile.ZipFile, path: Path, wanted: Callable[[str], bool] | None, flatten: bool
) -> dict[str, zipfile.ZipInfo]:
    """Return the wanted members by their target names, sorted, after checking all members of the archive."""
    infos = sorted(archive.infolist(), key=_depth)
    if len(infos) > _MAX_MEMBERS:
        raise InputError(f"{path} has {len(infos):,} members, more than {_MAX_MEMBERS:,}; it is not unpacked.")
    chosen: dict[str, zipfile.ZipInfo] = {}
    seen: set[str] = set()
    for info in infos:
        _check_member(info, path)
        if info.filename in seen:
            raise InputError(f"{path} holds {info.filename!r} twice; it is not unpacked.")
        seen.add(info.filename)
        if info.is_dir() or (wanted and not wanted(info.filename)):
            continue
        name = PurePosixPath(info.filename).name if flatten else str(PurePosixPath(info.filename))
        other = chosen.get(name)
        if other is None:
            chosen[name] = info
        elif _depth(info) == _depth(other):  # Members are sorted by depth, so deeper ones are skipped.
            raise InputError(
                f"{path} holds both {other.filename!r} and {info.filename!r}; unpack the right one by hand."
            )
    return dict(sorted(chosen.items()))


def _depth(info: zipfile.ZipInfo) -> int:
    return len(PurePosixPath(info.filename).parts)


def _check_member(info: zipfile.ZipInfo, path: Path) -> None:
    # `orig_filename` is the stored name: ZipInfo cuts `filename` at a NUL and replaces backslashes on Windows.
    name = info.orig_filename
    parts = PurePosixPath(name.replace("\\", "/"))
    if not name or "\0" in name or parts.is_absolute() or ".." in parts.parts or (len(name) > 1 and name[1] == ":"):
        raise InputError(f"{path} holds a member that would leave its folder ({name!r}); it is not unpacked.")
    mode = stat.S_IFMT(info.external_attr >> 16)
    if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InputError(f"{path} holds {name!r}, which is a link or a device; it is not unpacked.")
    if info.flag_bits & 0x1:
        raise InputError(f"{path} holds {name!r}, which is encrypted; unpack it by hand.")


def _check_sizes(members: dict[str, zipfile.ZipInfo], path: Path, max_bytes: int, max_member_bytes: int) -> None:
    for info in members.values():
        if info.file_size > max_member_bytes:
            raise InputError(
                f"{path} holds {info.filename!r} of {info.file_size:,} bytes, more than the {max_member_bytes:,} "
                "allowed; it is not unpacked."
            )
        if info.file_size > _RATIO_FREE and info.file_size > _MAX_RATIO * max(info.compress_size, 1):
            raise InputError(
                f"{path} holds {info.filename!r}, which unpacks to more than {_MAX_RATIO} times its size; "
                "it is not unpacked."
            )
    total = sum(info.file_size for info in members.values())
    if total > max_bytes:
        raise InputError(f"{path} unpacks to {total:,} bytes, more than the {max_bytes:,} allowed; it is not unpacked.")


def _unpack(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], folder: Path, path: Path) -> list[Path]:
    with scratch_folder(folder) as temporary:
        for name, info in members.items():
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _unpack_member(archive, info, target, path)
        for name in members:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            put_in_place(temporary / name, folder / name)
    return [folder / name for name in members]


def _unpack_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, path: Path) -> None:
    """Write one member and count its bytes, because the sizes in the archive's directory may be wrong."""
    written = 0
    with archive.open(info) as source, target.open("xb") as file:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > info.file_size:
                raise InputError(f"{path} holds {info.filename!r}, longer than its recorded size; it is not unpacked.")
            file.write(chunk)
    if written != info.file_size:
        raise zipfile.BadZipFile(f"{info.filename} ends after {written:,} of {info.file_size:,} bytes")
