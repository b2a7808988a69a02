"""Build the report: one HTML page that shows a tokenizer in any browser, without a network."""

import sys
from pathlib import Path

import numpy as np

from medtok_jax.lookup.similarity import CHUNK
from medtok_jax.report import data as report_data
from medtok_jax.report import maps
from medtok_jax.report import page as report_page
from medtok_jax.report.codes import Selection, select
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.common import command_line
from preprocessing.common.atomic import write_text
from preprocessing.common.progress import Bar

FILE = "report.html"
USAGE = "python -m medtok_jax.report --tokenizer=TOK --output=DIR [--show=FILE]"


def write(
    tokenizer: str | Path, output: Path, *, codes: Path | None, method: str, max_codes: int, progress: bool = True
) -> Path:
    """Write `OUTPUT/report.html` and return its path; an older report is replaced only when the new one is complete.

    Args:
        tokenizer: directory or hub name that `MedTokTokenizer.from_pretrained` opens.
        output: directory to write into.
        codes: file that lists the codes to show, or None for all codes.
        method: one of `maps.METHODS`.
        max_codes: number of codes to show at most.
        progress: whether to show a progress bar.

    Raises:
        InputError: an argument cannot be used, or a package of the `report` extra is missing.
    """
    output = command_line.output_folder(output)
    opened = MedTokTokenizer.from_pretrained(tokenizer)
    selection = select(opened, codes, max_codes)
    _warn_of_rejected(selection)
    page = _build(opened, selection, method, progress)
    path = output / FILE
    write_text(path, page, advice="give another --output")
    return path


def _build(tokenizer: MedTokTokenizer, selection: Selection, method: str, progress: bool) -> str:
    directory = tokenizer.directory
    rows = selection.rows
    tokens = report_data.tokens_on_map(tokenizer.config.regions)
    with Bar(total=3, bar_format="{desc} {bar} {elapsed}", show=progress) as bar:
        bar.set_description(f"Placing {len(rows):,} codes")
        code_points = maps.project(_vectors(tokenizer, rows), method)
        bar.update()
        bar.set_description(f"Placing {len(tokens):,} tokens")
        token_points = maps.project(directory.codebook[tokens], method)
        bar.update()
        bar.set_description("Writing the page")
        about = report_data.describe(directory, selection, method)
        data = {
            "about": about,
            "codes": report_data.shown_codes(directory, rows, code_points),
            "tokens": report_data.shown_tokens(directory, tokens, token_points),
        }
        page = report_page.build(f"MedTok tokens: {about['name']}", data)
        bar.update()
    return page


def _vectors(tokenizer: MedTokTokenizer, rows: np.ndarray) -> np.ndarray:
    """Return the quantized embeddings of each code, concatenated: `[rows, E d]` float32."""
    parts = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    return np.concatenate([tokenizer.similarity.quantized(part).reshape(len(part), -1) for part in parts])


def _warn_of_rejected(selection: Selection) -> None:
    if selection.rejected:
        count = len(selection.rejected)
        _, reason = selection.rejected[0]
        print(f"warning: {count:,} of the listed codes cannot be shown; the first of them: {reason}", file=sys.stderr)
