"""Define the record, the key and the normal form of medical codes.

Keys are `SYSTEM/code` with OMOP `vocabulary_id` names, because a bare code is ambiguous across systems: `0010` is a
diagnosis in ICD9CM and a procedure in ICD9Proc. ICD codes are stored with their dot and looked up with or without it;
`display_code` converts the spellings of users and official files to the normal form, which keys have.
"""

import dataclasses
import re
from collections.abc import Iterator

from preprocessing.common.errors import InputError

ICD9CM = "ICD9CM"
ICD9PROC = "ICD9Proc"
ICD10CM = "ICD10CM"
ICD10PCS = "ICD10PCS"
SNOMED = "SNOMED"
RXNORM = "RxNorm"
NDC = "NDC"
ATC = "ATC"
CPT4 = "CPT4"
HCPCS = "HCPCS"
ICD_SYSTEMS = (ICD10CM, ICD10PCS, ICD9CM, ICD9PROC)
# The order of systems in every file that lists codes.
SYSTEMS = (*ICD_SYSTEMS, SNOMED, RXNORM, NDC, ATC, CPT4, HCPCS)

# Compact (dotless) form of each system and the number of characters before its dot; 0 if there is no dot.
# ICD-10-CM: CMS "ICD-10-CM Official Guidelines", I.A.2, and since 2026 categories like QA0; ICD-10-PCS leaves out the
# letters I and O.
_COMPACT = {
    ICD10CM: re.compile(r"[A-Z](?:[0-9][0-9A-Z]|A[0-9])[0-9A-Z]{0,4}"),
    ICD10PCS: re.compile(r"[0-9A-HJ-NP-Z]{7}"),
    ICD9CM: re.compile(r"[0-9]{3,5}|V[0-9]{2,4}|E[0-9]{3,4}"),
    ICD9PROC: re.compile(r"[0-9]{2,4}"),
}
_STEM = {ICD10CM: 3, ICD10PCS: 0, ICD9CM: 3, ICD9PROC: 2}

# SNOMED CT identifiers (RF2 specification, section 5.5): up to 18 digits; those of concepts have the partition
# identifier 00 (core) or 10 (extension) before the check digit.
_CONCEPT_ID = re.compile(r"[1-9][0-9]{2,14}[01]0[0-9]")
_SHAPES = {
    # Concept unique identifiers are numbers of up to 8 digits (RxNorm technical documentation, RXNCONSO).
    RXNORM: re.compile(r"[1-9][0-9]{0,7}"),
    # 14 anatomical groups; levels of 1, 3, 4, 5 and 7 characters (WHO, "Guidelines for ATC classification").
    ATC: re.compile(r"[ABCDGHJLMNPRSV](?:[0-9]{2}(?:[A-Z](?:[A-Z](?:[0-9]{2})?)?)?)?"),
    # Category I ends in a digit or A (immunization administration), II in F, III in T; M are multianalyte assays and U
    # proprietary laboratory analyses.
    CPT4: re.compile(r"[0-9]{4}[0-9AFMTU]"),
    HCPCS: re.compile(r"[A-Z][0-9]{4}"),
}
# Digits of labeler, product and, for a package, package (21 CFR 207.33); 5-4-2 is the form of HIPAA billing.
_NDC_SHAPES = {(4, 4, 2), (5, 3, 2), (5, 4, 1), (5, 4, 2), (4, 4), (5, 3), (5, 4)}
_NDC_PRODUCT, _NDC_PACKAGE = 9, 11

# Number of leading characters of a code that form its category.
_CATEGORY = {ATC: 4, NDC: _NDC_PRODUCT, CPT4: 3, HCPCS: 3}
_ATC_LEVELS = (5, 4, 3, 1)
# The shortest ancestors of ICD-10-PCS codes are the tables: section, body system and operation.
_PCS_TABLE = 3


@dataclasses.dataclass(frozen=True, slots=True)
class CodeRecord:
    """Hold one code of the vocabulary; `system` is an OMOP vocabulary name, `code` is in normal form (with its dot)."""

    system: str
    code: str
    description: str

    @property
    def key(self) -> str:
        """Return the key `SYSTEM/code`, for example `ICD10CM/E11.9`."""
        return f"{self.system}/{self.code}"


def compact_code(code: str) -> str:
    """Return the ICD code as official files spell it: upper case, no dot, no blanks."""
    return code.strip().upper().replace(".", "")


def is_wellformed(system: str, code: str) -> bool:
    """Return whether `code` has the shape of a code or category of `system`, in any spelling for `display_code`."""
    return system in SYSTEMS and _normal_form(system, code)[0] is not None


def display_code(system: str, code: str) -> str:
    """Return the normal form of a code; a code in normal form is returned unchanged.

    - ICD: with its dot, `E119` -> `E11.9` (ICD10CM), `E8490` -> `E849.0` (ICD9CM), `0001` -> `00.01` (ICD9Proc). A
      dot in another position is malformed: a spreadsheet makes `34.0` of 034.0 (strep throat), and it is not read as
      340 (multiple sclerosis);
    - NDC: 11 digits (labeler 5, product 4, package 2) for a package, `0002-1433-80` -> `00002143380`, and the first 9
      of them for a product, `0002-1433` -> `000021433`, as in OMOP. Only hyphens separate segments, so codes without
      hyphens must have 11 or 9 digits;
    - ATC, CPT4, HCPCS: upper case; SNOMED, RxNorm: digits.

    Raises:
        InputError: `system` is not known, or `code` does not have the shape of its codes.
    """
    if system not in SYSTEMS:
        raise InputError(f"code system {system!r} is not known; it must be one of {', '.join(SYSTEMS)}.")
    normal, reason = _normal_form(system, code)
    if normal is None:
        raise InputError(
            f"{code!r} does not have the shape of a code of {system}{reason}; check the code and its system."
        )
    return normal


def stem_length(system: str, compact: str) -> int:
    """Return the number of characters before the dot of a compact ICD code.

    This is 4 for external causes of ICD-9-CM (`E849.0`), and 0 for ICD-10-PCS, which has no dots.
    """
    return 4 if system == ICD9CM and compact.startswith("E") else _STEM[system]


def category_of(record: CodeRecord) -> str:
    """Return the category of a code, as `SYSTEM/stem`.

    ICD: the part before the dot, or 3 characters in ICD-10-PCS. ATC: the third level. NDC: the product. CPT4, HCPCS:
    3 characters. SNOMED and RxNorm identifiers have no structure, so each is its own category.
    """
    if record.system in ICD_SYSTEMS:
        compact = compact_code(record.code)
        return f"{record.system}/{compact[: stem_length(record.system, compact) or 3]}"
    return f"{record.system}/{record.code[: _CATEGORY.get(record.system)]}"


def ancestors(system: str, code: str) -> Iterator[str]:
    """Yield the ancestors that the spelling of a well-formed code implies, nearest first; they need not exist.

    ICD codes lose their last character down to the category, ATC codes a level; NDC packages become products. SNOMED,
    RxNorm, CPT4 and HCPCS codes imply no ancestors.

    Args:
        system: an OMOP vocabulary name.
        code: in normal form, see `display_code`.
    """
    if system in ICD_SYSTEMS:
        compact = compact_code(code)
        stem = stem_length(system, compact)
        for length in range(len(compact) - 1, (stem or _PCS_TABLE) - 1, -1):
            shorter = compact[:length]
            yield f"{shorter[:stem]}.{shorter[stem:]}" if stem and length > stem else shorter
    elif system == ATC:
        yield from (code[:length] for length in _ATC_LEVELS if length < len(code))
    elif system == NDC and len(code) > _NDC_PRODUCT:
        yield code[:_NDC_PRODUCT]


def _normal_form(system: str, code: str) -> tuple[str | None, str]:
    """Return the normal form of `code` and "", or None and a remark on the reason, which may be empty."""
    if system in ICD_SYSTEMS:
        return _icd(system, code), ""
    if system == NDC:
        return _ndc(code.strip())
    if system == SNOMED:
        return _concept_id(code.strip())
    bare = code.strip().upper()
    if system == ATC:  # Printed lists separate its levels by blanks.
        bare = "".join(bare.split())
    return (bare if _SHAPES[system].fullmatch(bare) else None), ""


def _icd(system: str, code: str) -> str | None:
    """Return the code with its dot; None if no code has its characters, or a dot in that position."""
    compact = compact_code(code)
    if _COMPACT[system].fullmatch(compact) is None:
        return None
    stem = stem_length(system, compact)
    head, dot, tail = code.strip().partition(".")
    if dot and (not stem or len(head) != stem or "." in tail):
        return None
    return compact if stem == 0 or len(compact) <= stem else f"{compact[:stem]}.{compact[stem:]}"


def _concept_id(code: str) -> tuple[str | None, str]:
    if _CONCEPT_ID.fullmatch(code) is None:
        return None, " (a concept identifier of 6 to 18 digits)"
    return (code, "") if _has_check_digit(code) else (None, " (its check digit is wrong)")


def _ndc(code: str) -> tuple[str | None, str]:
    segments = code.split("-")
    if not all(segment.isascii() and segment.isdigit() for segment in segments):
        return None, ""
    if len(segments) > 1:
        if tuple(map(len, segments)) not in _NDC_SHAPES:
            return None, " (labeler-product-package of 4-4-2, 5-3-2, 5-4-1 or 5-4-2 digits)"
        return "".join(segment.zfill(width) for segment, width in zip(segments, (5, 4, 2), strict=False)), ""
    if len(code) in (_NDC_PRODUCT, _NDC_PACKAGE):
        return code, ""
    if len(code) == 10:
        return None, " (10 digits without hyphens may be 4-4-2, 5-3-2 or 5-4-1; write the hyphens or all 11 digits)"
    return None, f" ({len(code)} digits without hyphens, but a package has 11 and a product 9)"


# Verhoeff's check digit (1969) is the last digit of every SNOMED CT identifier: a calculation in the dihedral group D5.
def _dihedral_product(a: int, b: int) -> int:
    """Return the product in D5, whose rotations are 0 to 4 and reflections 5 to 9."""
    if a < 5:
        return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
    return 5 + (a - b) % 5 if b < 5 else (a - b) % 5


_PRODUCT = tuple(tuple(_dihedral_product(a, b) for b in range(10)) for a in range(10))
_SHUFFLE = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _permutations() -> tuple[tuple[int, ...], ...]:
    rows = [tuple(range(10))]
    while len(rows) < 8:
        rows.append(tuple(rows[-1][digit] for digit in _SHUFFLE))
    return tuple(rows)


_PERMUTATION = _permutations()


def _has_check_digit(digits: str) -> bool:
    """Return whether the last of `digits` (ASCII digits only) is the check digit of those before it."""
    check = 0
    for position, digit in enumerate(reversed(digits)):
        check = _PRODUCT[check][_PERMUTATION[position % 8][int(digit)]]
    return check == 0
