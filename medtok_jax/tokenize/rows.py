"""Define the row of a file of codes, and check its cells. A row that cannot be used holds the reason."""

import dataclasses
from collections.abc import Mapping

from medtok_jax.lookup.code_names import shown
from medtok_jax.tokenize.numbers import digits_of, edition_of, is_absent, is_large_number

NO_CODE = "it has no code"


@dataclasses.dataclass(slots=True)
class RawRow:
    """Hold one row of a file as it is written.

    Attributes:
        number: 1 for the first row; a header and blank lines do not count.
        cells: kind of column (see `columns.COLUMNS`) -> value.
        header: name of the column of the code; None where it has none.
        others: all other columns by name, if they were asked for.
        graph: see `CodeRow`.
        problem: reason for which the row cannot be used, or None.
    """

    number: int
    cells: Mapping[str, object] = dataclasses.field(default_factory=dict)
    header: str | None = None
    others: Mapping[str, object] = dataclasses.field(default_factory=dict)
    graph: object = None
    problem: str | None = None


@dataclasses.dataclass(slots=True)
class CodeRow:
    """Hold one row of a file.

    Attributes:
        number: 1 for the first row; a header and blank lines do not count.
        code: as it is written; None if `problem` is given.
        system, description: as they are written, or None.
        graph: node-link JSON or a list of neighbors in JSON rows, see `new_codes.NewCode`; None otherwise.
        problem: reason for which the row cannot be used, or None.
        edition: name of the edition of ICD, `ICD9` or `ICD10`, that a column beside the code says; or None.
        header: name of the column of the code; None where it has none.
        others: all other columns by name, if they were asked for.
        was_number: whether the code was written as a number among texts, so that it may have lost leading zeros.
    """

    number: int
    code: str | None = None
    system: str | None = None
    description: str | None = None
    graph: dict | list | None = None
    problem: str | None = None
    edition: str | None = None
    header: str | None = None
    others: Mapping[str, object] = dataclasses.field(default_factory=dict)
    was_number: bool = False


def checked(raw: RawRow, *, whole_numbers: bool = False) -> CodeRow:
    """Return a row after checking its cells.

    Args:
        raw: the row.
        whole_numbers: whether the codes of the file were written as numbers, see `WrittenNumbers.are_whole`.
    """
    row = CodeRow(raw.number, header=raw.header, others=raw.others, problem=raw.problem)
    if raw.problem:
        return row
    if "system" in raw.cells:
        row.system, row.problem = _text("system", raw.cells["system"])
    if row.problem is None and "description" in raw.cells:
        row.description, row.problem = _text("description", raw.cells["description"])
    if row.problem is None:
        cell = raw.cells.get("code")
        row.was_number = not whole_numbers and is_large_number(cell)
        row.code, row.problem = _code(cell, whole_numbers or row.was_number)
    if row.problem is None and "edition" in raw.cells:
        row.edition, row.problem = _edition(raw.cells["edition"])
    if row.problem is None and raw.graph is not None:
        if isinstance(raw.graph, (dict, list)):
            row.graph = raw.graph
        else:
            row.problem = "its graph is neither an object nor a list"
    return row


def _code(cell: object, whole_numbers: bool) -> tuple[str | None, str | None]:
    if is_absent(cell, zero=True):
        return None, NO_CODE
    digits = digits_of(cell) if whole_numbers else None
    return _text("code", cell) if digits is None else (digits, None)


def _edition(cell: object) -> tuple[str | None, str | None]:
    if is_absent(cell, zero=True):
        return None, None
    edition = edition_of(cell)
    return edition, None if edition else f"its edition of ICD is {shown(cell)}, not 9 or 10"


def _text(kind: str, cell: object) -> tuple[str | None, str | None]:
    """Return the text of a cell, None where it is missing, and the reason for which it cannot be used."""
    if is_absent(cell):
        return None, None
    if not isinstance(cell, str):
        return None, f"its {kind} is {shown(cell)}, not text"
    if not cell.isascii() and any("\ud800" <= character <= "\udfff" for character in cell):
        return None, f"its {kind} is not UTF-8"
    return cell, None
