"""Run `python -m MODULE` in a process that is forked from one that has imported the heavy packages already.

Seconds of imports a command are saved. What a fresh interpreter is the point of starts one by itself.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from medtok_jax.devices.huge_pages import VARIABLE
from tests.helpers.paths import ROOT

# None of them starts a thread, nor are they of this project, whose modules define flags.
PRELOADED = ["absl.app", "ml_collections", "numpy", "pyarrow.parquet", "rich.console", "tensorflow_datasets", "jax"]
PRELOADED += [
    "flax.nnx",
    "optax",
    "jraph",
    "orbax.checkpoint",
    "grain",
    "clu.metrics",
    "matplotlib.pyplot",
    "tensorboardX",
]


def run_module(
    module: str,
    *arguments,
    cwd: Path = ROOT,
    env: dict[str, str] | None = None,
    timeout: float = 300,
    prepare: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Return exit status and output of `python -m module`.

    Args:
        module: its dotted name.
        arguments: the command line behind it.
        cwd: the working directory.
        env: all variables of the environment; None for those of this process.
        timeout: seconds.
        prepare: a function of a module, called in the process before the command starts.

    Raises:
        subprocess.TimeoutExpired: it did not end; it is killed.
    """
    with running_module(module, *arguments, cwd=cwd, env=env, prepare=prepare) as running:
        return running.wait(timeout)


@dataclasses.dataclass(frozen=True)
class Running:
    """A command at work, to which signals may be sent, and the files of its output."""

    command: list[str]
    process: multiprocessing.process.BaseProcess
    out: Path
    err: Path

    def wait(self, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Return exit status and output when it has ended; the status is minus the number of a signal that killed it.

        Raises:
            subprocess.TimeoutExpired: it did not end; it is killed.
        """
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise subprocess.TimeoutExpired(self.command, timeout)
        out, err = (
            file.read_text(encoding="utf-8", errors="replace") if file.exists() else "" for file in (self.out, self.err)
        )
        return subprocess.CompletedProcess(self.command, self.process.exitcode, out, err)


@contextlib.contextmanager
def running_module(
    module: str,
    *arguments,
    cwd: Path = ROOT,
    env: dict[str, str] | None = None,
    prepare: Callable[[], None] | None = None,
) -> Iterator[Running]:
    """Yield `python -m module` at work, and kill it if it works on in the end; for the arguments see `run_module`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    arguments = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("out", "err")]
        env = dict(os.environ) if env is None else env
        process = context.Process(target=_run, args=(module, arguments, cwd, env, prepare, *files))
        process.start()
        try:
            yield Running([module, *arguments], process, *files)
        finally:
            process.kill()
            process.join()


def _run(
    module: str,
    arguments: list[str],
    cwd: Path,
    env: dict[str, str],
    prepare: Callable[[], None] | None,
    out: Path,
    err: Path,
) -> None:
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    # Commands that compute on a CPU start anew unless this is set, and would start the server of forks.
    os.environ.setdefault(VARIABLE, "")
    sys.path.insert(0, str(cwd))
    sys.argv = [module, *arguments]
    if prepare:
        prepare()
    runpy.run_module(module, run_name="__main__", alter_sys=True)
