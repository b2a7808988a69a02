"""Normalize the codes of MIMIC to `SYSTEM/code`: ICD without dots, NDC of 11 digits, and mixed CPT and HCPCS.

A code that does not have the shape of its system keeps its raw text after the prefix that other MEDS data sets use
(`DIAGNOSIS//ICD//9//...`), so that it is not mistaken for a code, and is counted.
"""

import collections
from collections.abc import Callable

from preprocessing import codes
from preprocessing.common.extras import load

pl = load("polars")

# (role, icd_version) -> system.
ICD = {
    ("DIAGNOSIS", "9"): codes.ICD9CM,
    ("DIAGNOSIS", "10"): codes.ICD10CM,
    ("PROCEDURE", "9"): codes.ICD9PROC,
    ("PROCEDURE", "10"): codes.ICD10PCS,
}
# Stands for a system where a code of ICD is of neither edition.
UNKNOWN_EDITION = "ICD of an unknown edition"


class MimicCodes:
    """Normalize codes, each distinct code only once, and count malformed ones.

    Attributes:
        malformed: (system, raw code, event code) -> events whose code does not have the shape of its system.
    """

    def __init__(self):
        self.malformed: collections.Counter[tuple[str, str, str]] = collections.Counter()
        self._known: dict[tuple, tuple[str | None, str | None]] = {}

    def icd(self, role: str, raw: "pl.Series", version: "pl.Series") -> "pl.Series":
        """Normalize the ICD codes of n events: `25000` -> `ICD9CM/250.00`; a null code remains null.

        Args:
            role: `DIAGNOSIS` or `PROCEDURE`.
            raw: n codes without dots.
            version: `9` or `10` for each code.
        """

        def normal(code: str, edition: str | None) -> tuple[str, str | None]:
            system = ICD.get((role, edition or ""))
            if system is not None and codes.is_wellformed(system, code):
                return f"{system}/{codes.display_code(system, code)}", None
            # The edition is not part of the name, which is printed: in a damaged row it may be anything.
            return f"{role}//ICD//{edition or 'UNK'}//{code}", system or UNKNOWN_EDITION

        return self._each(role, normal, raw, version)

    def drug(self, ndc: "pl.Series", name: "pl.Series") -> "pl.Series":
        """Normalize the drug codes of n events: `NDC/00006494300`, or `MEDICATION//START//Insulin` without an NDC.

        Args:
            ndc: n raw codes; null or zeros mean that there is none.
            name: names of the drugs.
        """

        def normal(raw: str | None, drug: str | None) -> tuple[str, str | None]:
            if raw is None or not raw.strip("0"):
                return f"MEDICATION//START//{drug or 'UNK'}", None
            if codes.is_wellformed(codes.NDC, raw):
                return f"{codes.NDC}/{codes.display_code(codes.NDC, raw)}", None
            return f"MEDICATION//NDC//{raw}", codes.NDC

        # A name is used only if there is no NDC.
        missing = ndc.str.strip_chars_start("0").fill_null("") == ""
        return self._each("DRUG", normal, ndc, name.zip_with(missing, name.clear(len(name))), nulls=True)

    def procedure(self, raw: "pl.Series") -> "pl.Series":
        """Normalize the procedure codes of n events to `CPT4/99213` or `HCPCS/J1815`; a null code remains null."""

        def normal(code: str, _: str | None) -> tuple[str, str | None]:
            for system in (codes.CPT4, codes.HCPCS):
                if codes.is_wellformed(system, code):
                    return f"{system}/{codes.display_code(system, code)}", None
            return f"HCPCS//{code}", codes.HCPCS

        return self._each("HCPCS", normal, raw, pl.Series([None] * len(raw), dtype=pl.String))

    def _each(
        self,
        role: str,
        normal: Callable[[str, str], tuple[str, str | None]],
        first: "pl.Series",
        second: "pl.Series",
        *,
        nulls: bool = False,
    ) -> "pl.Series":
        """Apply `normal`, which returns a code and the system that it violates or None, to each distinct pair."""
        pairs = pl.DataFrame({"first": first, "second": second}, nan_to_null=False)
        unique = pairs.group_by("first", "second", maintain_order=True).len()
        found = []
        for one, two, count in unique.iter_rows():
            key = (role, one, two)
            if key not in self._known:
                self._known[key] = (None, None) if one is None and not nulls else normal(one, two)
            code, system = self._known[key]
            if system is not None and code is not None:
                self.malformed[system, one, code] += count
            found.append(code)
        unique = unique.with_columns(code=pl.Series(found, dtype=pl.String))
        joined = pairs.join(unique, on=["first", "second"], how="left", maintain_order="left", nulls_equal=True)
        return joined["code"]
