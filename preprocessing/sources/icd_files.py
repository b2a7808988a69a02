"""Read the official ICD code lists as CMS and CDC publish them.

Formats, by the publishers' descriptions and the real files:
- code list (`CMS32_DESC_LONG_DX.txt`, `icd10cm-codes-2025.txt`): `<code without dot><blanks><long description>`;
  ICD-9-CM in cp1252;
- order file (`icd10cm-order-2025.txt`, `icd10pcs_order_2025.txt`), fixed width: columns 1-5 number, 7-13 code, 15
  a flag for billable codes, 17-76 short description, from 78 long description. Lines that are not billable are headers:
  the tree of the knowledge graph holds them, the list of codes does not.
"""

import re
from collections.abc import Callable
from pathlib import Path

from preprocessing.codes import ICD9CM, ICD9PROC, ICD10CM, ICD10PCS
from preprocessing.common.rejects import Rejects
from preprocessing.common.text_tables import lines
from preprocessing.sources.code_entries import CodeEntries
from preprocessing.sources.release_files import find_release, need_release

# Published totals of releases: ICD-9-CM v32 (CMS), ICD-10-CM and ICD-10-PCS of fiscal year 2024 (CMS).
ICD9_COUNTS = {(ICD9CM, "32"): 14_567, (ICD9PROC, "32"): 3_882}
ICD10_COUNTS = {(ICD10CM, "2024"): 74_044, (ICD10PCS, "2024"): 78_603}
OFFICIAL_COUNTS = {**ICD9_COUNTS, **ICD10_COUNTS}

_ICD9_NAMES = {ICD9CM: r"CMS(\d+)_DESC_LONG_DX.*\.txt", ICD9PROC: r"CMS(\d+)_DESC_LONG_SG.*\.txt"}
_ICD10_NAME = r"icd10{}[-_ ](?!.*addend)(order|codes)[-_ ].*?(\d{{4}})\.txt"
_VERSION = re.compile(r"CMS(\d+)_|(?:^|\D)(\d{4})\.txt", re.IGNORECASE)
_ORDER_LINE = re.compile(r"\d{5} (\S{3,7}) +([01]) ")
_SHORT, _LONG = 16, 77


def read_code_list(entries: CodeEntries, path: Path, *, cp1252: bool = False) -> CodeEntries:
    """Read a list of `<code> <long description>` lines into `entries`."""
    for number, text in lines(path, entries.rejects, cp1252=cp1252):
        code, _, description = text.strip().partition(" ")
        entries.add(path, number, code, description, row=text)
    return entries


def read_order_file(entries: CodeEntries, path: Path) -> CodeEntries:
    """Read the billable codes of an order file into `entries`, and count its `headers`."""
    for number, text in lines(path, entries.rejects):
        match = _ORDER_LINE.match(text)
        if match is None:
            entries.rejects.add(path, number, "malformed line", "not a line of an ICD-10 order file", text)
        elif match[2] == "0":
            entries.counts["headers"] += 1
        else:
            entries.add(path, number, match[1], text[_LONG:] or text[_SHORT:_LONG], row=text)
    return entries


def read_icd9(system: str, folder: Path, rejects: Rejects) -> CodeEntries | None:
    """Read ICD-9-CM diagnoses or procedures from `folder`; return None if it holds only the other of the two.

    Raises:
        InputError: the folder holds neither, or the file cannot be read.
    """
    entries = CodeEntries(system, rejects)
    path = find_release(folder, _ICD9_NAMES[system], entries, newest=lambda match: (int(match[1]),))
    if path is not None:
        return read_code_list(entries, path, cp1252=True)
    either = "|".join(_ICD9_NAMES.values())
    need_release(folder, either, CodeEntries(system, rejects), "CMS32_DESC_LONG_DX.txt")
    return None


def read_icd10(system: str, folder: Path, rejects: Rejects) -> CodeEntries:
    """Read ICD-10-CM or ICD-10-PCS from the newest order file in `folder`, or from the newest code list if it is newer.

    Raises:
        InputError: the folder holds neither, or the file cannot be read.
    """
    entries = CodeEntries(system, rejects)
    suffix = system.removeprefix("ICD10").lower()
    path = need_release(folder, _ICD10_NAME.format(suffix), entries, f"icd10{suffix}-order-2025.txt", newest=_edition)
    reader: Callable = read_order_file if "order" in path.name.lower() else read_code_list
    return reader(entries, path)


def _edition(match: re.Match[str]) -> tuple[int, bool, bool]:
    """Return the year, whether the file is the April update, and whether it is the order file."""
    return int(match[2]), "apr" in match[0].lower(), match[1].lower() == "order"


def official_count(system: str, path: Path) -> int | None:
    """Return the published number of codes of the release in a file's name; None if the number is not known here."""
    match = _VERSION.search(path.name)
    if match is None or "apr" in path.name.lower():
        return None
    return OFFICIAL_COUNTS.get((system, match[1] or match[2]))
