"""Measures in a process of its own: what one framework holds and starts does not weigh on the other's figures."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from preprocessing.common.errors import UserError


def in_child(function: Callable, *arguments, **environment: str):
    """What a module-level function returns in a fresh process of the same group, with further environment variables.

    Raises:
        UserError: the process died, as where memory ran out.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_set, initargs=(environment,)) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise UserError(f"the process that measured {function.__module__} died; was memory short?") from error


def _set(environment: dict[str, str]) -> None:
    os.environ.update(environment)
