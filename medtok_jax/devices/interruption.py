"""Turn Ctrl-C and SIGTERM into a request to the training loop to save, stop and end with the status shells expect."""

import signal

import jax
import numpy as np
from jax.experimental import multihost_utils


class Interruption:
    """Note the first Ctrl-C or SIGTERM within the `with` block instead of acting on it; a second one acts.

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
        """Return whether to stop at this step; all processes agree, asking one another every `every` steps."""
        if jax.process_count() == 1:
            return bool(self.signal)
        if step % every:
            return False
        self.signal = int(np.max(multihost_utils.process_allgather(np.int32(self.signal))))
        return bool(self.signal)


class Interrupted(SystemExit):
    """Raised when a run that was asked to stop has saved; ends the process with 128 + the signal's number."""

    def __init__(self, number: int, step: int):
        super().__init__(128 + number)
        self.step = step
