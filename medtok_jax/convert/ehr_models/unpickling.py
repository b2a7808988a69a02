"""Read pickles that a target format demands, calling and importing only the names that the caller allows.

A pickle is a program. When this module reads it, it may build lists, tuples, sets, dicts, text, bytes and numbers.
Every class or function that it names must be in an allow list of the caller, which may substitute a harmless object.
"""

import io
import pickle  # nosec B403 # Names that are not allowed are refused.
import pickletools  # nosec B403 # It reads opcodes and runs none.
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NoReturn

from preprocessing.common.errors import InputError

# A pickle of lists, tuples, dicts, text and numbers needs no names.
NOTHING: Mapping[str, object] = {}
# Instructions that give an object the number by which later ones refer to it, and the one that takes the next number.
_NUMBERING = {"PUT", "BINPUT", "LONG_BINPUT"}
_NEXT_NUMBER = "MEMOIZE"


class RefusedError(pickle.UnpicklingError):
    """Report, in words that a user may read, what a pickle asks for and must not have."""


class AllowListUnpickler(pickle.Unpickler):
    """Unpickle one object.

    Args:
        file: binary file.
        allowed: `module.name` of each class or function that the pickle may name -> the object that it gets.
    """

    def __init__(self, file: BinaryIO, allowed: Mapping[str, object] = NOTHING):
        super().__init__(file)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> object:
        try:
            return self._allowed[f"{module}.{name}"]
        except KeyError:
            raise RefusedError(f"it names {module}.{name}, which is not part of this format") from None

    def persistent_load(self, pid: object) -> NoReturn:
        raise RefusedError("it refers to an object outside of the file")


def load(path: Path, allowed: Mapping[str, object] = NOTHING) -> object:
    """Return the only object in a pickle file.

    Args:
        path: the file.
        allowed: `module.name` of each class or function that the pickle may name -> the object that it gets, usually
            the same class or function.

    Raises:
        InputError: the file is not a pickle, holds more or less than one object, or names something else.
    """
    objects = list(load_each(path, allowed))
    if len(objects) != 1:
        raise InputError(f"{path} holds {len(objects)} pickled objects where one is expected; write it again.")
    return objects[0]


def load_each(path: Path, allowed: Mapping[str, object] = NOTHING) -> Iterator[object]:
    """Yield the objects of a file of pickles, one after another; see `load` for args and errors."""
    try:
        with open(path, "rb") as file:
            while file.peek(1):
                yield AllowListUnpickler(io.BytesIO(_next_pickle(file)), allowed).load()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    # Damaged bytes may raise any of these: the documentation of `pickle` lists some, "but not necessarily limited to".
    except (
        *(pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, TypeError, ValueError),
        *(MemoryError, OverflowError, RecursionError, RuntimeError, struct.error),
    ) as error:
        # Other errors may quote what the pickle holds.
        reason = str(error) if isinstance(error, RefusedError) else type(error).__name__
        raise InputError(f"{path} cannot be unpickled ({reason}); write it again.") from None


def _next_pickle(file: BinaryIO) -> bytes:
    """Return the bytes of the pickle that begins here, after a look at the numbers that it gives to objects.

    The unpickler reserves memory up to the largest number: 64 GB for one of seven bytes. Picklers leave no gap.
    """
    begin, numbered = file.tell(), 0
    for instruction, argument, _ in pickletools.genops(file):
        if instruction.name in _NUMBERING and argument is not None and argument > numbered:
            raise RefusedError(f"it gives an object the number {argument:,} after {numbered:,} others")
        numbered += instruction.name in _NUMBERING or instruction.name == _NEXT_NUMBER
    end = file.tell()
    file.seek(begin)
    return file.read(end - begin)
