"""Show how far a work is: by a bar in a terminal or a notebook, by whole lines in a log.

A log gets a line of each bar at most every 30 seconds, and none of work that is done sooner. Nothing else in the
project draws bars, and the libraries that draw their own into a log are told not to.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

from tqdm.asyncio import tqdm as terminal_tqdm
from tqdm.auto import tqdm

from preprocessing.common.errors import one_line

# Seconds between two lines of a bar in a log.
INTERVAL = 30.0
# Turns off the bars of huggingface_hub and, through it, of transformers.
_HUB = "HF_HUB_DISABLE_PROGRESS_BARS"

Item = TypeVar("Item")


class Bar(Generic[Item]):
    """Count the steps of a work and show the count; it is iterated, or advanced by `update` inside `with`.

    Args:
        items: what `for item in bar` yields; None for a bar that only `update` advances.
        desc: what is being done.
        total: number of steps, by default the number of items; None where it is not known.
        show: whether to show anything at all.
        initial: steps that an earlier run did.
        unit: of a step, with a space in front where it is a word.
        unit_scale: whether to abbreviate large numbers (12.3k).
        unit_divisor: what an abbreviation counts by.
        leave: whether the finished bar stays in a terminal.
        bar_format: format of tqdm, for a terminal.
        clock: returns seconds.

    Attributes:
        n: steps done.
        total: number of steps, or None.
    """

    def __init__(
        self,
        items: Iterable[Item] | None = None,
        desc: str = "",
        total: float | None = None,
        *,
        show: bool,
        initial: float = 0,
        unit: str = "it",
        unit_scale: bool = False,
        unit_divisor: int = 1000,
        leave: bool = True,
        bar_format: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        if total is None and isinstance(items, Sized):
            total = len(items)
        self.n, self.total = initial, total
        self._items: Iterable[Item] = () if items is None else items
        self._desc, self._postfix, self._initial = desc, "", initial
        self._units = {"unit": unit, "unit_scale": unit_scale, "unit_divisor": unit_divisor}
        self._clock = clock
        self._start = self._last = clock()
        # What the newest line showed.
        self._shown = initial
        self._logs = show and not draws()
        self._drawn: tqdm | None = None
        if show and not self._logs:
            self._drawn = tqdm(
                desc=desc, total=total, initial=initial, leave=leave, bar_format=bar_format, **self._units
            )

    def __iter__(self) -> Iterator[Item]:
        with self:
            for item in self._items:
                yield item
                self.update()

    def __enter__(self) -> "Bar[Item]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, steps: float = 1) -> None:
        """Count further steps."""
        self.n += steps
        if self._drawn is not None:
            self._drawn.update(steps)
        elif self._logs and self._clock() - self._last >= INTERVAL:
            self._write()

    def set_description(self, desc: str) -> None:
        """Say what is being done now."""
        self._desc = desc
        if self._drawn is not None:
            self._drawn.set_description(desc)

    def set_postfix_str(self, postfix: str) -> None:
        """Show a text, such as the newest loss, behind the numbers."""
        self._postfix = postfix
        if self._drawn is not None:
            self._drawn.set_postfix_str(postfix)

    def reset(self, total: float) -> None:
        """Begin anew with another number of steps."""
        self.n, self.total, self._initial, self._shown = 0, total, 0, 0
        self._start = self._last = self._clock()
        if self._drawn is not None:
            self._drawn.reset(total=total)

    def close(self) -> None:
        """End the bar; a log gets the last line of a work that took long."""
        if self._drawn is not None:
            self._drawn.close()
        elif self._logs and self.n != self._shown and self._clock() - self._start >= INTERVAL:
            self._write()
        self._logs = False

    def _write(self) -> None:
        now = self._clock()
        line = tqdm.format_meter(
            *(self.n, self.total, now - self._start),
            ncols=0,  # No bar, only numbers.
            prefix=self._desc,
            postfix=self._postfix,
            initial=self._initial,
            **self._units,
        )
        print(one_line(line), file=sys.stderr, flush=True)
        self._last, self._shown = now, self.n


def aside() -> AbstractContextManager[None]:
    """Return a context in which something else may be printed: bars in a terminal make room for it."""
    return tqdm.external_write_mode()


def quiet_libraries() -> None:
    """Tell libraries that draw bars of their own not to draw them into a log.

    It works for those imported already and for those imported later. A user who sets the variable of a library decides
    alone. TFDS is told by `quiet_tfds`, wget by its command line.
    """
    if draws() or _HUB in os.environ:
        return
    os.environ[_HUB] = "1"
    if "huggingface_hub" in sys.modules:
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
    if "transformers" in sys.modules:
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()


def draws() -> bool:
    """Return whether a bar can be drawn again and again in its place."""
    # In a notebook, `tqdm.auto` makes a widget; stderr is no terminal there.
    return tqdm is not terminal_tqdm or sys.stderr.isatty()
