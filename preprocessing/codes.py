"""Medical codes: one record type, one key and the display form of each code system.

Keys are `SYSTEM/code` with OMOP `vocabulary_id` names, because a bare code is ambiguous across systems: `0010` is a
diagnosis in ICD9CM and a procedure in ICD9Proc. ICD codes are stored with their dot and looked up with or without it.
"""

import dataclasses
import re

from preprocessing.errors import InputError

ICD9CM = "ICD9CM"
ICD9PROC = "ICD9Proc"
ICD10CM = "ICD10CM"
ICD10PCS = "ICD10PCS"
ICD_SYSTEMS = (ICD10CM, ICD10PCS, ICD9CM, ICD9PROC)

# Compact (dotless) form of each system and the number of characters in front of its dot; 0 where there is no dot.
# ICD-10-CM: CMS "ICD-10-CM Official Guidelines", I.A.2, and since 2026 categories like QA0; ICD-10-PCS leaves out the
# letters I and O.
_COMPACT = {
    ICD10CM: re.compile(r"[A-Z](?:[0-9][0-9A-Z]|A[0-9])[0-9A-Z]{0,4}"),
    ICD10PCS: re.compile(r"[0-9A-HJ-NP-Z]{7}"),
    ICD9CM: re.compile(r"[0-9]{3,5}|V[0-9]{2,4}|E[0-9]{3,4}"),
    ICD9PROC: re.compile(r"[0-9]{2,4}"),
}
_STEM = {ICD10CM: 3, ICD10PCS: 0, ICD9CM: 3, ICD9PROC: 2}


@dataclasses.dataclass(frozen=True, slots=True)
class CodeRecord:
    """One code of the vocabulary: `system` is an OMOP vocabulary name, `code` is in display form (with its dot)."""

    system: str
    code: str
    description: str

    @property
    def key(self) -> str:
        """`SYSTEM/code`, for example `ICD10CM/E11.9`."""
        return f"{self.system}/{self.code}"


def compact_code(code: str) -> str:
    """The code as official files spell it: upper case, no dot, no blanks."""
    return code.strip().upper().replace(".", "")


def is_wellformed(system: str, code: str) -> bool:
    """Whether `code`, with or without its dot, has the shape of a code (or category) of `system`."""
    pattern = _COMPACT.get(system)
    return pattern is not None and pattern.fullmatch(compact_code(code)) is not None


def display_code(system: str, code: str) -> str:
    """Adds the dot of display form: `E119` -> `E11.9` (ICD10CM), `E8490` -> `E849.0` (ICD9CM), `0001` -> `00.01`.

    Raises:
        InputError: `system` is not an ICD system, or `code` does not have the shape of its codes.
    """
    if system not in _COMPACT:
        raise InputError(f"code system {system!r} is not known; it must be one of {', '.join(ICD_SYSTEMS)}.")
    compact = compact_code(code)
    if _COMPACT[system].fullmatch(compact) is None:
        raise InputError(f"{code!r} does not have the shape of an {system} code; check the code and its system.")
    stem = stem_length(system, compact)
    if stem == 0 or len(compact) <= stem:
        return compact
    return f"{compact[:stem]}.{compact[stem:]}"


def stem_length(system: str, compact: str) -> int:
    """Characters in front of the dot of a compact code: 4 for ICD-9 external causes (`E849.0`), 0 for ICD-10-PCS."""
    return 4 if system == ICD9CM and compact.startswith("E") else _STEM[system]


def category_of(record: CodeRecord) -> str:
    """The category a code belongs to, as `SYSTEM/stem`: what stands before the dot, or 3 characters in ICD-10-PCS."""
    compact = compact_code(record.code)
    return f"{record.system}/{compact[: stem_length(record.system, compact) or 3]}"
