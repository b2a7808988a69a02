"""Repeated timings of one thing, and what else was seen of it."""

import contextlib
import dataclasses
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp


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


# Wide enough for the best rate, small enough for a fraction of a second.
WIDTHS = {"cpu": 2048, "gpu": 8192, "tpu": 8192}


def jax_flops(dtype=jnp.float32, *, repeats: int = 7) -> float:
    """Most floating-point operations a second of JAX's product of two square matrices."""
    device = jax.devices()[0]
    width = WIDTHS.get(device.platform, 4096)
    a, b = (jax.random.normal(jax.random.key(seed), (width, width), dtype) for seed in (0, 1))
    product = jax.jit(jnp.matmul)
    return 2.0 * width**3 / min(repeat(lambda: jax.block_until_ready(product(a, b)), repeats))


def torch_flops(device, dtype=None, *, repeats: int = 7) -> float:
    """The same of PyTorch."""
    import torch

    width = WIDTHS["gpu" if device.type == "cuda" else "cpu"]
    a, b = (torch.randn(width, width, device=device, dtype=dtype) for _ in range(2))

    def product() -> None:
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()

    return 2.0 * width**3 / min(repeat(product, repeats))
