"""Read the concepts of the UMLS Metathesaurus and of RxNorm, both in Rich Release Format.

Format (UMLS Reference Manual, chapter 3; RxNorm technical documentation): UTF-8 lines of values, each ended by `|`,
without quotation.
- `MRCONSO.RRF` and `RXNCONSO.RRF`: columns 0 CUI (RXCUI), 11 SAB and 13 CODE, from 0, of 18;
- `umls_mondo.csv` (made beside PrimeKG): columns `umls_id` and `mondo_id`, the latter with or without `MONDO:`.

The UMLS needs a license, so its files are read only if the user supplies them.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from preprocessing.common.progress import Bar
from preprocessing.common.rejects import Rejects
from preprocessing.common.text_tables import Row, rows, table

# Number of values of a row, counting the empty one after the last `|`.
_WIDTH = 19
_CUI = re.compile(r"C[0-9]{7}")
_MONDO_ID = re.compile(r"(?:MONDO:)?([0-9]{1,7})(?:\.0)?")


def read_concepts(
    path: Path, sources: Collection[str], rejects: Rejects, *, progress: bool = True
) -> Iterator[tuple[str, str, str]]:
    """Yield `(CUI, SAB, CODE)` of the rows of MRCONSO or RXNCONSO that come from `sources`.

    Raises:
        InputError: the file cannot be read or is empty.
    """
    for row in _rows(path, rejects, progress):
        if row.values[11] in sources:
            yield row.values[0], row.values[11], row.values[13]


def read_umls_mondo(path: Path, rejects: Rejects) -> Iterator[tuple[int, str, str]]:
    """Yield `(line number, CUI, MONDO id as a CURIE)` of each well-formed row.

    Raises:
        InputError: the file cannot be read, is empty or lacks a column.
    """
    columns = {"umls_id": (), "mondo_id": ()}
    for line, (cui, mondo), text in table(path, rejects, columns=columns, separators=",\t", quoted=True):
        match = _MONDO_ID.fullmatch(mondo)
        if match is None or _CUI.fullmatch(cui) is None:
            rejects.add(path, line, "malformed identifier", "not a CUI and a MONDO id", text)
        else:
            yield line, cui, f"MONDO:{int(match[1]):07}"


def _rows(path: Path, rejects: Rejects, progress: bool) -> Iterator[Row]:
    read = rows(path, rejects, separator="|", width=_WIDTH)
    return iter(Bar(read, desc=f"reading {path.name}", unit=" rows", unit_scale=True, show=progress, leave=False))
