"""Measure how fast parts of the project are on this machine.

    python -m eval.speed train --output=DIR [--scale=primekg] [--config=configs/default.py --config.FIELD=VALUE ...]
    python -m eval.speed all --output=DIR
    python -m eval.speed memory --config=configs/pipeline.py --output=DIR
    python -m eval.speed accelerators --target=v5e:2x4 --output=DIR

The command prints a table and writes `DIR/speed_BENCHMARK_SCALE.json` and `.md`. Benchmarks:

- `train`: the parts of a training step, and PyTorch doing the same work;
- `tokenize`: from the text of codes to their tokens;
- `subgraphs`: the neighborhood of every code, in a generated graph of the size of PrimeKG or of the ICD graph;
- `dataset`: building, packing and opening the data set;
- `lookup`: tokens of codes from a table;
- `memory`: the memory of a training step on its device, planned without training;
- `opening`: opening the data, the checkpoint and the tokenizer of the finished run in `--workdir` anew, and what the
  comparison of digests adds; not part of `all`;
- `run`: a complete training run, with encoding of texts and compilation; it takes as long and is not part of `all`;
- `accelerators`: what XLA makes of the steps for a TPU or GPU that need not be there, `--target=v5e:2x4`, `v6e:2x4`,
  `v5p:2x2x1`, `h100` or `h200`: memory, operations, bytes, kernels, exchanges between devices, and the arithmetic of
  each matmul that is promised float32. It needs the extra `tpu` or `cuda-aot`, ends with status 1 and a sentence for
  each promise that is broken, and is not part of `all`.

`--scale=icd` takes the embedded data set (or `--config.data.name`); `primekg` and `release` generate data of the
published size, 617,490 codes, in `--folder`. Except in `run`, text states are random, so that no texts have to be
encoded; `--encoder=bert-base` uses an encoder of that shape with random weights. Each measurement has its own process.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags
from rich.console import Console

from eval.speed import report as speed_report
from eval.speed.benchmarks import EXAMPLE, SCALES, named, run
from medtok_jax import config as configuration
from medtok_jax.devices.huge_pages import restart_with_huge_pages
from preprocessing.common import command_line
from preprocessing.common.errors import UserError

# Of tables where the output is no terminal.
WIDTH = 220


def main(argv: list[str]) -> None:
    """Run the benchmark that the first argument names, or all of them one after another."""
    (name,) = command_line.expect_arguments(argv, 1, EXAMPLE)
    given = flags.FLAGS
    names = named(name)
    for number, one in enumerate(names, start=1):
        Console(stderr=True).print(
            f"[{number} of {len(names)}] measuring {one}, which takes minutes on an idle machine", style="dim"
        )
        report = run(one, given)
        for table in speed_report.tables(report):
            command_line.table_console(WIDTH).print(table)
        if given.output is not None:
            print(f"wrote {speed_report.write(report, Path(given.output).expanduser())}")
        if broken := report.get("broken"):
            for sentence in broken:
                print(sentence, file=sys.stderr)
            raise UserError(f"{given.target} breaks the promises above: {len(broken)}.")


if __name__ == "__main__":
    config_flags.DEFINE_config_file(
        "config", None, f"configuration to measure, FILE[:VARIANT]; {configuration.DEFAULT} if not given"
    )
    flags.DEFINE_string("output", None, "folder for the reports, which are only written if it is given")
    flags.DEFINE_string("folder", None, "folder for generated data; OUTPUT/data or ~/.cache/medtok_speed if not given")
    flags.DEFINE_enum("scale", "icd", SCALES, "the embedded data set, or generated data of a published size")
    flags.DEFINE_integer("num_codes", None, "number of codes, if fewer than those of the scale", lower_bound=1)
    flags.DEFINE_integer("repeats", 5, "repetitions of each timing, after a warm-up", lower_bound=1)
    flags.DEFINE_integer("steps", 8, "train: number of batches in one repetition", lower_bound=1)
    flags.DEFINE_enum("encoder", None, ["bert-base", "tiny"], "a text encoder of this shape with random weights")
    flags.DEFINE_string("tokenizer", None, "lookup: tokenizer directory; one with random tokens if not given")
    flags.DEFINE_string("workdir", None, "opening: work directory of a finished run of the configuration")
    flags.DEFINE_string("target", None, "accelerators: device to compile for; see the text above")
    flags.DEFINE_bool("profile", False, "train, tokenize: trace one repetition into OUTPUT/profile_BENCHMARK_SCALE")
    flags.DEFINE_bool("quick", False, "few repetitions, to check that the benchmark works")
    restart_with_huge_pages()
    command_line.run(main, check=configuration.check_arguments)
