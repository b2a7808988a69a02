"""List the benchmarks by name, and run them with the settings that the flags give."""

from collections.abc import Callable
from pathlib import Path

from absl import flags

from eval.speed import report as speed_report
from preprocessing.common.errors import InputError

SCALES = ("icd", "primekg", "release")
EXAMPLE = "python -m eval.speed train --output=DIR"


# Each benchmark is imported when it runs, so that a wrong flag is reported before the slow imports.
def _train(given: flags.FlagValues) -> dict:
    from eval.speed import train

    return train.run(_setting(given, "train"))


def _tokenize(given: flags.FlagValues) -> dict:
    from eval.speed import tokenize

    return tokenize.run(_setting(given, "tokenize"))


def _subgraphs(given: flags.FlagValues) -> dict:
    from eval.speed import subgraphs

    return subgraphs.run(given)


def _dataset(given: flags.FlagValues) -> dict:
    from eval.speed import dataset

    return dataset.run(_setting(given, "dataset"))


def _lookup(given: flags.FlagValues) -> dict:
    from eval.speed import lookup

    return lookup.run(_setting(given, "lookup"), given.tokenizer)


def _memory(given: flags.FlagValues) -> dict:
    from eval.speed import memory

    return memory.run(_setting(given, "memory"))


def _accelerators(given: flags.FlagValues) -> dict:
    from eval.speed.accelerators import measure, targets

    # Before the data are opened, which takes long.
    targets.find(given.target)
    return measure.run(_setting(given, "accelerators"), given.target)


def _opening(given: flags.FlagValues) -> dict:
    from eval.speed.opening import measure

    return measure.run(_setting(given, "opening"), given.workdir)


def _run(given: flags.FlagValues) -> dict:
    from eval.speed import run as complete_run

    return complete_run.run(_setting(given, "run"))


# Name -> function that runs the benchmark with the flags and returns its facts and rows.
BENCHMARKS: dict[str, Callable[[flags.FlagValues], dict]] = {
    "train": _train,
    "tokenize": _tokenize,
    "subgraphs": _subgraphs,
    "dataset": _dataset,
    "lookup": _lookup,
    "memory": _memory,
    "opening": _opening,
    "run": _run,
    "accelerators": _accelerators,
}
# Benchmarks that `all` leaves out: they take long, or need a finished run or a target.
LONG = ("opening", "run", "accelerators")


def _setting(given: flags.FlagValues, name: str):
    from eval.speed.setup import Setting

    if given.profile and not given.output:
        raise InputError("--profile writes traces into the folder of the reports; give it as --output.")
    # The profiler sorts traces by their second, which two benchmarks may share.
    profile = Path(given.output).expanduser() / f"profile_{name}_{given.scale}" if given.profile else None
    folder = given.folder or (Path(given.output) / "data" if given.output else Path("~/.cache/medtok_speed"))
    return Setting(
        config=given.config,
        scale=given.scale,
        folder=Path(folder).expanduser().resolve(),
        codes=given.num_codes or 0,
        repeats=2 if given.quick else given.repeats,
        steps=2 if given.quick else given.steps,
        encoder=given.encoder or "",
        quick=given.quick,
        profile=profile,
    )


def named(name: str) -> list[str]:
    """Return the benchmark of this name, or for `all` those that do not take long and need no target.

    Raises:
        InputError: there is no such benchmark.
    """
    if name == "all":
        return [one for one in BENCHMARKS if one not in LONG]
    if name not in BENCHMARKS:
        raise InputError(f"there is no benchmark {name!r}; the benchmarks are: {', '.join(BENCHMARKS)}, all.")
    return [name]


def run(name: str, given: flags.FlagValues) -> dict:
    """Run one benchmark and return its report: facts, rows, and the machine they were measured on."""
    machine = speed_report.machine()
    return {"benchmark": name, "machine": machine, **BENCHMARKS[name](given)}
