"""Split the spellings of a code into system and code: `e119`, `ICD10CM/E11.9`, `DIAGNOSIS//ICD//10//E119`.

The last is the spelling of MIMIC-IV in MEDS: https://github.com/Medical-Event-Data-Standard.
"""

import re

from preprocessing.common.errors import InputError

# Order in which the paper names its eight systems (section 4), each with the OMOP vocabularies it covers.
PAPER_ORDER = ("ICD9CM", "ICD9Proc", "ICD10CM", "ICD10PCS", "SNOMED", "ATC", "NDC", "CPT4", "HCPCS", "RxNorm")

# Other names of code systems, in capitals and without anything but letters and digits.
ALIASES = {
    "ICD10": ("ICD10CM", "ICD10PCS"),
    "ICD9": ("ICD9CM", "ICD9Proc"),
    "ICD9PCS": ("ICD9Proc",),
    "ICD9PROCEDURE": ("ICD9Proc",),
    "SNOMEDCT": ("SNOMED",),
    "SNOMEDCTUS": ("SNOMED",),
    "SCT": ("SNOMED",),
    "CPT": ("CPT4",),
    "RXCUI": ("RxNorm",),
    "NDC11": ("NDC",),
    "ATCWHO": ("ATC",),
}
# Code systems by the first two parts of a MEDS code.
MEDS_ICD = {
    ("DIAGNOSIS", "ICD10"): ("ICD10CM",),
    ("DIAGNOSIS", "ICD9"): ("ICD9CM",),
    ("PROCEDURE", "ICD10"): ("ICD10PCS",),
    ("PROCEDURE", "ICD9"): ("ICD9Proc",),
}
_PREFIXED = re.compile(r"([A-Za-z][A-Za-z0-9 _.-]{0,40}?) *[/:|] *(.+)", re.DOTALL)
_NOT_NAME = re.compile(r"[^A-Z0-9]")


class CodeNames:
    """Split a text into the code systems that it names and the code.

    Args:
        systems: names of the known code systems, which are matched regardless of case.
    """

    def __init__(self, systems: list[str]):
        self.systems = tuple(systems)
        self._named = ALIASES | {_plain(name): (name,) for name in PAPER_ORDER} | {_plain(s): (s,) for s in systems}

    def systems_named(self, name: str) -> tuple[str, ...]:
        """Return the code systems of a name, such as `snomed`, `ICD-10-CM`, or `ICD10` for both of its parts.

        Raises:
            InputError: no code system has this name.
        """
        if not isinstance(name, str):
            raise InputError(f"A code system must be text, not {type(name).__name__}.")
        named = self._named.get(_plain(name))
        if named is None:
            raise InputError(f"{shown(name)} is not a code system; it must be one of {', '.join(self.systems)}.")
        return named

    def split(self, text: str) -> tuple[tuple[str, ...] | None, str]:
        """Return the systems that a text names (None where it names none) and the code without the prefix."""
        text = text.strip()
        if "//" in text:
            return self._split_meds(text)
        if ("/" in text or ":" in text or "|" in text) and (match := _PREFIXED.fullmatch(text)):
            named = self._named.get(_plain(match[1]))
            if named:
                return named, match[2].strip()
        return None, text

    def _split_meds(self, text: str) -> tuple[tuple[str, ...] | None, str]:
        *names, code = text.split("//")
        kind = _plain(names[0])
        rest = _plain("".join(names[1:]))
        named = MEDS_ICD.get((kind, rest)) or self._named.get(rest or kind)
        return (named, code.strip()) if named else (None, text)


def _plain(name: str) -> str:
    return _NOT_NAME.sub("", name.upper())


def shown(value: object, longest: int = 60) -> str:
    """Return a value quoted for a message, on one line and cut after `longest` characters."""
    if not isinstance(value, (str, bytes, int, float)):
        return f"a {type(value).__name__}"
    quoted = repr(value[: longest + 1] if isinstance(value, (str, bytes)) else value)
    return quoted if len(quoted) <= longest + 2 else f"{quoted[:longest]}..."
