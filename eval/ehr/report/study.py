"""Compare the tokenizers of every task, model and regime on common draws of persons."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from eval.ehr import statistics
from eval.ehr.metrics import Bin, Scores, bins, evaluate, outcomes
from eval.ehr.report import names
from eval.ehr.results import CellResult
from eval.ehr.statistics import METRICS, Draws, PairedDifference
from preprocessing.common.errors import InputError
from preprocessing.common.progress import Bar

BETTER, WORSE, NOISE, NOT_JUDGED = "better", "worse", "within noise", "not judged"


class Setup(NamedTuple):
    """Identify results that differ by tokenizer and seed alone."""

    task: str
    input: str
    model: str
    regime: str
    setting: str

    @property
    def title(self) -> str:
        """Return the name of the setup in tables and sentences, without its task."""
        return ", ".join(filter(None, (self.regime, self.setting, self.model, self.input)))

    @property
    def shots(self) -> int | None:
        """Return the number of training patients of each class, None if it is not a few-shot setup."""
        return names.shots(self.regime, self.setting)


@dataclasses.dataclass(frozen=True)
class TokenizerResult:
    """Hold what one tokenizer reaches in one setup.

    Attributes:
        tokenizer: its name.
        draws: metric -> its figures.
        scores: means over seeds of all figures.
        bins: calibration of the first seed; empty where the task has several classes or too few outcomes to show.
    """

    tokenizer: str
    draws: Mapping[str, Draws]
    scores: Scores
    bins: Sequence[Bin]


@dataclasses.dataclass(frozen=True)
class SetupResult:
    """Hold the results of all tokenizers in one setup.

    Attributes:
        setup: task, input rule, model, regime and setting.
        samples: number of test samples; where they differ by seed, of the seed with the fewest positive ones.
        persons: number of persons in them, in the seed with the fewest.
        positives: number of positive samples of that seed; of several classes, of the rarest.
        prevalence: share of positives, the mean over classes and seeds.
        has_classes: whether the task has several classes.
        differs_by_seed: whether seeds are tested on different samples.
        tokenizers: name -> result, in the order of tables.
    """

    setup: Setup
    samples: int
    persons: int
    positives: int
    prevalence: float
    has_classes: bool
    differs_by_seed: bool
    tokenizers: Mapping[str, TokenizerResult]

    @property
    def is_small(self) -> bool:
        """Return True if the test set holds too little to rank tokenizers."""
        return statistics.is_small(self.positives, self.persons)

    def difference(self, first: str, other: str, metric: str) -> PairedDifference | None:
        """Return the paired difference of two tokenizers, None if one of them is not here."""
        if first not in self.tokenizers or other not in self.tokenizers:
            return None
        return self.tokenizers[first].draws[metric].minus(self.tokenizers[other].draws[metric])

    def ranks(self) -> dict[str, int]:
        """Return the rank of each tokenizer by AUPRC: 1 and the number of those whose interval lies wholly above it.

        Joined tokenizers have no rank, and nobody has one where the test set is small or only one tokenizer is there.
        """
        ranked = [name for name in self.tokenizers if not names.is_joined(name)]
        if self.is_small or len(ranked) < 2:
            return {}
        above = {
            name: sum(self.difference(other, name, statistics.AUPRC).low > 0 for other in ranked if other != name)
            for name in ranked
        }
        return {name: 1 + count for name, count in above.items()}


def verdict(difference: PairedDifference, metric: str, *, is_small: bool = False) -> str:
    """Return in words what a difference says about the first tokenizer, which on a small test set is nothing."""
    if is_small:
        return NOT_JUDGED
    if difference.is_noise:
        return NOISE
    return BETTER if (difference.value > 0) != (metric in statistics.LOWER_IS_BETTER) else WORSE


def analyze(
    results: Sequence[CellResult], primary: str, *, least: int = 0, seed: int = 0, progress: bool = False
) -> list[SetupResult]:
    """Return the results of every setup, in the order of tables.

    Args:
        results: results of cells, in any order.
        primary: name of the tokenizer that stands first.
        least: positives, and negatives, that each bin of calibration must have.
        seed: seed of the draws.
        progress: whether to show a progress bar.

    Raises:
        InputError: a cell is there twice, or cells of one setup and seed were scored on different samples.
    """
    setups: dict[Setup, list[CellResult]] = {}
    for cell in results:
        setups.setdefault(Setup(cell.task, cell.input, cell.model, cell.regime, cell.setting), []).append(cell)
    chosen = sorted(setups, key=_order)
    return [
        _compare(setup, setups[setup], primary, least, seed)
        for setup in Bar(chosen, desc="Comparing tokenizers", unit=" setups", show=progress)
    ]


def _order(setup: Setup) -> tuple:
    regime, setting = names.regime_order(setup.regime), names.setting_order(setup.setting)
    return setup.task, regime, setup.model, setup.input, setting


def _compare(setup: Setup, cells: list[CellResult], primary: str, least: int, seed: int) -> SetupResult:
    cells = sorted(cells, key=lambda cell: (names.order(cell.tokenizer, primary), cell.seed))
    _check(setup, cells)
    drawn = statistics.bootstrap(cells, seed=seed)
    tokenizers = {}
    for name in dict.fromkeys(cell.tokenizer for cell in cells):
        rows = [row for row, cell in enumerate(cells) if cell.tokenizer == name]
        mine = [cells[row] for row in rows]
        draws = {
            metric: Draws(
                tuple(cell.seed for cell in mine),
                np.array([drawn[row][metric][0] for row in rows]),
                np.stack([drawn[row][metric][1] for row in rows]),
            )
            for metric in METRICS
        }
        tokenizers[name] = TokenizerResult(name, draws, _mean_scores(mine), _calibration(mine[0], least))
    by_seed = {cell.seed: cell for cell in cells}
    scored = {seed: evaluate(cell.y, cell.p, cell.kind, cell.p_threshold, cell.fold) for seed, cell in by_seed.items()}
    fewest = min(scored, key=lambda seed: (scored[seed].positives, seed))
    return SetupResult(
        setup,
        samples=len(by_seed[fewest].y),
        persons=min(len(np.unique(cell.person)) for cell in by_seed.values()),
        positives=scored[fewest].positives,
        prevalence=float(np.mean([one.prevalence for one in scored.values()])),
        has_classes=cells[0].p.ndim > 1,
        differs_by_seed=len({(len(cell.y), scored[seed].positives) for seed, cell in by_seed.items()}) > 1,
        tokenizers=tokenizers,
    )


def _check(setup: Setup, cells: list[CellResult]) -> None:
    seen: dict[int, CellResult] = {}
    where = f"{setup.task}, {setup.title}"
    pairs = [(cell.tokenizer, cell.seed) for cell in cells]
    if len(set(pairs)) < len(pairs):
        raise InputError(f"The results of {where} hold a tokenizer and seed twice; give each cell once.")
    for cell in cells:
        other = seen.setdefault(cell.seed, cell)
        if not (np.array_equal(cell.person, other.person) and np.array_equal(cell.y, other.y)):
            raise InputError(
                f"The tokenizers {other.tokenizer} and {cell.tokenizer} were scored on different samples of {where};"
                " run these cells again."
            )


def _mean_scores(cells: list[CellResult]) -> Scores:
    """Return the means over seeds; the number of positives is that of the seed with the fewest."""
    scored = [evaluate(cell.y, cell.p, cell.kind, cell.p_threshold, cell.fold) for cell in cells]
    figures = [field.name for field in dataclasses.fields(Scores)[2:]]
    means = {name: float(np.mean([getattr(one, name) for one in scored])) for name in figures}
    return Scores(scored[0].samples, min(one.positives for one in scored), **means)


def _calibration(cell: CellResult, least: int) -> list[Bin]:
    pairs = outcomes(cell.y, cell.p, cell.kind)
    return bins(*pairs[0], least=least) if cell.p.ndim == 1 and pairs else []
