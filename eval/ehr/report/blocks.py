"""Hold a document as headings, paragraphs, lists, tables and figures, and render it as Markdown and as HTML."""

import base64
import dataclasses
import html
import re
import string
from collections.abc import Sequence
from importlib import resources

from eval.reports import writer
from eval.reports.writer import Cell

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


class Strong(str):
    """Mark the text of a cell as emphasized."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True)
class Heading:
    """Hold a heading; those of level 2 begin a section."""

    text: str
    level: int = 2


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """Hold a paragraph of plain text; a warning is set apart."""

    text: str
    is_warning: bool = False


@dataclasses.dataclass(frozen=True)
class Listing:
    """Hold a list of plain sentences."""

    items: Sequence[str]


@dataclasses.dataclass(frozen=True)
class DataTable:
    """Hold a table; see `eval.reports.writer.markdown_table` for its fields."""

    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    texts: int = 1


@dataclasses.dataclass(frozen=True)
class Picture:
    """Hold an SVG figure, which only the HTML page shows, and its caption.

    Attributes:
        svg: the figure.
        text: the caption, which also replaces the figure for those who cannot see it.
        width: width in pixels below which it is scrolled instead of shrunk.
    """

    svg: bytes
    text: str
    width: int = 640


Block = Heading | Paragraph | Listing | DataTable | Picture


def markdown(blocks: Sequence[Block]) -> str:
    """Return a document as Markdown, without its figures and the headings of these alone."""
    kept = [block for block in blocks if not isinstance(block, Picture)]
    below = [*kept[1:], Heading("", 1)]
    return writer.document(
        [
            _markdown(block)
            for block, after in zip(kept, below, strict=True)
            if not (isinstance(block, Heading) and isinstance(after, Heading) and after.level <= block.level)
        ]
    )


def _markdown(block: Heading | Paragraph | Listing | DataTable) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Paragraph(text, is_warning):
            return f"> **Note:** {text}" if is_warning else text
        case Listing(items):
            return "\n".join(f"- {item}" for item in items)
        case DataTable(headers, rows, texts):
            marked = [[f"**{cell}**" if isinstance(cell, Strong) else cell for cell in row] for row in rows]
            return writer.markdown_table(headers, marked, texts=texts)


def page(title: str, blocks: Sequence[Block]) -> str:
    """Return a document as one HTML page that loads nothing and runs no script.

    Args:
        title: plain text.
        blocks: the document; its first heading is left out if it is of level 1, as the title stands there.
    """
    blocks = blocks[1:] if isinstance(blocks[0], Heading) and blocks[0].level == 1 else blocks
    sections, links = [], []
    for block in blocks:
        if isinstance(block, Heading) and block.level == 2:
            anchor = _anchor(block.text)
            links.append(f'<li><a href="#{anchor}">{html.escape(block.text)}</a></li>')
            sections.append([f'<h2 id="{anchor}">{html.escape(block.text)}</h2>'])
        else:
            if not sections:
                sections.append([])
            sections[-1].append(_html(block))
    return string.Template(_asset("page.html")).substitute(
        title=html.escape(title),
        policy=html.escape(POLICY),
        style=_asset("page.css"),
        links="\n".join(links),
        body="\n".join("<section>\n" + "\n".join(parts) + "\n</section>" for parts in sections),
    )


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{html.escape(text)}</h{level}>"
        case Paragraph(text, is_warning):
            return f'<p class="warning">{html.escape(text)}</p>' if is_warning else f"<p>{html.escape(text)}</p>"
        case Listing(items):
            return "<ul>\n" + "\n".join(f"<li>{html.escape(item)}</li>" for item in items) + "\n</ul>"
        case DataTable(headers, rows, texts):
            return _html_table(headers, rows, texts)
        case Picture(svg, text, width):
            source = base64.b64encode(svg).decode()
            image = (
                f'<img src="data:image/svg+xml;base64,{source}" alt="{html.escape(text)}" style="min-width:{width}px">'
            )
            caption = f"<figcaption>{html.escape(text)}</figcaption>"
            return f'<figure><div class="scroll" tabindex="0">{image}</div>{caption}</figure>'


def _html_table(headers: Sequence[str], rows: Sequence[Sequence[Cell]], texts: int) -> str:
    def line(cells: Sequence[str], name: str) -> str:
        kinds = ["text" if column < texts else "number" for column in range(len(cells))]
        joined = "".join(f'<{name} class="{kind}">{cell}</{name}>' for kind, cell in zip(kinds, cells, strict=True))
        return f"<tr>{joined}</tr>"

    body = [line([_html_cell(cell) for cell in row], "td") for row in rows]
    head = line([html.escape(header) for header in headers], "th")
    table = f"<table>\n<thead>{head}</thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody>\n</table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _html_cell(cell: Cell) -> str:
    # A line may end before the word that follows an interval, but not within the interval.
    text = re.sub(r" \[(\S+), (\S+)\]", "\u00a0[\\1,\u00a0\\2]", html.escape(writer.cell_text(cell)))
    return f"<strong>{text}</strong>" if isinstance(cell, Strong) else text


def _anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _asset(name: str) -> str:
    return resources.files("eval.ehr.report").joinpath("assets", name).read_text(encoding="utf-8")
