"""Folders that appear with all their files at once."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from preprocessing.common.errors import InputError


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a provisional folder that takes the place of `path` when the body ends, and is removed when it fails.

    Raises:
        InputError: the folder cannot be made.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{partial} cannot be made ({error.strerror}); choose another place.") from error
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    partial.replace(path)
