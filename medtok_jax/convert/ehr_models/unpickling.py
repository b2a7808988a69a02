"""Reading pickles that a target format demands: nothing in them is called or imported but what the reader lists.

A pickle is a program. Read by this module it may build lists, tuples, sets, dicts, text, bytes and numbers; every class
or function that it asks for by name must be in a list that the caller gives, which may put something harmless in its
place.
"""

import pickle
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NoReturn

from preprocessing.common.errors import InputError

# What a pickle of lists, tuples, dicts, text and numbers asks for.
NOTHING: Mapping[str, object] = {}


class _ForbiddenError(pickle.UnpicklingError):
    """The pickle asks for something that is not on the list."""


class AllowListUnpickler(pickle.Unpickler):
    """Unpickles one object.

    Args:
        file: binary file.
        allowed: what the pickle may ask for, by `module.name`, and what it is given.
    """

    def __init__(self, file: BinaryIO, allowed: Mapping[str, object] = NOTHING):
        super().__init__(file)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> object:
        try:
            return self._allowed[f"{module}.{name}"]
        except KeyError:
            raise _ForbiddenError(f"it asks for {module}.{name}, which is not part of this format") from None

    def persistent_load(self, pid: object) -> NoReturn:
        raise _ForbiddenError("it refers to an object outside of itself")


def load(path: Path, allowed: Mapping[str, object] = NOTHING) -> object:
    """The only object in a pickle file.

    Args:
        path: the file.
        allowed: what the pickle may ask for, by `module.name`, and what it is given: usually the thing itself.

    Raises:
        InputError: it is no pickle, holds more or less than one object, or asks for something else.
    """
    objects = list(load_each(path, allowed))
    if len(objects) != 1:
        raise InputError(f"{path} holds {len(objects)} pickled objects where one belongs; write it again.")
    return objects[0]


def load_each(path: Path, allowed: Mapping[str, object] = NOTHING) -> Iterator[object]:
    """The objects of a file of pickles, one after another. Args and errors as `load`."""
    try:
        with open(path, "rb") as file:
            while file.peek(1):
                yield AllowListUnpickler(file, allowed).load()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    # What damaged bytes raise, as the module's documentation has it: "but not necessarily limited to".
    except (
        *(pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, TypeError, ValueError),
        *(MemoryError, OverflowError, RecursionError, RuntimeError, struct.error),
    ) as error:
        raise InputError(f"{path} cannot be unpickled ({error or type(error).__name__}).") from error
