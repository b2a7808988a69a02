"""Read the ATC classification of drugs from a user's table of codes and names, or from RxNorm's full release.

The WHO owns the text. Its index and the tables that others derived from it differ only in form: the columns of codes
and names have various headers, and there is often one row per defined daily dose. In RxNorm's full release, the rows
with SAB=ATC hold the names.
"""

from pathlib import Path

from preprocessing.codes import ATC, display_code, is_wellformed
from preprocessing.common.errors import InputError
from preprocessing.common.rejects import Rejects
from preprocessing.common.text_tables import Row, table
from preprocessing.sources.code_entries import CodeEntries
from preprocessing.sources.release_files import find_release
from preprocessing.sources.rxnorm import atc_name, find_conso, read_atc_names

_COLUMNS = {
    "code": ("atc code", "atc", "class id", "atc5"),
    "name": ("description", "atc name", "atc level name", "atc label", "preferred label", "level name"),
}
_LEVELS = (1, 3, 4, 5)


def read_atc(folder: Path, rejects: Rejects, rxnorm_folder: Path | None = None) -> CodeEntries | None:
    """Return the classes and substances of ATC, each with the attribute `within`: names of its classes, nearest first.

    Args:
        folder: folder of the user's file; it may hold RXNCONSO.RRF instead, or not exist.
        rejects: receives every row that is not used.
        rxnorm_folder: folder to search if `folder` does not exist.

    Returns:
        The codes; None if there is no folder and RxNorm holds no ATC names (its prescribable subset holds none).

    Raises:
        InputError: the folder exists and holds neither a table nor RXNCONSO.RRF.
    """
    entries = CodeEntries(ATC, rejects)
    if folder.is_dir():
        path = find_release(folder, r".*\.(csv|tsv|txt)", entries)
        if path is not None:
            rows = table(path, rejects, columns=_COLUMNS, separators=",;\t|", quoted=True)
            return _add_all(entries, path, [(row, row.values[0], row.values[1]) for row in rows])
        path = find_conso(folder, entries)
        if path is None:
            raise InputError(f"{folder} holds no table of ATC codes (CSV) and no RXNCONSO.RRF; put one there.")
        return _add_all(entries, path, _named(path, rejects))
    path = find_conso(rxnorm_folder, entries) if rxnorm_folder is not None else None
    if path is None:
        return None
    # The faults of that file were reported when it was read for RxNorm.
    named = _named(path, Rejects(None))
    if not named:
        return None
    entries.remarks.append(f"{ATC}: no folder {folder.name}, names taken from {path.name} of RxNorm")
    return _add_all(entries, path, named)


def _named(path: Path, rejects: Rejects) -> list[tuple[Row, str, str]]:
    return [(row, code, atc_name(row)) for code, row in read_atc_names(path, rejects).items()]


def _add_all(entries: CodeEntries, path: Path, named: list[tuple[Row, str, str]]) -> CodeEntries:
    names = {}
    for _, code, name in named:
        if is_wellformed(ATC, code) and name.strip():
            names.setdefault(display_code(ATC, code), " ".join(name.split()))
    for row, code, name in named:
        above = []
        if is_wellformed(ATC, code):
            normal = display_code(ATC, code)
            above = [names.get(normal[:length]) for length in reversed(_LEVELS) if length < len(normal)]
        within = [text for text in above if text]
        entries.add(path, row.line, code, name, {"within": within}, row=row.text)
    return entries
