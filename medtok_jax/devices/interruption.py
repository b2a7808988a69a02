"""Ctrl-C and SIGTERM: the loop is asked to stop, saves, and ends with the status shells expect."""

import signal

import jax
import numpy as np
from jax.experimental import multihost_utils


class Interruption:
    """Within the `with` block, the first Ctrl-C or SIGTERM is noted instead of acted on; a second one acts.

    Attributes:
        signal: number of the signal that came, 0 for none.
    """

    def __init__(self):
        self.signal = 0

    def __enter__(self) -> "Interruption":
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number

    def asked(self, step: int, every: int) -> bool:
        """Whether to stop at this step; all processes give the same answer, asking one another every `every` steps."""
        if jax.process_count() == 1:
            return bool(self.signal)
        if step % every:
            return False
        self.signal = int(np.max(multihost_utils.process_allgather(np.int32(self.signal))))
        return bool(self.signal)


class Interrupted(SystemExit):
    """A run that was asked to stop and has saved; ends the process with 128 + the signal's number."""

    def __init__(self, number: int, step: int):
        super().__init__(128 + number)
        self.step = step
