"""Codes as MIMIC writes them, brought into `SYSTEM/code`: ICD without dots, NDC of 11 digits, CPT and HCPCS mixed.

A code that does not have the shape of its system keeps its raw text behind the words that other MEDS data sets use
(`DIAGNOSIS//ICD//9//...`), so that nobody takes it for a code, and is counted.
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


class MimicCodes:
    """Normalizes codes, each distinct one once.

    Attributes:
        malformed: (system, raw code, event code) -> events whose code does not have the shape of its system.
    """

    def __init__(self):
        self.malformed: collections.Counter[tuple[str, str, str]] = collections.Counter()
        self._known: dict[tuple, tuple[str | None, str | None]] = {}

    def icd(self, role: str, raw: "pl.Series", version: "pl.Series") -> "pl.Series":
        """`ICD9CM/250.00` of `25000`: raw codes and `9` or `10` of n events -> n codes; null of a null code.

        Args:
            role: `DIAGNOSIS` or `PROCEDURE`.
        """

        def normal(code: str, edition: str | None) -> tuple[str, str | None]:
            system = ICD.get((role, edition or ""))
            if system is not None and codes.is_wellformed(system, code):
                return f"{system}/{codes.display_code(system, code)}", None
            return f"{role}//ICD//{edition or 'UNK'}//{code}", system or f"ICD {edition or 'UNK'}"

        return self._each(role, normal, raw, version)

    def drug(self, ndc: "pl.Series", name: "pl.Series") -> "pl.Series":
        """`NDC/00006494300`, or `MEDICATION//START//Insulin` where there is no NDC: `0`, or nothing.

        Args:
            ndc: as it stands. name: of the drug.
        """

        def normal(raw: str | None, drug: str | None) -> tuple[str, str | None]:
            if raw is None or not raw.strip("0"):
                return f"MEDICATION//START//{drug or 'UNK'}", None
            if codes.is_wellformed(codes.NDC, raw):
                return f"{codes.NDC}/{codes.display_code(codes.NDC, raw)}", None
            return f"MEDICATION//NDC//{raw}", codes.NDC

        # A name is told only where nothing else is.
        missing = ndc.str.strip_chars_start("0").fill_null("") == ""
        return self._each("DRUG", normal, ndc, name.zip_with(missing, name.clear(len(name))), nulls=True)

    def procedure(self, raw: "pl.Series") -> "pl.Series":
        """`CPT4/99213` or `HCPCS/J1815`; null of a null code."""

        def normal(code: str, _: None) -> tuple[str, str | None]:
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
        """`normal` of each pair: its code, and the system whose shape it does not have or None."""
        pairs = pl.DataFrame({"first": first, "second": second}, nan_to_null=False)
        unique = pairs.group_by("first", "second", maintain_order=True).len()
        found = []
        for one, two, count in unique.iter_rows():
            key = (role, one, two)
            if key not in self._known:
                self._known[key] = (None, None) if one is None and not nulls else normal(one, two)
            code, system = self._known[key]
            if system is not None:
                self.malformed[system, one, code] += count
            found.append(code)
        unique = unique.with_columns(code=pl.Series(found, dtype=pl.String))
        joined = pairs.join(unique, on=["first", "second"], how="left", maintain_order="left", nulls_equal=True)
        return joined["code"]
