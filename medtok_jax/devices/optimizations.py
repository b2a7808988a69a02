"""Choose how much XLA optimizes the functions that it compiles."""

import contextlib
from collections.abc import Iterator

import jax

_FLAG = "jax_disable_most_optimizations"


@contextlib.contextmanager
def few_optimizations() -> Iterator[None]:
    """Let XLA optimize little in this context, for functions that take longer to compile than they run.

    Functions that were compiled before are used as they are, and those that are compiled here stay so afterwards.
    """
    before = jax.config.read(_FLAG)
    jax.config.update(_FLAG, True)
    try:
        yield
    finally:
        jax.config.update(_FLAG, before)
