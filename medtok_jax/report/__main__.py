"""One HTML page to look at a tokenizer: `python -m medtok_jax.report --tokenizer=TOK --output=DIR`.

Writes `DIR/report.html`, which holds everything it shows and opens in any browser without a network: a map of codes,
the tokens of each code and the codes that share them, a heat map of overlaps, a map of the codebook and its use. Needs
the `report` extra, and neither JAX nor an accelerator.
"""

from pathlib import Path

from absl import flags

from medtok_jax.report import maps
from medtok_jax.report.build import USAGE, write
from preprocessing.common import command_line
from preprocessing.common.errors import InputError


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
    flags.DEFINE_enum("method", "tsne", maps.METHODS, "How codes and tokens are placed on their maps.")
    flags.DEFINE_integer(
        "max_codes", 10_000, "Codes to show at most; of more, a sample, even over code systems.", lower_bound=1
    )
    command_line.run(main)
