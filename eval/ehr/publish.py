"""Write the report of a benchmark, and say in it how the benchmark was run."""

import platform
from importlib import metadata
from pathlib import Path

from rich.console import Console

from eval.ehr import regimes
from eval.ehr.report.build import PAGE, REPORT, write
from eval.ehr.report.description import RunDescription
from eval.ehr.run import Benchmark

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
    for name, reason in benchmark.skipped.items():
        console.print(f"not run: {name}: {reason}", highlight=False, soft_wrap=True)
    print(f"wrote {settings.output / REPORT} and {settings.output / PAGE}")
    print(f"Next: open {settings.output / PAGE} in a browser.")
    return settings.output / REPORT


def describe(benchmark: Benchmark) -> RunDescription:
    """Return the description of a run for its report."""
    settings = benchmark.settings
    facts = {
        "Records": f"{settings.dataset}, {len(benchmark.records.dataset.shards)} files in MEDS form",
        "Models": ", ".join(settings.models),
        "Seeds": str(settings.seeds),
        "Settings tried": f"{settings.fitted_trials} a model and tokenizer (8 of logistic), chosen on tuning samples",
        "Codes with tokens": ", ".join(f"{name} {share:.1%}" for name, share in benchmark.mapped.items()),
        "Versions": ", ".join([f"Python {platform.python_version()}", *map(_version, _PACKAGES)]),
    }
    folds = {result.task: result.about["folds"] for result in benchmark.results if result.about.get("folds", 1) > 1}
    if folds:
        told = ", ".join(f"{task} in {number}" for task, number in sorted(folds.items()))
        facts["Cross-fitted folds"] = (
            f"{told}: every sample is tested once, by a model that saw no sample of its person"
        )
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
        left_out=[f"{name}: {reason}" for name, reason in benchmark.skipped.items()],
        show_small_counts=settings.show_small_counts,
    )


def _version(package: str) -> str:
    """Return the name of a package with its version."""
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"{package} not installed"
