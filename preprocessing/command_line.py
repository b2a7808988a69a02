"""How the command lines of this floor start and how they fail: one sentence on stderr, exit status 2, no traceback."""

import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags

from preprocessing.errors import InputError

# Shell convention: 128 + number of the signal.
_INTERRUPTED = 128 + signal.SIGINT


def run(main: Callable[[list[str]], None]) -> NoReturn:
    """Parses absl flags and calls `main` with the program name and the arguments that are not flags.

    An `InputError` and a flag that cannot be parsed exit with status 2. SIGTERM is handled like Ctrl-C, so that what
    was being written is cleaned up.
    """
    app.run(lambda argv: _guarded(main, argv), flags_parser=_parse)


def expect_arguments(argv: list[str], count: int, example: str) -> list[str]:
    """The `count` arguments behind the program name.

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


def _guarded(main: Callable[[list[str]], None], argv: list[str]) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main(argv)
    except InputError as error:
        _fail(error)
    except KeyboardInterrupt:
        print("error: interrupted; nothing was left half-written.", file=sys.stderr)
        sys.exit(_INTERRUPTED)


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _fail(error)
    except SystemExit:
        # absl exits with status 1 after --help, although nothing failed.
        sys.exit(0)


def _fail(error: Exception) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
