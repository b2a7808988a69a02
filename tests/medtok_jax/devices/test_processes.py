"""No process of a run waits for one that has failed or was killed."""

import signal
import sys

import pytest

from tests.helpers.two_processes import ends, two_processes
from tests.helpers.waiting_pair import ALIKE, ALONE

pytestmark = pytest.mark.integration
LOST = "error: another process of this run has ended, or cannot be reached ("
REFUSED = "error: this cannot be used."


def outcome(fault: str, actor: int) -> list[tuple[int, str]]:
    """Return exit status and output of two processes, of which `actor` fails while the other waits for it."""
    command = [sys.executable, "-m", "tests.helpers.waiting_pair", f"--fault={fault}", f"--actor={actor}"]
    with two_processes(command) as running:
        return ends(running)


def test_sigterm_at_one_of_two_stops_both():
    (waiting, told), (stopped, _) = outcome("SIGTERM", 1)
    assert (waiting, stopped) == (1, 128 + signal.SIGTERM)
    assert told.splitlines()[-1].startswith(LOST)
    assert "run the same command again in all processes" in told.splitlines()[-1]


@pytest.mark.thorough
@pytest.mark.parametrize(("fault", "status"), [(ALONE, 2), ("SIGKILL", -signal.SIGKILL)])
def test_the_first_process_does_not_wait_for_the_second(fault, status):
    (waiting, told), (failed, _) = outcome(fault, 1)
    assert (waiting, failed) == (1, status)
    assert told.splitlines()[-1].startswith(LOST)


@pytest.mark.thorough
@pytest.mark.parametrize(("fault", "status"), [(ALONE, 2), ("SIGTERM", 143), ("SIGKILL", -signal.SIGKILL)])
def test_the_second_process_does_not_wait_for_the_first(fault, status):
    """The first one is the server of all: JAX may end the second one at once."""
    (failed, _), (waiting, _) = outcome(fault, 0)
    assert failed == status
    assert waiting in (1, -signal.SIGABRT)


@pytest.mark.thorough
def test_processes_that_fail_alike_end_as_each_would_alone():
    for status, told in outcome(ALIKE, 0):
        assert status == 2
        assert told.splitlines()[-1] == REFUSED
