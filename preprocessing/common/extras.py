"""The packages that patient records need, which the rest of the project does not."""

import importlib
from types import ModuleType

from preprocessing.common.errors import InputError

PACKAGES = ("polars", "meds")


def load(name: str) -> ModuleType:
    """Imports one of `PACKAGES`.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"patient records need the Python package {name}; run: pip install 'medtok_jax[ehr]'"
        ) from error
