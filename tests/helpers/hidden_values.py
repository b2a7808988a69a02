"""Collect the values of patients in records, and find them in whatever a command writes for people to read."""

import contextlib
import csv
import gzip
import io
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# Shorter values, such as sex or a number, stand in any text.
SHORTEST = 4


def of_tables(folder: Path) -> set[str]:
    """Return the cells of all tables about patients in a folder, with the date and the time of day of each moment."""
    found = set()
    for path in folder.rglob("*.csv*"):
        if path.name.lower().startswith("d_"):  # A dictionary of codes, not of patients.
            continue
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", newline="") as file:
            for row in list(csv.reader(file))[1:]:
                found.update(part for cell in row for part in (cell, *re.split(r"[ ,]+", cell)))
    return {value for value in found if len(value) >= SHORTEST}


def in_text(values: set[str], text: str) -> list[str]:
    """Return the values that stand in a text as words of their own, also where a date is written in another order."""
    words = set(re.findall(r"[\w.:/-]+", text)) | set(re.findall(r"\w+", text))
    return sorted(value for value in values if value in words or (" " in value and value in text))


@contextlib.contextmanager
def heard(capfd, caplog) -> Iterator[Callable[[], str]]:
    """Yield a function that returns all that the body said: streams, logs, warnings, and its exception as printed.

    The exception is printed with its causes, as where nobody catches it, and ends the body.
    """
    capfd.readouterr()
    caplog.clear()
    said = io.StringIO()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            yield lambda: said.getvalue()
        except Exception as error:
            # Lines of source are no messages, and hold the words of this project.
            for one in (error, *_behind(error)):
                said.write("".join(traceback.format_exception_only(one)))
    said.write("".join(capfd.readouterr()))
    said.write("\n".join(record.getMessage() for record in caplog.records))
    said.write("\n".join(str(warning.message) for warning in warned))


def _behind(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors that Python prints above an error."""
    while (error := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        yield error


def convert_damaged(
    folder: Path,
    tables: Sequence[str],
    damage: Callable[[Path], Iterator[None]],
    convert: Callable[[Path], None],
    *,
    values: set[str],
    heard: Callable[[], contextlib.AbstractContextManager[Callable[[], str]]],
) -> tuple[int, int]:
    """Convert records with one table damaged at a time, in all ways of a kind; fail where a value of them is heard.

    Args:
        folder: the records.
        tables: tables to damage, as paths without `.csv`.
        damage: damages a file in one way after another.
        convert: converts the records to a folder and prints what it found.
        values: the values that no message may hold.
        heard: `heard`, with its fixtures.

    Returns:
        the number of conversions, and of those that told of an error or of rejected rows.
    """
    tried = told = 0
    for table in tables:
        path = folder / f"{table}.csv"
        whole = path.read_bytes()
        for _ in damage(path):
            output = folder.parent / f"out{tried}"
            with heard() as said:
                convert(output)
            text = said()
            if (output / "metadata").is_dir():
                text += "".join((output / "metadata" / name).read_text() for name in ("rejects.csv", "dataset.json"))
            found = in_text(values, text)
            assert not found, (table, found, text)
            tried += 1
            told += "Error" in text or "rejected" in text
        path.write_bytes(whole)
        path.with_suffix(".csv.gz").unlink(missing_ok=True)
    return tried, told
