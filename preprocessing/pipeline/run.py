"""Run the pipeline from downloads to a verified data set, stage by stage."""

from pathlib import Path

from rich.console import Console

from preprocessing.common.errors import UserError
from preprocessing.dataset.name import ICD, ICD_NDC, PRIMEKG, RELEASE, parse_name
from preprocessing.pipeline.plans import PipelineLayout, PipelineOptions, embedded_stages, full_stages, release_stages
from preprocessing.pipeline.stages import Result, run_stages
from preprocessing.stats.verification import check_table, read_checks

_STAGES = {ICD: embedded_stages, ICD_NDC: embedded_stages, PRIMEKG: full_stages, RELEASE: release_stages}


def run_pipeline(output: Path, name: str, asked: PipelineOptions, console: Console, only: list[str]) -> list[Result]:
    """Run the stages of the pipeline that makes the data set `name` below `output`.

    Args:
        output: directory of the pipeline.
        name: name of the data set.
        asked: options of the pipeline.
        console: receives the progress and the tables.
        only: names of the stages to run; all of them if empty.

    Returns:
        The result of each stage, in order.

    Raises:
        InputError, UserError: see `stages.run_stages`; or, with `asked.strict`, rows were rejected or a check failed.
    """
    layout = PipelineLayout(output)
    results = run_stages(_STAGES[parse_name(name).source](layout, name, asked), output, console, only=only)
    checks = read_checks(layout.verification) if results[-1].state.startswith("done") else []
    if checks:
        console.print(check_table(checks))
    if asked.strict:
        _raise_problems(results, [check.what for check in checks if check.is_off])
    return results


def _raise_problems(results: list[Result], off: list[str]) -> None:
    rejecting = [result for result in results if result.rejected]
    problems = []
    if rejecting:
        rows = sum(result.rejected for result in rejecting)
        names = ", ".join(result.stage.name for result in rejecting)
        problems.append(f"{rows:,} rows were rejected (stages {names}; see their rejects.csv)")
    if off:
        problems.append(f"{len(off)} checks are off, the first of them {off[0]!r}")
    if problems:
        raise UserError(f"{' and '.join(problems)}, and --strict does not allow that; everything was written.")
