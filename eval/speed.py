"""Measures how fast parts of the project are on this machine.

    python -m eval.speed subgraphs --scale=primekg --output=DIR

prints a table and writes `DIR/speed_subgraphs_primekg.json`. Benchmarks:

- `subgraphs`: a neighbourhood for every code, in a generated graph of the size of PrimeKG or of the ICD graph.
"""

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

from absl import flags
from rich.console import Console

from eval import speed_subgraphs
from eval.phases import Phases
from preprocessing import command_line
from preprocessing.errors import InputError

# Name -> what runs the benchmark with the flags and returns its phases.
BENCHMARKS: dict[str, Callable[[flags.FlagValues], Phases]] = {"subgraphs": speed_subgraphs.run}


def run(name: str, given: flags.FlagValues) -> dict:
    """Runs one benchmark: its phases, and the machine they ran on.

    Raises:
        InputError: there is no such benchmark.
    """
    if name not in BENCHMARKS:
        raise InputError(f"there is no benchmark {name!r}; the benchmarks are: {', '.join(BENCHMARKS)}.")
    phases = BENCHMARKS[name](given)
    machine = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    return {"benchmark": name, "machine": machine, **phases.report()}


def main(argv: list[str]) -> None:
    """Runs the benchmark that the first argument names."""
    (name,) = command_line.expect_arguments(argv, 1, "python -m eval.speed subgraphs --scale=primekg --output=DIR")
    report = run(name, flags.FLAGS)
    Console().print(Phases.table(report))
    if flags.FLAGS.output is not None:
        scale = f"_{report['facts']['scale']}" if "scale" in report["facts"] else ""
        path = Path(flags.FLAGS.output) / f"speed_{name}{scale}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "folder for the report as JSON; nothing is written without it")
    flags.DEFINE_enum("scale", "primekg", list(speed_subgraphs.SCALES), "subgraphs: size of the generated graph")
    flags.DEFINE_integer("codes", None, "subgraphs: number of codes, if fewer than the scale has", lower_bound=1)
    command_line.run(main)
