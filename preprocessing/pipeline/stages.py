"""Run the stages of a pipeline, and skip a stage as long as the files that it read and wrote are unchanged.

A finished stage leaves a stamp, `stages/<name>.json`: the SHA-256 of every file that it read and wrote, its options and
its version. A stage without a stamp, or with one that does not match, runs. Every stage writes under provisional names
and replaces its outputs only when they are complete, so it may be stopped at any moment and run again.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from preprocessing.common import atomic, locks
from preprocessing.common.checksums import sha256_of
from preprocessing.common.errors import InputError
from preprocessing.common.locks import LOCK

STAMPS = "stages"
_FORMAT = 1
# A manifest holds dates, and repeats the checksums of the files beside it.
_NOT_COMPARED = ("manifest.json",)
_PROVISIONAL = (".partial", ".downloads", LOCK)


@dataclasses.dataclass(frozen=True)
class Stage:
    """Define one stage of a pipeline.

    Attributes:
        name: one word.
        activity: description for the user, such as `reading PrimeKG`.
        inputs: files and folders that the stage reads; an absent one is compared as absent.
        outputs: files and folders that the stage writes.
        run: runs the stage and returns the number of rejected rows.
        needs: those of `inputs` that must exist.
        options: all other values on which the result depends, as JSON values.
        version: number to increase when the same inputs give another result.
    """

    name: str
    activity: str
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    run: Callable[[], int]
    needs: tuple[Path, ...] = ()
    options: Mapping[str, object] = dataclasses.field(default_factory=dict)
    version: int = 1


@dataclasses.dataclass(frozen=True)
class Result:
    """Hold the outcome of a stage.

    Attributes:
        stage: the stage.
        state: `done`, `done already`, `not asked for`, `failed` or `not reached`.
        seconds: wall-clock time of the run.
        rejected: number of rejected rows.
    """

    stage: Stage
    state: str
    seconds: float = 0.0
    rejected: int = 0


class Digests:
    """Compute the SHA-256 of files, each only once as long as its size and modification time are unchanged."""

    def __init__(self):
        self._known: dict[tuple[str, int, int], str] = {}

    def of(self, paths: Collection[Path], root: Path) -> dict[str, str | None]:
        """Return the digests of all files among and below `paths`, by name relative to `root`; None if absent."""
        found: dict[str, str | None] = {}
        for path in paths:
            atomic.recover(path)
            if path.is_dir():
                for file in sorted(path.rglob("*")):
                    if file.is_file() and not _is_ignored(file.relative_to(path)):
                        found[_name(file, root)] = self._of_file(file)
            else:
                found[_name(path, root)] = self._of_file(path) if path.is_file() else None
        return found

    def _of_file(self, path: Path) -> str:
        status = path.stat()
        key = (str(path), status.st_size, status.st_mtime_ns)
        if key not in self._known:
            self._known[key] = sha256_of(path)
        return self._known[key]


def _is_ignored(name: Path) -> bool:
    return name.name in _NOT_COMPARED or any(
        part.startswith(atomic.PARTIAL) or part.endswith(_PROVISIONAL) for part in name.parts
    )


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def run_stages(stages: Sequence[Stage], root: Path, console: Console, *, only: Collection[str] = ()) -> list[Result]:
    """Run the stages that are not done, in order, and print a table of all stages at the end, even if one fails.

    Args:
        stages: all stages, each after those on which it depends.
        root: directory of the pipeline, which also holds the stamps.
        console: receives the progress and the table.
        only: names of the stages to run; all of them if empty.

    Raises:
        InputError: a name in `only` is not known, a file that a stage needs is absent, or another process works in
            `root`. Errors of stages are passed on.
    """
    unknown = [name for name in only if name not in [stage.name for stage in stages]]
    if unknown:
        names = ", ".join(stage.name for stage in stages)
        raise InputError(f"there is no stage {unknown[0]!r} here; the stages are {names}.")
    results = [Result(stage, "not asked for" if only and stage.name not in only else "not reached") for stage in stages]
    digests = Digests()
    with locks.exclusive(root, advice="choose another --output"):
        try:
            for position, stage in enumerate(stages):
                if results[position].state == "not reached":
                    console.print(f"[bold]{stage.name}[/bold]: {stage.activity}", highlight=False)
                    results[position] = Result(stage, "failed")
                    results[position] = _run(stage, stages, root, digests)
        finally:
            console.print(stage_table(results, root))
    return results


def _run(stage: Stage, stages: Sequence[Stage], root: Path, digests: Digests) -> Result:
    path = root / STAMPS / f"{stage.name}.json"
    _check_needs(stage, stages)
    before = _stamp(stage, root, digests)
    if (known := _read(path)) is not None and before | {"rejected": known.get("rejected")} == known:
        return Result(stage, "done already", rejected=known["rejected"])
    path.unlink(missing_ok=True)
    begin = time.monotonic()
    rejected = stage.run()
    stamp = _stamp(stage, root, digests) | {"inputs": before["inputs"], "rejected": rejected}
    atomic.write_json(path, stamp, sort_keys=True)
    return Result(stage, "done", time.monotonic() - begin, rejected)


def _check_needs(stage: Stage, stages: Sequence[Stage]) -> None:
    for path in stage.needs:
        if not path.exists():
            makers = [other.name for other in stages if any(path.is_relative_to(output) for output in other.outputs)]
            advice = f"run the stage {makers[0]} first" if makers else "check the path"
            raise InputError(f"the stage {stage.name} needs {path}, which is not there; {advice}.")


def _stamp(stage: Stage, root: Path, digests: Digests) -> dict:
    return {
        "format": _FORMAT,
        "stage": stage.name,
        "version": stage.version,
        "options": json.loads(json.dumps(dict(stage.options))),
        "inputs": digests.of(stage.inputs, root),
        "outputs": digests.of(stage.outputs, root),
    }


def _read(path: Path) -> dict | None:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) else None


def stage_table(results: Sequence[Result], root: Path) -> Table:
    """Return a table with one row per stage, which names files relative to `root`."""
    table = Table(title="Stages", title_justify="left", title_style="bold")
    for header in ("stage", "state", "seconds", "rejected rows", "wrote"):
        table.add_column(header, justify="right" if header in ("seconds", "rejected rows") else "left")
    for result in results:
        done = result.state.startswith("done")
        wrote = ", ".join(_name(path, root) for path in result.stage.outputs) if done else ""
        seconds = f"{result.seconds:.1f}" if result.state == "done" else ""
        table.add_row(result.stage.name, result.state, seconds, f"{result.rejected:,}" if done else "", wrote)
    return table
