"""Trains and judges one change at a time: the cells of `configs/ablation.py`, each with several seeds.

    python -m eval.ablations --output=DIR [--cells=default,graph_off,no_kl] [--seeds=3] [--data_dir=DATA]

Every cell and seed is a training of its own process, up to 4 minutes on 2 idle cores, judged on validation items.
A finished one is kept in `DIR/cells/CELL-SEED.json` and skipped when the command is started again; one that was
interrupted goes on from its checkpoint. One that fails leaves its output in `DIR/logs` and does not stop the others.
`DIR/ablations.md` and `ablations.png` are written anew after each, over all that there are.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from absl import flags
from rich.console import Console

from configs import ablation
from medtok_jax.config import FREE_FIELDS
from preprocessing.common import command_line
from preprocessing.common.errors import InputError, UserError

EXAMPLE = "python -m eval.ablations --output=DIR"
CONFIG_FILE = Path(ablation.__file__).resolve()
ROOT = CONFIG_FILE.parent.parent


def chosen_cells(names: list[str]) -> list[str]:
    """Cells by name, all for an empty list, in the order of the configuration.

    Raises:
        InputError: one is not known.
    """
    known = list(ablation.cells())
    strange = [name for name in names if name not in known]
    if strange:
        raise InputError(f"there is no cell {strange[0]!r}; the cells are: {', '.join(known)}.")
    return [name for name in known if not names or name in names]


class Runner:
    """Does what is not done yet.

    Args:
        output: where results lie.
        data_dir: where data sets lie; empty for the default.
        overrides: fields of the configuration that all cells are to have otherwise, such as a smaller sample.
        split: of the items that cells are judged on.
        quick: whether fewer items are judged.
        keep_runs: whether work directories stay.
    """

    def __init__(
        self,
        output: Path,
        *,
        data_dir: str = "",
        overrides: dict[str, str] | None = None,
        split: str = "validation",
        quick: bool = False,
        keep_runs: bool = False,
    ):
        self.output, self.data_dir, self.overrides = output, data_dir, overrides or {}
        self.split, self.quick, self.keep_runs = split, quick, keep_runs
        for name in ("cells", "logs", "runs"):
            (output / name).mkdir(parents=True, exist_ok=True)

    def settings(self, cell: str, seed: int) -> dict:
        """What a result must have been made with to be kept."""
        config = ablation.get_config(cell).to_dict()
        for name in FREE_FIELDS:
            section, field = name.split(".")
            del config[section][field]
        judged = {"split": self.split, "quick": self.quick}
        return json.loads(json.dumps({"config": config, "seed": seed, "overrides": self.overrides} | judged))

    def is_done(self, cell: str, seed: int) -> bool:
        """Whether there is a result of these very settings."""
        path = self._result(cell, seed)
        return path.is_file() and json.loads(path.read_text(encoding="utf-8"))["settings"] == self.settings(cell, seed)

    def do(self, cell: str, seed: int) -> None:
        """Trains and judges one cell.

        Raises:
            CellFailed: training did not end well.
        """
        start = time.monotonic()
        workdir = self.output / "runs" / f"{cell}-{seed}"
        self._train(cell, seed, workdir)
        trained = time.monotonic()
        result = {
            "cell": cell,
            "seed": seed,
            "settings": self.settings(cell, seed),
            "machine": f"{len(os.sched_getaffinity(0))} cores, {platform.processor() or platform.machine()}",
            "date": time.strftime("%Y-%m-%d"),
            "summary": json.loads((workdir / "summary.json").read_text(encoding="utf-8")),
            "quality": self._judge(workdir),
            "training_seconds": trained - start,
            "seconds": time.monotonic() - start,
        }
        partial = self._result(cell, seed).with_suffix(".partial")
        partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        partial.replace(self._result(cell, seed))
        if not self.keep_runs:
            shutil.rmtree(workdir)

    def results(self) -> list[dict]:
        """All results that there are, in the order of the configuration."""
        paths = [self._result(cell, seed) for cell in ablation.cells() for seed in range(100)]
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]

    def _result(self, cell: str, seed: int) -> Path:
        return self.output / "cells" / f"{cell}-{seed}.json"

    def _train(self, cell: str, seed: int, workdir: Path) -> None:
        """In a process of its own, so that nothing of one cell, memory least of all, is left for the next."""
        fields = {"seed": seed, "data.data_dir": self.data_dir} | self.overrides
        command = [sys.executable, "-m", "medtok_jax.main", f"--config={CONFIG_FILE}:{cell}", f"--workdir={workdir}"]
        command += [f"--config.{name}={value}" for name, value in fields.items()]
        log = self.output / "logs" / f"{cell}-{seed}.log"
        # Much is compiled alike in every cell, small things too.
        environment = {
            "JAX_COMPILATION_CACHE_DIR": str(self.output / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        } | os.environ
        with log.open("w", encoding="utf-8") as file:
            done = subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, check=False
            )
        if done.returncode:
            lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
            raise CellFailed(f"{cell}, seed {seed}, failed ({lines[-1] if lines else 'no output'}); see {log}")

    def _judge(self, workdir: Path) -> dict:
        from eval.common.representation import load
        from eval.quality.label_building import open_labels
        from eval.tokenization import judge

        representation = load(workdir)
        labels = open_labels(representation.about["data_set"]["name"], self.data_dir or None, progress=False)
        return judge(representation, labels, split=self.split, quick=self.quick)


class CellFailed(UserError):
    """A cell could not be trained."""


def run(runner: Runner, cells: list[str], seeds: int, console: Console) -> list[str]:
    """Does all cells, seed after seed, so that a table over all cells is there early; returns what failed."""
    from eval.reports.ablations import write

    failed = []
    todo = [(cell, seed) for seed in range(seeds) for cell in cells]
    for number, (cell, seed) in enumerate(todo, start=1):
        head = f"[{number} of {len(todo)}] {cell}, seed {seed}:"
        if runner.is_done(cell, seed):
            console.print(f"{head} is there", highlight=False)
            continue
        start = time.monotonic()
        try:
            runner.do(cell, seed)
        except CellFailed as error:
            failed.append(str(error))
            console.print(f"{head} {error}", highlight=False)
            continue
        console.print(f"{head} {time.monotonic() - start:.0f} s", highlight=False)
        write(runner.results(), runner.output)
    if runner.results():
        write(runner.results(), runner.output)
    return failed


def main(argv: list[str]) -> None:
    """Does the cells that the flags name."""
    command_line.expect_arguments(argv, 0, EXAMPLE)
    given = flags.FLAGS
    cells = chosen_cells(given.cells)
    overrides = dict(item.split("=", 1) for item in given.override if "=" in item)
    if len(overrides) < len(given.override):
        raise InputError("--override takes FIELD=VALUE, such as train.steps=50.")
    output = command_line.output_folder(given.output).resolve()
    options = {"split": given.split, "quick": given.quick, "keep_runs": given.keep_runs}
    runner = Runner(output, data_dir=given.data_dir, overrides=overrides, **options)
    failed = run(runner, cells, given.seeds, Console())
    if failed:
        raise CellFailed(f"{len(failed)} of {len(cells) * given.seeds} failed; start the same command again.")
    print(f"wrote {output / 'ablations.md'} and {output / 'ablations.png'}")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "folder of the results", required=True)
    flags.DEFINE_list("cells", [], f"cells, all without it: {', '.join(ablation.cells())}")
    flags.DEFINE_integer("seeds", 3, "trainings of each cell, with seeds 0, 1, ...", lower_bound=1, upper_bound=100)
    flags.DEFINE_string("data_dir", "", "where data sets lie; $TFDS_DATA_DIR or ~/tensorflow_datasets without it")
    flags.DEFINE_enum("split", "validation", ["validation", "test"], "whose items cells are judged on")
    flags.DEFINE_bool("quick", False, "judge fewer items")
    flags.DEFINE_bool("keep_runs", False, "keep the work directories, tokenizers included")
    flags.DEFINE_multi_string("override", [], "FIELD=VALUE of the configuration, in all cells; may be repeated")
    command_line.run(main)
