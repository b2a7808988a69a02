"""Downloads what the pipeline reads; what is there already is left alone.

    python -m preprocessing.download list
    python -m preprocessing.download codes --output=DIR/medical_codes
    python -m preprocessing.download primekg --output=DIR/primekg
    python -m preprocessing.download crossreferences --output=DIR/crossreferences
    python -m preprocessing.download release --output=DIR/release

Each source gets a folder of its own below the output, except for `primekg` and `release`, which are one source each;
`manifest.json` says where every file came from. Files that were fetched by hand are taken from `--from_dir`, unpacked
or in the archives in which they are offered. What needs a license is fetched with the user's own key (UMLS_API_KEY in
the environment) or not at all. To get a newer release of a source, delete its folder.

Exit status: 1 when something that needs no license could not be fetched.
"""

from pathlib import Path

from absl import flags

from preprocessing.common import command_line
from preprocessing.common.errors import InputError
from preprocessing.download.catalogue import SOURCES, select
from preprocessing.download.collect import Settings
from preprocessing.download.groups import catalogue_table, complain, download, print_outcomes
from preprocessing.download.source import GROUPS


def main(argv: list[str]) -> None:
    """Prints the catalogue, or downloads one group of it."""
    names = ", ".join(GROUPS)
    example = "python -m preprocessing.download codes --output=DIR/medical_codes"
    (what,) = command_line.expect_arguments(argv, 1, f"{example} (or {names}, or list)")
    console = command_line.table_console(150)
    if what == "list":
        console.print(catalogue_table(SOURCES))
        return
    select(what)
    if not flags.FLAGS.output:
        raise InputError(f"say where to: python -m preprocessing.download {what} --output=DIR")
    settings = Settings(
        output=Path(flags.FLAGS.output),
        from_dir=Path(flags.FLAGS.from_dir) if flags.FLAGS.from_dir else None,
        offline=flags.FLAGS.offline,
        all_files=flags.FLAGS.all_files,
    )
    outcomes = download(what, settings, only=flags.FLAGS.only)
    print_outcomes(outcomes, console)
    complain(outcomes, flags.FLAGS.only)


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "folder to download into")
    flags.DEFINE_string("from_dir", None, "folder of files fetched by hand, unpacked or as archives; searched first")
    flags.DEFINE_list("only", [], "sources to get, such as ICD10CM,NDC; all of them when not given")
    flags.DEFINE_bool("offline", False, "take only what is in --from_dir or there already")
    flags.DEFINE_bool("all_files", False, "also get what no stage reads, such as the authors' tokens and embeddings")
    command_line.run(main)
