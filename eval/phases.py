"""Times the phases of a benchmark."""

import contextlib
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from rich.table import Table


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
        """All of it, for JSON."""
        phases = []
        for phase in self.phases:
            entry = {"name": phase.name, "seconds": round(phase.seconds, 3), "peak_bytes": phase.peak_bytes}
            if phase.items:
                entry |= {"items": phase.items, "unit": phase.unit, "per_second": round(phase.items / phase.seconds, 1)}
            phases.append(entry)
        return {"facts": self.facts, "phases": phases}

    @staticmethod
    def table(report: Mapping) -> Table:
        """A report for the terminal."""
        facts = ", ".join(
            f"{name} {value:,}" if isinstance(value, int) else value for name, value in report["facts"].items()
        )
        table = Table(title=f"{report['benchmark']}: {facts}", title_justify="left", title_style="bold")
        for position, header in enumerate(("phase", "seconds", "rate", "peak memory")):
            table.add_column(header, justify="right" if position else "left")
        for phase in report["phases"]:
            rate = f"{phase['per_second']:,.0f} {phase['unit']}/s" if "items" in phase else ""
            table.add_row(phase["name"], f"{phase['seconds']:.1f}", rate, f"{phase['peak_bytes'] / 2**30:.2f} GiB")
        return table


def peak_memory() -> int:
    """Most memory that this process has held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
