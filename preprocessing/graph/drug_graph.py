"""Add drugs to the graph of the ICD code systems: packages, their products, and what these contain and do.

A package (NDC of 11 digits) has its product (9 digits) as `parent`; a product has its substances (`has_ingredient`) and
its pharmacologic classes (`in_drug_class`: established class, mechanism, chemical structure, physiologic effect).
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from preprocessing.codes import NDC
from preprocessing.graph.icd_graph import IcdFacts
from preprocessing.graph.icd_trees import GraphDraft

DRUG_RELATIONS = ("has_ingredient", "in_drug_class")


@dataclasses.dataclass(frozen=True, slots=True)
class Drug:
    """Hold one code of the directory: `code` of 11 digits, or of 9 if no package of the product is listed.

    Attributes:
        code: in normal form.
        description: text of the code.
        product: text of its product.
        substances: names of the active ingredients, without strengths.
        classes: names of the pharmacologic classes with their kind, `Biguanide [EPC]`.
    """

    code: str
    description: str
    product: str
    substances: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def product_code(self) -> str:
        """Return the code of the product, 9 digits."""
        return self.code[:9]


def add_drugs(source: IcdFacts, drugs: Iterable[Drug]) -> IcdFacts:
    """Return the nodes and facts of `source` followed by those of the drugs."""
    draft = GraphDraft(list(source.rows), dict(source.ids), {name: [pairs] for name, pairs in source.facts.items()})
    facts: dict[str, list[tuple[int, int]]] = {name: [] for name in ("parent", *DRUG_RELATIONS)}
    for drug in drugs:
        is_new = f"{NDC}/{drug.product_code}" not in draft.ids
        product = draft.add("drug_product", drug.product, NDC, drug.product_code)
        if drug.code != drug.product_code:
            facts["parent"].append((draft.add("drug_package", drug.description, NDC, drug.code), product))
        if is_new:
            substances = [draft.add("substance", name, "substance", name.lower()) for name in drug.substances]
            classes = [draft.add("drug_class", name, "drug class", name) for name in drug.classes]
            facts["has_ingredient"] += [(product, node) for node in substances]
            facts["in_drug_class"] += [(product, node) for node in classes]
    for name, pairs in facts.items():
        draft.relate(name, pairs)
    joined = {name: np.concatenate(parts) for name, parts in draft.facts.items()}
    return dataclasses.replace(source, rows=tuple(draft.rows), facts=joined, ids=draft.ids)
