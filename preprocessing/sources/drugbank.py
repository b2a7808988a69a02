"""Read the DrugBank open vocabulary (CC0): names and synonyms of drugs.

Format (https://go.drugbank.com/releases/latest#open-data): `drugbank vocabulary.csv` with the columns DrugBank ID,
Accession Numbers, Common name, CAS, UNII, Synonyms and Standard InChI Key; values in one cell are joined by ` | `.
"""

from pathlib import Path
from typing import NamedTuple

from preprocessing.common.rejects import Rejects
from preprocessing.common.text_tables import table

_COLUMNS = dict.fromkeys(("DrugBank ID", "Accession Numbers", "Common name", "Synonyms"), ())


class Drug(NamedTuple):
    """Hold one drug: `ids` lists its id and then older accession numbers, `names` its name and then its synonyms."""

    ids: tuple[str, ...]
    names: tuple[str, ...]


def read_vocabulary(path: Path, rejects: Rejects) -> list[Drug]:
    """Return all drugs, in file order.

    Raises:
        InputError: the file cannot be read, is empty or lacks a column.
    """
    drugs = []
    for line, (identity, accessions, name, synonyms), text in table(
        path, rejects, columns=_COLUMNS, separators=",", quoted=True
    ):
        if identity.strip():
            drugs.append(Drug(_values(identity, accessions), _values(name, synonyms)))
        else:
            rejects.add(path, line, "no DrugBank ID", "the row names no drug", text)
    return drugs


def _values(first: str, others: str) -> tuple[str, ...]:
    """Return the distinct values of two cells, in order."""
    return tuple(dict.fromkeys(value.strip() for value in (first, *others.split("|")) if value.strip()))
