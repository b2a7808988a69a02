"""Split the spellings of a code into system and code: `e119`, `ICD10CM/E11.9`, `DIAGNOSIS//ICD//10//E119`.

The last is the spelling of MIMIC-IV in MEDS: https://github.com/Medical-Event-Data-Standard.
"""

import numbers
import re

from preprocessing.common.errors import InputError

# Order in which the paper names its eight systems (section 4), each with the OMOP vocabularies it covers.
PAPER_ORDER = ("ICD9CM", "ICD9Proc", "ICD10CM", "ICD10PCS", "SNOMED", "ATC", "NDC", "CPT4", "HCPCS", "RxNorm")

# Everyday names of code systems, in capitals and without anything but letters and digits. The name of an edition leaves
# open whether a diagnosis or a procedure is meant.
ALIASES = {
    "ICD10": ("ICD10CM", "ICD10PCS"),
    "ICD9": ("ICD9CM", "ICD9Proc"),
    "ICD9DX": ("ICD9CM",),
    "ICD9PCS": ("ICD9Proc",),
    "ICD9PROCEDURE": ("ICD9Proc",),
    "ICD10DX": ("ICD10CM",),
    "ICD10PROC": ("ICD10PCS",),
    "ICD10PROCEDURE": ("ICD10PCS",),
    "SNOMEDCT": ("SNOMED",),
    "SNOMEDCTUS": ("SNOMED",),
    "SCT": ("SNOMED",),
    "CPT": ("CPT4",),
    "RXCUI": ("RxNorm",),
    "NDC11": ("NDC",),
    "ATCWHO": ("ATC",),
}
# URIs of FHIR (hl7.org/fhir/terminologies-systems.html) and OIDs of HL7's registry.
_FHIR = {
    "http://hl7.org/fhir/sid/icd-10-cm": ("ICD10CM",),
    "http://hl7.org/fhir/sid/icd-9-cm": ("ICD9CM", "ICD9Proc"),
    "http://www.cms.gov/Medicare/Coding/ICD10": ("ICD10PCS",),
    "http://snomed.info/sct": ("SNOMED",),
    "http://www.nlm.nih.gov/research/umls/rxnorm": ("RxNorm",),
    "http://hl7.org/fhir/sid/ndc": ("NDC",),
    "http://www.whocc.no/atc": ("ATC",),
    "http://www.ama-assn.org/go/cpt": ("CPT4",),
    "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets": ("HCPCS",),
}
_HL7 = "2.16.840.1.113883.6."
_OIDS = {
    "90": ("ICD10CM",),
    "4": ("ICD10PCS",),
    "42": ("ICD9CM", "ICD9Proc"),
    "103": ("ICD9CM",),
    "104": ("ICD9Proc",),
    "96": ("SNOMED",),
    "88": ("RxNorm",),
    "69": ("NDC",),
    "73": ("ATC",),
    "12": ("CPT4",),
    "285": ("HCPCS",),
}
# Code systems by the first two parts of a MEDS code.
MEDS_ICD = {
    ("DIAGNOSIS", "ICD10"): ("ICD10CM",),
    ("DIAGNOSIS", "ICD9"): ("ICD9CM",),
    ("PROCEDURE", "ICD10"): ("ICD10PCS",),
    ("PROCEDURE", "ICD9"): ("ICD9Proc",),
}
_PREFIXED = re.compile(r"([A-Za-z][A-Za-z0-9 _.-]{0,40}?) *[/:|] *(.+)", re.DOTALL)
_EDITION = re.compile(r"0?(9|10)(?:\.0+)?")
_NOT_NAME = re.compile(r"[^A-Z0-9]")


class CodeNames:
    """Split a text into the code systems that it names and the code.

    Args:
        systems: names of the known code systems, which are matched regardless of case.
    """

    def __init__(self, systems: list[str]):
        self.systems = tuple(systems)
        uris = {_plain(uri): named for uri, named in _FHIR.items()}
        oids = {_plain(f"{start}{_HL7}{end}"): named for end, named in _OIDS.items() for start in ("", "urn:oid:")}
        own = {_plain(name): (name,) for name in (*PAPER_ORDER, *systems)}
        self._named = ALIASES | uris | oids | own

    def systems_named(self, name: object) -> tuple[str, ...]:
        """Return the code systems of a name: `snomed`, `ICD-10-CM`, a URI or OID, `ICD10` or 10 for both of its parts.

        A frozen set of systems names these.

        Raises:
            InputError: no code system has this name.
        """
        if isinstance(name, frozenset):
            return tuple(sorted(name))
        if edition := edition_of(name):
            return ALIASES[f"ICD{edition}"]
        if not isinstance(name, str):
            raise InputError(f"A code system must be text, not {shown(name)}.")
        named = self._named.get(_plain(name))
        if named is None:
            raise InputError(f"{shown(name)} is not a code system; it must be one of {', '.join(self.systems)}.")
        return named

    def split(self, text: str) -> tuple[tuple[str, ...] | None, str]:
        """Return the systems that a text names (None where it names none) and the code without the prefix."""
        text = text.strip()
        if "|" in text:
            # As in FHIR's `http://hl7.org/fhir/sid/icd-10-cm|E11.9`.
            name, _, code = text.rpartition("|")
            if named := self._named.get(_plain(name)):
                return named, code.strip()
        if "//" in text:
            return self._split_meds(text)
        if ("/" in text or ":" in text or "|" in text) and (match := _PREFIXED.fullmatch(text)):
            named = self._named.get(_plain(match[1]))
            if named:
                return named, match[2].strip()
        return None, text

    def _split_meds(self, text: str) -> tuple[tuple[str, ...] | None, str]:
        *names, code = text.split("//")
        kind, *rest = names
        # An edition alone says what a code is of only behind the kind of the event.
        edition = edition_of(rest[-1]) if rest else None
        rest = [*rest[:-1], edition] if edition else rest
        plain = _plain("".join(rest))
        named = MEDS_ICD.get((_plain(kind), f"ICD{plain.removeprefix('ICD')}")) or self._named.get(
            plain or _plain(kind)
        )
        return (named, code.strip()) if named else (None, text)


def edition_of(name: object) -> str | None:
    """Return `9` or `10` for an edition of ICD, as a number or as text, also where pandas wrote 9.0; None of others."""
    if isinstance(name, numbers.Real) and not isinstance(name, bool):
        name = str(name)
    found = _EDITION.fullmatch(name.strip()) if isinstance(name, str) else None
    return found[1] if found else None


def _plain(name: str) -> str:
    return _NOT_NAME.sub("", name.upper())


def shown(value: object, longest: int = 60) -> str:
    """Return a value quoted for a message, on one line and cut after `longest` characters."""
    if not isinstance(value, (str, bytes, int, float)):
        return f"a {type(value).__name__}"
    quoted = repr(value[: longest + 1] if isinstance(value, (str, bytes)) else value)
    return quoted if len(quoted) <= longest + 2 else f"{quoted[:longest]}..."
