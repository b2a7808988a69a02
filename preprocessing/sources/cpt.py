"""Read CPT codes from files that the user supplies (AMA license); their text is never part of this package.

Three forms are read: the AMA's tables, whose header may follow a notice (`Consolidated_Code_List.txt`: CPT Code, Long,
...); any CSV or TSV with a column of codes and one of descriptions; and the AMA's lists without a header (such as
`LONGULT.txt`): below a notice, each line is `<code><tab or blanks><description>`.
"""

import re
from pathlib import Path

from preprocessing.codes import CPT4, is_wellformed
from preprocessing.common.errors import InputError
from preprocessing.common.rejects import Rejects
from preprocessing.common.text_tables import lines, table
from preprocessing.sources.code_entries import CodeEntries
from preprocessing.sources.release_files import find_release

_COLUMNS = {
    "code": ("cpt code", "cpt4 code", "cpt", "cpt4", "concept code"),
    "description": ("long description", "long", "long descriptor", "descriptor", "name", "concept name", "medium"),
}
_LINE = re.compile(r"\s*([0-9]{4}[0-9A-Za-z])(?:\s+(.*))?")
_CELL = re.compile(r'[^,;|\t"]+')
# The AMA's lists from the longest descriptions to the shortest.
_PREFERRED = ("LONG", "CONSOLIDATED", "MED", "SHORT")


def read_cpt(folder: Path, rejects: Rejects) -> CodeEntries:
    """Return the codes of the user's file in `folder`.

    Raises:
        InputError: the folder holds no CSV, TSV or text file, or the file has neither the columns nor lines of codes.
    """
    entries = CodeEntries(CPT4, rejects)
    path = find_release(folder, r".*\.(csv|tsv|txt)", entries, newest=lambda match: (-_preference(match[0]),))
    if path is None:
        raise InputError(f"{folder} holds no CPT file (LONGULT.txt, or a CSV with code and description); put it there.")
    if _is_list(path):
        _read_list(path, entries)
    else:
        for row in table(
            path, rejects, columns=_COLUMNS, separators=",\t;|", quoted=path.suffix.lower() != ".txt", cp1252=True
        ):
            code, description = row.values
            entries.add(path, row.line, code, description, row=row.text)
    return entries


def _preference(name: str) -> int:
    return next((rank for rank, start in enumerate(_PREFERRED) if name.upper().startswith(start)), len(_PREFERRED))


def _is_list(path: Path) -> bool:
    """Return whether a line that begins with a code comes before any header."""
    names = {"".join(name.split()) for name in ("code", *_COLUMNS["code"])}
    for _, text in lines(path, Rejects(None), cp1252=True):
        match = _LINE.fullmatch(text)
        if match is not None and is_wellformed(CPT4, match[1]):
            return True
        if any("".join(cell.lower().split()) in names for cell in _CELL.findall(text)):
            return False
    return False


def _read_list(path: Path, entries: CodeEntries) -> None:
    begun = False
    for number, text in lines(path, entries.rejects, cp1252=True):
        match = _LINE.fullmatch(text)
        if match is not None and is_wellformed(CPT4, match[1]):
            begun = True
            entries.add(path, number, match[1], match[2] or "", row=text)
        elif begun:
            entries.rejects.add(path, number, "malformed line", "does not begin with a CPT code", text)
        else:
            entries.counts["lines of the notice"] += 1
