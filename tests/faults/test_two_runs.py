"""Stop one of the two processes of a training: the other one ends too, and both go on from the last checkpoint.

That a second run in one work directory is refused is shown in tests/medtok_jax/devices/test_run_lock.py.
"""

import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from medtok_jax.devices.processes import GRACE, HEARTBEAT
from medtok_jax.training import reporting
from tests.helpers.stopped_runs import CONFIG, PAUSE, differences, kinds_of, result_of
from tests.helpers.two_processes import ends, two_processes

pytestmark = [pytest.mark.integration, pytest.mark.thorough]
# Seconds after which whoever still waits hangs: those that JAX and this project take, and much for the machine.
LIMIT = HEARTBEAT + 2 * GRACE + 300
# What appears in the work directory before the first step, in the loop, and behind it.
MOMENTS = ("work/parameters.txt", "work/checkpoints/last/", "work/.partial-#-tokenizer")


def train_by_two(root: Path, workdir: Path, stop: tuple[int, int, str] | None = None) -> list[tuple[int, str]]:
    """Train in two processes, and return how they end.

    Args:
        root: of the data, see `tiny_run`.
        workdir: to start or go on in.
        stop: which of them to stop, the signal, and with what begins the kind of file at whose appearance it is sent.
    """
    command = [sys.executable, "-m", "medtok_jax.main", f"--config={CONFIG}:{root}", f"--workdir={workdir}"]
    with two_processes([*command, "--config.train.num_devices=0"]) as running:
        if stop:
            number, sent, begin = stop
            while not any(kind.startswith(begin) for kind in kinds_of(workdir)) and running[number].poll() is None:
                time.sleep(PAUSE)
            running[number].send_signal(sent)
        return ends(running, LIMIT)


@pytest.fixture(scope="module")
def whole(ended_run, tmp_path_factory) -> dict[str, object]:
    """Return what two processes leave that nobody stopped."""
    workdir = tmp_path_factory.mktemp("by_two") / "work"
    for status, told in train_by_two(ended_run, workdir):
        assert status == 0, told
    return result_of(workdir)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_none_waits_for_the_other_and_both_go_on(ended_run, whole, tmp_path, number, sent, tell):
    wrong = []
    for begin in MOMENTS:
        workdir = tmp_path / "work"
        stopped = train_by_two(ended_run, workdir, (number, sent, begin))
        statuses = [status for status, _ in stopped]
        # Whoever ends with 0 says that the run has finished.
        if 0 in statuses and not (workdir / reporting.SUMMARY).is_file():
            wrong.append(f"{begin}: {statuses}")
        if -signal.SIGABRT in statuses[:1]:
            wrong.append(f"{begin}: the first process was aborted")
        for status, told in train_by_two(ended_run, workdir):
            assert status == 0, told
        if found := differences(result_of(workdir), whole):
            wrong.append(f"{begin}: {found}")
        shutil.rmtree(workdir)
    tell(f"{sent.name} at one of two processes", tried=len(MOMENTS), held=len(MOMENTS) - min(len(wrong), len(MOMENTS)))
    assert wrong == []
