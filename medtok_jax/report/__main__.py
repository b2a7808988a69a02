"""Write an HTML page that shows a tokenizer: `python -m medtok_jax.report --tokenizer=TOK --output=DIR`.

The page, `DIR/report.html`, opens in any browser without a network. It shows a map of codes, the tokens of each code
and the codes that share them, a heat map of overlaps, and a map of the codebook and its use. The command needs the
`report` extra, and neither JAX nor an accelerator.
"""

from pathlib import Path

from absl import flags

from medtok_jax.report import maps
from medtok_jax.report.build import USAGE, write
from preprocessing.common import command_line
from preprocessing.common.errors import InputError


def main(arguments: list[str]) -> None:
    """Write the report that the flags describe."""
    command_line.expect_arguments(arguments, 0, USAGE)
    given = flags.FLAGS
    if not given.tokenizer or not given.output:
        raise InputError(f"--tokenizer and --output are required: {USAGE}.")
    path = write(
        given.tokenizer,
        Path(given.output),
        codes=Path(given.show) if given.show else None,
        method=given.method,
        max_codes=given.max_codes,
    )
    print(f"Wrote {path} ({path.stat().st_size / 1e6:.1f} MB); open it in a browser.")


if __name__ == "__main__":
    flags.DEFINE_string(
        "tokenizer", None, "Tokenizer directory, work directory of a run, or name on the Hugging Face hub."
    )
    flags.DEFINE_string(
        "show",
        None,
        "Codes to show: a .txt file (one a line), or .csv, .json, .jsonl or .parquet (column code, optionally system);"
        " all codes by default.",
    )
    flags.DEFINE_string("output", None, "Directory to write report.html into; created if it is missing.")
    flags.DEFINE_enum("method", "tsne", maps.METHODS, "Projection of codes and tokens onto their maps.")
    flags.DEFINE_integer(
        "max_codes",
        10_000,
        "Number of codes to show at most; of more codes a sample is shown, evenly from the code systems.",
        lower_bound=1,
    )
    command_line.run(main)
