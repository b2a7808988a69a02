"""Train and judge one change of the configuration at a time: the cells of `configs/ablation.py`, with several seeds.

    python -m eval.ablations --output=DIR [--cells=default,graph_off,no_kl] [--seeds=3] [--data_dir=DATA]

Every cell and seed is trained in its own process, in up to 4 minutes on 2 idle cores, and judged on validation items.
The result is kept in `DIR/cells/CELL-SEED.json` and skipped when the command is started again; an interrupted training
resumes from its checkpoint. A failed training leaves its output in `DIR/logs` and does not stop the others.
`DIR/ablations.md` and `ablations.png` are written again after each training, from all results so far.
"""

import json
import os
import platform
import shutil
import subprocess  # nosec B404 # It starts the training of this project.
import sys
import time
from pathlib import Path

from absl import flags
from rich.console import Console

from configs import ablation
from medtok_jax.config import FREE_FIELDS
from preprocessing.common import command_line
from preprocessing.common.atomic import write_json
from preprocessing.common.errors import InputError, UserError

EXAMPLE = "python -m eval.ablations --output=DIR"
CONFIG_FILE = Path(ablation.__file__).resolve()
ROOT = CONFIG_FILE.parent.parent


def chosen_cells(names: list[str]) -> list[str]:
    """Return the named cells in the order of the configuration, all of them for an empty list.

    Raises:
        InputError: a name is unknown.
    """
    known = list(ablation.cells())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"--cells names {unknown[0]!r}, which is not a cell; the cells are: {', '.join(known)}.")
    return [name for name in known if not names or name in names]


class Runner:
    """Train and judge cells, and keep their results in a folder.

    Args:
        output: folder of the results.
        data_dir: directory of the data sets; empty for the default.
        overrides: fields of the configuration to set in all cells, such as a smaller sample.
        split: split of the items that cells are judged on.
        quick: whether to judge on fewer items.
        keep_runs: whether to keep the work directories.
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
        self.output = output
        self.data_dir = data_dir
        self.overrides = overrides or {}
        self.split = split
        self.quick = quick
        self.keep_runs = keep_runs
        for name in ("cells", "logs", "runs"):
            (output / name).mkdir(parents=True, exist_ok=True)

    def settings(self, cell: str, seed: int) -> dict:
        """Return the settings of one training, which decide whether a kept result is still valid."""
        config = ablation.get_config(cell).to_dict()
        for name in FREE_FIELDS:
            section, field = name.split(".")
            del config[section][field]
        judged = {"split": self.split, "quick": self.quick}
        return json.loads(json.dumps({"config": config, "seed": seed, "overrides": self.overrides} | judged))

    def is_done(self, cell: str, seed: int) -> bool:
        """Return whether there is a result with the current settings."""
        path = self._result(cell, seed)
        return path.is_file() and json.loads(path.read_text(encoding="utf-8"))["settings"] == self.settings(cell, seed)

    def do(self, cell: str, seed: int) -> None:
        """Train and judge one cell with one seed, and write the result.

        Raises:
            CellFailed: the training failed.
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
        write_json(self._result(cell, seed), result)
        if not self.keep_runs:
            shutil.rmtree(workdir)

    def results(self) -> list[dict]:
        """Return all results so far, in the order of the configuration."""
        paths = [self._result(cell, seed) for cell in ablation.cells() for seed in range(100)]
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]

    def _result(self, cell: str, seed: int) -> Path:
        return self.output / "cells" / f"{cell}-{seed}.json"

    def _train(self, cell: str, seed: int, workdir: Path) -> None:
        """Train in a separate process, so that no memory of one cell is left for the next."""
        fields = {"seed": seed, "data.data_dir": self.data_dir} | self.overrides
        command = [sys.executable, "-m", "medtok_jax.main", f"--config={CONFIG_FILE}:{cell}", f"--workdir={workdir}"]
        command += [f"--config.{name}={value}" for name, value in fields.items()]
        log = self.output / "logs" / f"{cell}-{seed}.log"
        # The cells share most compiled functions, including small ones.
        environment = {
            "JAX_COMPILATION_CACHE_DIR": str(self.output / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        } | os.environ
        with log.open("w", encoding="utf-8") as file:
            done = subprocess.run(  # nosec B603 # A list, without a shell.
                command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, check=False
            )
        if done.returncode:
            lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
            raise CellFailed(
                f"training {cell} with seed {seed} failed ({lines[-1] if lines else 'no output'}); see {log}"
            )

    def _judge(self, workdir: Path) -> dict:
        from eval.common.representation import load
        from eval.quality.label_building import open_labels
        from eval.tokenization import judge

        representation = load(workdir)
        labels = open_labels(representation.about["data_set"]["name"], self.data_dir or None, progress=False)
        return judge(representation, labels, split=self.split, quick=self.quick)


class CellFailed(UserError):
    """Report that the training of a cell failed."""


def run(runner: Runner, cells: list[str], seeds: int, console: Console) -> list[str]:
    """Train and judge all cells, seed by seed so that a table of all cells is early complete; return the failures."""
    from eval.reports.ablations import write

    failed = []
    todo = [(cell, seed) for seed in range(seeds) for cell in cells]
    for number, (cell, seed) in enumerate(todo, start=1):
        head = f"[{number} of {len(todo)}] {cell}, seed {seed}:"
        if runner.is_done(cell, seed):
            console.print(f"{head} already done", highlight=False)
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
    """Train and judge the cells that the flags name."""
    command_line.expect_arguments(argv, 0, EXAMPLE)
    given = flags.FLAGS
    cells = chosen_cells(given.cells)
    overrides = dict(item.split("=", 1) for item in given.override if "=" in item)
    if len(overrides) < len(given.override):
        raise InputError("--override must be FIELD=VALUE, such as --override=train.steps=50.")
    output = command_line.output_folder(given.output).resolve()
    options = {"split": given.split, "quick": given.quick, "keep_runs": given.keep_runs}
    runner = Runner(output, data_dir=given.data_dir, overrides=overrides, **options)
    failed = run(runner, cells, given.seeds, Console())
    if failed:
        raise CellFailed(f"{len(failed)} of {len(cells) * given.seeds} trainings failed; start the same command again.")
    print(f"wrote {output / 'ablations.md'} and {output / 'ablations.png'}")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "folder for the results", required=True)
    flags.DEFINE_list("cells", [], f"cells to train, all if not given: {', '.join(ablation.cells())}")
    flags.DEFINE_integer(
        "seeds", 3, "number of trainings of each cell, with seeds 0, 1, ...", lower_bound=1, upper_bound=100
    )
    flags.DEFINE_string(
        "data_dir", "", "directory of the data sets; $TFDS_DATA_DIR or ~/tensorflow_datasets if not given"
    )
    flags.DEFINE_enum("split", "validation", ["validation", "test"], "split of the items that cells are judged on")
    flags.DEFINE_bool("quick", False, "judge on fewer items")
    flags.DEFINE_bool("keep_runs", False, "keep the work directories, tokenizers included")
    flags.DEFINE_multi_string("override", [], "FIELD=VALUE to set in the configuration of all cells; may be repeated")
    command_line.run(main)
