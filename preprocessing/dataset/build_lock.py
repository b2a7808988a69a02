"""What surrounds the building of a data set: one builder at a time, and one sentence where the disk refuses."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging

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
    shared, own = (os.open(folder, os.O_RDONLY) for folder in (path.parents[1], path.parent))
    try:
        _share(shared, path.parents[1] / ".config")
        fcntl.flock(own, fcntl.LOCK_EX)
        for leftover in path.parent.glob("*incomplete*"):
            shutil.rmtree(leftover)
        yield
    finally:
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
        os.close(own)
        os.close(shared)


def _share(descriptor: int, folder: Path) -> None:
    """Marks a directory as in use by a builder; removes what others left in its `folder` if there is no other now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    else:
        for leftover in folder.glob("incomplete.*"):
            leftover.unlink(missing_ok=True)
    fcntl.flock(descriptor, fcntl.LOCK_SH)


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
