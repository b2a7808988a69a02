"""Derive the categories of ICD codes from their spellings: E11.9 is a code of the category E11."""

import re
from collections.abc import Sequence

from preprocessing.codes import (
    ICD10CM,
    ICD10PCS,
    ICD_SYSTEMS,
    CodeRecord,
    compact_code,
    display_code,
    is_wellformed,
    stem_length,
)
from preprocessing.graph.names import category_name

# A table of ICD-10-PCS: section, body system and operation. Longer and shorter prefixes are no unit of that system.
_PCS_TABLE = re.compile(r"[0-9A-HJ-NP-Z]{3}")


def spelled_categories(records: Sequence[CodeRecord]) -> dict[str, str]:
    """Return the categories that the spellings of ICD codes imply, named after their codes, by key.

    They stand in for a hierarchy that the graph of a data set lacks. A prefix that ends in the placeholder X is none.
    """
    described = {(r.system, compact_code(r.code)): r.description for r in records if r.system in ICD_SYSTEMS}
    members: dict[tuple[str, str], list[str]] = {}
    for system, compact in sorted(described):
        lengths = (3,) if system == ICD10PCS else range(stem_length(system, compact), len(compact))
        for length in lengths:
            prefix = compact[:length]
            if not (system == ICD10CM and prefix.endswith("X")):
                members.setdefault((system, prefix), []).append(described[system, compact])
    return {
        f"{system}/{_spelled(system, prefix)}": category_name(titles, described.get((system, f"{prefix}9")))
        for (system, prefix), titles in members.items()
        if is_table(system, prefix) or is_wellformed(system, prefix)
    }


def _spelled(system: str, compact: str) -> str:
    """Return the compact form of an ICD code or category in normal form; a table of ICD-10-PCS as it is."""
    return compact if system == ICD10PCS else display_code(system, compact)


def is_table(system: str, code: str) -> bool:
    """Return whether a code has the form of a table of ICD-10-PCS."""
    return system == ICD10PCS and _PCS_TABLE.fullmatch(code) is not None
