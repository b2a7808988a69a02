"""Decide which code system the bare codes of a file belong to, from the file as a whole.

One bare code may fit several systems: 780.6 without its dot is a fever in ICD9CM and an operation in ICD9Proc. A column
of them is evidence: where every code fits one system and a good part of them fits no other, the column is read as that
system. So is a name: of a table of MIMIC, or of the column of codes. What a row, its edition or the user names wins.
"""

import collections
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from medtok_jax.tokenize.columns import systems_of_header
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.codes import CPT4, HCPCS, ICD9CM, ICD9PROC, ICD10CM, ICD10PCS, ICD_SYSTEMS, NDC

Scope = frozenset[str] | None
_DIAGNOSES, _PROCEDURES = frozenset({ICD9CM, ICD10CM}), frozenset({ICD9PROC, ICD10PCS})
_SERVICES = frozenset({CPT4, HCPCS})
# Tables of MIMIC-III and MIMIC-IV, and of copies of them: https://mimic.mit.edu/docs.
_TABLES = {
    "diagnoses_icd": _DIAGNOSES,
    "d_icd_diagnoses": _DIAGNOSES,
    "procedures_icd": _PROCEDURES,
    "d_icd_procedures": _PROCEDURES,
    "prescriptions": frozenset({NDC}),
    "hcpcsevents": _SERVICES,
    "d_hcpcs": _SERVICES,
    "cptevents": _SERVICES,
}
# A column is read as one system if at least this many codes, and this share of the known ones, fit no other system.
# With fewer, a procedure among diagnoses that fits both would often be read as a diagnosis.
FEWEST, SHARE = 20, 0.5
# A name is believed if at least this share of the known codes fits one of its systems.
_BELIEVED = 0.9


class Decision(NamedTuple):
    """Hold the code systems that bare codes may belong to, None for any, and one sentence that says why, or nothing."""

    systems: Scope
    why: str = ""


def systems_knowing(tokenizer: MedTokTokenizer, text: str) -> frozenset[str]:
    """Return the code systems that know a bare code, as a code, a category or a code of an earlier edition."""
    return tokenizer.index.systems_knowing(text)


class NameHint(NamedTuple):
    """Hold the code systems that a name says, and the name as a sentence begins with it."""

    systems: frozenset[str]
    said: str


def hint_of(path: Path, header: str | None) -> NameHint | None:
    """Return what the name of a file, or else of its column of codes, says of the systems of its codes."""
    stem = path.name.lower().split(".")[0]
    for table in sorted(_TABLES, key=len, reverse=True):
        if re.search(rf"(?<![a-z]){table}(?![a-z])", stem):
            return NameHint(_TABLES[table], f"the file has the name of the table {table.upper()} of MIMIC")
    named = systems_of_header(header)
    if named is None or not set(named).isdisjoint(ICD_SYSTEMS):
        return None
    systems = _SERVICES if _SERVICES.issuperset(named) else frozenset(named)
    return NameHint(systems, f"their column is called {header}")


def edition_of_header(header: str | None) -> frozenset[str] | None:
    """Return the systems of ICD that the name of a column says, such as both of ICD-9 for `ICD9_CODE`, or None."""
    named = systems_of_header(header)
    return frozenset(named) if named and set(named) <= set(ICD_SYSTEMS) else None


def decide(scope: Scope, known: Mapping[frozenset[str], int], hint: NameHint | None) -> Decision:
    """Decide what the codes of a file may belong to that name no system, or several.

    Args:
        scope: the systems that these codes name, such as both of ICD-9; None if they name none.
        known: number of distinct codes by the systems of `scope` that know them; what no system knows says nothing.
        hint: what the names of the file and its column say.
    """
    codes = collections.Counter({systems: count for systems, count in known.items() if systems})
    of = f"codes that name {'no system' if scope is None else ' or '.join(sorted(scope))}"
    allowed, why = scope, ""
    narrowed = None if hint is None else hint.systems if scope is None else hint.systems & scope
    if narrowed:
        fitting = sum(count for systems, count in codes.items() if systems & narrowed)
        if fitting < _BELIEVED * codes.total():
            why = f"{hint.said}, but only {fitting:,} of {codes.total():,} distinct {of} fit that: it was not used"
        else:
            allowed, why = narrowed, f"{of} are read as {' or '.join(sorted(narrowed))}, because {hint.said}"
            restricted = collections.Counter()
            for systems, count in codes.items():
                restricted[systems & narrowed] += count
            codes = +restricted
            codes.pop(frozenset(), None)
    if allowed is not None and len(allowed) == 1:
        return Decision(allowed, _sentence(why))
    system = _common_system(codes)
    if system is None:
        return Decision(allowed, _sentence(why))
    if allowed is not scope:
        why = f"{of} are read as {system}, because {hint.said}, and all of them that fit that are of this system"
        return Decision(frozenset({system}), _sentence(why))
    alone = codes[frozenset({system})]
    told = f"{of} are read as {system}: all {codes.total():,} known ones fit it, {alone:,} of them no other system"
    return Decision(frozenset({system}), _sentence(told))


def _common_system(codes: collections.Counter) -> str | None:
    """Return the system that every code fits and that a good part of them fits alone, or None."""
    if not codes:
        return None
    fitting = frozenset.intersection(*codes)
    if len(fitting) != 1:
        # Of two systems that all codes fit, no code fits one alone.
        return None
    alone = codes[fitting]
    return next(iter(fitting)) if alone >= max(FEWEST, SHARE * codes.total()) else None


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""
