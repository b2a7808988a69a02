"""Times the phases of a benchmark."""

import contextlib
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from eval.timing import Timing


class Phase(NamedTuple):
    """One phase.

    Attributes:
        seconds: wall-clock time. items: things done in it, 0 where there is nothing to count. unit: what they are.
        peak_bytes: most memory that the process has held so far, at the end of the phase.
    """

    name: str
    seconds: float
    items: int
    unit: str
    peak_bytes: int


class Phases:
    """Collects phases, and facts about what was measured."""

    def __init__(self, **facts: int | str):
        self.facts = facts
        self.phases: list[Phase] = []

    @contextlib.contextmanager
    def phase(self, name: str, items: int = 0, unit: str = "") -> Iterator[None]:
        """Times its body."""
        start = time.perf_counter()
        yield
        self.phases.append(Phase(name, time.perf_counter() - start, items, unit, peak_memory()))

    def report(self) -> dict:
        """Facts, and a row for each phase, for `speed_report`."""
        rows = []
        for phase in self.phases:
            timing = Timing(phase.name, (phase.seconds,), phase.items, phase.unit, {"peak_bytes": phase.peak_bytes})
            rows.append(timing.report())
        return {"facts": self.facts, "rows": rows}


def folder_size(folder: Path) -> int:
    """Bytes of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def peak_memory() -> int:
    """Most memory that this process has held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
