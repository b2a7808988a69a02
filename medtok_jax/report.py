"""One HTML page to look at a tokenizer: `python -m medtok_jax.report --tokenizer=TOK --output=DIR`.

Writes `DIR/report.html`, which holds everything it shows and opens in any browser without a network: a map of codes,
the tokens of each code and the codes that share them, a heat map of overlaps, a map of the codebook and its use. Needs
the `report` extra, and neither JAX nor an accelerator.
"""

import os
import sys
from pathlib import Path

import numpy as np
from absl import flags
from tqdm import tqdm

from medtok_jax import report_data, report_maps, report_page
from medtok_jax.report_codes import Selection, select
from medtok_jax.similarity import CHUNK
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.common import command_line
from preprocessing.common.errors import InputError

FILE = "report.html"
USAGE = "python -m medtok_jax.report --tokenizer=TOK --output=DIR [--codes=FILE]"


def write(
    tokenizer: str | Path, output: Path, *, codes: Path | None, method: str, max_codes: int, progress: bool = True
) -> Path:
    """Writes `OUTPUT/report.html` and returns its path; an older report is replaced when the new one is whole.

    Args:
        tokenizer: what `MedTokTokenizer.from_pretrained` opens.
        output: directory to write into.
        codes: list of codes to show, or None for all.
        method: one of `report_maps.METHODS`.
        max_codes: codes to show at most.
        progress: whether to show a bar.

    Raises:
        InputError: something given cannot be used, or a package of the `report` extra is missing.
    """
    output = command_line.output_folder(output)
    opened = MedTokTokenizer.from_pretrained(tokenizer)
    selection = select(opened, codes, max_codes)
    _tell_rejected(selection)
    page = _build(opened, selection, method, progress)
    path = output / FILE
    partial = path.with_name(f"{FILE}.partial-{os.getpid()}")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _build(tokenizer: MedTokTokenizer, selection: Selection, method: str, progress: bool) -> str:
    directory, rows = tokenizer.directory, selection.rows
    tokens = report_data.tokens_on_map(tokenizer.config.regions)
    with tqdm(total=3, bar_format="{desc} {bar} {elapsed}", disable=not progress) as bar:
        bar.set_description(f"Placing {len(rows):,} codes")
        code_points = report_maps.project(_vectors(tokenizer, rows), method)
        bar.update()
        bar.set_description(f"Placing {len(tokens):,} tokens")
        token_points = report_maps.project(directory.codebook[tokens], method)
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
    """The four quantized embeddings of each code end to end: `[rows, 4d]` float32."""
    parts = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    return np.concatenate([tokenizer.similarity.quantized(part).reshape(len(part), -1) for part in parts])


def _tell_rejected(selection: Selection) -> None:
    if selection.rejected:
        count, (_, reason) = len(selection.rejected), selection.rejected[0]
        print(f"warning: {count:,} of the codes listed cannot be shown; the first of them: {reason}", file=sys.stderr)


def main(arguments: list[str]) -> None:
    """Writes the report that the flags ask for."""
    command_line.expect_arguments(arguments, 0, USAGE)
    given = flags.FLAGS
    if not given.tokenizer or not given.output:
        raise InputError(f"Say which tokenizer, and where the report goes: {USAGE}.")
    path = write(
        given.tokenizer,
        Path(given.output),
        codes=Path(given.codes) if given.codes else None,
        method=given.method,
        max_codes=given.max_codes,
    )
    print(f"Wrote {path} ({path.stat().st_size / 1e6:.1f} MB); open it in a browser.")


if __name__ == "__main__":
    flags.DEFINE_string(
        "tokenizer", None, "Tokenizer directory, work directory of a run, or name on the Hugging Face hub."
    )
    flags.DEFINE_string(
        "codes",
        None,
        "Codes to show: a .txt file (one a line), or .csv, .json, .jsonl or .parquet (columns code and, if wanted,"
        " system); all codes by default.",
    )
    flags.DEFINE_string("output", None, "Directory to write report.html into; made where it is missing.")
    flags.DEFINE_enum("method", "tsne", report_maps.METHODS, "How codes and tokens are placed on their maps.")
    flags.DEFINE_integer(
        "max_codes", 10_000, "Codes to show at most; of more, a sample, even over code systems.", lower_bound=1
    )
    command_line.run(main)
