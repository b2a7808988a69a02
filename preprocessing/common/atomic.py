"""Write a file or a folder so that readers find the old or the new content, complete, at every moment.

A writer works in a provisional file or folder beside the target (`.partial-XXXXXXXX-NAME`). What is written reaches the
disk before it takes the target's name in one step: a rename, and for a folder that replaces another an exchange of
both (`renameat2`). File systems without the exchange get two renames, between which the old folder is called
`.old-XXXXXXXX-NAME`; `recover` puts it back when a writer was killed there.

Each writer holds a lock on its provisional file or folder. What a killed writer left is not locked, and the next writer
of the same target removes it.
"""

import contextlib
import ctypes
import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from preprocessing.common.errors import InputError
from preprocessing.common.locks import lock, try_lock

ADVICE = "make room there or choose another place"
PARTIAL = ".partial-"
_OLD = ".old-"
_DIGITS = 8
# A folder of more files than this reaches the disk by one `sync` of everything, which is faster then.
_MANY = 1000
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)


@contextlib.contextmanager
def private() -> Iterator[None]:
    """Let this user alone read what is made in the body, as it holds data of patients: files 600, folders 700.

    It holds for all threads, for libraries and for processes that are started meanwhile. Files and folders that replace
    others keep the permissions of those, so that a user who shares a folder with a group does it once.
    """
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def writing(path: str | os.PathLike, advice: str = ADVICE) -> Iterator[None]:
    """Turn everything that the file system refuses in the body into one sentence about `path`.

    Raises:
        InputError: naming `path`, the reason, and `advice`.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}); {advice}.") from error


@contextlib.contextmanager
def whole_file(path: str | os.PathLike, *, advice: str = ADVICE) -> Iterator[Path]:
    """Yield a provisional path whose file takes the place of `path` when the body ends, and is removed if it fails.

    The provisional name ends in the same suffix. Folders above `path` are made.

    Args:
        path: the file; one that is there stays as it is until the new one is complete.
        advice: what the user can do when the disk refuses, without a full stop.

    Raises:
        InputError: the file cannot be written: no room, no permission, or a folder lies there.
    """
    path = named_path(path)
    with writing(path, advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        partial, descriptor = _new_file(path)
    try:
        with _writing_only(path, advice, partial):
            yield partial
        with writing(path, advice):
            _keep_mode(path, partial)
            put_in_place(partial, path)
    finally:
        partial.unlink(missing_ok=True)
        os.close(descriptor)


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike, *, advice: str = ADVICE) -> Iterator[Path]:
    """Yield a provisional folder that takes the place of `path` when the body ends, and is removed if it fails.

    Folders above `path` are made. Readers of a folder that may be replaced call `recover` first.

    Args:
        path: the folder; one that is there stays as it is until the new one is complete, and is removed then.
        advice: what the user can do when the disk refuses, without a full stop.

    Raises:
        InputError: the folder cannot be written: no room, no permission, or a file lies there.
    """
    path = named_path(path)
    with writing(path, advice):
        if _is_file(path):
            raise InputError(f"{path} cannot be written, since a file lies there; choose another place.")
    recover(path)
    with scratch_folder(path, advice=advice) as partial:
        yield partial
        with writing(path, advice):
            _keep_mode(path, partial)
            _flush_folder(partial)
            _replace_folder(partial, path)
            flush(path.parent)


@contextlib.contextmanager
def scratch_folder(path: str | os.PathLike, *, advice: str = ADVICE) -> Iterator[Path]:
    """Yield a new folder beside `path`, on the same file system, and remove it in the end.

    What killed processes left of such folders of `path` is removed first.

    Raises:
        InputError: the folder cannot be written.
    """
    path = named_path(path)
    with writing(path, advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        partial, descriptor = _new_folder(path)
    try:
        with _writing_only(path, advice, partial):
            yield partial
    finally:
        _remove(partial)
        os.close(descriptor)


def named_path(path: str | os.PathLike) -> Path:
    """Return a path that ends in a name, which `.`, `..` and `/` do not; a symbolic link gives its target.

    Raises:
        InputError: it ends in none, so nothing can be written beside it and take its place.
    """
    path = Path(path)
    if path.name in ("", ".."):
        raise InputError(f"{path} cannot be replaced by a new file or folder; give a path that ends in a name.")
    return _target(path)


def check_replaceable(path: str | os.PathLike, marker: str, *, advice: str = "choose another --output") -> None:
    """Refuse to replace a folder that holds anything but what an earlier `whole_folder` of the same kind wrote.

    Args:
        path: the folder, which may be absent.
        marker: a file that every folder of this kind has, relative to it.
        advice: what the user can do, without a full stop.

    Raises:
        InputError: a folder lies there that is not empty and has no such file.
    """
    path = Path(path)
    if path.is_dir() and any(path.iterdir()) and not (path / marker).is_file():
        raise InputError(f"{path} is not empty and was not made by this command; {advice}.")


def write_text(path: str | os.PathLike, text: str, *, advice: str = ADVICE) -> None:
    """Write a UTF-8 file whole; see `whole_file`."""
    write_bytes(path, text.encode("utf-8"), advice=advice)


def write_bytes(path: str | os.PathLike, content: bytes, *, advice: str = ADVICE) -> None:
    """Write a file whole; see `whole_file`."""
    with whole_file(path, advice=advice) as partial:
        partial.write_bytes(content)


def write_json(
    path: str | os.PathLike,
    content: object,
    *,
    advice: str = ADVICE,
    sort_keys: bool = False,
    ensure_ascii: bool = True,
) -> None:
    """Write JSON, indented by one, whole; see `whole_file`, and `json.dumps` for the last two."""
    text = json.dumps(content, indent=1, sort_keys=sort_keys, ensure_ascii=ensure_ascii)
    write_text(path, f"{text}\n", advice=advice)


def put_in_place(partial: Path, path: Path) -> None:
    """Give a complete file or folder its name in one step, after its content and before that name reached the disk.

    Args:
        partial: the file or folder.
        path: its name; a file that lies there is replaced, but no folder.

    Raises:
        OSError: the file system refuses.
    """
    _flush_folder(partial)
    os.replace(partial, path)
    flush(path.parent)


def recover(path: str | os.PathLike) -> None:
    """Put back the folder that a writer had moved aside when it was killed; do nothing if `path` is there.

    Whoever reads a folder that `whole_folder` may replace calls this first.
    """
    path = _target(Path(path))
    if os.path.lexists(path):
        return
    # Where there are several, one of them is of an earlier writer, which was killed when the new folder was in place.
    for old in sorted(_beside(path, _OLD), key=_changed, reverse=True):
        with contextlib.suppress(OSError):
            old.rename(path)
            return


@contextlib.contextmanager
def _writing_only(path: Path, advice: str, partial: Path) -> Iterator[None]:
    """Turn what the file system refuses of writing to `partial` into one sentence; other errors are passed on."""
    try:
        yield
    except OSError as error:
        if not _is_refusal(error, partial):
            raise
        raise InputError(f"{path} cannot be written ({error.strerror or error}); {advice}.") from error


def _is_refusal(error: OSError, partial: Path) -> bool:
    """Return whether an error of a body says that its provisional file or folder cannot be written."""
    about = isinstance(error.filename, str | os.PathLike) and Path(error.filename).is_relative_to(partial)
    # NumPy tells a short write in words only.
    short = error.errno is None and "requested and" in str(error) and str(error).endswith("written")
    return error.errno in FULL or short or (about and not isinstance(error, FileNotFoundError))


def _target(path: Path) -> Path:
    """Return where a symbolic link points to, or the path itself."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _is_file(path: Path) -> bool:
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _keep_mode(path: Path, partial: Path) -> None:
    """Give a provisional file or folder the permissions of the one that it replaces."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copymode(path, partial)


def _name(path: Path, kind: str) -> Path:
    return path.with_name(f"{kind}{secrets.token_hex(_DIGITS // 2)}-{path.name}")


def _beside(path: Path, kind: str) -> list[Path]:
    """Return the paths beside `path` that `_name` has given."""
    try:
        names = os.listdir(path.parent)
    except OSError:
        return []
    cut = len(kind) + _DIGITS
    return [path.with_name(name) for name in names if name.startswith(kind) and name[cut:] == f"-{path.name}"]


def _changed(path: Path) -> int:
    """Return when a path was last changed or renamed (ns), 0 where it is gone."""
    try:
        return os.lstat(path).st_ctime_ns
    except OSError:
        return 0


def _new_file(path: Path) -> tuple[Path, int]:
    """Return a new provisional file and a descriptor that holds its lock."""
    while True:
        partial = _name(path, PARTIAL)
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if _is_ours(partial, descriptor):
            return partial, descriptor


def _new_folder(path: Path) -> tuple[Path, int]:
    """Return a new provisional folder and a descriptor that holds its lock."""
    while True:
        partial = _name(path, PARTIAL)
        partial.mkdir()
        try:
            descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        if _is_ours(partial, descriptor):
            return partial, descriptor


def _is_ours(partial: Path, descriptor: int) -> bool:
    """Lock a new provisional path; return False if another writer took it for a leftover before, and removed it."""
    lock(descriptor)
    try:
        if os.path.samestat(os.fstat(descriptor), os.lstat(partial)):
            return True
    except FileNotFoundError:
        pass
    os.close(descriptor)
    return False


def _remove_leftovers(path: Path) -> None:
    """Remove what killed writers of `path` left: provisional paths, and replaced folders if `path` is there."""
    for partial in _beside(path, PARTIAL):
        if partial.is_symlink():
            _remove(partial)
            continue
        try:
            descriptor = os.open(partial, os.O_RDONLY)
        except OSError:
            continue
        try:
            if try_lock(descriptor):
                _remove(partial)
        finally:
            os.close(descriptor)
    # Listed before `path` is looked for: a folder that is moved aside after that is not in the list.
    replaced = _beside(path, _OLD)
    if replaced and os.path.lexists(path):
        for old in replaced:
            _discard(old, path)


def _remove(partial: Path) -> None:
    if partial.is_dir() and not partial.is_symlink():
        shutil.rmtree(partial, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            partial.unlink()


def _discard(old: Path, path: Path) -> None:
    """Remove a replaced folder, first from the names that `recover` would put back."""
    partial = _name(path, PARTIAL)
    with contextlib.suppress(OSError):
        old.rename(partial)
        _remove(partial)


def _replace_folder(partial: Path, path: Path) -> None:
    """Give a complete folder its name; `partial` is the folder that was there then, or nothing."""
    while True:
        try:
            if not os.path.lexists(path):
                os.rename(partial, path)
            elif not _exchange(partial, path):
                old = _name(path, _OLD)
                os.rename(path, old)
                try:
                    os.rename(partial, path)
                finally:
                    if os.path.lexists(path):
                        _discard(old, path)
            return
        except FileNotFoundError:
            if not partial.is_dir():
                raise
        except OSError as error:
            # Another writer was first, or a reader has put the old folder back.
            if error.errno not in _NOT_EMPTY:
                recover(path)
                raise


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two paths in one step; return False where kernel or file system cannot.

    Raises:
        OSError: they can, but refuse.
    """
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    names = os.fsencode(first), os.fsencode(second)
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(first), None, str(second))


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # The answer of file systems that cannot do it for folders.
            raise
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """Wait until a folder has reached the disk with everything in it."""
    paths = [folder]
    for root, folders, names in os.walk(folder):
        paths += [Path(root) / name for name in (*folders, *names)]
        if len(paths) > _MANY:
            os.sync()
            return
    for path in reversed(paths):
        if not path.is_symlink():
            flush(path)
