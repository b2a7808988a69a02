"""Start every command line, and end it where it fails: one sentence on stderr and an exit status, no traceback.

Exit status: 0 done, 2 something given cannot be used, 1 another failure, 130 stopped by Ctrl-C,
143 by SIGTERM.
"""

import atexit
import contextlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging
from rich.console import Console

from preprocessing.common import extras
from preprocessing.common.atomic import FULL
from preprocessing.common.errors import InputError, UserError
from preprocessing.common.progress import quiet_libraries


class Terminated(KeyboardInterrupt):
    """Raised for SIGTERM, which is handled like Ctrl-C, so that what was being written is cleaned up."""


def run(main: Callable[[list[str]], None], *, check: Callable[[list[str]], None] | None = None) -> NoReturn:
    """Parse absl flags and call `main` with the program name and the arguments that are not flags.

    Args:
        main: the command.
        check: called with the raw arguments before flags are parsed; may raise `InputError`.
    """
    app.run(lambda argv: _guarded(main, argv), flags_parser=lambda argv: _parse(argv, check))


@contextlib.contextmanager
def importing(module: str) -> Iterator[None]:
    """Surround imports that need an extra at the top of a command; a missing one ends the command with a sentence.

    Args:
        module: `__name__` of the module that imports.
    """
    try:
        yield
    except (UserError, ModuleNotFoundError) as error:
        told = extras.explain(error) if isinstance(error, ModuleNotFoundError) else error
        if module != "__main__" or told is None:
            raise
        _fail(told, told.exit_status)


def expect_arguments(argv: list[str], count: int, example: str) -> list[str]:
    """Return the `count` arguments behind the program name.

    Raises:
        InputError: more or fewer were given; the sentence shows `example`.
    """
    arguments = argv[1:]
    if len(arguments) != count:
        given = f"got {len(arguments)}: {' '.join(arguments)}" if arguments else "got none"
        raise InputError(
            f"the number of arguments beside the flags must be {count}, but {given}; for example: {example}"
        )
    return arguments


def table_console(width: int = 130) -> Console:
    """Return a console that prints tables in full: `width` characters where output is not a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=width)


def output_folder(path: str | Path) -> Path:
    """Return a folder to write to, made where it is absent; call it before the work, so that no result is lost.

    Raises:
        InputError: it cannot be made, or not be written to.
    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("permission denied")
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"the folder {folder} cannot be written ({reason}); give another --output.") from error
    return folder


def _guarded(main: Callable[[list[str]], None], argv: list[str]) -> None:
    signal.signal(signal.SIGTERM, _terminate)
    if not flags.FLAGS["verbosity"].present:
        # Libraries log every file they write at the level that absl's `app` starts with.
        logging.set_verbosity(logging.WARNING)
    quiet_libraries()
    try:
        main(argv)
    except UserError as error:
        _fail(error, error.exit_status)
    except ModuleNotFoundError as error:
        told = extras.explain(error)
        if told is None:
            raise
        _fail(told, told.exit_status)
    except BrokenPipeError:
        # Whoever read the output, such as `head`, wants no more of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        _fail(_of_system(error), 1)
    except KeyboardInterrupt as interrupt:
        number = signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT
        print(
            "error: interrupted; nothing was left half-written, run the same command again to go on.", file=sys.stderr
        )
        # Shell convention: 128 + number of the signal.
        _end(128 + number)


def _of_system(error: OSError) -> str:
    """Return a sentence on what the operating system refused, and where."""
    where = f"{error.filename} cannot be read or written" if error.filename else "a file cannot be read or written"
    reason = " ".join((error.strerror or str(error) or type(error).__name__).split())
    if error.errno in FULL:
        return f"{where} ({reason}); make room there, and run the same command again."
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{where} ({reason}, in {Path(frame.filename).name}:{frame.lineno}); check the path and its permissions."


def _end(status: int) -> NoReturn:
    """End an interrupted process as `sys.exit` does, but for the teardown of JAX, which crashes while it computes."""
    if "jax" not in sys.modules:
        sys.exit(status)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _terminate(*_) -> NoReturn:
    raise Terminated


def _parse(argv: list[str], check: Callable[[list[str]], None] | None) -> list[str]:
    try:
        if check:
            check(argv)
        return flags.FLAGS(argv)
    except UserError as error:
        _fail(error, error.exit_status)
    except flags.IllegalFlagValueError as error:
        missing = re.findall(r"Flag --(\w+) must have a value other than None", str(error))
        if not missing:
            _fail(" ".join(str(error).split()), 2)
        listed = " and ".join(f"--{name}" for name in missing)
        _fail(f"{listed} {'is' if len(missing) == 1 else 'are'} missing; --help tells what to give.", 2)
    except (flags.Error, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        # Flags of configuration fields raise what their conversion raises.
        _fail(" ".join(str(error).split()) or type(error).__name__, 2)
    except SystemExit:
        # absl exits with status 1 after --help, although nothing failed.
        sys.exit(0)


def _fail(error: Exception | str, status: int) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(status)
