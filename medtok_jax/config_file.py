"""Configuration files on the command line: found, loaded, and their overrides checked before they are applied."""

import importlib.util
import itertools
from pathlib import Path

from medtok_jax.config import check_overrides
from preprocessing.common.errors import InputError

DEFAULT = "configs/default.py"
HELP = ("--help", "-h", "--helpfull", "--helpshort")


def check_arguments(argv: list[str]) -> None:
    """Refuses a `--config` file that is not there and `--config.x.y` overrides that name no field of it.

    Without `--config` the default is put in front of the arguments: a default of the flag itself would be read, and its
    overrides applied, before they could be checked.

    Raises:
        InputError: naming the nearest field.
    """
    if any(argument in HELP for argument in argv):
        return
    given = [argument.split("=", 1)[1] for argument in argv[1:] if argument.startswith(("--config=", "-config="))]
    given += [value for name, value in itertools.pairwise(argv) if name in ("--config", "-config")]
    if not given:
        argv.insert(1, f"--config={DEFAULT}")
    check_overrides(argv[1:], load(given[-1] if given else DEFAULT))


def load(path: str):
    """The configuration of `FILE` or `FILE:VARIANT`.

    Raises:
        InputError: where there is no such file or variant.
    """
    file, _, variant = path.partition(":")
    if not Path(file).is_file():
        raise InputError(f"The configuration file {file} does not exist; {DEFAULT} is one that does.")
    spec = importlib.util.spec_from_file_location("medtok_config", file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.get_config(variant) if variant else module.get_config()
    except (ValueError, AttributeError) as error:
        raise InputError(f"The configuration {path} cannot be used: {error}.") from error
