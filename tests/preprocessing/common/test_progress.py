"""A log gets whole lines at an interval, a terminal a bar, and libraries draw nothing into a log."""

import io
import os
import re
import subprocess
import sys

import pytest

from preprocessing.common import progress
from preprocessing.common.progress import INTERVAL, Bar


class Terminal(io.StringIO):
    """Text that a terminal receives."""

    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(capsys):
    """Return what stderr, which is no terminal, received since the last call, as lines."""

    def read() -> list[str]:
        text = capsys.readouterr().err
        assert "\r" not in text
        assert not text or text.endswith("\n")
        return text.splitlines()

    return read


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Let stderr be a terminal for the rest of the test; pytest would undo it behind a fixture."""
    opened = Terminal()
    monkeypatch.setattr(sys, "stderr", opened)
    return opened


def test_a_log_gets_a_line_at_the_interval(clock, log):
    with Bar(total=1000, desc="Training", unit=" codes", show=True, clock=clock) as bar:
        for _ in range(95):
            clock.seconds += 1
            bar.update(10)
    shown = [re.match(r"Training: +\d+% (\d+)/1000 \[(\d\d:\d\d)<\d\d:\d\d, 10\.00 codes/s\]$", line) for line in log()]
    assert [match.groups() for match in shown] == [
        *(("300", "00:30"), ("600", "01:00"), ("900", "01:30")),
        ("950", "01:35"),  # The last one, where the work ended.
    ]


def test_quick_work_leaves_no_line(clock, log):
    for _ in range(100):
        for _ in Bar(range(29), "Validating", show=True, clock=clock):
            clock.seconds += 1
    assert log() == []


def test_items_pass_and_are_counted(clock, log):
    bar = Bar("abc", "Reading", show=True, clock=clock)
    passed = []
    for item in bar:
        passed.append((item, bar.n))
        clock.seconds += INTERVAL
    assert passed == [("a", 0), ("b", 1), ("c", 2)]
    assert [line.split(" [")[0] for line in log()] == ["Reading:  33% 1/3", "Reading:  67% 2/3", "Reading: 100% 3/3"]


def test_the_line_of_an_interrupted_work(clock, log):
    def run() -> None:
        with Bar(total=9, show=True, clock=clock) as bar:
            clock.seconds = INTERVAL - 1
            bar.update(4)
            clock.seconds = INTERVAL
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert [line.split(" [")[0] for line in log()] == [" 44% 4/9"]


def test_a_line_names_what_is_done_and_the_newest_figures(clock, log):
    with Bar(desc="Reading", show=True, clock=clock) as bar:
        clock.seconds = INTERVAL
        bar.update(7)
        bar.reset(total=20)
        bar.set_description("Writing\r\nagain")
        bar.set_postfix_str("loss 0.5")
        clock.seconds += INTERVAL
        bar.update(5)
    assert log() == ["Reading: 7it [00:30,  4.29s/it]", "Writing again:  25% 5/20 [00:30<01:30,  6.00s/it, loss 0.5]"]


def test_a_work_that_goes_on_counts_its_own_speed(clock, log):
    with Bar(total=100, initial=40, show=True, clock=clock) as bar:
        clock.seconds = INTERVAL
        bar.update(30)
    assert log() == [" 70% 70/100 [00:30<00:30,  1.00it/s]"]


def test_a_hidden_bar_counts_in_silence(clock, log):
    with Bar(total=10, show=False, clock=clock) as bar:
        clock.seconds = 10 * INTERVAL
        bar.update(3)
    assert (bar.n, bar.total) == (3, 10)
    assert list(Bar(iter("ab"), show=False, clock=clock)) == ["a", "b"]
    assert log() == []


def test_a_terminal_gets_a_bar(monkeypatch):
    terminal = open_terminal(monkeypatch)
    for _ in Bar(range(3), "Reading", show=True):
        pass
    drawn = terminal.getvalue().split("\r")
    assert drawn[1].startswith("Reading:   0%|")
    assert drawn[-1].startswith("Reading: 100%|")
    assert "3/3" in drawn[-1]


def test_a_terminal_follows_a_bar_that_begins_anew(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with Bar(desc="Reading", show=True) as bar:
        bar.update(5)
        bar.reset(total=4)
        bar.set_description("Writing")
        bar.set_postfix_str("E11.9")
        bar.update(4)
    assert (bar.n, bar.total) == (4, 4)
    last = terminal.getvalue().split("\r")[-1]
    assert "Writing: 100%|" in last
    assert "4/4" in last
    assert "E11.9" in last


@pytest.mark.integration
def test_libraries_are_quiet_in_a_log():
    """In a process of its own: before these libraries are imported, and after it."""
    script = """
import sys
from preprocessing.common.progress import quiet_libraries
if sys.argv[1] == "before":
    quiet_libraries()
from huggingface_hub.utils import are_progress_bars_disabled
from transformers.utils import logging
if sys.argv[1] == "after":
    assert not are_progress_bars_disabled() and logging.is_progress_bar_enabled()
    quiet_libraries()
print(are_progress_bars_disabled(), logging.is_progress_bar_enabled())
"""
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"}
    for moment in ("before", "after"):
        command = [sys.executable, "-c", script, moment]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert ended.stdout == "True False\n"
        assert "\r" not in ended.stderr


def test_a_user_who_wants_the_bars_of_libraries_gets_them(monkeypatch):
    open_terminal(monkeypatch)
    name = "HF_HUB_DISABLE_PROGRESS_BARS"
    monkeypatch.delenv(name, raising=False)
    progress.quiet_libraries()
    assert name not in os.environ  # This is a terminal.
    monkeypatch.setenv(name, "0")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    progress.quiet_libraries()
    assert os.environ[name] == "0"
