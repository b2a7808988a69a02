"""Find the columns of a file of codes by their names, and read the code systems that a name says."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from medtok_jax.lookup.code_names import CodeNames
from preprocessing.codes import SYSTEMS, is_wellformed
from preprocessing.common.errors import InputError
from preprocessing.common.text_tables import plain_name

# Common names of columns, with letters and digits only, in order of preference. A column of codes may also have the
# name of a code system, see `systems_of_header`.
COLUMNS = {
    "code": ("code", "medcode", "medicalcode", "icdcode", "conceptcode"),
    "system": ("system", "codesystem", "vocabulary", "vocabularyid", "codingsystem"),
    "edition": ("icdversion", "icdedition", "icdver"),
    "description": ("description", "desc", "conceptname", "longtitle", "drugname", "drug", "name"),
}
# What follows the name of a code system in the name of its column: ICD9_CODE, hcpcs_cd.
_SUFFIXES = ("", "codes", "code", "cd", "id")
_MOST_NAMED = 20


def pick_columns(names: Sequence[str], columns: Mapping[str, str | None], path: Path) -> dict[str, str]:
    """Return the name of each kind of column of `COLUMNS` that the file has.

    Args:
        names: the columns of the file.
        columns: kind -> name that the user gave; None, or no entry, for the common names.
        path: the file, for messages.

    Raises:
        InputError: the file has no column of codes, or lacks a column that `columns` names.
    """
    for kind, given in columns.items():
        if given is not None and given not in names:
            raise InputError(f"{path} has no column {given!r} (it has {_listed(names)}); correct --{kind}_column.")
    found = {}
    for kind, known in COLUMNS.items():
        by_plain = {plain_name(name): name for name in reversed(names)}
        name = columns.get(kind) or next((by_plain[plain] for plain in known if plain in by_plain), None)
        if name is None and kind == "code":
            name = next((name for name in names if systems_of_header(name)), None)
        if name is not None and name not in found.values():
            found[kind] = name
    if "code" not in found:
        if any(_looks_like_data(name) for name in names):
            raise InputError(
                f"The first line of {path} looks like a row, not like the names of columns; add a line of names, such"
                " as code,system."
            )
        raise InputError(f"{path} has no column 'code' (it has {_listed(names)}); name it by --code_column.")
    return found


def has_description(names: Sequence[str], columns: Mapping[str, str | None]) -> bool:
    """Return whether descriptions are read from one of these columns; for `columns` see `pick_columns`."""
    return columns.get("description") in names or any(plain_name(name) in COLUMNS["description"] for name in names)


def _looks_like_data(name: str) -> bool:
    """Return whether a cell of a header is a number, a date or a code, which are no names of columns."""
    if not any(character.isdigit() for character in name):
        return False
    return not any(character.isalpha() for character in name) or any(is_wellformed(system, name) for system in SYSTEMS)


def other_code_columns(names: Sequence[str], picked: str) -> list[str]:
    """Return the columns whose names say that they hold codes too, beside the one that was picked."""
    return [
        name
        for name in names
        if name != picked and (plain_name(name) in COLUMNS["code"] or systems_of_header(name) is not None)
    ]


@functools.lru_cache(maxsize=1024)
def systems_of_header(name: str | None) -> tuple[str, ...] | None:
    """Return the code systems that the name of a column says, such as both of ICD-9 for `ICD9_CODE`, or None."""
    plain = plain_name(name or "")
    if not any(character.isalpha() for character in plain):
        return None
    for suffix in _SUFFIXES:
        stem = plain.removesuffix(suffix)
        if stem and (not suffix or stem != plain):
            try:
                return _NAMES.systems_named(stem)
            except InputError:
                continue
    return None


def is_prefixed_code(text: str) -> bool:
    """Return whether a text is a code behind the name of its system, such as `ICD10CM|E11.9`."""
    named, code = _NAMES.split(text)
    return named is not None and any(character.isdigit() for character in code) and systems_of_header(code) is None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) or "no columns"


_NAMES = CodeNames([])
