"""Read the FDA's National Drug Code directory: drug products and their packages.

Format (FDA, "NDC Product File Definitions" and "NDC Package File Definitions"; `ndctext.zip`): tab-separated with a
header, UTF-8 or cp1252, CRLF line ends, no quotation marks.
- `product.txt`: PRODUCTID, PRODUCTNDC (labeler-product), PROPRIETARYNAME, PROPRIETARYNAMESUFFIX, NONPROPRIETARYNAME,
  DOSAGEFORMNAME, ROUTENAME, SUBSTANCENAME, ACTIVE_NUMERATOR_STRENGTH, ACTIVE_INGRED_UNIT, PHARM_CLASSES, ...; several
  routes, substances, strengths and units are separated by `;`, several classes by `,`;
- `package.txt`: PRODUCTID, PRODUCTNDC, NDCPACKAGECODE (labeler-product-package), PACKAGEDESCRIPTION, ...
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from preprocessing.codes import NDC, display_code, is_wellformed
from preprocessing.common.rejects import Rejects
from preprocessing.common.text_tables import Row, table
from preprocessing.sources.code_entries import CodeEntries
from preprocessing.sources.release_files import find_release, need_release
from preprocessing.sources.rxnorm import read_ndc_concepts

_PRODUCT_COLUMNS = {
    name: ()
    for name in (
        "PRODUCTID",
        "PRODUCTNDC",
        "PROPRIETARYNAME",
        "NONPROPRIETARYNAME",
        "DOSAGEFORMNAME",
        "ROUTENAME",
        "SUBSTANCENAME",
        "ACTIVE_NUMERATOR_STRENGTH",
        "ACTIVE_INGRED_UNIT",
        "PHARM_CLASSES",
    )
}
_OPTIONAL_PRODUCT_COLUMNS = {"PROPRIETARYNAMESUFFIX": ()}
_PACKAGE_COLUMNS = {"PRODUCTID": (), "PRODUCTNDC": (), "NDCPACKAGECODE": (), "PACKAGEDESCRIPTION": ()}
# Classes are lists of names that may hold commas themselves; each ends with its kind: [EPC], [MoA], [CS], [PE], ...
_KIND = re.compile(r"\[[A-Za-z/ ]+\]\s*(?:,|$)")
# A package repeats its own code: `10 mL in 1 VIAL (0002-1407-01)`.
_CODE_IN_TEXT = re.compile(r" ?\(\d{4,5}-\d{3,4}-\d{1,2}\)")


class _Product(NamedTuple):
    row: Row
    code: str
    name: str
    attributes: dict


def read_ndc(folder: Path, rejects: Rejects, rxnorm_folder: Path | None = None) -> CodeEntries:
    """Return the packages (11 digits), and the products (9 digits) that have no listed package.

    The description is the trade name. Attributes: `generic`, `form`, `route`, `ingredients` (substance and strength),
    `class`, `package`, and `rxcui`, the RxNorm concept of the package if `rxnorm_folder` holds RxNorm's files.

    Raises:
        InputError: the folder lacks `product.txt`, or a file lacks a column.
    """
    entries = CodeEntries(NDC, rejects)
    products = _read_products(need_release(folder, r"product\.txt", entries, "product.txt"), entries)
    packages = find_release(folder, r"package\.txt", entries)
    concepts = read_ndc_concepts(rxnorm_folder, entries) if rxnorm_folder is not None else {}
    packaged = _add_packages(packages, entries, products, concepts) if packages is not None else set()
    if packages is None:
        entries.remarks.append(f"{NDC}: {folder} holds no package.txt, so the codes are products of 9 digits")
    for product in products.values():
        if product.code not in packaged:
            entries.counts["products without package"] += 1
            _add(entries, entries.files[0], product.row, product.code, product, {})
    return entries


def _read_products(path: Path, entries: CodeEntries) -> dict[str, _Product]:
    products: dict[str, _Product] = {}
    for row in table(path, entries.rejects, columns=_PRODUCT_COLUMNS, optional=_OPTIONAL_PRODUCT_COLUMNS, cp1252=True):
        identity, code, name, generic, form, route, substances, strengths, units, classes, suffix = row.values
        if not is_wellformed(NDC, code):
            entries.rejects.add(path, row.line, "malformed code", f"{code!r} is no NDC", row.text)
            continue
        attributes = {
            "generic": " ".join(generic.split()),
            "form": form.strip(),
            "route": ", ".join(_parts(route)),
            "ingredients": _ingredients(substances, strengths, units),
            "class": list(_classes(classes)),
        }
        product = _Product(row, display_code(NDC, code), f"{name} {suffix}".strip() or generic, attributes)
        first = products.setdefault(identity, product)
        if first is not product:
            reason = f"the product {identity} was already described"
            entries.rejects.add(path, row.line, "duplicate code", reason, row.text)
    return products


def _classes(text: str) -> Iterator[str]:
    """Yield the classes in a list of them, each with its kind."""
    end = 0
    for match in _KIND.finditer(text):
        name = text[end : match.start()]
        name = name[max(name.rfind("["), name.rfind("]")) + 1 :]
        if name:
            yield " ".join(f"{name}{match[0].rstrip(',')}".split())
        end = match.end()


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(";") if part.strip()]


def _ingredients(substances: str, strengths: str, units: str) -> list[str]:
    """Return each ingredient as `SUBSTANCE strength unit`, or names alone if the three lists differ in length."""
    names, numbers, measures = (text.split(";") for text in (substances, strengths, units))
    if len(names) == len(numbers) == len(measures):
        joined = (" ".join(" ".join(parts).split()) for parts in zip(names, numbers, measures, strict=True))
        return [ingredient for ingredient in joined if ingredient]
    return _parts(substances)


def _add_packages(
    path: Path, entries: CodeEntries, products: dict[str, _Product], concepts: dict[str, str]
) -> set[str]:
    """Add the rows of `package.txt`, and return the products that have a package."""
    by_code: dict[str, _Product] = {}
    for described in products.values():
        by_code.setdefault(described.code, described)
    packaged = set()
    for row in table(path, entries.rejects, columns=_PACKAGE_COLUMNS, cp1252=True):
        identity, product_code, code, text = row.values
        attributes = {"package": _CODE_IN_TEXT.sub("", " ".join(text.split())).strip()}
        product = products.get(identity)
        if product is None and is_wellformed(NDC, product_code):
            product = by_code.get(display_code(NDC, product_code))
        if product is None:
            reason = f"product.txt has no product {identity}; the package was kept without it"
            entries.rejects.add(path, row.line, "unknown product", reason, row.text)
        else:
            packaged.add(product.code)
        if is_wellformed(NDC, code):
            attributes["rxcui"] = concepts.get(display_code(NDC, code), "")
        _add(entries, path, row, code, product, attributes)
    if concepts:
        entries.counts["packages with an RxNorm concept"] = sum(code in concepts for code in entries.codes())
    return packaged


def _add(entries: CodeEntries, path: Path, row: Row, code: str, product: _Product | None, attributes: dict) -> None:
    name, known = (product.name, product.attributes) if product is not None else ("", {})
    entries.add(path, row.line, code, name, {**known, **attributes}, row=row.text)
