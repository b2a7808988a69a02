"""Find data files inside installed packages without importing (and so without running) the packages."""

import importlib.util
from pathlib import Path

from preprocessing.common import extras
from preprocessing.common.errors import InputError


def package_file(package: str, pattern: str) -> Path:
    """Return the path of the only file of `package` that matches the glob `pattern`, relative to the package's folder.

    Raises:
        InputError: the package is not installed, or holds no such file (or several).
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise extras.missing(package)
    directory = Path(next(iter(spec.submodule_search_locations)))
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        raise InputError(
            f"{len(found)} files match {pattern} in the installed package {package}, but exactly one is needed;"
            f" repair it: pip install --force-reinstall 'medtok_jax[{extras.EXTRAS[package]}]'"
        )
    return found[0]
