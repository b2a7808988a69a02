"""Find the nodes of PrimeKG that codes can be linked to, by the terms of their ontologies and by their names."""

import re
from collections.abc import Iterable, Sequence

from preprocessing.codes import (
    ATC,
    CPT4,
    HCPCS,
    ICD9CM,
    ICD9PROC,
    ICD10CM,
    ICD10PCS,
    NDC,
    RXNORM,
    SNOMED,
)
from preprocessing.graph.knowledge_graph import KnowledgeGraph
from preprocessing.graph.names import by_normal_form, normal_form

DISEASE, PHENOTYPE, DRUG, ANATOMY, GENE = "disease", "effect/phenotype", "drug", "anatomy", "gene/protein"
# Types of nodes whose names a code of each system may share; a procedure shares names only with organs and genes.
_DIAGNOSES, _PROCEDURES, _DRUGS = (DISEASE, PHENOTYPE), (ANATOMY, GENE), (DRUG,)
_NAMED_TYPES: dict[str, tuple[str, ...]] = {
    ICD10CM: _DIAGNOSES,
    ICD9CM: _DIAGNOSES,
    ICD10PCS: _PROCEDURES,
    ICD9PROC: _PROCEDURES,
    CPT4: _PROCEDURES,
    HCPCS: (*_DRUGS, *_PROCEDURES),
    RXNORM: _DRUGS,
    NDC: _DRUGS,
    ATC: _DRUGS,
    SNOMED: (
        *_DIAGNOSES,
        *_DRUGS,
        ANATOMY,
        "biological_process",
        "molecular_function",
        "cellular_component",
        "pathway",
        "exposure",
    ),
}
# Types of nodes by the semantic tag of a SNOMED CT concept, which is more specific than its system.
_TAGGED_TYPES = {
    "disorder": _DIAGNOSES,
    "finding": _DIAGNOSES,
    "body structure": (ANATOMY, "cellular_component"),
    "cell structure": (ANATOMY, "cellular_component"),
    "substance": (*_DRUGS, "exposure", GENE),
    "product": _DRUGS,
    "medicinal product": _DRUGS,
    "procedure": _PROCEDURES,
}
# Numbered ontologies: source of a node -> prefix of its terms. `MONDO_grouped` joins several MONDO ids by `_`.
_PREFIXES = {"MONDO": "MONDO", "MONDO_grouped": "MONDO", "HPO": "HP"}
_DRUGBANK = "DrugBank"
# Python refuses to convert thousands of digits.
_LONGEST_NUMBER = 19
_NUMBER = re.compile(r"(?:[A-Za-z]+:)?([0-9]+)")
# Amounts before a name in RxNorm: `24 HR`, `0.5 ML`, `120 ACTUAT`.
_AMOUNT = re.compile(r"^(?:[0-9][0-9.,]*\s+[A-Z]{2,}\s+)+")
_PART = re.compile(r"[;,/(){}\[\]|]|\s(?:and|with)\s", re.IGNORECASE)
_LONGEST_INGREDIENT, _SHORTEST_NAME = 6, 4


def named_types(system: str, semantic_tag: str = "") -> tuple[str, ...]:
    """Return the types of nodes that may have the name of a code of `system`, or of a concept with `semantic_tag`."""
    return _TAGGED_TYPES.get(semantic_tag) or _NAMED_TYPES.get(system, ())


class LinkTargets:
    """Index the nodes of a graph by term and by name.

    Attributes:
        by_term: `MONDO:0005148`, `HP:0001250` or `DrugBank:DB00331` -> node ids.
        grouped: ids of nodes that join several terms, and so are identical to none of them.
    """

    def __init__(self, graph: KnowledgeGraph):
        self.by_term: dict[str, list[int]] = {}
        self.grouped: set[int] = set()
        named: dict[str, list[tuple[str, int]]] = {}
        columns = (graph.nodes[name].to_pylist() for name in ("type", "name", "source", "source_id"))
        for node, (kind, name, source, source_id) in enumerate(zip(*columns, strict=True)):
            named.setdefault(kind, []).append((name, node))
            if source in _PREFIXES:
                parts = source_id.split("_")
                if len(parts) > 1:
                    self.grouped.add(node)
                for part in parts:
                    if match := _NUMBER.fullmatch(part):
                        self._enter(f"{_PREFIXES[source]}:{int(match[1]):07}", node)
            elif source == _DRUGBANK:
                self._enter(f"{_DRUGBANK}:{source_id}", node)
        self._names = {kind: by_normal_form(pairs) for kind, pairs in named.items()}
        self._synonyms: dict[str, dict[str, list[int]]] = {kind: {} for kind in named}
        self._types = graph.nodes["type"].to_pylist()

    def _enter(self, term: str, node: int) -> None:
        self.by_term.setdefault(term, []).append(node)

    def nodes_of(self, term: str) -> Sequence[int]:
        """Return the nodes of a CURIE, whose number may have leading zeros or not."""
        prefix, _, number = term.partition(":")
        is_number = number.isascii() and number.isdigit() and len(number) < _LONGEST_NUMBER
        return self.by_term.get(f"{prefix}:{int(number):07}" if is_number else term, ())

    def add_synonyms(self, term: str, names: Iterable[str]) -> None:
        """Add synonyms to the nodes of `term`."""
        for node in self.nodes_of(term):
            synonyms = self._synonyms[self._types[node]]
            for form in map(normal_form, names):
                if len(form) >= _SHORTEST_NAME and node not in (known := synonyms.setdefault(form, [])):
                    known.append(node)

    def named(self, kinds: Sequence[str], text: str) -> list[int]:
        """Return the nodes of the types `kinds` whose name equals `text`."""
        return self._find(self._names, kinds, normal_form(text))

    def with_synonym(self, kinds: Sequence[str], text: str) -> list[int]:
        """Return the nodes of the types `kinds` one of whose synonyms equals `text`."""
        return self._find(self._synonyms, kinds, normal_form(text))

    def ingredients(self, text: str) -> list[int]:
        """Return the drugs whose names or synonyms begin a part of `text`, such as `24 HR metformin ... 500 MG`.

        Salts and strengths that follow the name are ignored; in each part the longest name counts.
        """
        found: dict[int, None] = {}
        for part in _PART.split(text):
            words = normal_form(_AMOUNT.sub("", part.strip())).split()
            for length in range(min(len(words), _LONGEST_INGREDIENT), 0, -1):
                form = " ".join(words[:length])
                drugs = self._find(self._names, _DRUGS, form) or self._find(self._synonyms, _DRUGS, form)
                if drugs:
                    found.update(dict.fromkeys(drugs))
                    break
        return list(found)

    @staticmethod
    def _find(names: dict[str, dict[str, list[int]]], kinds: Sequence[str], form: str) -> list[int]:
        if len(form) < _SHORTEST_NAME:
            return []
        return [node for kind in kinds for node in names.get(kind, {}).get(form, ())]
