"""Start the tiny training as a command, stop it from outside, start it again, and compare what runs leave behind."""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import jax

from medtok_jax.inference import vocabulary
from medtok_jax.training import checkpoints, reporting
from tests.helpers.contents import content_of
from tests.helpers.forked import Running, running_module
from tests.helpers.paths import ROOT

CONFIG = ROOT / "tests" / "helpers" / "tiny_run.py"
# Seconds between two looks at a folder, and those in which a command must have ended, on the slowest machine.
PAUSE, LONGEST = 0.002, 600
# What differs from run to run: time, and the checksum of a line that holds times.
TIMES = {"codes_per_second", "step_seconds", "seconds", "checksum"}


def started(root: Path, workdir: Path) -> contextlib.AbstractContextManager[Running]:
    """Yield the training of a folder that `tiny_run.prepare` has filled, at work, or going on in its work directory."""
    return running_module("medtok_jax.main", f"--config={CONFIG}:{root}", f"--workdir={workdir}")


def stop(running: Running, number: int, is_time: Callable[[], bool]) -> tuple[int, str]:
    """Send a signal as soon as it is time, unless the command ends before.

    Returns:
        Its exit status and errors.
    """
    while running.process.exitcode is None and not is_time():
        time.sleep(PAUSE)
    if running.process.exitcode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.process.pid, number)
    ended = running.wait(LONGEST)
    return ended.returncode, ended.stderr


def kinds_of(*folders: Path) -> set[str]:
    """Return the kinds of files and folders below some folders: their names without numbers and digests."""
    found = set()
    for folder in folders:
        for path, directories, files in os.walk(folder):
            names = (os.path.relpath(os.path.join(path, name), folder.parent) for name in (*directories, *files))
            found.update(re.sub(r"[0-9a-f]{8,}|\d+", "#", name) for name in names)
    return found


def result_of(workdir: Path) -> dict[str, object]:
    """Return all that a run leaves but for times: digests of arrays and files, logged entries, and kinds of files."""
    found: dict[str, object] = {"kinds of files": sorted(kinds_of(workdir))}
    for kind in checkpoints.KINDS:
        checkpoint = checkpoints.find(workdir / "checkpoints" / kind)
        found[f"metadata of {kind}"] = checkpoint.metadata()
        state = checkpoint._read(checkpoints.STATE)
        for path, array in jax.tree_util.tree_leaves_with_path(state):
            found[f"{kind}{jax.tree_util.keystr(path)}"] = content_of(array)
    lines = (workdir / reporting.HISTORY).read_text().splitlines()
    found["entries"] = [_without_times(json.loads(line)) for line in lines]
    found["summary"] = _without_times(json.loads((workdir / reporting.SUMMARY).read_text()))
    tokenizer = workdir / vocabulary.DIRECTORY
    for path in sorted(path for path in tokenizer.rglob("*") if path.is_file()):
        found[path.relative_to(workdir).as_posix()] = content_of(path.read_bytes())
    return found


def _without_times(entry: dict) -> dict:
    return {name: value for name, value in entry.items() if name not in TIMES}


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    """Return the names of what differs between two results, of kinds of files also those that only one of them has."""
    found = []
    for name in sorted(one.keys() | other.keys()):
        first, second = one.get(name), other.get(name)
        if name.startswith("kinds of") and first != second:
            found.append(f"{name}: {sorted(set(first or ()) ^ set(second or ()))}")
        elif first != second:
            found.append(name)
    return found
