"""Convert MIMIC, eICU-CRD, Diabetes-130 or EHRSHOT to a MEDS 0.4 data set (Medical Event Data Standard).

    python -m preprocessing.meds --input=DIR/mimic3 --output=DIR/mimic3_meds
    python -m preprocessing.meds --input=DIR/mimic4 --output=DIR/mimic4_meds --also=chartevents
    python -m preprocessing.meds --input=DIR/mimic4 --output=DIR/mimic4_meds --lab_time=chart --strict
    python -m preprocessing.meds --input=DIR/eicu_demo --output=DIR/eicu_meds

`--input` is a directory with the CSV files as they are published, plain or gzipped; their names and columns determine
the source, unless `--source` gives it. `--output` receives `data/<split>/<number>.parquet`, one row per event (see
`mimic_events` and the modules in `sources/`), `labels/` where the source publishes labels, and `metadata/`: codes with
descriptions, splits by patient, and

    conversion.json       numbers of rows by table; contradictions in the records, and the rule applied to each
    rejects.csv           rows that could not be used, with file and line
    malformed_codes.csv   codes that do not have the shape of their system, with the number of their events

No event is left out because of its code. `--strict` writes nothing if rows are rejected, if records contradict
themselves in a way that no rule resolves, or if files are not as the SHA256SUMS.txt beside them says. The command does
nothing if the output exists already and was made of the same files. Data sets of other sources that are MEDS already
need no conversion.
"""

from pathlib import Path

from absl import flags
from rich.console import Console

from preprocessing.common import command_line
from preprocessing.common.errors import InputError

with command_line.importing(__name__):
    from preprocessing.meds.conversion import PER_SHARD, MedsRequest, show
    from preprocessing.meds.mimic_events import LAB_TIMES
    from preprocessing.meds.mimic_tables import VERSIONS
    from preprocessing.meds.open import SOURCES, convert
    from preprocessing.meds.sources.writer import show_counted


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
        lab_time=given.lab_time,
        verify=given.verify,
        strict=given.strict,
    )
    conversion = convert(request, given.source)
    show(conversion, Console())
    show_counted(conversion, Console())


if __name__ == "__main__":
    flags.DEFINE_string("input", None, "directory with the CSV files of the source")
    flags.DEFINE_string("output", None, "directory of the MEDS data set")
    flags.DEFINE_enum("source", None, SOURCES, "source of the records (default: detected from the files)")
    flags.DEFINE_enum("version", None, VERSIONS, "MIMIC-III or MIMIC-IV (default: detected from the files)")
    flags.DEFINE_list("also", [], "large tables to read in addition: chartevents, emar")
    flags.DEFINE_string(
        "ndc_map",
        None,
        "CSV with the columns ndc and rxnorm, atc or key: codes that stand for NDCs become their parent_codes",
    )
    flags.DEFINE_integer("subjects_per_shard", PER_SHARD, "patients per file; fewer take less memory", lower_bound=1)
    flags.DEFINE_enum(
        "lab_time",
        "store",
        sorted(LAB_TIMES),
        "time of laboratory values: when the result was stored, or when the specimen was taken",
    )
    flags.DEFINE_bool("verify", True, "compare the files with the SHA256SUMS.txt of PhysioNet beside them")
    flags.DEFINE_bool("strict", False, "write nothing if rows are rejected or contradictions cannot be resolved")
    command_line.run(main)
