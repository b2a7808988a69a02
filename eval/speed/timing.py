"""Time functions and phases, and measure memory, files and the rate of matmuls."""

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
    """Hold the repeated timings of one function.

    Attributes:
        name: name of the row.
        seconds: seconds of each repetition, without the warm-up.
        items: number of items processed in one repetition, 0 for none.
        unit: plural noun for the items, such as `codes`.
        more: other figures by name: `flops` of one repetition, `peak_bytes`, `compile_seconds`, `compile_count`.
    """

    name: str
    seconds: tuple[float, ...]
    items: int
    unit: str = "codes"
    more: dict = dataclasses.field(default_factory=dict)

    def report(self, matmul_flops: float | None = None) -> dict:
        """Return the row of a report in values for JSON.

        Args:
            matmul_flops: floating-point operations per second of a matmul on the same device, to compare with.
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
    """Return the seconds of each of several calls, after a warm-up.

    Args:
        function: function that returns when its work is done.
        repeats: number of calls that are timed.
        warm_up: number of calls before, which are not timed.
    """
    seconds = []
    for number in range(warm_up + repeats):
        start = time.perf_counter()
        function()
        if number >= warm_up:
            seconds.append(time.perf_counter() - start)
    return tuple(seconds)


class Phase(NamedTuple):
    """Hold the time and memory of one phase.

    Attributes:
        name: name of the phase.
        seconds: wall-clock time.
        items: number of items processed, 0 where there is nothing to count.
        unit: plural noun for the items.
        peak_bytes: peak memory of the process until the end of the phase.
    """

    name: str
    seconds: float
    items: int
    unit: str
    peak_bytes: int


class Phases:
    """Collect phases, and facts about the measurement."""

    def __init__(self, **facts: int | str):
        self.facts = facts
        self.phases: list[Phase] = []

    @contextlib.contextmanager
    def phase(self, name: str, items: int = 0, unit: str = "") -> Iterator[None]:
        """Time the body of a `with` statement as a phase."""
        start = time.perf_counter()
        yield
        self.phases.append(Phase(name, time.perf_counter() - start, items, unit, peak_memory()))

    def report(self) -> dict:
        """Return the facts and a row for each phase, for `eval.speed.report`."""
        rows = []
        for phase in self.phases:
            timing = Timing(phase.name, (phase.seconds,), phase.items, phase.unit, {"peak_bytes": phase.peak_bytes})
            rows.append(timing.report())
        return {"facts": self.facts, "rows": rows}


def folder_size(folder: Path) -> int:
    """Return the size of all files under a folder in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def peak_memory() -> int:
    """Return the peak memory of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# These widths reach the highest rate in a fraction of a second.
WIDTHS = {"cpu": 2048, "gpu": 8192, "tpu": 8192}


def jax_flops(dtype=jnp.float32, *, repeats: int = 7) -> float:
    """Return the highest rate of a product of square matrices in JAX, in floating-point operations per second."""
    device = jax.devices()[0]
    width = WIDTHS.get(device.platform, 4096)
    a, b = (jax.random.normal(jax.random.key(seed), (width, width), dtype) for seed in (0, 1))
    product = jax.jit(jnp.matmul)
    return 2.0 * width**3 / min(repeat(lambda: jax.block_until_ready(product(a, b)), repeats))


def torch_flops(device, dtype=None, *, repeats: int = 7) -> float:
    """Return the highest rate of a product of square matrices in PyTorch, in floating-point operations per second."""
    import torch

    width = WIDTHS["gpu" if device.type == "cuda" else "cpu"]
    a, b = (torch.randn(width, width, device=device, dtype=dtype) for _ in range(2))

    def product() -> None:
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()

    return 2.0 * width**3 / min(repeat(product, repeats))
