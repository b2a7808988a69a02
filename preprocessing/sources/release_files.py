"""Finds the file of a release in the folder of its source: releases carry their version in the file's name."""

import re
from collections.abc import Callable
from pathlib import Path

from preprocessing.common.errors import InputError
from preprocessing.sources.code_entries import CodeEntries


def find_release(
    folder: Path, pattern: str, entries: CodeEntries, *, newest: Callable[[re.Match[str]], tuple] = lambda match: ()
) -> Path | None:
    """The file below `folder` whose name matches `pattern`, whatever its case; None where there is none.

    Of several the newest is taken, then the one that lies least deep (the full RxNorm archive holds the prescribable
    subset in a subfolder), and `entries.remarks` says so. The file is noted in `entries.files`.

    Args:
        folder: searched with its subfolders.
        pattern: regular expression of the whole name.
        entries: gets the remark and the file.
        newest: what to compare versions by, of the match of `pattern`; the greatest is taken.
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
    """`find_release`, for a file that its system cannot do without.

    Raises:
        InputError: there is none; the sentence names `example`.
    """
    path = find_release(folder, pattern, entries, newest=newest)
    if path is None:
        raise InputError(f"{folder} holds no file named like {example}; put it there or remove the folder.")
    return path
