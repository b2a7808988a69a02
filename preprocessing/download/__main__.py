"""Download the files that the pipeline and `preprocessing.meds` read, unless they are present and unchanged.

    python -m preprocessing.download list
    python -m preprocessing.download codes --output=DIR/medical_codes
    python -m preprocessing.download primekg --output=DIR/primekg
    python -m preprocessing.download crossreferences --output=DIR/crossreferences
    python -m preprocessing.download release --output=DIR/release
    python -m preprocessing.download eicu_demo --output=DIR/eicu_demo
    python -m preprocessing.download diabetes130 --output=DIR/diabetes130

Each source gets its own folder below the output, except for groups that are one source each; `manifest.json` records
the origin of every file. Files that were fetched by hand are taken from `--from_dir`, unpacked or
in their original archives. Files that need a license are fetched with the user's own key (UMLS_API_KEY in
the environment) or not at all. To get a newer release of a source, delete its folder.

The exit status is 1 if a source that needs no license could not be fetched.
"""

from pathlib import Path

from absl import flags

from preprocessing.common import command_line
from preprocessing.common.errors import InputError
from preprocessing.download.catalogue import SOURCES, select
from preprocessing.download.collect import Settings
from preprocessing.download.groups import catalogue_table, download, print_outcomes, raise_failures
from preprocessing.download.source import GROUPS


def main(argv: list[str]) -> None:
    """Print the catalogue, or download one group of it."""
    names = ", ".join(GROUPS)
    example = "python -m preprocessing.download codes --output=DIR/medical_codes"
    (what,) = command_line.expect_arguments(argv, 1, f"{example} (or {names}, or list)")
    console = command_line.table_console(150)
    if what == "list":
        console.print(catalogue_table(SOURCES))
        return
    select(what)
    if not flags.FLAGS.output:
        raise InputError(f"--output is missing; run: python -m preprocessing.download {what} --output=DIR")
    settings = Settings(
        output=Path(flags.FLAGS.output),
        from_dir=Path(flags.FLAGS.from_dir) if flags.FLAGS.from_dir else None,
        offline=flags.FLAGS.offline,
        all_files=flags.FLAGS.all_files,
    )
    outcomes = download(what, settings, only=flags.FLAGS.only)
    print_outcomes(outcomes, console)
    raise_failures(outcomes, flags.FLAGS.only)


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "folder to download into")
    flags.DEFINE_string("from_dir", None, "folder of files fetched by hand, unpacked or as archives; searched first")
    flags.DEFINE_list("only", [], "sources to download, such as ICD10CM,NDC (default: all)")
    flags.DEFINE_bool("offline", False, "fetch nothing: use only the files in --from_dir and the output")
    flags.DEFINE_bool("all_files", False, "also get files that no stage reads, such as the authors' embeddings")
    command_line.run(main)
