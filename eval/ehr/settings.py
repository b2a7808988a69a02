"""Hold the settings of a benchmark, checked before any work, and keep runs of other settings out of its folder."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from eval.ehr.records import DATASETS
from eval.ehr.regimes import FULL, REGIMES
from eval.ehr.tasks.definition import CLINICAL, PROTOCOLS
from preprocessing.common.atomic import write_json
from preprocessing.common.errors import InputError, did_you_mean

FILE, DECLARED, CELLS = "settings.json", "declared.json", "cells"
# Settings that all runs in one folder share, because cells are compared with one another.
SHARED = ("dataset", "protocol", "smoke", "trials", "folds", "pretrain_steps")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Hold what a benchmark compares, on what, and how.

    Attributes:
        dataset: one of `records.DATASETS`.
        dataset_dir: its files, or MEDS made of them; None for the planted world with its defaults.
        output: folder of labels, cells and report.
        tokenizers: names and paths of tokenizers, see `tokenizers.make`.
        data_dir: directory of the data sets of codes that baselines are made of; empty for the default.
        tasks: names of tasks or groups of them; empty for all that the data set has in the protocol.
        models: names of models.
        regimes: some of `regimes.REGIMES`.
        protocol: `clinical`, or `paper` for the cohorts of the paper's evaluation, which select on the future.
        seeds: number of seeds, from 0.
        trials: number of settings that each model tries for every tokenizer.
        folds: number of folds of cross-fitting by person; 0 for the splits of the data set.
        pretrain_steps: number of steps of masked-code pretraining of `behrt`, before it is trained.
        smoke: whether to fit as little as shows that everything runs.
        show_small_counts: whether to print counts below 11, for open data.
        predictions: task=NAME=PATH of predictions by other programs for the same samples.
        check_leaks: whether to test first that no sample sees its future, and to fit nothing if one does.
        cells: only cells whose title contains one of these texts; empty for all.
    """

    dataset: str
    dataset_dir: Path | None
    output: Path
    tokenizers: tuple[str, ...]
    data_dir: str = ""
    tasks: tuple[str, ...] = ()
    models: tuple[str, ...] = ("logistic",)
    regimes: tuple[str, ...] = (FULL,)
    protocol: str = CLINICAL
    seeds: int = 1
    trials: int = 6
    folds: int = -1
    pretrain_steps: int = 0
    smoke: bool = False
    show_small_counts: bool = False
    predictions: tuple[str, ...] = ()
    check_leaks: bool = False
    cells: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse unknown names, empty lists and repetitions.

        Raises:
            InputError: something given cannot be used; of an unknown name the nearest one is told.
        """
        check_names("--dataset", [self.dataset], DATASETS)
        check_names("--regime", self.regimes, REGIMES)
        check_names("--protocol", [self.protocol], PROTOCOLS)
        lists = {"tokenizers": self.tokenizers, "models": self.models, "regime": self.regimes}
        for name, example in {"tokenizers": "codes,words", "models": "logistic", "regime": FULL}.items():
            if not lists[name]:
                raise InputError(f"--{name} is empty; name at least one, such as --{name}={example}.")
        named = ["=".join(given.split("=")[:2]) for given in self.predictions]
        for name, given in (lists | {"tasks": self.tasks, "predictions": named}).items():
            repeated = [one for one in given if given.count(one) > 1]
            if repeated:
                raise InputError(f"--{name} names {repeated[0]} twice; name each once.")

    @property
    def fitted_trials(self) -> int:
        """Return the number of settings that each model tries: one in a smoke run."""
        return 1 if self.smoke else self.trials


def check_names(flag: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Refuse a name that is not among those that are known.

    Raises:
        InputError: a name is unknown; the nearest one and all are told.
    """
    for name in given:
        if name not in known:
            raise InputError(f"{flag}={name} is unknown; {did_you_mean(name, known)}")


def check_folder(settings: Settings) -> None:
    """Refuse an output folder that belongs to a run of other settings.

    Raises:
        InputError: cells there were made with other settings of `SHARED`.
    """
    path = settings.output / FILE
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
        if set(theirs) != set(SHARED):
            raise ValueError
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError):
        raise InputError(f"{path} cannot be read; delete it if the folder is of this benchmark.") from None
    for name, value in _shared(settings).items():
        if theirs.get(name) != value:
            raise InputError(
                f"{settings.output} holds a benchmark with --{name}={theirs.get(name)}, not {value}; give another"
                " --output."
            )


def declare(settings: Settings, family: dict) -> int:
    """Write the primary comparisons into the output folder before anything is fitted.

    Comparisons may be added later. Where some are left out or replaced when cells were fitted already, the choice may
    have been made by their results.

    Args:
        settings: the settings.
        family: `report.family.PrimaryFamily` as a dictionary.

    Returns:
        The number of cells that had been fitted when comparisons of before were last left out; 0 if none were.

    Raises:
        InputError: the folder cannot be written, or what was declared before is damaged.
    """
    path = settings.output / DECLARED
    family = json.loads(json.dumps(family))
    before = {"family": family, "fitted": 0}
    try:
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
        fitted = before["fitted"]
        if not _contains(family, before["family"]):
            fitted = max(fitted, sum(1 for _ in (settings.output / CELLS).glob("*")))
    except (OSError, ValueError, TypeError, KeyError):
        raise InputError(f"{path} cannot be read; delete it if the folder is of this benchmark.") from None
    write_json(path, {"family": family, "fitted": fitted})
    return fitted


def _contains(family: dict, earlier: dict) -> bool:
    """Return whether a family has all comparisons of an earlier one."""
    return family["tokenizer"] == earlier["tokenizer"] and all(
        one in family[part] for part in ("others", "setups") for one in earlier[part]
    )


def claim(settings: Settings) -> None:
    """Write the settings into the output folder, which later runs must share.

    Raises:
        InputError: the folder cannot be written.
    """
    write_json(settings.output / FILE, _shared(settings))


def _shared(settings: Settings) -> dict[str, str | int | bool]:
    return {name: getattr(settings, name) for name in SHARED}
