"""List the benchmarks by name, and make their setting from the flags."""

from collections.abc import Callable
from pathlib import Path

from absl import flags

from eval.speed import report as speed_report
from preprocessing.common.errors import InputError

SCALES = ("icd", "primekg", "release")
EXAMPLE = "python -m eval.speed train --output=DIR"


def _subgraphs(given: flags.FlagValues) -> dict:
    from eval.speed import subgraphs

    return subgraphs.run(given)


def _of_setting(name: str) -> Callable[[flags.FlagValues], dict]:
    """A benchmark whose module has `run(setting)`."""

    def run_it(given: flags.FlagValues) -> dict:
        # Imported here, so that a wrong flag is told at once.
        import importlib

        return importlib.import_module(f"eval.speed.{name}").run(_setting(given))

    return run_it


def _lookup(given: flags.FlagValues) -> dict:
    from eval.speed import lookup

    return lookup.run(_setting(given), given.tokenizer)


# Name -> what runs the benchmark with the flags and returns its facts and rows.
BENCHMARKS: dict[str, Callable[[flags.FlagValues], dict]] = {
    "train": _of_setting("train"),
    "tokenize": _of_setting("tokenize"),
    "subgraphs": _subgraphs,
    "dataset": _of_setting("dataset"),
    "lookup": _lookup,
    "memory": _of_setting("memory"),
    "run": _of_setting("run"),
}
# Not part of `all`.
LONG = ("run",)


def _setting(given: flags.FlagValues):
    from eval.speed.setup import Setting

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
    )


def named(name: str) -> list[str]:
    """Return the benchmarks that a name stands for, one or all.

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
