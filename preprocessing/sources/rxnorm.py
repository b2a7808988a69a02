"""Read RxNorm and, from its files, the names of ATC classes and the RxNorm concepts of NDC packages.

Format (NLM, "RxNorm Technical Documentation", section 12): Rich Release Format, UTF-8, values separated and ended by
`|`, no header, no quotation marks.
- `RXNCONSO.RRF`: one row per name of a concept in one of its sources: RXCUI, LAT, TS, LUI, STT, SUI, ISPREF, RXAUI,
  SAUI, SCUI, SDUI, SAB (source), TTY (term type), CODE (in the source), STR (name), SRL, SUPPRESS, CVF;
- `RXNSAT.RRF`: attributes: RXCUI, LUI, SUI, RXAUI, STYPE, CODE, ATUI, SATUI, ATN (name), SAB, ATV (value), SUPPRESS,
  CVF. With SAB=RXNORM and ATN=NDC the value is an NDC of 11 digits.
"""

from pathlib import Path
from typing import NamedTuple

from preprocessing.codes import NDC, RXNORM, display_code, is_wellformed
from preprocessing.common.rejects import Rejects
from preprocessing.common.text_tables import Row, rows
from preprocessing.sources.code_entries import CodeEntries
from preprocessing.sources.release_files import find_release, need_release

_CONSO, _SAT = r"RXNCONSO\.RRF", r"RXNSAT\.RRF"
# Numbers of columns, and one empty value after the last separator.
_CONSO_WIDTH, _SAT_WIDTH = 18 + 1, 13 + 1
_RXCUI, _SAB, _TTY, _CODE, _STR, _SUPPRESS = 0, 11, 12, 13, 14, 16
_ATN, _SAT_SAB, _ATV = 8, 9, 10

# The one name that identifies a concept (NLM, "RxNorm Term Types"), then names beside it, the best first.
_NAMES = (
    *("IN", "PIN", "MIN", "BN", "DF", "DFG"),
    *("SCDC", "SCDF", "SCDFP", "SCDG", "SCDGP", "SCD", "GPCK"),
    *("SBDC", "SBDF", "SBDFP", "SBDG", "SBD", "BPCK"),
)
_SYNONYMS = ("PSN", "SY", "TMSY", "ET")
_RANK = {**dict.fromkeys(_NAMES, 0), **{tty: rank for rank, tty in enumerate(_SYNONYMS, 1)}}


def read_rxnorm(folder: Path, rejects: Rejects) -> CodeEntries:
    """Return RxNorm's concepts that are not suppressed, each with its best name and the term type `tty` of that name.

    Raises:
        InputError: the folder lacks RXNCONSO.RRF, or it cannot be read.
    """
    entries = CodeEntries(RXNORM, rejects)
    path = need_release(folder, _CONSO, entries, "RXNCONSO.RRF")
    best: dict[str, _Name] = {}
    for row in rows(path, rejects, separator="|", width=_CONSO_WIDTH):
        values = row.values
        if values[_SAB] != "RXNORM":
            entries.counts["rows of other sources"] += 1
        elif values[_SUPPRESS] != "N":
            entries.counts["suppressed"] += 1
        else:
            tty = values[_TTY]
            name = _Name(_RANK.get(tty, len(_RANK)), tty, values[_STR], row.line, row.text)
            found = best.setdefault(values[_RXCUI], name)
            if found is not name:
                _compare(path, entries, best, values[_RXCUI], name)
    for concept, name in best.items():
        _add(path, entries, concept, name)
    return entries


class _Name(NamedTuple):
    rank: int
    tty: str
    text: str
    line: int
    row: str


def _compare(path: Path, entries: CodeEntries, best: dict[str, _Name], concept: str, name: _Name) -> None:
    """Keep the better name of a concept; add both to `entries` if each claims to be its one identifying name."""
    found = best[concept]
    if name.rank == found.rank == 0:
        _add(path, entries, concept, found)
        _add(path, entries, concept, name)
    else:
        entries.counts["synonyms"] += 1
        if name.rank < found.rank:
            best[concept] = name


def _add(path: Path, entries: CodeEntries, concept: str, name: _Name) -> None:
    entries.add(path, name.line, concept, name.text, {"tty": name.tty}, row=name.row)


def read_atc_names(path: Path, rejects: Rejects) -> dict[str, Row]:
    """Return the rows of `RXNCONSO.RRF` that name ATC codes, by code; ATC's own name is preferred to RxNorm's."""
    best: dict[str, Row] = {}
    for row in rows(path, rejects, separator="|", width=_CONSO_WIDTH):
        values = row.values
        if values[_SAB] == "ATC" and values[_SUPPRESS] == "N":
            found = best.get(values[_CODE])
            if found is None or (found.values[_TTY].startswith("RXN_") and not values[_TTY].startswith("RXN_")):
                best[values[_CODE]] = row
    return best


def atc_name(row: Row) -> str:
    """Return the name in a row that `read_atc_names` returned."""
    return row.values[_STR]


def find_conso(folder: Path, entries: CodeEntries) -> Path | None:
    """Return the path of `RXNCONSO.RRF` in `folder`, which need not exist; None if there is no such file."""
    return find_release(folder, _CONSO, entries)


def read_ndc_concepts(folder: Path, entries: CodeEntries) -> dict[str, str]:
    """Return the RXCUI of each NDC (11 digits) in `RXNSAT.RRF`; empty if the folder does not hold that file."""
    path = find_release(folder, _SAT, entries)
    concepts: dict[str, str] = {}
    if path is None:
        return concepts
    for row in rows(path, entries.rejects, separator="|", width=_SAT_WIDTH):
        values = row.values
        if values[_ATN] != "NDC" or values[_SAT_SAB] != "RXNORM":
            continue
        if not (is_wellformed(NDC, values[_ATV]) and is_wellformed(RXNORM, values[_RXCUI])):
            reason = f"{values[_ATV]!r} is no NDC, or {values[_RXCUI]!r} no RXCUI"
            entries.rejects.add(path, row.line, "malformed code", reason, row.text)
            continue
        ndc = display_code(NDC, values[_ATV])
        if concepts.setdefault(ndc, values[_RXCUI]) != values[_RXCUI]:
            reason = f"{ndc} was already given to RXCUI {concepts[ndc]}"
            entries.rejects.add(path, row.line, "duplicate code", reason, row.text)
    return concepts
