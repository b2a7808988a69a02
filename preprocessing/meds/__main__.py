"""Convert MIMIC-III or MIMIC-IV to a MEDS 0.4 data set (Medical Event Data Standard).

    python -m preprocessing.meds --input=DIR/mimic3 --output=DIR/mimic3_meds
    python -m preprocessing.meds --input=DIR/mimic4 --output=DIR/mimic4_meds --also=chartevents

`--input` is a directory with the CSV files as PhysioNet publishes them, plain or gzipped; its table of patients
determines the version. `--output` receives `data/<split>/<number>.parquet`, one row per event (see `mimic_events`), and
`metadata/`: codes with descriptions, splits by patient, and

    conversion.json       numbers of rows read, events written and rows rejected, by table
    rejects.csv           rows that could not be used, with file and line
    malformed_codes.csv   codes that do not have the shape of their system, with the number of their events

No event is left out because of its code. The command does nothing if the output exists already and was made of the same
files. Data sets of other sources that are MEDS already need no conversion.
"""

from pathlib import Path

from absl import flags
from rich.console import Console

from preprocessing.common import command_line
from preprocessing.common.errors import InputError

with command_line.importing(__name__):
    from preprocessing.meds.convert import PER_SHARD, MedsRequest, convert, show
    from preprocessing.meds.mimic_tables import VERSIONS


def main(argv: list[str]) -> None:
    """Convert the data set that the flags name."""
    example = "python -m preprocessing.meds --input=DIR --output=MEDS"
    command_line.expect_arguments(argv, 0, example)
    given = flags.FLAGS
    if not given.input or not given.output:
        raise InputError(f"--input or --output is missing; run: {example}")
    request = MedsRequest(
        Path(given.input),
        Path(given.output),
        given.version,
        tuple(given.also),
        given.subjects_per_shard,
        ndc_map=Path(given.ndc_map).expanduser() if given.ndc_map else None,
    )
    show(convert(request), Console())


if __name__ == "__main__":
    flags.DEFINE_string("input", None, "directory with the CSV files of MIMIC-III or MIMIC-IV")
    flags.DEFINE_string("output", None, "directory of the MEDS data set")
    flags.DEFINE_enum("version", None, VERSIONS, "MIMIC-III or MIMIC-IV (default: detected from the files)")
    flags.DEFINE_list("also", [], "large tables to read in addition: chartevents, emar")
    flags.DEFINE_string(
        "ndc_map",
        None,
        "CSV with the columns ndc and rxnorm, atc or key: codes that stand for NDCs become their parent_codes",
    )
    flags.DEFINE_integer("subjects_per_shard", PER_SHARD, "patients per file; fewer take less memory", lower_bound=1)
    command_line.run(main)
