"""Guard the building of a data set: let one process build at a time, and explain errors of the file system."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging

from preprocessing.common import locks
from preprocessing.common.errors import InputError


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn errors of the file system into an `InputError` that names the path.

    Raises:
        InputError: the disk is full or does not permit writing.
    """
    refusals = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST)
    try:
        yield
    except OSError as error:
        if error.errno not in refusals:
            raise
        raise InputError(
            f"the data set cannot be written to {path} ({error.strerror}); choose another --data_dir."
        ) from error


@contextlib.contextmanager
def only_builder(path: Path) -> Iterator[None]:
    """Hold a lock on the directory above `path`, and remove that directory at the end if it is empty.

    Leftovers of killed builders in that directory, and in the one that all data sets share, are removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            locks.shared(path.parents[1], lambda: _remove(path.parents[1] / ".config", "incomplete.*")),
            locks.exclusive(path.parent, wait=True),
        ):
            _remove(path.parent, "*incomplete*")
            yield
    finally:
        with contextlib.suppress(OSError):  # The directory is not empty.
            path.parent.rmdir()


def _remove(folder: Path, pattern: str) -> None:
    """Remove the leftovers of killed builders from a folder."""
    for leftover in folder.glob(pattern):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """Turn off the progress bars and messages of TFDS, which would interrupt those of this package."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        yield
    finally:
        tfds.enable_progress_bar()
        logging.set_verbosity(verbosity)
