"""Print the contents of a prepared data set and check them against what is expected.

    python -m preprocessing.stats --codes=medtok_codes/icd --data_dir=DIR

Nothing is built. With `--strict` the exit status is 1 if a check fails.
"""

from absl import flags

from preprocessing.common import command_line
from preprocessing.common.errors import InputError, UserError
from preprocessing.stats.tables import print_stats


def main(argv: list[str]) -> None:
    """Print the statistics of the data set that `--codes` names."""
    example = "python -m preprocessing.stats --codes=medtok_codes/icd --data_dir=DIR"
    command_line.expect_arguments(argv, 0, example)
    if flags.FLAGS.codes is None:
        raise InputError(f"--codes is missing; name the data set, for example: {example}")
    console = command_line.table_console()
    off = [check for check in print_stats(flags.FLAGS.codes, flags.FLAGS.data_dir, console) if check.is_off]
    if off and flags.FLAGS.strict:
        raise UserError(
            f"{len(off)} checks are off, the first: {off[0].what}, expected {off[0].expected}, found {off[0].found}."
        )


if __name__ == "__main__":
    flags.DEFINE_string("codes", None, "data set of codes, with its options in its name")
    flags.DEFINE_string("data_dir", None, "TFDS data directory (default: that of TFDS)")
    flags.DEFINE_bool("strict", False, "exit with status 1 if a check fails")
    command_line.run(main)
