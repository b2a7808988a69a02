"""Start two processes of one run on this machine."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator

from tests.helpers.paths import ROOT


def environment(**given: str) -> dict[str, str]:
    """Return the environment of a process that keeps its compiled programs where all tests keep them."""
    return os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | given


@contextlib.contextmanager
def two_processes(command: list[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Yield both processes of a command that takes the flags of `medtok_jax.main`, and kill in the end who works on."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    command = [*command, "--distributed", f"--coordinator_address={address}", "--num_processes=2"]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    running = [
        subprocess.Popen([*command, f"--process_id={number}"], cwd=ROOT, env=environment(), **output)
        for number in range(2)
    ]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()
            process.stdout.close()


def ends(running: list[subprocess.Popen[str]], limit: float = 300) -> list[tuple[int, str]]:
    """Return exit status and output of each process.

    Raises:
        subprocess.TimeoutExpired: one did not end within `limit` seconds.
    """
    found = []
    for process in running:
        printed, _ = process.communicate(timeout=limit)
        found.append((process.returncode, printed))
    return found
