"""Define the exceptions that a user reads: one printable line each, printed without a traceback.

A sentence about patient records names file, line, column and the kind of fault, and never a value. Where the error
behind it may quote values, as those of polars and Arrow do, it is raised `from None`, so that no traceback shows them.
"""

import contextlib
import difflib
import json
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

# A sentence that quotes a damaged file may be long. It begins with what is wrong and ends with what to do.
_LONGEST, _LONGEST_END = 1500, 400
# Share of letters that two names have in common, in order, from which one may be meant by the other.
_ALIKE = 0.5


class UserError(ValueError):
    """Carry one sentence for the user, on one line; a command line prints it and exits with `exit_status`."""

    exit_status = 1

    def __init__(self, sentence: object = ""):
        super().__init__(one_line(str(sentence)))


class InputError(UserError):
    """Something the user gave cannot be used: one sentence naming what, where and what to do."""

    exit_status = 2


def one_line(text: str) -> str:
    """Return a text on one line of bounded length, in which what cannot be printed is escaped."""
    if len(text) > _LONGEST + _LONGEST_END:
        text = f"{text[:_LONGEST]} ... {text[-_LONGEST_END:]}"
    if text.isprintable():
        return text
    text = " ".join(line.strip() for line in text.splitlines() if line.strip())
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def fault_of(error: BaseException) -> str:
    """Return what went wrong, and where if it is known, without a value of the data.

    This is the reason of the system, or else the kind of the error, with line and column in JSON, XML and YAML.
    """
    if reason := getattr(error, "strerror", None):
        return reason
    if isinstance(error, UnicodeDecodeError):
        return f"it is not {error.encoding}"
    mark, position = getattr(error, "problem_mark", None), getattr(error, "position", None)
    place = None
    if isinstance(error, json.JSONDecodeError):
        place = error.lineno, error.colno
    elif isinstance(error, SyntaxError) and isinstance(position, tuple):
        place = position
    elif mark is not None:
        place = mark.line + 1, mark.column + 1
    name = type(error).__name__
    return name if place is None else f"{name} at line {place[0]}, column {place[1]}"


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


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is spelled most like `name`, ignoring case.

    Args:
        name: a name that is not known.
        known: at least one name; the first is returned if none is alike.
    """
    of_lower = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), of_lower, n=1, cutoff=0.0)
    return of_lower[found[0]] if found else next(iter(of_lower.values()))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that refuses a name: the one that was meant, if any is alike, and all."""
    known = list(known)
    found = nearest(name, known)
    listed = ", ".join(known)
    alike = difflib.SequenceMatcher(None, name.lower(), found.lower()).ratio() >= _ALIKE
    return f"did you mean {found!r}? Known are {listed}." if alike else f"choose from: {listed}."
