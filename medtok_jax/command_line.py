"""How every command line ends: one sentence for what the user can mend, a traceback only for our own faults."""

import importlib.util
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging

from preprocessing.errors import InputError


def run(main: Callable, *, config_flag: str | None = None) -> None:
    """`absl.app.run` with clear ends.

    Args:
        main: the command, called with the remaining arguments.
        config_flag: name of a `config_flags` flag whose overrides are checked before they are applied.
    """
    signal.signal(signal.SIGTERM, _terminate)
    app.run(lambda arguments: _guarded(main, arguments), flags_parser=lambda argv: _parse(argv, config_flag))


def _terminate(number: int, _) -> None:
    raise SystemExit(128 + number)


def fail(sentence: str, status: int) -> None:
    """Prints `error: sentence` and ends the process."""
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(status)


def _guarded(main: Callable, arguments: list[str]) -> None:
    from medtok_jax.steps import NonFiniteLoss

    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        main(arguments)
    except InputError as error:
        fail(str(error), 2)
    except NonFiniteLoss as error:
        fail(str(error), 1)
    except KeyboardInterrupt:
        fail("Stopped by Ctrl-C; run the same command again to go on.", 130)


def _parse(argv: list[str], config_flag: str | None) -> list[str]:
    """Flags, with wrong ones told in one sentence."""
    from medtok_jax import config as configuration

    try:
        if config_flag:
            _check_config_arguments(argv, config_flag, configuration)
        return flags.FLAGS(argv)
    except InputError as error:
        fail(str(error), 2)
    except flags.Error as error:
        fail(f"{str(error).splitlines()[0]} See --help.", 2)
    except (ValueError, TypeError, OSError) as error:
        fail(str(error).splitlines()[0], 2)
    return []


def _check_config_arguments(argv: list[str], name: str, configuration) -> None:
    if any(argument in ("--help", "-h", "--helpfull", "--helpshort") for argument in argv):
        return
    given = [a.split("=", 1)[1] for a in argv[1:] if a.startswith((f"--{name}=", f"-{name}="))]
    overrides = [argument for argument in argv[1:] if argument.startswith((f"--{name}.", f"-{name}."))]
    configuration.check_overrides(overrides, load_config(given[-1] if given else flags.FLAGS[name].default))


def load_config(path: str):
    """The configuration of `FILE` or `FILE:VARIANT`.

    Raises:
        InputError: where there is no such file or variant.
    """
    file, _, variant = path.partition(":")
    if not Path(file).is_file():
        raise InputError(f"The configuration file {file} does not exist; configs/default.py is one that does.")
    spec = importlib.util.spec_from_file_location("medtok_config", file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.get_config(variant) if variant else module.get_config()
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} gives no configuration: {error}.") from error
