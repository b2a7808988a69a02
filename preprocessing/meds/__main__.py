"""Makes a MEDS 0.4 data set (Medical Event Data Standard) of MIMIC-III or MIMIC-IV.

    python -m preprocessing.meds --input=DIR/mimic3 --output=DIR/mimic3_meds
    python -m preprocessing.meds --input=DIR/mimic4 --output=DIR/mimic4_meds --also=chartevents

--input is a directory with the CSV files as PhysioNet publishes them, plain or gzipped; the version is told by its
table of patients. --output gets `data/<split>/<number>.parquet`, one row an event (`mimic_events` says which), and
`metadata/`: codes with descriptions, splits by patient, and

    conversion.json       what was read, written and rejected, by table
    rejects.csv           rows that could not be used, with file and line
    malformed_codes.csv   codes that do not have the shape of their system, with the number of their events

No event is left out because of its code. The same command does nothing when the output is there already, made of the
same files. Data sets of other sources that are MEDS already need no conversion.
"""

from pathlib import Path

from absl import flags
from rich.console import Console

from preprocessing.common import command_line
from preprocessing.common.errors import InputError

with command_line.importing(__name__):
    from preprocessing.meds.convert import PER_SHARD, Request, convert, show
    from preprocessing.meds.mimic_files import VERSIONS


def main(argv: list[str]) -> None:
    """Makes the data set that the flags name."""
    example = "python -m preprocessing.meds --input=DIR --output=MEDS"
    command_line.expect_arguments(argv, 0, example)
    given = flags.FLAGS
    if not given.input or not given.output:
        raise InputError(f"say where MIMIC is and where the data set is to go: {example}")
    request = Request(Path(given.input), Path(given.output), given.version, tuple(given.also), given.subjects_per_shard)
    show(convert(request), Console())


if __name__ == "__main__":
    flags.DEFINE_string("input", None, "directory with the CSV files of MIMIC-III or MIMIC-IV")
    flags.DEFINE_string("output", None, "directory of the MEDS data set")
    flags.DEFINE_enum("version", None, VERSIONS, "MIMIC-III or MIMIC-IV; told by the files where it is not given")
    flags.DEFINE_list("also", [], "large tables that are not read otherwise: chartevents, emar")
    flags.DEFINE_integer("subjects_per_shard", PER_SHARD, "patients a file; fewer take less memory", lower_bound=1)
    command_line.run(main)
