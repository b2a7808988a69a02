"""Run measurements in separate processes, so that memory and threads of one do not affect the figures of another."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from preprocessing.common.errors import UserError


def in_child(function: Callable, *arguments, **environment: str):
    """Return the result of a module-level function from a fresh process.

    Args:
        function: function to call.
        arguments: arguments of the function, which can be pickled.
        environment: environment variables to set in the process.

    Raises:
        UserError: the process died, for example because memory ran out.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_set, initargs=(environment,)) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise UserError(
                f"the process that measured {function.__module__} died, perhaps out of memory; lower --num_codes."
            ) from error


def _set(environment: dict[str, str]) -> None:
    os.environ.update(environment)
