"""Generate patient records in the form and the proportions of MIMIC-IV, for tests and benchmarks at full size.

    python -m preprocessing.meds.generated --output=DIR --subjects=364000 --seed=0

`--output` receives the CSV files as PhysioNet publishes them (`hosp/`, `icu/`) and `truth.json`, which states the seed,
all rates, and how often each fault of real records occurs. Codes are real and drawn with the frequencies of a Zipf law;
nothing else is taken from real records. The same options give the same bytes; a run that was killed goes on.
"""

from pathlib import Path

from absl import flags

from preprocessing.common import command_line
from preprocessing.common.errors import InputError

with command_line.importing(__name__):
    from preprocessing.meds.generated.write import GenerateRequest, estimated_bytes, generate


def main(argv: list[str]) -> None:
    """Generate the records that the flags describe."""
    example = "python -m preprocessing.meds.generated --output=DIR --subjects=1000"
    command_line.expect_arguments(argv, 0, example)
    given = flags.FLAGS
    if not given.output:
        raise InputError(f"--output is missing; run: {example}")
    request = GenerateRequest(
        Path(given.output).expanduser(),
        given.subjects,
        given.seed,
        lab_share=given.lab_share,
        faults=given.faults,
        is_gzipped=given.gzip,
        block=given.block,
    )
    print(f"{request.subjects:,} patients take about {estimated_bytes(request) / 1e6:,.0f} MB.")
    truth = generate(request)
    rows = ", ".join(f"{name.rpartition('/')[2]} {count:,}" for name, count in truth["rows"].items())
    print(f"{request.output} holds {rows}; truth.json states every rate.")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "directory to write")
    flags.DEFINE_integer("subjects", 364_000, "number of patients; MIMIC-IV has 364,000", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "seed of all random numbers", lower_bound=0)
    flags.DEFINE_float(
        "lab_share", 0.0, "laboratory values, as a share of the 158 million of MIMIC-IV", lower_bound=0.0
    )
    flags.DEFINE_float("faults", 1.0, "frequency of faults as a multiple of MIMIC-IV's; 0 for none", lower_bound=0.0)
    flags.DEFINE_bool("gzip", True, "whether to compress the files, as PhysioNet publishes them")
    flags.DEFINE_integer("block", 8192, "patients written at a time; more take more memory", lower_bound=1)
    command_line.run(main)
