"""Composes the description of a code where the official text says little, as of a drug that has only a trade name."""

import re
from collections.abc import Callable, Mapping

from preprocessing.codes import ATC, NDC

# Homeopathic products and allergen extracts list hundreds; a text encoder reads the first few dozen words.
_MOST_LISTED = 5
_KIND = re.compile(r"\s*\[([A-Za-z/ ]+)\]$")
# `60 mg/1`: per tablet, capsule or dose.
_PER_PIECE = re.compile(r"/1$")


def compose(system: str, description: str, attributes: Mapping) -> str:
    """The text of one code, of its official description and the attributes in `codes.csv`; may be empty."""
    composer = _COMPOSERS.get(system)
    return composer(description, attributes) if composer is not None and attributes else description


def _ndc(name: str, attributes: Mapping) -> str:
    """`Ativan (Lorazepam), injection, intramuscular; lorazepam 2 mg/ml; Benzodiazepine; 10 VIAL in 1 CARTON > ...`."""
    generic = _listed(attributes.get("generic", "").split(", "))
    title = f"{name} ({generic})" if name and generic and generic.lower() != name.lower() else name or generic
    form, route = (attributes.get(field, "").lower() for field in ("form", "route"))
    ingredients = [_PER_PIECE.sub("", text).lower() for text in attributes.get("ingredients", ())]
    parts = [", ".join(filter(None, (title, form, route))), _listed(ingredients), _listed(_classes(attributes))]
    return "; ".join(filter(None, (*parts, attributes.get("package", ""))))


def _classes(attributes: Mapping) -> list[str]:
    """Names of the established pharmacologic classes (EPC), or of all classes where there is none."""
    classes = attributes.get("class", ())
    established = [name for name in classes if name.endswith("[EPC]")]
    return list(dict.fromkeys(_KIND.sub("", name) for name in established or classes))


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_MOST_LISTED])
    return shown if len(names) <= _MOST_LISTED else f"{shown} and {len(names) - _MOST_LISTED} more"


def _atc(name: str, attributes: Mapping) -> str:
    """`metformin; Biguanides; Blood glucose lowering drugs, excl. insulins; ...`: the name, then the classes above."""
    return "; ".join(filter(None, (name, *attributes.get("within", ()))))


_COMPOSERS: dict[str, Callable[[str, Mapping], str]] = {NDC: _ndc, ATC: _atc}
