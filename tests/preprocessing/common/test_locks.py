import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from preprocessing.common import locks
from preprocessing.common.errors import InputError
from tests.helpers.paths import ROOT

HOLD = "import sys, time; from pathlib import Path; from preprocessing.common.locks import exclusive\n"
HOLD += "with exclusive(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


@pytest.fixture
def holder(tmp_path):
    """Return another process that holds the lock on `tmp_path / "run"`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.integration
def test_a_second_process_is_refused_by_host_process_and_start(holder, tmp_path):
    host = re.escape(os.uname().nodename)
    holder_of = rf"run is in use by process {holder.pid} on {host} since 20\d\d-\d\d-\d\dT\S+"
    sentence = rf"{holder_of}; wait until it ends, or choose another output\.$"
    second = locks.exclusive(tmp_path / "run", advice="choose another output")
    with pytest.raises(InputError, match=sentence), second:
        pass
    # Other files and folders are free.
    with locks.exclusive(tmp_path / "run", file="a"), locks.exclusive(tmp_path):
        pass


@pytest.mark.integration
def test_a_killed_holder_is_no_obstacle(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run" / ".lock").is_file()
    with locks.exclusive(tmp_path / "run"):
        assert str(os.getpid()) in (tmp_path / "run" / ".lock").read_text()
    assert not list((tmp_path / "run").iterdir())


def test_who_waits_says_so_once_and_goes_on(tmp_path, capsys):
    order = []

    def second():
        with locks.exclusive(tmp_path / "out", wait=True):
            order.append("second")

    with locks.exclusive(tmp_path / "out"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        order.append("first")
        # A folder that its holder removes does not mislead who waits.
        (tmp_path / "out" / ".lock").rename(tmp_path / "out" / "moved")
        (tmp_path / "out" / "moved").unlink()
    thread.join(10)
    assert order == ["first", "second"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"waiting for process {os.getpid()} on ")
    assert line.endswith(f", which writes into {tmp_path / 'out'}")
    assert not list((tmp_path / "out").iterdir())


def test_one_at_a_time(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(20):
            with locks.exclusive(tmp_path / "out", wait=True):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] * 80


def test_a_lock_that_cannot_be_made():
    lock = locks.exclusive("/dev/null/x")
    with pytest.raises(InputError, match=r"^/dev/null/x cannot be written \(Not a directory\)"), lock:
        pass


def test_file_systems_without_locks(tmp_path, monkeypatch, capsys):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locks.exclusive(tmp_path / "out"):
        pass
    assert capsys.readouterr().err == (
        f"warning: the file system of {tmp_path / 'out'} knows no locks; start no second process.\n"
    )


def test_a_shared_lock_tells_who_is_alone(tmp_path):
    alone = []
    first = locks.shared(tmp_path, lambda: alone.append("first"))
    with first, locks.shared(tmp_path, lambda: alone.append("second")):
        pass
    with locks.shared(tmp_path, lambda: alone.append("third")):
        pass
    assert alone == ["first", "third"]
