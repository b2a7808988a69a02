"""Lay out what is fitted and tested: the samples of each task under each input rule, regime, setting and seed."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from eval.ehr import regimes, statistics, variants
from eval.ehr.cells import digest_of
from eval.ehr.history import Histories
from eval.ehr.inputs import Inputs, bags, make_inputs
from eval.ehr.results import MULTICLASS
from eval.ehr.settings import Settings
from eval.ehr.split import Split
from eval.ehr.tasks.cohort import Cohort
from eval.ehr.tasks.definition import Task
from eval.ehr.tokenizers.matrix import CodeMatrix
from eval.ehr.tokenizers.spelling import EventCodes
from medtok_jax.records.samples import Labels
from preprocessing.common.errors import InputError
from preprocessing.meds.dataset import MedsDataset
from preprocessing.meds.splits import HELD_OUT

FOLDS, _SMOKE_FOLDS = 5, 2
# Draws of few training samples, whatever the number of seeds.
DRAWS = 5
_SMOKE_SHOTS, _SMOKE_SIZES = (1, 8), (100,)
# Their splits are published, and results are compared with those of others.
_PUBLISHED_SPLITS = ("ehrshot",)


@dataclasses.dataclass(frozen=True)
class Arm:
    """Hold samples to fit and to test on.

    Attributes:
        task: the task.
        input: the input rule.
        regime, setting, seed: see `results.CellResult`.
        parts: the folds, whose test samples differ; one where the splits of the data set are used.
        digest: hash of all that is fitted and tested on.
    """

    task: Task
    input: str
    regime: str
    setting: str
    seed: int
    parts: tuple[Split, ...]
    digest: str

    @property
    def histories(self) -> Histories:
        """Return the events that the samples see some of."""
        return self.parts[0].train.histories

    @property
    def labels(self) -> Labels:
        """Return the test samples of all folds and their outcomes, sorted by subject and time."""
        tested = [part.test for part in self.parts]
        subject = np.concatenate([inputs.subject for inputs in tested])
        time = np.concatenate([inputs.time for inputs in tested])
        value = np.concatenate([part.y_test for part in self.parts])
        order = np.lexsort((time, subject))
        return Labels(subject[order], time[order], value[order])

    @property
    def fold(self) -> np.ndarray:
        """Return the fold of each sample of `labels`, `[n]` int64."""
        return self.in_order([np.full(len(part.test), number) for number, part in enumerate(self.parts)])

    def share_with_codes(self) -> float:
        """Return the share of the test samples that see a code of a code system, of which tokenizers know something."""
        of_systems = EventCodes.read(self.histories.codes).medical
        seen = [bags(part.test)[:, of_systems].getnnz(axis=1) > 0 for part in self.parts]
        return float(np.concatenate(seen).mean())

    def in_order(self, given: Sequence[np.ndarray]) -> np.ndarray:
        """Return what all folds give for their test samples, in the order of `labels`."""
        subject = np.concatenate([part.test.subject for part in self.parts])
        time = np.concatenate([part.test.time for part in self.parts])
        return np.concatenate(given)[np.lexsort((time, subject))]


def arms_of(
    cohort: Cohort,
    histories: Histories,
    across: Histories,
    dataset: MedsDataset,
    settings: Settings,
    judged: CodeMatrix,
    skipped: dict[str, str],
) -> Iterator[Arm]:
    """Yield all that is fitted and tested of a task.

    Args:
        cohort: the task and its labels.
        histories: the events.
        across: the same with translations, for `cross_vocabulary`.
        dataset: the data set, for its splits.
        settings: what is asked for.
        judged: what the tokenizer that is judged says of each code.
        skipped: receives what cannot be drawn, and why.
    """
    task, labels = cohort.task, cohort.labels
    for rule in task.inputs[:1] if settings.smoke else task.inputs:
        inputs = make_inputs(histories, labels, rule, hide_drugs_of_visit=task.hide_drugs_of_visit)
        split = dataset.split_of(labels.subject)
        folds = _folds(cohort, histories, split, settings)
        for regime in settings.regimes:
            if rule != task.inputs[0] and regime not in (regimes.FULL, regimes.CROSS_VOCABULARY):
                continue
            for seed in range(_seeds(regime, settings)):
                try:
                    drawn = list(
                        regimes.splits(
                            regime,
                            _of(across, inputs) if regime == regimes.CROSS_VOCABULARY else inputs,
                            labels.value,
                            split,
                            seed=seed,
                            folds=folds,
                            shots=_SMOKE_SHOTS if settings.smoke else regimes.SHOTS,
                            sizes=_SMOKE_SIZES if settings.smoke else regimes.SIZES,
                        )
                    )
                except InputError as error:
                    # Another draw may be possible where this one is not.
                    draw = f", draw {seed}" if _seeds(regime, settings) > 1 else ""
                    skipped[f"{task.name}, {rule}, {regime}{draw}"] = str(error)
                    continue
                by_setting: dict[str, list[Split]] = {}
                for about, part in drawn:
                    # A smoke run takes the headline of a regime.
                    if not (settings.smoke and "," in about["setting"]):
                        by_setting.setdefault(about["setting"], []).append(part)
                for setting, parts in by_setting.items():
                    yield _arm(task, rule, regime, setting, seed, parts)
                if regime == regimes.FULL and rule == task.inputs[0] and not settings.smoke:
                    yield from _variants(task, rule, by_setting[""], histories, judged, seed)


def _of(histories: Histories, inputs: Inputs) -> Inputs:
    """Return the same samples of histories with a longer table of codes; the same object where it is the same table."""
    if histories is inputs.histories:
        return inputs
    return dataclasses.replace(inputs, histories=histories, seen=np.ones(len(histories.codes), bool))


def _seeds(regime: str, settings: Settings) -> int:
    if regime in (regimes.FEW_SHOT, regimes.FEW_PATIENTS) and not settings.smoke:
        return max(DRAWS, settings.seeds)
    return settings.seeds


def _folds(cohort: Cohort, histories: Histories, split: np.ndarray, settings: Settings) -> int:
    """Return the number of folds: as asked for, else several where the held-out patients are too few to judge by."""
    if settings.folds >= 0:
        return settings.folds
    if settings.dataset in _PUBLISHED_SPLITS:
        return 0
    held = split == HELD_OUT
    value, subjects = cohort.labels.value[held], np.unique(cohort.labels.subject[held])
    persons = len(np.unique(histories.person[np.isin(histories.subject, subjects)]))
    if statistics.is_small(_positives(value, cohort.task.kind), persons):
        return _SMOKE_FOLDS if settings.smoke else FOLDS
    return 0


def _positives(value: np.ndarray, kind: str) -> int:
    """Return the number of positive labels; of several classes, that of the rarest which has both outcomes."""
    of_classes = np.bincount(value) if kind == MULTICLASS else np.atleast_1d(value.sum(0))
    return min((int(count) for count in of_classes if 0 < count < len(value)), default=0)


def _variants(
    task: Task, rule: str, parts: Sequence[Split], histories: Histories, judged: CodeMatrix, seed: int
) -> Iterator[Arm]:
    """Yield the headline anew with fewer codes, where that leaves some out that samples see."""
    for name in variants.VARIANTS:
        seen = variants.seen_codes(name, histories.codes, judged)
        if seen.all() or not seen.any():
            continue
        masked = [
            dataclasses.replace(
                part, train=part.train.masked(seen), tuning=part.tuning.masked(seen), test=part.test.masked(seen)
            )
            for part in parts
        ]
        yield _arm(task, rule, regimes.FULL, name, seed, masked)


def _arm(task: Task, rule: str, regime: str, setting: str, seed: int, parts: Sequence[Split]) -> Arm:
    arrays: list[np.ndarray] = []
    for part in parts:
        for inputs, y in ((part.train, part.y), (part.tuning, part.y_tuning), (part.test, part.y_test)):
            arrays += [*_arrays(inputs), y]
    return Arm(task, rule, regime, setting, seed, tuple(parts), digest_of(*arrays))


def _arrays(inputs: Inputs) -> tuple[np.ndarray, ...]:
    told = np.array([inputs.codes_alone, inputs.is_translated, inputs.at_bedside, inputs.histories.identity])
    return inputs.start, inputs.stop, inputs.time.astype(np.int64), inputs.seen, inputs.hidden.astype(np.int64), told
