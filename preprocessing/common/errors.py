"""Define the exceptions that a user reads: one sentence each, printed without a traceback.

A sentence about patient records names file, line, column and the kind of fault, and never a value. Where the error
behind it may quote values, as those of polars and Arrow do, it is raised `from None`, so that no traceback shows them.
"""

import contextlib
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path


class UserError(ValueError):
    """Carry one sentence for the user; a command line prints it and exits with `exit_status`."""

    exit_status = 1


class InputError(UserError):
    """Something the user gave cannot be used: one sentence naming what, where and what to do."""

    exit_status = 2


def fault_of(error: BaseException) -> str:
    """Return what went wrong without a value of the data: the reason of the system, or the kind of the error."""
    return getattr(error, "strerror", None) or type(error).__name__


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """Replace an unforeseen error by its kind and place: its message may quote values of patients.

    Raises:
        UserError: the body raised another error than those for users, those of imports, and requests to stop.
    """
    try:
        yield
    except (UserError, ImportError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # A panic of polars is no `Exception`.
        frames = traceback.extract_tb(error.__traceback__)
        places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-6:]))
        raise UserError(
            f"the records could not be processed: {type(error).__name__} in {places}; its message is not shown, as it"
            " may quote values of patients. Report this line."
        ) from None


def lacks_column(path: Path, name: str, found: Sequence[str], cells: int, *, line: int = 1) -> InputError:
    """Return the error of a table without a column; the header is not quoted, as a row of a patient may stand there.

    Args:
        path: the table.
        name: the column, with other names that it may go by.
        found: columns that are read and are there.
        cells: number of cells of the header.
        line: its line in the file, from 1.
    """
    there = f"its {cells:,} cells name {', '.join(found)}" if found else f"none of its {cells:,} cells names a column"
    return InputError(
        f"{path} has no column {name} in its header, which is taken from line {line} ({there}); put the names of the"
        " columns there, and check the separator."
    )
