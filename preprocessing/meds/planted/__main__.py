"""Generate patients whose outcome depends on a planted signal, as a MEDS data set, to test a benchmark of tokenizers.

    python -m preprocessing.meds.planted --output=DIR --signal=group --patients=6000 --seed=0

A benchmark must find what is there, and must not find what is not. `--signal` says what the outcome depends on (see
`world`): `group`, `random`, `graph_only`, `text_only`, `none`, `order` or `leak`. `--output` receives a MEDS data set
with the labels of the task `planted`, and `truth.json`, which names the planted groups and the best AUROC that is
possible. The same options give the same bytes.
"""

from pathlib import Path

from absl import flags

from preprocessing.common import command_line
from preprocessing.common.errors import InputError

with command_line.importing(__name__):
    from preprocessing.meds.planted.world import SIGNALS
    from preprocessing.meds.planted.write import PlantedRequest, write


def main(argv: list[str]) -> None:
    """Generate the world that the flags describe."""
    example = "python -m preprocessing.meds.planted --output=DIR --signal=group"
    command_line.expect_arguments(argv, 0, example)
    given = flags.FLAGS
    if not given.output:
        raise InputError(f"--output is missing; run: {example}")
    output = Path(given.output).expanduser()
    truth = write(PlantedRequest(output, given.signal, given.patients, given.seed))
    for name, split in truth["splits"].items():
        print(
            f"{name}: {split['patients']:,} patients, {split['positives']:,} with a true label; AUROC of the true"
            f" probability {split['oracle_auroc']:.3f}."
        )
    print(f"{output} holds {truth['events']:,} events; truth.json states what was planted.")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "directory to write")
    flags.DEFINE_enum("signal", "group", SIGNALS, "what the outcome depends on")
    flags.DEFINE_integer("patients", 6000, "number of patients; 7 of 12 train, 1 tunes, 4 are held out", lower_bound=12)
    flags.DEFINE_integer("seed", 0, "seed of all random numbers", lower_bound=0)
    command_line.run(main)
