"""Build the four ICD hierarchies as nodes and `parent` facts."""

import bisect
import dataclasses
from collections.abc import Iterable

import numpy as np

from preprocessing.codes import (
    ICD9CM,
    ICD9PROC,
    ICD10CM,
    ICD10PCS,
    CodeRecord,
    compact_code,
    display_code,
    stem_length,
)
from preprocessing.graph.names import category_name, prefix_name, shared_words
from preprocessing.sources.tabular import Tabular

# Chapter titles of ICD-9-CM volume 1 (CDC/NCHS): first and last category, title. The package has the ranges, but the
# titles only in Portuguese.
ICD9CM_CHAPTERS = (
    ("001", "139", "Infectious and parasitic diseases"),
    ("140", "239", "Neoplasms"),
    ("240", "279", "Endocrine, nutritional and metabolic diseases, and immunity disorders"),
    ("280", "289", "Diseases of the blood and blood-forming organs"),
    ("290", "319", "Mental disorders"),
    ("320", "389", "Diseases of the nervous system and sense organs"),
    ("390", "459", "Diseases of the circulatory system"),
    ("460", "519", "Diseases of the respiratory system"),
    ("520", "579", "Diseases of the digestive system"),
    ("580", "629", "Diseases of the genitourinary system"),
    ("630", "679", "Complications of pregnancy, childbirth, and the puerperium"),
    ("680", "709", "Diseases of the skin and subcutaneous tissue"),
    ("710", "739", "Diseases of the musculoskeletal system and connective tissue"),
    ("740", "759", "Congenital anomalies"),
    ("760", "779", "Certain conditions originating in the perinatal period"),
    ("780", "799", "Symptoms, signs, and ill-defined conditions"),
    ("800", "999", "Injury and poisoning"),
    ("E000", "E999", "Supplementary classification of external causes of injury and poisoning"),
    ("V01", "V91", "Supplementary classification of factors influencing health status and contact with health care"),
)
# Chapter titles of ICD-9-CM volume 3 (CMS).
ICD9PROC_CHAPTERS = (
    ("00", "00", "Procedures and interventions, not elsewhere classified"),
    ("01", "05", "Operations on the nervous system"),
    ("06", "07", "Operations on the endocrine system"),
    ("08", "16", "Operations on the eye"),
    ("17", "17", "Other miscellaneous diagnostic and therapeutic procedures"),
    ("18", "20", "Operations on the ear"),
    ("21", "29", "Operations on the nose, mouth, and pharynx"),
    ("30", "34", "Operations on the respiratory system"),
    ("35", "39", "Operations on the cardiovascular system"),
    ("40", "41", "Operations on the hemic and lymphatic system"),
    ("42", "54", "Operations on the digestive system"),
    ("55", "59", "Operations on the urinary system"),
    ("60", "64", "Operations on the male genital organs"),
    ("65", "71", "Operations on the female genital organs"),
    ("72", "75", "Obstetrical procedures"),
    ("76", "84", "Operations on the musculoskeletal system"),
    ("85", "86", "Operations on the integumentary system"),
    ("87", "99", "Miscellaneous diagnostic and therapeutic procedures"),
)
# Section titles of ICD-10-PCS (CMS, "ICD-10-PCS Official Guidelines", first character of a code).
ICD10PCS_SECTIONS = {
    "0": "Medical and Surgical",
    "1": "Obstetrics",
    "2": "Placement",
    "3": "Administration",
    "4": "Measurement and Monitoring",
    "5": "Extracorporeal or Systemic Assistance and Performance",
    "6": "Extracorporeal or Systemic Therapies",
    "7": "Osteopathic",
    "8": "Other Procedures",
    "9": "Chiropractic",
    "B": "Imaging",
    "C": "Nuclear Medicine",
    "D": "Radiation Therapy",
    "F": "Physical Rehabilitation and Diagnostic Audiology",
    "G": "Mental Health",
    "H": "Substance Abuse Treatment",
    "X": "New Technology",
}


@dataclasses.dataclass
class GraphDraft:
    """Collect the nodes and facts of a graph.

    Attributes:
        rows: `(type, name, source, source_id)` by node id.
        ids: `source/source_id` -> node id.
        facts: forward relation -> list of int [n, 2] arrays.
    """

    rows: list[tuple[str, str, str, str]] = dataclasses.field(default_factory=list)
    ids: dict[str, int] = dataclasses.field(default_factory=dict)
    facts: dict[str, list[np.ndarray]] = dataclasses.field(default_factory=dict)

    def add(self, kind: str, name: str, source: str, source_id: str) -> int:
        """Return the id of the node `source/source_id`, adding the node if it is new."""
        key = f"{source}/{source_id}"
        if key not in self.ids:
            self.ids[key] = len(self.rows)
            self.rows.append((kind, name, source, source_id))
        return self.ids[key]

    def relate(self, relation: str, pairs: Iterable[tuple[int, int]]) -> int:
        """Add facts and return the number of facts given."""
        array = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
        self.facts.setdefault(relation, []).append(array)
        return len(array)


def add_icd10cm(draft: GraphDraft, records: Iterable[CodeRecord], tabular: Tabular) -> list[int]:
    """Add chapters, sections, categories and codes of the tabular list; retired codes become children of their stem.

    Returns:
        The node id of every position of `tabular.nodes`.
    """
    described = {record.code: record.description for record in records}
    positions = []
    for node in tabular.nodes:
        if node.is_code:
            kind = "diagnosis_code" if node.code in described else "diagnosis_category"
        else:
            kind = f"diagnosis_{node.kind}"
        name = described.get(node.code) or node.description or f"{ICD10CM} {node.code}"
        positions.append(draft.add(kind, name, ICD10CM, node.code))
    tree = [(positions[i], positions[node.parent]) for i, node in enumerate(tabular.nodes) if node.parent >= 0]
    for code, description in described.items():
        if code not in tabular.index:
            child = draft.add("diagnosis_code", description, ICD10CM, code)
            nearest = tabular.nearest(code)
            if nearest is not None:
                tree.append((child, positions[nearest]))
    draft.relate("parent", tree)
    return positions


def add_icd10pcs(draft: GraphDraft, records: Iterable[CodeRecord]) -> None:
    """Add ICD-10-PCS as a trie of code prefixes, because its codes are 7 independent characters without a hierarchy.

    Official files give no titles to prefixes, so a prefix is named after its codes. A prefix with a single continuation
    adds no information and is skipped, except one-character prefixes (sections).
    """
    records = sorted(records, key=lambda record: record.code)
    continuations: dict[str, set[str]] = {}
    words: dict[str, list[str]] = {}
    for record in records:
        split = record.description.split()
        for length in range(1, len(record.code)):
            prefix = record.code[:length]
            continuations.setdefault(prefix, set()).add(record.code[length])
            words[prefix] = shared_words(words[prefix], split) if prefix in words else split
    kept = {prefix for prefix, following in continuations.items() if len(following) > 1 or len(prefix) == 1}
    names: dict[str, str] = {}
    for prefix in sorted(kept):
        above = _longest_prefix(prefix, kept)
        shared = ICD10PCS_SECTIONS.get(prefix) or prefix_name(words[prefix])
        names[prefix] = shared or (f"{names[above]} ({prefix})" if above else f"{ICD10PCS} {prefix}")
    tree = []
    for prefix in sorted(kept):
        node = draft.add("procedure_category", names[prefix], ICD10PCS, prefix)
        if above := _longest_prefix(prefix, kept):
            tree.append((node, draft.ids[f"{ICD10PCS}/{above}"]))
    for record in records:
        node = draft.add("procedure_code", record.description, ICD10PCS, record.code)
        tree.append((node, draft.ids[f"{ICD10PCS}/{_longest_prefix(record.code, kept)}"]))
    draft.relate("parent", tree)


def _longest_prefix(code: str, kept: set[str]) -> str | None:
    return next((code[:length] for length in range(len(code) - 1, 0, -1) if code[:length] in kept), None)


def add_icd9(draft: GraphDraft, records: Iterable[CodeRecord], system: str) -> None:
    """Add ICD-9 diagnoses or procedures in four levels: chapter, category, subcategory, code.

    A category is the part of a code before the dot; a subcategory has one digit more. The file titles only codes, so
    categories are named after their codes (`names.category_name`).
    """
    chapters = ICD9CM_CHAPTERS if system == ICD9CM else ICD9PROC_CHAPTERS
    role = "diagnosis" if system == ICD9CM else "procedure"
    described = {compact_code(record.code): record.description for record in records}
    members: dict[str, list[str]] = {}
    for compact in sorted(described):
        for length in range(stem_length(system, compact), len(compact)):
            members.setdefault(compact[:length], []).append(described[compact])
    firsts = [first for first, _, _ in chapters]
    chapter_ids = [draft.add(f"{role}_chapter", title, system, f"{a}-{b}") for a, b, title in chapters]
    tree = []
    for compact in sorted(members.keys() | described.keys()):
        code = display_code(system, compact)
        if compact in described:
            node = draft.add(f"{role}_code", described[compact], system, code)
        else:
            name = category_name(members[compact], described.get(f"{compact}9"))
            node = draft.add(f"{role}_category", name, system, code)
        if len(compact) > stem_length(system, compact):
            tree.append((node, draft.ids[f"{system}/{display_code(system, compact[:-1])}"]))
        else:
            tree.append((node, chapter_ids[bisect.bisect_right(firsts, compact) - 1]))
    draft.relate("parent", tree)


def add_trees(draft: GraphDraft, records: Iterable[CodeRecord], tabular: Tabular) -> list[int]:
    """Add all four hierarchies; return the node id of every position of `tabular.nodes`."""
    of_system: dict[str, list[CodeRecord]] = {ICD10CM: [], ICD10PCS: [], ICD9CM: [], ICD9PROC: []}
    for record in records:
        of_system[record.system].append(record)
    positions = add_icd10cm(draft, of_system[ICD10CM], tabular)
    add_icd10pcs(draft, of_system[ICD10PCS])
    add_icd9(draft, of_system[ICD9CM], ICD9CM)
    add_icd9(draft, of_system[ICD9PROC], ICD9PROC)
    return positions
