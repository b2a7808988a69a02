"""What surrounds the building of a data set: one builder at a time, and one sentence where the disk refuses."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging

from preprocessing.errors import InputError


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
    """Holds a lock on the directory above `path`, and removes that directory again if nothing came of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
        os.close(descriptor)


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
