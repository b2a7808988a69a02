"""Name the tokenizers of a run for its tables, and know which of them are baselines. No JAX here."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from eval.ehr.tokenizers.make import NAMES, base_of, check_name, parts_of
from preprocessing.common.errors import InputError

# Learned on training samples, so that every split has its own.
OF_TRAINING = "cooccurrence"


def judged_of(paths: Sequence[str]) -> str:
    """Return the tokenizer that is judged: the first that is no baseline, else the first that needs no samples."""
    fixed = [path for path in paths if not reads_training(path)] or list(paths)
    return next((path for path in fixed if not is_baseline(path)), fixed[0])


def is_baseline(path: str) -> bool:
    """Return whether a tokenizer is one of `NAMES`, with or without suffixes, or joins two."""
    return is_joined(path) or base_of(path) in NAMES


def is_joined(path: str) -> bool:
    """Return whether a tokenizer sets two side by side."""
    return len(parts_of(path)) > 1


def reads_training(path: str) -> bool:
    """Return whether a tokenizer is learned on training samples."""
    return any(base_of(part) == OF_TRAINING for part in parts_of(path))


def named(given: Iterable[str]) -> dict[str, str]:
    """Return the name in tables of each tokenizer, and what it is made of, from `PATH` or `NAME=PATH`.

    Reports know a baseline by its name, and by a plus those that are joined. So baselines keep their names.

    Raises:
        InputError: a tokenizer is unknown, two have one name, or one has the name of another.
    """
    found: dict[str, str] = {}
    for text in given:
        name, path = titled(text)
        check_name(path)
        if name in found:
            raise InputError(f"--tokenizers: {found[name]} and {path} are both called {name}; write NAME={path}.")
        if name != path and (of_baseline := [one for one in (name, path) if one.partition(":")[0] in NAMES]):
            raise InputError(f"--tokenizers={text}: {of_baseline[0]} is a baseline, which no other name stands for.")
        if ("+" in name) != is_joined(path):
            raise InputError(f"--tokenizers: {name}={path}: a plus in a name says that two are joined, and only then.")
        found[name] = path
    return found


def titled(given: str) -> tuple[str, str]:
    """Return the name in tables of a tokenizer and what it is made of."""
    name, separator, path = given.partition("=")
    if separator and name and "/" not in name:
        return name, path
    return (given, given) if is_baseline(given) else (Path(given).name.replace("+", "_") or given, given)
