"""Describe changes to the notebook of another project: make them, and print them as steps.

Cells are numbered from 0, as in the notebook's file.
"""

from collections.abc import Sequence
from typing import NamedTuple

INSTEAD, END, AFTER, OMIT, NEW = "instead of it", "at its end", "after the line", "leave it out", "a new cell"


class Change(NamedTuple):
    """Describe the change of one cell.

    Attributes:
        cell: number of the cell; `NEW` ones follow the last.
        how: `INSTEAD` of the cell, at its `END`, `AFTER` the line `line`, `OMIT` the cell, or a `NEW` one.
        code: lines of Python, indented like the line that they follow; empty for `OMIT`.
        line: see `how`.
        why: the reason, if it is not obvious.
    """

    cell: int
    how: str
    code: str = ""
    line: str = ""
    why: str = ""


def changed(cells: Sequence[str], changes: Sequence[Change]) -> list[str]:
    """Return the code of all cells of a notebook with the changes made; cells that are left out are empty.

    Raises:
        ValueError: a line that a change follows is not in its cell exactly once.
    """
    result = list(cells)
    for change in changes:
        if change.how == NEW:
            result.append(change.code)
        elif change.how == END:
            result[change.cell] += "\n" + change.code
        elif change.how == AFTER:
            if result[change.cell].count(change.line) != 1:
                raise ValueError(f"Cell {change.cell} does not hold the line {change.line!r} once.")
            result[change.cell] = result[change.cell].replace(change.line, f"{change.line}\n{change.code}")
        else:
            result[change.cell] = change.code
    return result


def steps(changes: Sequence[Change]) -> str:
    """Return the changes as steps for a reader."""
    lines = []
    for change in changes:
        how = f"{change.how} {change.line.strip()}" if change.line else change.how
        lines.append(f"  cell {change.cell:<3} {how}" + (f" ({change.why})" if change.why else ""))
        lines += [f"           {line}" for line in change.code.splitlines()]
    return "\n".join(lines)
