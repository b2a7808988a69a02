"""Run as one of several processes, none of which waits for one that has failed or was killed.

JAX lets the processes of a run wait for one another when they end. Whoever ends by a failure, while the others wait for
it in an exchange of arrays, would wait for minutes. So it waits for `GRACE` seconds, in which processes that have
failed alike leave together, and ends then. Its connections close, at which the others fail in turn: those of Gloo at
once, and where the exchange notices nothing, as on GPUs, after the `HEARTBEAT` seconds from which on JAX takes a
process for dead.
"""

import atexit
import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from medtok_jax.devices.interruption import Interrupted
from preprocessing.common.command_line import Terminated
from preprocessing.common.errors import UserError

# Seconds.
GRACE, HEARTBEAT = 10, 100
# Errors of Gloo, NCCL and the coordination service about a process that is gone: a status of XLA, and such a word. They
# are of type `JaxRuntimeError`, or of `ValueError` where a result is fetched.
_LOST = re.compile(r"[A-Z_]+: .*(?i:gloo|nccl|connection|socket|peer|heartbeat|coordination|barrier)", re.DOTALL)


class LostProcess(UserError):
    """Another process of the run has ended, or cannot be reached."""


@contextlib.contextmanager
def joined(coordinator: str | None, num_processes: int | None, process_id: int | None) -> Iterator[None]:
    """Join the other processes of a run, and see to it that this one ends soon if the body fails.

    Args:
        coordinator: `host:port` of process 0; None where JAX detects it, as it does the others.
        num_processes: number of processes.
        process_id: index of this process.

    Raises:
        LostProcess: in place of the error of an exchange with a process that is gone.
    """
    # Its handler would swallow SIGTERM, for which this project has one that saves and stops.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(coordinator, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT)
    try:
        yield
        # Nothing is left that could be stopped: whoever asks for it now would break off how the processes part.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        jax.distributed.shutdown()
    except Interrupted:
        # All processes have agreed to stop, and leave together.
        raise
    except BaseException as error:
        told = error
        if isinstance(error, RuntimeError | ValueError) and _LOST.match(str(error)):
            told = LostProcess(
                f"another process of this run has ended, or cannot be reached ({_reason(error)}); run the same command"
                " again in all processes to go on from the last checkpoint."
            )
        _leave_soon(_status_of(told))
        if told is error:
            raise
        raise told from error


def wait_for_others(what: str) -> None:
    """Wait until all processes of the run are here; `what` names the place and is the same in all of them.

    Raises:
        RuntimeError: another process is gone; `joined` tells it as a `LostProcess`.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


@contextlib.contextmanager
def first_goes_ahead(what: str) -> Iterator[None]:
    """Run the body in the first process and then in the others, which find on disk what the first one has made.

    Raises:
        RuntimeError: another process is gone; `joined` tells it as a `LostProcess`.
    """
    if jax.process_index() > 0:
        wait_for_others(what)
    yield
    if jax.process_index() == 0:
        wait_for_others(what)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _status_of(error: BaseException) -> int:
    """Return the exit status with which a command line ends at an error."""
    if isinstance(error, UserError):
        return error.exit_status
    if isinstance(error, KeyboardInterrupt):
        return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    return 1


def _leave_soon(status: int) -> None:
    """Leave the other processes if they leave within the grace, and otherwise let this process end without them."""
    thread = threading.Thread(target=_shut_down, daemon=True)
    thread.start()
    thread.join(GRACE)
    # What is registered last runs first: JAX, which would wait for the others once more, has no turn.
    atexit.register(_end, status)


def _shut_down() -> None:
    # That another one is gone is known already.
    with contextlib.suppress(RuntimeError):
        jax.distributed.shutdown()


def _end(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
