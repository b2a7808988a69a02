"""Find the file of a release in the folder of its source; file names of releases hold the version."""

import re
from collections.abc import Callable
from pathlib import Path

from preprocessing.common.errors import InputError
from preprocessing.sources.code_entries import CodeEntries


def find_release(
    folder: Path, pattern: str, entries: CodeEntries, *, newest: Callable[[re.Match[str]], tuple] = lambda match: ()
) -> Path | None:
    """Return the file below `folder` whose name matches `pattern`, ignoring case; None if there is none.

    If several match, the newest is taken, then the least deeply nested (the full RxNorm archive holds the prescribable
    subset in a subfolder), and `entries.remarks` notes the choice. The file is added to `entries.files`.

    Args:
        folder: searched with its subfolders.
        pattern: regular expression of the complete name.
        entries: receives the remark and the file.
        newest: returns the version of a match of `pattern` as a tuple; the greatest is taken.
    """
    expression = re.compile(pattern, re.IGNORECASE)
    found = []
    for path in folder.rglob("*"):
        match = expression.fullmatch(path.name)
        if match and path.is_file():
            found.append((newest(match), -len(path.parts), path.as_posix(), path))
    if not found:
        return None
    path = max(found)[-1]
    if len(found) > 1:
        left = ", ".join(sorted(other[-1].relative_to(folder).as_posix() for other in found if other[-1] != path))
        entries.remarks.append(f"{entries.system}: took {path.relative_to(folder).as_posix()} and left {left}")
    entries.files.append(path)
    return path


def need_release(
    folder: Path, pattern: str, entries: CodeEntries, example: str, *, newest: Callable = lambda match: ()
) -> Path:
    """Return the file that `find_release` finds, for a file without which its system cannot be read.

    Raises:
        InputError: no file matches; the message names `example`.
    """
    path = find_release(folder, pattern, entries, newest=newest)
    if path is None:
        raise InputError(f"{folder} holds no file named like {example}; put it there or remove the folder.")
    return path
