"""Repeated timings of one thing, and what else was seen of it."""

import dataclasses
import statistics
import time
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Timing:
    """One thing that was timed.

    Attributes:
        name: what it was.
        seconds: of each repetition, the warm-up left out.
        items: things done in one repetition. unit: what they are.
        more: other figures by name: `flops` of one repetition, `peak_bytes`, `compile_seconds`, `compile_count`.
    """

    name: str
    seconds: tuple[float, ...]
    items: int
    unit: str = "codes"
    more: dict = dataclasses.field(default_factory=dict)

    def report(self, matmul_flops: float | None = None) -> dict:
        """All of it, for JSON.

        Args:
            matmul_flops: floating-point operations a second of a matmul on the same device, to compare with.
        """
        median = statistics.median(self.seconds)
        report = {
            "name": self.name,
            "median_seconds": median,
            "least_seconds": min(self.seconds),
            "most_seconds": max(self.seconds),
            "repeats": len(self.seconds),
            "items": self.items,
            "unit": self.unit,
            "per_second": self.items / median,
        }
        if flops := self.more.get("flops"):
            report["flops_per_second"] = flops / median
            if matmul_flops:
                report["share_of_matmul"] = flops / median / matmul_flops
        return report | self.more


def repeat(function: Callable[[], object], repeats: int, *, warm_up: int = 1) -> tuple[float, ...]:
    """Seconds of each of some calls, after calls that do not count. `function` must end when its work is done."""
    seconds = []
    for number in range(warm_up + repeats):
        start = time.perf_counter()
        function()
        if number >= warm_up:
            seconds.append(time.perf_counter() - start)
    return tuple(seconds)
