"""Select the codes that a report shows: those of a file, or a sample taken evenly from the code systems."""

import dataclasses
from pathlib import Path

import numpy as np

from medtok_jax.tokenize import readers
from medtok_jax.tokenize.rows import CodeRow
from medtok_jax.tokenize.systems import named_systems
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import BOM
from preprocessing.common.text_files import opened

COLUMNS = {"code": None, "system": None}


@dataclasses.dataclass(frozen=True)
class Selection:
    """Hold the codes that a report shows.

    Attributes:
        rows: `[codes]` int64 rows of the token table.
        listed: whether they come from a file.
        rejected: `(code, reason)` of each code of the file that cannot be used, as it is written there.
    """

    rows: np.ndarray
    listed: bool = False
    rejected: tuple[tuple[str, str], ...] = ()


def select(tokenizer: MedTokTokenizer, codes: Path | None, max_codes: int) -> Selection:
    """Select the codes of the file `codes` in its order, or all codes; a sample if they are more than `max_codes`.

    Raises:
        InputError: the file cannot be used, or the tokenizer holds none of its codes.
    """
    table = tokenizer.directory.table
    if codes is None:
        rows = tokenizer.directory.codes
        rejected = []
    else:
        rows, rejected = _find(tokenizer, codes)
        if not len(rows):
            why = f"; the first of them: {rejected[0][1]}" if rejected else ", because it is empty."
            raise InputError(f"None of the codes in {codes} can be shown{why}")
    if len(rows) > max_codes:
        system, code = (table[name].take(rows).to_numpy() for name in ("system", "code"))
        rows = rows[sample_evenly(system, np.char.str_len(code.astype(str)), max_codes)]
    return Selection(rows, codes is not None, tuple(rejected))


def sample_evenly(system: np.ndarray, length: np.ndarray, count: int) -> np.ndarray:
    """Return `count` positions, ascending, with equally many codes of each system, or all codes of a small system.

    The codes of a system are cut into runs of neighbors, and the (first) shortest code of each run, which is the most
    general one, is taken.

    Args:
        system: `[codes]` str.
        length: `[codes]` int, number of characters of each code.
        count: sample size, less than the number of codes.
    """
    names, sizes = np.unique(system.astype(str), return_counts=True)
    order = np.argsort(sizes, kind="stable")
    taken = []
    left = count
    for done, smallest in enumerate(order):
        # The smallest systems come first: what they do not use is shared by the others.
        quota = min(int(sizes[smallest]), left // (len(names) - done))
        left -= quota
        members = np.flatnonzero(system == names[smallest])
        runs = np.array_split(members, quota) if quota else []
        taken += [run[np.argmin(length[run])] for run in runs]
    return np.sort(np.array(taken, np.int64))


def _find(tokenizer: MedTokTokenizer, path: Path) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Return the distinct rows of the codes in a file, in their order, and `(code, reason)` of codes without a row."""
    rows = {}
    rejected = []
    for entry in read_codes(path):
        try:
            if entry.problem:
                raise InputError(f"row {entry.number}: {entry.problem}.")
            rows[tokenizer.index.find(entry.code, named_systems(tokenizer, entry, None))] = None
        except InputError as error:
            rejected.append((entry.code or f"row {entry.number}", str(error)))
    return np.array(list(rows), np.int64), rejected


def read_codes(path: Path) -> list[CodeRow]:
    """Read the rows of a text file with one code a line, or of a table that `tokenize.readers.read_codes` reads.

    Raises:
        InputError: the file cannot be read.
    """
    if path.suffix.lower() != ".txt":
        return list(readers.read_codes(path, COLUMNS, progress=False))
    with opened(path) as (file, _):
        lines = file.read().removeprefix(BOM).decode().splitlines()
    return [CodeRow(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
