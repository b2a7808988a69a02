"""Measure the memory of devices and of compiled functions, and free what many of these hold."""

import dataclasses
import os
from pathlib import Path

import jax


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Count the bytes that a compiled function needs on one device, as XLA planned it.

    Attributes:
        arguments: state, batch and tables.
        outputs: results that take no argument's place.
        scratch: memory that is held only while it runs.
        code: the program.
    """

    arguments: int
    outputs: int
    scratch: int
    code: int

    @classmethod
    def of(cls, compiled: jax.stages.Compiled) -> "StepMemory | None":
        """Return the memory of a compiled function; None where the backend does not report it."""
        stats = compiled.memory_analysis()
        if stats is None:
            return None
        return cls(
            arguments=stats.argument_size_in_bytes,
            outputs=stats.output_size_in_bytes - stats.alias_size_in_bytes,
            scratch=stats.temp_size_in_bytes,
            code=stats.generated_code_size_in_bytes,
        )

    @property
    def total(self) -> int:
        """Return the sum of all."""
        return self.arguments + self.outputs + self.scratch + self.code


def device_memory(device: jax.Device) -> int | None:
    """Return the bytes that a device has for arrays: the host's for a CPU, None where it is not known."""
    if device.platform == "cpu":
        names = ("SC_PAGE_SIZE", "SC_PHYS_PAGES")
        return os.sysconf(names[0]) * os.sysconf(names[1]) if set(names) <= os.sysconf_names.keys() else None
    return (device.memory_stats() or {}).get("bytes_limit")


# Each program that XLA compiles for a CPU holds some memory maps, of which Linux gives a process 65,530.
MOST_MAPS = 20_000


def free_programs(most_maps: int = MOST_MAPS) -> bool:
    """Forget all compiled functions if this process holds many memory maps, and return whether it did.

    Where the maps cannot be counted, as on other systems than Linux, nothing is forgotten.
    """
    try:
        held = Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return False
    if held <= most_maps:
        return False
    jax.clear_caches()
    return True
