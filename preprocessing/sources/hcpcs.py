"""Read HCPCS level II (CMS): supplies, drugs and services that CPT does not name.

Formats:
- `HCPC2026_JUL_ANWEB_*.txt` (CMS, "HCPCS Contractor Record", in the same archive as the record layout): fixed width,
  columns 1-5 code (a modifier in 4-5), 6-10 number of the line, 11 kind of record, 12-91 long description, 92-119 short
  description, 269-276 date added, 285-292 date of termination. Kind 3 begins a code and kind 4 continues its
  description; kinds 7 and 8 do the same for modifiers, which are not codes.
- the same as CSV, with the columns HCPC, RECID, LONG DESCRIPTION, SHORT DESCRIPTION, TERM DT, or any table with a
  column of codes and one of descriptions.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from preprocessing.codes import HCPCS
from preprocessing.common.errors import InputError
from preprocessing.common.rejects import Rejects
from preprocessing.common.text_tables import lines, table
from preprocessing.sources.code_entries import CodeEntries
from preprocessing.sources.release_files import find_release

_FIXED = r"HCPC(\d{4})?(?!.*(?:trans|correct|note|layout|noc)).*ANWEB(?!.*(?:trans|correct|note|layout|noc)).*\.txt"
_TABLE = r"(?!.*(?:trans|correct|note|layout|noc)).*\.(?:csv|tsv)"
_COLUMNS = {"code": ("hcpc", "hcpcs", "hcpcs code"), "description": ("long description", "long desc", "name")}
_OPTIONAL = {"recid": ("record id",), "short description": ("short desc",), "term dt": ("termination date",)}
_QUARTERS = ("JAN", "APR", "JUL", "OCT")
# "3" begins the record of a code, "7" that of a modifier.
_CONTINUED, _FIRST_OF_MODIFIER, _CONTINUED_OF_MODIFIER = "4", "7", "8"
_WIDTH = 11


class _Record(NamedTuple):
    """Hold one line; `kind` is empty if the file is a plain table of codes."""

    line: int
    kind: str
    code: str
    text: str
    short: str
    terminated: str
    row: str


def read_hcpcs(folder: Path, rejects: Rejects) -> CodeEntries:
    """Return the codes with their long descriptions, and the attributes `short` and `terminated` (YYYYMMDD).

    Raises:
        InputError: the folder holds neither form, or a table lacks a column.
    """
    entries = CodeEntries(HCPCS, rejects)
    path = find_release(folder, _FIXED, entries, newest=_edition)
    if path is not None:
        _collect(path, entries, _fixed_records(path, rejects))
        return entries
    path = find_release(folder, _TABLE, entries)
    if path is None:
        raise InputError(f"{folder} holds no file named like HCPC2026_JUL_ANWEB.txt, and no CSV; put it there.")
    _collect(path, entries, _table_records(path, rejects))
    return entries


def _edition(match: re.Match[str]) -> tuple[str, int]:
    quarter = next((rank for rank, name in enumerate(_QUARTERS, 1) if f"_{name}" in match[0].upper()), 0)
    return match[1] or "", quarter


def _fixed_records(path: Path, rejects: Rejects) -> Iterator[_Record]:
    for number, text in lines(path, rejects, cp1252=True):
        kind = text[10:11]
        if len(text) < _WIDTH or kind not in "3478":
            rejects.add(path, number, "malformed line", "not a record of the HCPCS file: no kind in column 11", text)
            continue
        yield _Record(number, kind, text[:5], text[11:91], text[91:119], text[284:292].strip(), text)


def _table_records(path: Path, rejects: Rejects) -> Iterator[_Record]:
    for row in table(path, rejects, columns=_COLUMNS, optional=_OPTIONAL, separators=",\t;|", quoted=True, cp1252=True):
        code, description, kind, short, terminated = row.values
        yield _Record(row.line, kind.strip(), code, description, short, terminated.strip(), row.text)


def _collect(path: Path, entries: CodeEntries, records: Iterator[_Record]) -> None:
    first: _Record | None = None
    parts: list[str] = []
    for record in records:
        if record.kind in (_FIRST_OF_MODIFIER, _CONTINUED_OF_MODIFIER):
            entries.counts["lines of modifiers"] += 1
        elif record.kind == _CONTINUED:
            if first is not None and record.code == first.code:
                parts.append(record.text)
            else:
                reason = f"continues {record.code!r}, but the line before it is of another code"
                entries.rejects.add(path, record.line, "malformed line", reason, record.row)
        else:
            _add(path, entries, first, parts)
            first = record
            parts = [record.text]
    _add(path, entries, first, parts)


def _add(path: Path, entries: CodeEntries, first: _Record | None, parts: list[str]) -> None:
    if first is not None:
        attributes = {"short": " ".join(first.short.split()), "terminated": first.terminated}
        description = " ".join(parts) or first.short
        entries.add(path, first.line, first.code, description, attributes, row=first.row)
