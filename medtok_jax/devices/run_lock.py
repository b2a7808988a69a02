"""Lock a folder for a whole run, whose first process holds the lock for all of them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from preprocessing.common import locks
from preprocessing.common.errors import InputError


@contextlib.contextmanager
def only_run(folder: Path, *, file: str | None = None, advice: str) -> Iterator[None]:
    """Hold the lock on a folder, or on one file of it, see `locks.exclusive`. All processes of the run must enter.

    Args:
        folder: made where it is absent.
        file: name of the file to lock; None for the whole folder.
        advice: what the user can do instead of waiting, without a full stop.

    Raises:
        InputError: in every process, if another run holds the lock.
    """
    with contextlib.ExitStack() as held:
        refusal = None
        if jax.process_index() == 0:
            try:
                held.enter_context(locks.exclusive(folder, file=file, advice=advice))
            except InputError as error:
                refusal = error
        refused = refusal is not None
        if jax.process_count() > 1:
            refused = bool(multihost_utils.broadcast_one_to_all(np.int32(refused)))
        if refused:
            raise refusal or InputError(f"{folder} is in use by another run; process 0 says by which.")
        yield
