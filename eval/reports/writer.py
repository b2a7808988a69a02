"""Format numbers and tables for Markdown and for the terminal in one way, and write reports atomically."""

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from preprocessing.common.atomic import write_json, write_text

ADVICE = "give another --output"
# Marks of figures: the graph contains part of their labels; other pairs of their kind were in the training loss.
GIVEN, TRAINED = "*", "†"
Cell = str | int | float | None


def number(value: float, *, like: float | None = None) -> str:
    """Return a number as text: three decimals, none from 100 on, and `none` for NaN.

    Args:
        value: the number.
        like: number that decides about the decimals instead of `value`, as a mean does for its deviation.
    """
    if value != value:
        return "none"
    return f"{value:,.0f}" if abs(value if like is None else like) >= 100 else f"{value:.3f}"


def marks(given: bool, trained: bool) -> str:
    """Return the marks of a figure, behind a space; empty for none."""
    found = GIVEN * given + TRAINED * trained
    return f" {found}" if found else ""


def with_interval(value: float, low: float, high: float) -> str:
    """Return a number as text, followed by its interval in brackets."""
    return f"{number(value)} [{number(low)}, {number(high)}]"


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[Cell]], *, texts: int = 1) -> str:
    """Return a Markdown table, without a line end.

    Args:
        headers: titles of the columns.
        rows: cells of each row: text is kept, integers get separators of thousands, floats are formatted by `number`,
            None is an empty cell.
        texts: number of leading columns that are aligned left; the others are aligned right.
    """
    aligned = ["---" if column < texts else "---:" for column in range(len(headers))]
    lines = [headers, aligned, *([cell_text(cell).replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def console_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[Cell]], *, texts: int = 1) -> Table:
    """Return a table for the terminal; for the arguments see `markdown_table`."""
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    for column, header in enumerate(headers):
        table.add_column(escape(header), justify="left" if column < texts else "right")
    for row in rows:
        table.add_row(*(escape(cell_text(cell)) for cell in row))
    return table


def cell_text(cell: Cell) -> str:
    """Return a cell as text; see `markdown_table`."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell
    return f"{cell:,}" if isinstance(cell, int) else number(cell)


def document(parts: Sequence[str]) -> str:
    """Return a Markdown document of headings, paragraphs, lists and tables, with an empty line between them."""
    return "\n\n".join(parts) + "\n"


def write(path: Path, text: str, values: object | None = None) -> None:
    """Write a report as Markdown, and its values beside it as JSON where they are given, both atomically.

    Args:
        path: the Markdown file; the JSON file has the same name with the suffix `.json`.
        text: content of the Markdown file.
        values: content of the JSON file; None for no such file.

    Raises:
        InputError: a file cannot be written.
    """
    if values is not None:
        write_json(path.with_suffix(".json"), values, advice=ADVICE)
    write_text(path, text, advice=ADVICE)
