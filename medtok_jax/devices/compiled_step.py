"""Compile a function ahead of its calls, once a batch shape, so that time and memory can be reported."""

import functools
import time
from collections.abc import Callable

import jax

from medtok_jax.devices.memory import StepMemory

# XLA's library of fused loops for CPUs takes 30 times as long as XLA's own loops to sum a short leading axis, such as
# that of the two views. Its matmuls stay.
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT"}


@functools.cache
def compiler_options(backend: str) -> dict[str, str]:
    """Return compiler options for a backend: empty where it needs none, or where this jax does not know them."""
    if backend != "cpu":
        return {}
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options=CPU_OPTIONS)
    except jax.errors.JaxRuntimeError:
        return {}
    return CPU_OPTIONS


class CompiledStep:
    """Wrap `jax.jit` and keep its executables.

    Args:
        function: a pure function.
        batch_position: of the one argument whose shapes change from call to call.
        options: of `jax.jit`.

    Attributes:
        executables: by batch shape, in the order in which they were needed.
        compile_seconds: time that each took.
    """

    def __init__(self, function: Callable, *, batch_position: int, **options):
        self._jitted, self._batch_position = jax.jit(function, **options), batch_position
        self.executables: dict[tuple, jax.stages.Compiled] = {}
        self.compile_seconds: list[float] = []

    def _key(self, arguments: tuple) -> tuple:
        leaves, structure = jax.tree.flatten(arguments[self._batch_position])
        return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)

    def lower(self, *arguments) -> jax.stages.Lowered:
        """Lower as `jax.jit` does; arguments may be `jax.ShapeDtypeStruct`s."""
        return self._jitted.lower(*arguments)

    def compile(self, *arguments) -> bool:
        """Compile for the batch shape of these arguments; return False where that had been done before."""
        key = self._key(arguments)
        if key in self.executables:
            return False
        start = time.perf_counter()
        options = compiler_options(jax.default_backend())
        self.executables[key] = self._jitted.lower(*arguments).compile(compiler_options=options)
        self.compile_seconds.append(time.perf_counter() - start)
        return True

    @property
    def memory(self) -> StepMemory | None:
        """Return the memory of the executable that needs most, None where no backend reports it."""
        known = [memory for memory in map(StepMemory.of, self.executables.values()) if memory]
        return max(known, key=lambda memory: memory.total, default=None)

    def executable(self, *arguments) -> jax.stages.Compiled:
        """Return the executable for the batch shape of these arguments, which must be compiled."""
        return self.executables[self._key(arguments)]

    def __call__(self, *arguments):
        self.compile(*arguments)
        return self.executable(*arguments)(*arguments)
