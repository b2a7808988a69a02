"""Lock folders and files between processes; whoever is refused learns the host, number and start of the holder.

The lock is one of the kernel (`flock`) on a small file, so a killed process never leaves a lock behind: at most the
file stays, which the next holder takes over and removes.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from preprocessing.common.errors import InputError

LOCK = ".lock"
# What file systems without locks answer.
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
# Seconds that the holder of a lock may take from getting it to writing down who it is.
_PATIENCE = 0.5


@contextlib.contextmanager
def exclusive(
    folder: Path, *, file: str | None = None, wait: bool = False, advice: str = "choose another place"
) -> Iterator[int]:
    """Hold the lock on a folder, or on one file of it, for as long as the body runs.

    The lock file is `FOLDER/.lock` or `FOLDER/FILE.lock`; it says who holds it, and is removed in the end. Where the
    file system knows no locks, a warning is printed and the body runs without one.

    Args:
        folder: made where it is absent.
        file: name of the file to lock; None for the whole folder.
        wait: whether to wait for another holder, saying so in one line on stderr, instead of refusing.
        advice: what the user can do instead of waiting, or when nothing can be written, without a full stop.

    Yields:
        The descriptor that holds the lock. A process that inherits it keeps the lock when this one is killed.

    Raises:
        InputError: another process holds the lock and `wait` is off, or the lock file cannot be made.
    """
    folder = Path(folder)
    locked = folder if file is None else folder / file
    path = folder / (LOCK if file is None else f"{file}{LOCK}")
    try:
        descriptor = _acquire(path, locked, wait, advice)
    except OSError as error:
        raise InputError(f"{locked} cannot be written ({error.strerror}); {advice}.") from error
    try:
        with contextlib.suppress(OSError):  # On a full disk the lock holds all the same.
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _about_this_process(), 0)
        yield descriptor
    finally:
        with contextlib.suppress(OSError):
            if _is_at(path, descriptor):
                path.unlink()
        os.close(descriptor)


@contextlib.contextmanager
def shared(folder: Path, when_alone: Callable[[], None]) -> Iterator[None]:
    """Hold a lock on an existing folder together with others that hold it this way.

    Args:
        folder: the folder.
        when_alone: called first, if no other process holds the lock; none can get it meanwhile.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if try_lock(descriptor):
            when_alone()
        _flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def lock(descriptor: int) -> bool:
    """Take the lock on an open file when it is free; return False where the file system knows no locks."""
    return _flock(descriptor, fcntl.LOCK_EX)


def try_lock(descriptor: int) -> bool:
    """Take the lock on an open file without waiting; return whether it is held now.

    The answer is also no where the file system knows no locks.
    """
    try:
        return _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False


def _flock(descriptor: int, operation: int) -> bool:
    """Lock an open file; return False where the file system knows no locks."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def _acquire(path: Path, locked: Path, wait: bool, advice: str) -> int:
    """Return a descriptor that holds the lock on the file that lies at `path`."""
    said = False
    while True:
        # Made in each turn: the holder before may have removed file and folder.
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                supported = _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _holder(descriptor)
                if not wait:
                    raise InputError(f"{locked} is in use by {holder}; wait until it ends, or {advice}.") from None
                if not said:
                    print(f"waiting for {holder}, which writes into {locked}", file=sys.stderr)
                said, supported = True, _flock(descriptor, fcntl.LOCK_EX)
            if not supported:
                print(f"warning: the file system of {locked} knows no locks; start no second process.", file=sys.stderr)
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Return whether an open file still lies at `path`, and was neither removed nor made anew."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _about_this_process() -> bytes:
    start = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return (json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "start": start}) + "\n").encode()


def _holder(descriptor: int) -> str:
    """Return words for the process that holds a lock file."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            about = json.loads(os.pread(descriptor, 4096, 0))
            return f"process {about['pid']} on {about['host']} since {about['start']}"
        except (OSError, ValueError, KeyError, TypeError):
            if time.monotonic() > deadline:
                return "another process"
            time.sleep(0.01)
