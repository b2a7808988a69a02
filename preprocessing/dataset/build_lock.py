"""What surrounds the building of a data set: one builder at a time, and one sentence where the disk refuses."""

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
    """Turns what the file system refuses into one sentence."""
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
    """Holds a lock on the directory above `path`, and removes that directory again if nothing came of it.

    What builders that were killed have left of this and of the directory that all data sets share is removed first.
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
        with contextlib.suppress(OSError):  # Something came of it.
            path.parent.rmdir()


def _remove(folder: Path, pattern: str) -> None:
    """Removes what killed builders left in a folder."""
    for leftover in folder.glob(pattern):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """TFDS's own progress bars and messages would interrupt this module's."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        yield
    finally:
        tfds.enable_progress_bar()
        logging.set_verbosity(verbosity)
