"""Derive the ancestors of a code from its spelling: E11.9XYZ is a kind of E11.9, which is a kind of E11. No JAX."""

from collections.abc import Iterator

from preprocessing.codes import ATC, ICD_SYSTEMS, NDC, compact_code, stem_length

# Characters of the levels of an ATC code, and of an NDC's product in front of its package.
_ATC_LEVELS = (5, 4, 3, 1)
_NDC_PRODUCT = 9
# The shortest ancestors of ICD-10-PCS codes are the tables: section, body system and operation.
_SHORTEST = 3


def ancestors(system: str, code: str) -> Iterator[str]:
    """Yield the ancestors that the spelling of a well-formed code implies, nearest first; they need not exist.

    ICD codes lose their last character down to the category, ATC codes a level; NDC packages become products. SNOMED,
    RxNorm, CPT4 and HCPCS codes imply no ancestors.

    Args:
        system: an OMOP vocabulary name.
        code: in normal form, `preprocessing.codes.display_code`.
    """
    if system in ICD_SYSTEMS:
        compact = compact_code(code)
        stem = stem_length(system, compact)
        for length in range(len(compact) - 1, (stem or _SHORTEST) - 1, -1):
            shorter = compact[:length]
            yield f"{shorter[:stem]}.{shorter[stem:]}" if stem and length > stem else shorter
    elif system == ATC:
        yield from (code[:length] for length in _ATC_LEVELS if length < len(code))
    elif system == NDC and len(code) > _NDC_PRODUCT:
        yield code[:_NDC_PRODUCT]
