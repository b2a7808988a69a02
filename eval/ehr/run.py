"""Run a benchmark: fit every task, tokenizer, model, regime and seed as a cell of its own."""

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence

import numpy as np

from eval.ehr import external
from eval.ehr.arms import Arm, arms_of
from eval.ehr.cells import Cell, Cells, Predicted
from eval.ehr.cohorts import digest_of_records, open_cohorts
from eval.ehr.external import ExternalModel
from eval.ehr.history import Histories, open_histories
from eval.ehr.inputs import bags
from eval.ehr.metrics import best_threshold
from eval.ehr.models.choice import choose
from eval.ehr.models.model import Model
from eval.ehr.records import Records, open_records
from eval.ehr.regimes import CROSS_VOCABULARY, FULL
from eval.ehr.report.family import PrimaryFamily, declared
from eval.ehr.results import BINARY, CellResult
from eval.ehr.settings import CELLS, Settings, check_folder, claim, declare
from eval.ehr.split import Split
from eval.ehr.tasks import definition
from eval.ehr.tasks.cohort import Cohort
from eval.ehr.tasks.definition import SOURCES, Task
from eval.ehr.tasks.leaks import check_leaks, seen_by_models
from eval.ehr.tasks.phenotypes import PHENOTYPES
from eval.ehr.tasks.spelling import Spelling, read_spelling
from eval.ehr.tokenizers.context import TokenizerContext
from eval.ehr.tokenizers.make import NAMES, data_sets_of, make, parts_of
from eval.ehr.tokenizers.matrix import CodeMatrix
from eval.ehr.tokenizers.names import OF_TRAINING, is_baseline, judged_of, named, reads_training
from eval.ehr.tokenizers.translation import translated_share, with_translations
from medtok_jax.devices.optimizations import few_optimizations
from preprocessing.common.atomic import private
from preprocessing.common.errors import InputError, without_values
from preprocessing.common.locks import exclusive
from preprocessing.common.progress import Bar
from preprocessing.dataset.name import parse_name
from preprocessing.meds.dataset import MedsDataset


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Hold what a benchmark found.

    Attributes:
        settings: what was asked for.
        records: the patient records.
        tasks: name -> task.
        flows: task -> the steps of its cohort.
        judged: name of the tokenizer that is judged: the first that is no baseline, else the first.
        results: the cells.
        family: the primary comparisons, declared before anything was fitted.
        fitted_before: number of cells that had been fitted when comparisons of before were left out; 0 if none were.
        skipped: what was not run -> why.
        mapped: tokenizer -> share of the data set's codes of code systems that it maps.
        covered: task -> share of its samples that see a code of a code system, under its first input rule.
        data_sets: tokenizer -> name of the data set that it was trained on, where it tells it.
        translated: share of the ICD-9-CM codes with a translation, where test samples of `cross_vocabulary` see these
            (`eval.ehr.tokenizers.translation`); else None.
    """

    settings: Settings
    records: Records
    tasks: dict[str, Task]
    flows: dict[str, list[tuple[str, int]]]
    judged: str
    results: list[CellResult]
    family: PrimaryFamily
    fitted_before: int
    skipped: dict[str, str]
    mapped: dict[str, float]
    covered: dict[str, float]
    data_sets: dict[str, str]
    translated: float | None


@without_values()
def run(settings: Settings, *, progress: bool = True) -> Benchmark:
    """Fit all cells that are not there yet, and return the results of all; no error shows a value of the records.

    Args:
        settings: what to compare.
        progress: whether to show progress bars.

    Raises:
        InputError: something given cannot be used, another run works in the output folder, or nothing can be fitted.
    """
    tasks = chosen_tasks(settings)
    tokenizers = named(settings.tokenizers)
    fitted = choose(settings.models, pretrain_steps=settings.pretrain_steps, smoke=settings.smoke, progress=progress)
    foreign = [external.parse(given) for given in settings.predictions]
    for one in foreign:
        if one.task not in tasks or tasks[one.task].kind != BINARY:
            raise InputError(f"--predictions: {one.task} is no binary task of this run; name one of --tasks.")
        if one.name in tokenizers or "+" in one.name or one.name in NAMES:
            raise InputError(f"--predictions: {one.name} is taken, or says that two are joined; give another name.")
    _refuse_given_groups(tasks, tokenizers)
    # The output will hold times and outcomes of patients.
    with private(), exclusive(settings.output, advice="give another --output"), contextlib.ExitStack() as stack:
        if settings.smoke:
            # A few steps of small models take less time than it takes to optimize them.
            stack.enter_context(few_optimizations())
        check_folder(settings)
        records = open_records(settings.dataset, settings.dataset_dir, settings.output)
        claim(settings)
        histories = open_histories(
            records.dataset, _spelling(settings), settings.output / "histories", progress=progress
        )
        return _Runner(settings, records, tasks, tokenizers, fitted, foreign, histories, progress).run()


def chosen_tasks(settings: Settings) -> dict[str, Task]:
    """Return the tasks by name: those asked for, else all of the protocol that fit the data set.

    Raises:
        InputError: a name is unknown, or no task fits.
    """
    found = definition.choose(settings.tasks, settings.dataset)
    if not settings.tasks:
        found = [task for task in found if task.protocol == settings.protocol]
    if not found:
        raise InputError(f"no task of the {settings.protocol} protocol fits {settings.dataset}; give --tasks.")
    return {task.name: task for task in found}


def _refuse_given_groups(tasks: Mapping[str, Task], tokenizers: Mapping[str, str]) -> None:
    """Refuse tokenizers of graphs that hold the groups of CCS and CCSR where a task asks for these groups.

    Raises:
        InputError: a tokenizer knows what a task asks for.
    """
    asking = [task.name for task in tasks.values() if task.classes == tuple(PHENOTYPES)]
    for name, path in tokenizers.items() if asking else ():
        given = [one for one in data_sets_of(path) if parse_name(one).groups]
        if given:
            raise InputError(
                f"{name} was trained on {given[0]}, whose graph holds the groups that {asking[0]} asks for;"
                " train it on a data set without `groups`, or name other --tasks."
            )


def _spelling(settings: Settings) -> Spelling:
    return read_spelling(SOURCES[settings.dataset])


class _Runner:
    """Fit the cells of a benchmark one after another."""

    def __init__(
        self,
        settings: Settings,
        records: Records,
        tasks: dict[str, Task],
        tokenizers: dict[str, str],
        fitted: Sequence[Model],
        foreign: Sequence[ExternalModel],
        histories: Histories,
        progress: bool,
    ):
        self.settings = settings
        self.records = records
        self.tasks = tasks
        self.tokenizers = tokenizers
        self.models = fitted
        self.foreign = foreign
        self.histories = histories
        # Other regimes read no translations, so that asking for this one changes nothing of theirs.
        self.across = with_translations(histories) if CROSS_VOCABULARY in settings.regimes else histories
        self.digest = digest_of_records(records.dataset)
        self.progress = progress
        self.cells = Cells(settings.output / CELLS)
        self.skipped: dict[str, str] = {}
        self.judged = judged_of(list(tokenizers.values()))
        self.judged = next(name for name, path in tokenizers.items() if path == self.judged)
        self.context = TokenizerContext(
            folder=settings.output / "baselines",
            descriptions=_descriptions(records.dataset),
            data_dir=settings.data_dir,
            first="" if is_baseline(tokenizers[self.judged]) else tokenizers[self.judged],
            progress=progress,
        )
        self.family = declared(settings, tasks.values(), self.judged)
        self.fitted_before = declare(settings, dataclasses.asdict(self.family))
        self._matrices: dict[tuple[str, int, int], CodeMatrix] = {}
        self._identities: dict[tuple[str, int, int], str] = {}

    def run(self) -> Benchmark:
        """Return the benchmark with all its cells."""
        cohorts = {}
        labels = self.settings.output / "labels"
        found = open_cohorts(
            list(self.tasks.values()),
            self.records.dataset,
            self.settings.dataset,
            labels,
            digest=self.digest,
            progress=self.progress,
        )
        for name, cohort in found.items():
            if isinstance(cohort, Cohort):
                cohorts[name] = cohort
            elif name in self.settings.tasks:
                # A task that was named must fit; one of all may not.
                raise cohort
            else:
                self.skipped[name] = str(cohort)
        if self.settings.check_leaks:
            self._refuse_leaks(cohorts)
        arms = self._arms(cohorts)
        if not arms:
            raise InputError(self._nothing_fits())
        covered = {}
        for arm in arms:
            if arm.input == arm.task.inputs[0]:
                covered.setdefault(arm.task.name, arm.share_with_codes())
        person = dict(zip(self.histories.subject.tolist(), _anonymous(self.histories.person), strict=True))
        # Read before anything is fitted, so that a file that cannot be used is told at once.
        others = [result for arm in arms for one in self.foreign for result in self._external(one, arm, person)]
        results = []
        total = len(arms) * len(self.models) * len(self.tokenizers)
        bar = Bar(total=total, desc="Fitting", unit=" cells", show=self.progress)
        with bar:
            while arms:
                # An arm that is done is dropped, and with it the counts of its samples.
                arm = arms.pop(0)
                for model in self.models:
                    for name in self.tokenizers:
                        cell = self._cell(arm, name, model)
                        chosen = not self.settings.cells or any(text in cell.title for text in self.settings.cells)
                        bar.set_postfix_str(cell.title)
                        # Cells of earlier runs stay in the report.
                        if cell in self.cells or (chosen and self._ensure(cell, arm, name, model)):
                            results.append(self.cells.load(cell, person))
                        bar.update()
        if not results:
            raise InputError("; ".join(self.skipped.values()) or self._no_cell())
        known = [name for name, path in self.tokenizers.items() if not reads_training(path)]
        mapped = {name: self._matrix(name, 0).about["mapped_share"] for name in known}
        trained_on = {name: self._matrix(name, 0).about.get("data_set") for name in known}
        flows = {name: cohort.flow for name, cohort in cohorts.items()}
        return Benchmark(
            settings=self.settings,
            records=self.records,
            tasks=self.tasks,
            flows=flows,
            judged=self.judged,
            family=self.family,
            fitted_before=self.fitted_before,
            results=results + [one for one in others if any(one.model == result.model for result in results)],
            skipped=self.skipped,
            mapped=mapped,
            covered=covered,
            data_sets={name: about["name"] for name, about in trained_on.items() if about and about.get("name")},
            translated=translated_share(self.across),
        )

    def _nothing_fits(self) -> str:
        """Return why no task can be fitted."""
        tables = ", ".join(self.records.tables_not_read)
        lacking = f" The records were converted without the tables {tables}; a task may need one." if tables else ""
        if len(self.skipped) == 1:
            return "".join(self.skipped.values()) + lacking
        tasks = ", ".join(sorted({what.split(",")[0] for what in self.skipped}))
        return (
            f"These records hold too little for the tasks {tasks}: no sample, or none of one of two outcomes to train"
            f" or to test on.{lacking} Give records of more patients, or see what one task lacks with --tasks."
        )

    def _no_cell(self) -> str:
        """Return why no cell was fitted although none failed."""
        return (
            f"no cell was fitted, as no title contains --cells={', '.join(self.settings.cells)}; a title is like"
            " `mortality, bedside, full, codes, logistic, seed 0`."
        )

    def _refuse_leaks(self, cohorts: Mapping[str, Cohort]) -> None:
        """Test that no sample sees its future.

        Raises:
            InputError: a test finds a leak; the types of events that tell it are named.
        """
        told = []
        bar = Bar(cohorts.values(), desc="Testing for leaks", unit=" tasks", show=self.progress)
        for cohort in bar:
            task = cohort.task
            scratch, spelling = self.settings.output / "leaks", _spelling(self.settings)
            inputs_of = seen_by_models(scratch, spelling, hide_drugs_of_visit=task.hide_drugs_of_visit)
            found = check_leaks(task, self.records.dataset, cohort.labels, self.settings.dataset, inputs_of=inputs_of)
            told += [f"{task.name}: {one}" for one in found]
        if told:
            raise InputError(f"nothing was fitted, as leaks were found. {' '.join(told)}")

    def _arms(self, cohorts: Mapping[str, Cohort]) -> list[Arm]:
        judged = self._matrix(self.judged, 0)
        arms: list[Arm] = []
        for name, cohort in cohorts.items():
            if cohort.problem:
                self.skipped[name] = cohort.problem
                continue
            given = (cohort, self.histories, self.across, self.records.dataset, self.settings, judged, self.skipped)
            arms += arms_of(*given)
        return arms

    def _matrix(
        self, name: str, seed: int, histories: Histories | None = None, part: Split | None = None
    ) -> CodeMatrix:
        """Return what a tokenizer says of each code; `part` is given to one that reads training samples."""
        codes, path = (histories or self.histories).codes, self.tokenizers[name]
        key = (name, seed, len(codes))
        if reads_training(path):
            bag = None if part is None else bags(part.train)
            made = make(path, codes, dataclasses.replace(self.context, seed=seed, train_bags=bag))
        elif key in self._matrices:
            return self._matrices[key]
        else:
            made = make(path, codes, dataclasses.replace(self.context, seed=seed))
            self._matrices[key] = made = dataclasses.replace(made, name=name)
        return made

    def _cell(self, arm: Arm, name: str, model: Model) -> Cell:
        settings = {key: getattr(self.settings, key) for key in ("trials", "smoke", "pretrain_steps")}
        return Cell(
            task=arm.task.name,
            tokenizer=name,
            model=model.name,
            regime=arm.regime,
            setting=arm.setting,
            input=arm.input,
            seed=arm.seed,
            kind=arm.task.kind,
            depends_on={"records": self.digest, "samples": arm.digest, "tokenizer": self._identity(arm, name)}
            | settings,
        )

    def _identity(self, arm: Arm, name: str) -> str:
        """Return what changes with the matrix of a tokenizer, but for what it learns of training samples."""
        key = (name, arm.seed, len(arm.histories.codes))
        if key not in self._identities:
            path = self.tokenizers[name]
            if reads_training(path):
                context = dataclasses.replace(self.context, seed=arm.seed)
                fixed = [part for part in parts_of(path) if not reads_training(part)]
                known = [make(part, arm.histories.codes, context).identity() for part in fixed]
                self._identities[key] = "+".join([OF_TRAINING, *known])
            else:
                self._identities[key] = self._matrix(name, arm.seed, arm.histories).identity()
        return self._identities[key]

    def _ensure(self, cell: Cell, arm: Arm, name: str, model: Model) -> bool:
        """Fit a cell that is not there yet, and return whether it is there now."""
        try:
            predicted = self._fit(arm, name, model)
        except InputError as error:
            self.skipped[cell.title] = str(error)
            return False
        self.cells.save(cell, predicted)
        return True

    def _fit(self, arm: Arm, name: str, model: Model) -> Predicted:
        started = time.perf_counter()
        probabilities, thresholds, facts = [], [], []
        for part in arm.parts:
            matrix = self._matrix(name, arm.seed, arm.histories, part)
            fitted = model.fit_predict(
                part,
                matrix,
                seed=arm.seed,
                trials=self.settings.fitted_trials,
                classes=len(arm.task.classes),
                kind=arm.task.kind,
            )
            probabilities.append(fitted.probabilities)
            thresholds.append(best_threshold(part.y_tuning, fitted.tuning, arm.task.kind))
            facts.append(fitted.about)
        about = facts[0] | {
            "seconds": time.perf_counter() - started,
            "mapped": matrix.about["mapped_share"],
            "folds": len(arm.parts),
        }
        return Predicted(arm.labels, arm.in_order(probabilities), np.array(thresholds), about, arm.fold)

    def _external(self, one: ExternalModel, arm: Arm, person: dict[int, int]) -> list[CellResult]:
        """Return predictions by another program as results of the headline, beside the tokenizers of each model.

        There are none for other arms than those of all patients under the headline's input rule.
        """
        if (arm.task.name, arm.regime, arm.setting, arm.input) != (one.task, FULL, "", arm.task.inputs[0]):
            return []
        if len(arm.parts) > 1:
            raise InputError(
                f"--predictions: the patients of {one.task} are cross-fitted, and {one.name} may have been trained on"
                " some that it predicts; give --folds=0 for the splits of the records, and train it on `train`."
            )
        labels = arm.labels
        found = CellResult(
            task=one.task,
            tokenizer=one.name,
            model="",
            regime=FULL,
            setting="",
            input=arm.input,
            seed=arm.seed,
            y=labels.value,
            p=external.read(one, labels),
            person=np.array([person[subject] for subject in labels.subject.tolist()]),
            p_threshold=float("nan"),
            about={},
            fold=arm.fold,
        )
        return [dataclasses.replace(found, model=model.name) for model in self.models]


def _descriptions(dataset: MedsDataset) -> dict[str, str]:
    table = dataset.codes()
    if "description" not in table.columns:
        return {}
    table = table.drop_nulls(["code", "description"])
    return dict(zip(table["code"], table["description"], strict=True))


def _anonymous(person: np.ndarray) -> list[int]:
    """Return a number for each person that says nothing of who it is."""
    return np.unique(person, return_inverse=True)[1].tolist()
