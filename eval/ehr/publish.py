"""Write the report of a benchmark, and say in it how the benchmark was run."""

import math
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from rich.console import Console

from eval.ehr import regimes
from eval.ehr.records import Records
from eval.ehr.report.build import PAGE, REPORT, write
from eval.ehr.report.description import RunDescription
from eval.ehr.run import Benchmark
from preprocessing.meds.conversion import REJECTS
from preprocessing.meds.layout import METADATA

_PACKAGES = ("medtok_jax", "jax", "flax", "scikit-learn", "lightgbm", "es-aces", "polars")
# In the name of a data set of codes whose graph holds no pair of ICD-9-CM and ICD-10-CM.
WITHOUT_CROSSWALKS = "holdout_gem_100_eval"
# Tokenizers that are made of descriptions alone.
OF_TEXT = ("text_pursuit", "text_vq")


def publish(benchmark: Benchmark) -> Path:
    """Write the report of a benchmark, print where it lies and its findings, and return the Markdown file."""
    settings = benchmark.settings
    write(benchmark.results, describe(benchmark), settings.output, progress=True)
    console = Console()
    for sentence in _rejected(benchmark.records):
        console.print(sentence, highlight=False, soft_wrap=True)
    for name, reason in benchmark.skipped.items():
        console.print(f"not run: {name}: {reason}", highlight=False, soft_wrap=True)
    print(f"wrote {settings.output / REPORT} and {settings.output / PAGE}")
    print(f"Next: open {settings.output / PAGE} in a browser.")
    return settings.output / REPORT


def describe(benchmark: Benchmark) -> RunDescription:
    """Return the description of a run for its report."""
    settings, records = benchmark.settings, benchmark.records
    facts = {
        "Records": f"{settings.dataset}, {len(records.dataset.shards)} files in MEDS form",
        "Models": ", ".join(settings.models),
        "Seeds": str(settings.seeds),
        "Settings tried": f"{settings.fitted_trials} a model and tokenizer (8 of logistic), chosen on tuning samples",
        "Codes of code systems with tokens": _shares(benchmark.mapped),
        "Samples that see a code of a code system": _shares(benchmark.covered),
        "Versions": ", ".join([f"Python {platform.python_version()}", *map(_version, _PACKAGES)]),
    }
    folds = {result.task: result.about["folds"] for result in benchmark.results if result.about.get("folds", 1) > 1}
    if folds:
        told = ", ".join(f"{task} in {number}" for task, number in sorted(folds.items()))
        facts["Cross-fitted folds"] = (
            f"{told}: every sample is tested once, by a model that saw no sample of its person"
        )
    if records.tables_not_read:
        facts["Tables that were not converted"] = ", ".join(records.tables_not_read)
    if settings.check_leaks:
        facts["Leaks"] = (
            "no sample of up to 500 patients a task saw anything else when its future was changed or deleted"
        )
    if benchmark.data_sets:
        facts["Trained on"] = ", ".join(f"{name}: {data_set}" for name, data_set in benchmark.data_sets.items())
        known = {name: data_set for name, data_set in benchmark.data_sets.items() if name not in OF_TEXT}
        seen = [name for name, data_set in known.items() if WITHOUT_CROSSWALKS not in data_set]
        if regimes.CROSS_VOCABULARY in settings.regimes and seen:
            facts["Crosswalks"] = (
                f"{', '.join(seen)} may have seen pairs of codes of both editions in training; a tokenizer without"
                f" them is trained on a data set with -{WITHOUT_CROSSWALKS} in its name"
            )
    if benchmark.translated is not None:
        facts["Across vocabularies"] = (
            "the records hold ICD-9-CM alone: test patients are coded in ICD-10-CM by the official mapping, which"
            f" translates {benchmark.translated:.1%} of the codes"
        )
    if benchmark.fitted_before:
        facts["Primary comparisons"] = (
            f"some were left out or replaced when {benchmark.fitted_before} cells had been fitted in this folder: read"
            " them as exploratory"
        )
    if settings.smoke:
        facts["Smoke run"] = "models were hardly fitted: the figures show that everything runs, and nothing else"
    return RunDescription(
        dataset=settings.dataset,
        tasks=benchmark.tasks,
        family=benchmark.family,
        facts=facts,
        flows=benchmark.flows,
        left_out=[*_rejected(records), *(f"{name}: {reason}" for name, reason in benchmark.skipped.items())],
        show_small_counts=settings.show_small_counts,
    )


def _rejected(records: Records) -> list[str]:
    """Return a sentence on the rows that the conversion could not use, in percent that are rounded up."""
    found = [f"{math.ceil(100 * share)} % of {table}" for table, share in records.rejected().items()]
    if not found:
        return []
    where = f"{METADATA}/{REJECTS} of the converted records says which and why"
    return [f"Rows of the source could not be used and are missing: up to {', '.join(found)}; {where}."]


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items())


def _version(package: str) -> str:
    """Return the name of a package with its version."""
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"{package} not installed"
