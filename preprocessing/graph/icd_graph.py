"""Build the knowledge graph of the ICD code systems from the packages that ship the official files.

Relations, as forward (source -> target) and reverse:

| forward | reverse | source | target | from |
|---|---|---|---|---|
| `parent` | `child` | code or category | the node above it | the four hierarchies |
| `gem_exact` | `gem_exact_of` | ICD-9-CM diagnosis | ICD-10-CM diagnosis | GEM, flag approximate = 0 |
| `gem_approximate` | `gem_approximate_of` | ICD-9-CM diagnosis | ICD-10-CM diagnosis | GEM, approximate = 1 |
| `excludes1` | `excludes1_of` | annotated ICD-10-CM node | named node | "never together" notes |
| `excludes2` | `excludes2_of` | annotated node | named node | "not included here" notes |
| `code_first` | `code_first_of` | manifestation | underlying condition | code first notes |
| `code_also` | `code_also_of` | annotated node | named node | code also notes |
| `use_additional` | `use_additional_of` | underlying condition | additional code | use additional code notes |
| `hpo_link` | `hpo_link_of` | ICD node | phenotype or disease | equal names, or hp.obo cross-references |
| `phenotype_parent` | `phenotype_child` | phenotype | broader phenotype | hp.obo is_a |
| `has_phenotype` | `phenotype_of` | disease | phenotype | phenotype.hpoa |
| `gene_phenotype` | `gene_phenotype_of` | gene | phenotype | genes_to_phenotype.txt |
| `gene_disease` | `gene_disease_of` | gene | disease | genes_to_phenotype.txt |
| `in_group` | `group_member` | diagnosis | CCSR or CCS group | only with `groups` |
| `has_ingredient` | `ingredient_of` | drug product | substance | only with drugs: `drug_graph` |
| `in_drug_class` | `drug_class_member` | drug product | pharmacologic class | only with drugs |

An *edge type* is a relation, or `gem`, which covers both crosswalk relations, or `note`, which covers the five notes.
"""

import dataclasses
import functools

import numpy as np

from preprocessing.codes import ICD9CM, ICD10CM, is_wellformed
from preprocessing.graph.icd_trees import GraphDraft, add_trees
from preprocessing.graph.names import by_normal_form
from preprocessing.sources import icd
from preprocessing.sources.hpo import Hpo, read_hpo
from preprocessing.sources.tabular import NOTE_RELATIONS, Tabular, note_edges, read_tabular

REVERSE = {
    "parent": "child",
    "gem_exact": "gem_exact_of",
    "gem_approximate": "gem_approximate_of",
    "excludes1": "excludes1_of",
    "excludes2": "excludes2_of",
    "code_first": "code_first_of",
    "code_also": "code_also_of",
    "use_additional": "use_additional_of",
    "hpo_link": "hpo_link_of",
    "phenotype_parent": "phenotype_child",
    "has_phenotype": "phenotype_of",
    "gene_phenotype": "gene_phenotype_of",
    "gene_disease": "gene_disease_of",
    "in_group": "group_member",
    "has_ingredient": "ingredient_of",
    "in_drug_class": "drug_class_member",
}
EDGE_TYPES = {
    "gem": ("gem_exact", "gem_approximate"),
    "note": tuple(NOTE_RELATIONS.values()),
    **{relation: (relation,) for relation in REVERSE},
}
# Order in which the neighbors of a node are kept when it has more than the hub cap allows.
PRIORITY = (
    "parent",
    "gem_exact",
    "gem_exact_of",
    "gem_approximate",
    "gem_approximate_of",
    "has_ingredient",
    "in_drug_class",
    "in_group",
    "code_first",
    "use_additional",
    "code_also",
    "code_first_of",
    "use_additional_of",
    "code_also_of",
    "excludes1",
    "excludes2",
    "excludes1_of",
    "excludes2_of",
    "hpo_link",
    "hpo_link_of",
    "child",
    "phenotype_parent",
    "phenotype_of",
    "has_phenotype",
    "gene_disease",
    "gene_disease_of",
    "gene_phenotype_of",
    "gene_phenotype",
    "phenotype_child",
    "ingredient_of",
    "drug_class_member",
    "group_member",
)
# Relations whose targets an anchor keeps in front of all others: its parents and its crosswalk partners.
FIRST_KEPT = PRIORITY[:5]


@dataclasses.dataclass(frozen=True)
class IcdFacts:
    """Hold the nodes and facts of the ICD graph before anything is held out.

    Attributes:
        rows: `(type, name, source, source_id)` by node id.
        facts: forward relation -> int64 [n, 2] of (source node, target node).
        ids: `source/source_id` -> node id.
        counts: numbers of rows and links that were read, linked and dropped, by name.
    """

    rows: tuple[tuple[str, str, str, str], ...]
    facts: dict[str, np.ndarray]
    ids: dict[str, int]
    counts: dict[str, int]


@functools.cache
def icd_facts(groups: bool = False) -> IcdFacts:
    """Return all nodes and facts of the ICD graph, in an order that depends only on the files.

    Args:
        groups: whether to add CCSR and CCS groups, which the evaluation uses as labels.

    Raises:
        InputError: a package that ships the files is missing.
    """
    tabular = read_tabular()
    draft = GraphDraft()
    positions = add_trees(draft, icd.vocabulary(), tabular)
    listed = sum(len(icd.read_code_list(system).records) for system in icd.CODE_LISTS)
    counts = {
        "icd10cm_codes_of_the_newer_list_only": len(icd.vocabulary()) - listed,
        "icd10cm_codes_without_place": len(tabular.unplaced),
    }
    counts |= _add_gem(draft)
    edges, note_counts = note_edges(tabular)
    counts |= note_counts
    for relation in NOTE_RELATIONS.values():
        draft.relate(relation, ((positions[a], positions[b]) for a, b, name in edges if name == relation))
    counts |= _add_hpo(draft, tabular, positions)
    if groups:
        counts |= _add_groups(draft)
    facts = {name: np.concatenate(parts) for name, parts in draft.facts.items()}
    return IcdFacts(tuple(draft.rows), facts, draft.ids, counts)


def _add_gem(draft: GraphDraft) -> dict[str, int]:
    gem = icd.read_gem()
    pairs: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    unknown = 0
    for icd9, icd10, exact in gem.pairs:
        source, target = draft.ids.get(f"{ICD9CM}/{icd9}"), draft.ids.get(f"{ICD10CM}/{icd10}")
        if source is None or target is None:
            unknown += 1
        else:
            pairs[exact].append((source, target))
    draft.relate("gem_exact", pairs[True])
    draft.relate("gem_approximate", pairs[False])
    return {
        "gem_rows": gem.rows,
        "gem_rows_no_map": gem.no_map,
        "gem_rows_malformed": gem.malformed,
        "gem_pairs_of_retired_codes": unknown,
    }


def _add_groups(draft: GraphDraft) -> dict[str, int]:
    members = [(ICD10CM, code, "CCSR", group, f"CCSR {group}") for code, group in icd.read_ccsr()]
    members += [(ICD9CM, code, "CCS", group, label) for code, group, label in icd.read_ccs()]
    pairs = []
    unknown = 0
    for system, code, source, group, label in members:
        node = draft.ids.get(f"{system}/{code}")
        if node is None:
            unknown += 1
        else:
            pairs.append((node, draft.add("code_group", label, source, group)))
    draft.relate("in_group", pairs)
    return {"group_members": len(pairs), "group_members_of_retired_codes": unknown}


def _add_hpo(draft: GraphDraft, tabular: Tabular, positions: list[int]) -> dict[str, int]:
    """Add those entities of the HPO that are within 2 hops of one that is linked to an ICD node."""
    hpo = read_hpo()
    names = [*hpo.terms, *hpo.diseases, *(f"NCBI:{gene}" for gene in hpo.genes)]
    number = {name: index for index, name in enumerate(names)}
    facts = {
        "phenotype_parent": [
            (term, parent) for term in hpo.terms for parent in hpo.terms[term].parents if parent in hpo.terms
        ],
        "has_phenotype": hpo.disease_phenotype,
        "gene_phenotype": [(f"NCBI:{gene}", term) for gene, term in hpo.gene_phenotype],
        "gene_disease": [(f"NCBI:{gene}", disease) for gene, disease in hpo.gene_disease],
    }
    numbered = {
        relation: np.array([(number[a], number[b]) for a, b in pairs], dtype=np.int64).reshape(-1, 2)
        for relation, pairs in facts.items()
    }
    links, counts = _hpo_links(draft, tabular, positions, hpo, number)
    kept = _within(np.unique(links[:, 1]), np.concatenate(list(numbered.values())), len(names), hops=2)
    node_of = np.full(len(names), -1, dtype=np.int64)
    for index in np.flatnonzero(kept):
        node_of[index] = _add_hpo_node(draft, hpo, names[index])
    draft.relate("hpo_link", np.stack([links[:, 0], node_of[links[:, 1]]], axis=1))
    for relation, pairs in numbered.items():
        pairs = node_of[pairs]
        draft.relate(relation, pairs[(pairs >= 0).all(axis=1)])
    return counts | {"hpo_nodes": len(names), "hpo_nodes_kept": int(kept.sum())} | hpo.counts


def _add_hpo_node(draft: GraphDraft, hpo: Hpo, name: str) -> int:
    source, _, source_id = name.partition(":")
    if source == "HP":
        return draft.add("phenotype", hpo.terms[name].names[0], "HPO", name)
    if source == "NCBI":
        return draft.add("gene", hpo.genes[source_id], source, source_id)
    return draft.add("disease", hpo.diseases[name], source, source_id)


def _hpo_links(
    draft: GraphDraft, tabular: Tabular, positions: list[int], hpo: Hpo, number: dict[str, int]
) -> tuple[np.ndarray, dict[str, int]]:
    """Link ICD nodes to HPO entities by equal names or hp.obo cross-references.

    Returns:
        (ICD node, number of HPO entity) pairs, int64 [n, 2], sorted; and counts of links and unresolved references.
    """
    # Names derived for ICD-9 categories are too coarse to identify anything, so only titles and inclusion terms count.
    icd_named = [(name, node) for node, (kind, name, _, _) in enumerate(draft.rows) if kind == "diagnosis_code"]
    for position, node in enumerate(tabular.nodes):
        if node.is_code:
            icd_named += [(name, positions[position]) for name in (node.description, *node.terms)]
    forms = by_normal_form(icd_named)
    hpo_named = [(name, number[term_id]) for term_id, term in hpo.terms.items() for name in term.names]
    hpo_named += [(part, number[key]) for key, name in hpo.diseases.items() for part in name.split(";")]
    by_name = {
        (node, entity)
        for form, entities in by_normal_form(hpo_named).items()
        for node in forms.get(form, ())
        for entity in entities
    }
    by_reference = set()
    unresolved = 0
    for term_id, term in hpo.terms.items():
        for system, code in term.icd:
            system = ICD10CM if system == "ICD10" else ICD9CM
            node = draft.ids.get(f"{system}/{code}") if is_wellformed(system, code) else None
            if node is None:
                unresolved += 1
            else:
                by_reference.add((node, number[term_id]))
    counts = {
        "hpo_links_by_name": len(by_name),
        "hpo_links_by_reference": len(by_reference),
        "hpo_references_unresolved": unresolved,
    }
    return np.array(sorted(by_name | by_reference), dtype=np.int64).reshape(-1, 2), counts


def _within(seeds: np.ndarray, pairs: np.ndarray, count: int, *, hops: int) -> np.ndarray:
    """Return a bool [count] mask of the nodes at most `hops` undirected steps along `pairs` [n, 2] from `seeds`."""
    reached = np.zeros(count, dtype=bool)
    reached[seeds] = True
    for _ in range(hops):
        touching = reached[pairs]
        reached[pairs[touching.any(axis=1)]] = True
    return reached
