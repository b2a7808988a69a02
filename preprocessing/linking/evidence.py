"""Read cross-reference files to find the nodes that each code is linked to, and by which method."""

import dataclasses
import fnmatch
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from preprocessing.codes import (
    ATC,
    CPT4,
    HCPCS,
    ICD9CM,
    ICD9PROC,
    ICD10CM,
    ICD10PCS,
    RXNORM,
    SNOMED,
    display_code,
    is_wellformed,
)
from preprocessing.common.rejects import Rejects
from preprocessing.linking.targets import LinkTargets
from preprocessing.sources import drugbank, mondo, umls


class Method(NamedTuple):
    """Describe a method of linking.

    Attributes:
        name: name of the method.
        confidence: in (0, 1]; orders links, and is a judgment rather than a probability.
        exact: whether the code and the node are the same thing.
    """

    name: str
    confidence: float
    exact: bool = False


# Best first.
METHODS = {
    method.name: method
    for method in (
        Method("mondo_exact", 1.0, exact=True),
        Method("drugbank_id", 1.0, exact=True),
        Method("name", 0.95, exact=True),
        Method("umls", 0.9, exact=True),
        Method("synonym", 0.85),
        Method("hpo_xref", 0.85),
        Method("mondo_close", 0.8),
        Method("ingredient", 0.8),
        Method("mondo_xref", 0.75),
        Method("mondo_narrow", 0.6),
        Method("mondo_broad", 0.5),
        Method("mondo_related", 0.4),
    )
}
# Spellings of vocabularies in cross-references. UMLS, OMIM and Orphanet are no code systems here, but connect codes.
_VOCABULARIES = {
    "ICD10CM": ICD10CM,
    "ICD10": ICD10CM,
    "ICD-10": ICD10CM,
    "ICD9CM": ICD9CM,
    "ICD9": ICD9CM,
    "ICD-9": ICD9CM,
    "SCTID": SNOMED,
    "SNOMEDCT": SNOMED,
    "SNOMEDCT_US": SNOMED,
    "SNOMED_CT": SNOMED,
    "UMLS": "UMLS",
    "OMIM": "OMIM",
    "Orphanet": "Orphanet",
    "ORPHA": "Orphanet",
}
_UMLS_SOURCES = {
    "ICD10CM": ICD10CM,
    "ICD10PCS": ICD10PCS,
    "ICD9CM": ICD9CM,
    "SNOMEDCT_US": SNOMED,
    "RXNORM": RXNORM,
    "ATC": ATC,
    "CPT": CPT4,
    "HCPCS": HCPCS,
}
_UMLS_NODES = ("HPO", "DRUGBANK", "OMIM")
_PATTERNS = {
    "sssom": "*.sssom.tsv",
    "mondo": "mondo*.obo",
    "hpo": "hp*.obo",
    "drugbank": "drugbank*vocabulary*.csv",
    "umls": "MRCONSO*.RRF",
    "umls_mondo": "umls_mondo*.csv",
    "rxnorm": "RXNCONSO*.RRF",
}


@dataclasses.dataclass
class Evidence:
    """Collect the links of codes, including codes that are not in the vocabulary.

    Attributes:
        links: key -> node -> name of the best method.
        rxcuis: key of an ATC code -> keys of the RxNorm concepts that it belongs to.
        counts: numbers of references by outcome, used or not.
        files: the files that were read.
    """

    links: dict[str, dict[int, str]] = dataclasses.field(default_factory=dict)
    rxcuis: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    files: list[Path] = dataclasses.field(default_factory=list)

    def add(self, key: str, nodes: Iterable[int], method: str) -> None:
        """Link the code `key` to `nodes`; of several methods between a code and a node the most confident is kept."""
        known = self.links.setdefault(key, {})
        for node in nodes:
            if node not in known or METHODS[method].confidence > METHODS[known[node]].confidence:
                known[node] = method

    def add_concept(self, key: str, rxcui: str) -> None:
        """Record that an ATC code belongs to an RxNorm concept; both arguments are keys `SYSTEM/code`."""
        concepts = self.rxcuis.setdefault(key, [])
        if rxcui not in concepts:
            concepts.append(rxcui)


def find_files(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """Return the cross-reference files anywhere below `folders`, by kind (keys of `_PATTERNS`), sorted."""
    below = dict.fromkeys(path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        kind: [path for path in below if fnmatch.fnmatchcase(path.name.lower(), pattern.lower())]
        for kind, pattern in _PATTERNS.items()
    }


def gather(folders: Iterable[Path], targets: LinkTargets, rejects: Rejects, *, progress: bool = True) -> Evidence:
    """Read all cross-reference files below `folders`, and add the synonyms of terms to `targets`.

    Raises:
        InputError: a file cannot be read, is empty or lacks a column.
    """
    files = find_files(folders)
    evidence = Evidence(files=[path for paths in files.values() for path in paths])
    for path in files["sssom"]:
        for reference in mondo.read_sssom(path, rejects):
            _refer(evidence, targets, reference, f"mondo_{reference.predicate}", rejects)
    for kind in ("mondo", "hpo"):
        for path in files[kind]:
            for term in mondo.read_obo(path, rejects):
                targets.add_synonyms(term.term, term.names)
                for reference in term.references:
                    method = "hpo_xref" if kind == "hpo" else f"mondo_{reference.predicate}"
                    _refer(evidence, targets, reference, method, rejects)
    for path in files["drugbank"]:
        for drug in drugbank.read_vocabulary(path, rejects):
            for identity in drug.ids:
                targets.add_synonyms(f"DrugBank:{identity}", drug.names)
    for path in files["rxnorm"]:
        _read_rxnorm(evidence, targets, path, rejects, progress)
    concepts = _concepts_of_mondo(evidence, targets, files["umls_mondo"], rejects)
    for path in files["umls"]:
        _read_umls(evidence, targets, path, concepts, rejects, progress)
    return evidence


def _refer(evidence: Evidence, targets: LinkTargets, reference: mondo.Reference, method: str, rejects: Rejects) -> None:
    system = _VOCABULARIES.get(reference.vocabulary)
    if system is None:
        return
    key = _key(system, reference.code)
    if key is None:
        # The official files hold many ranges of codes and retired forms.
        evidence.counts[f"references to what is no code of {system}"] += 1
        return
    nodes = targets.nodes_of(reference.term)
    if nodes:
        evidence.counts[f"references used, {system}"] += 1
        evidence.add(key, nodes, method)
    else:
        row = f"{reference.term} {reference.vocabulary}:{reference.code}"
        rejects.add(
            reference.file, reference.line, "id not in the graph", f"{reference.term} is not a node of the graph", row
        )


def _key(system: str, code: str) -> str | None:
    """Return the key of a code in the spelling of a foreign file; None if it is not a code of `system`."""
    if system in ("UMLS", "OMIM", "Orphanet"):
        return f"{system}/{code}"
    # Volume 3 (procedures) shares the name ICD9CM; only its codes have the dot after two digits.
    if system == ICD9CM and code[2:3] == ".":
        system = ICD9PROC
    return f"{system}/{display_code(system, code)}" if is_wellformed(system, code) else None


def _read_rxnorm(evidence: Evidence, targets: LinkTargets, path: Path, rejects: Rejects, progress: bool) -> None:
    """Read the DrugBank ids and ATC codes of concepts, which only the full release has."""
    for rxcui, source, code in umls.read_concepts(path, ("DRUGBANK", "ATC"), rejects, progress=progress):
        if source == "DRUGBANK":
            evidence.add(f"{RXNORM}/{rxcui}", targets.nodes_of(f"DrugBank:{code}"), "drugbank_id")
        elif is_wellformed(ATC, code):
            evidence.add_concept(f"{ATC}/{code}", f"{RXNORM}/{rxcui}")


def _concepts_of_mondo(
    evidence: Evidence, targets: LinkTargets, paths: Iterable[Path], rejects: Rejects
) -> dict[str, set[int]]:
    """Return the nodes of each UMLS concept, from ontologies that refer to the UMLS and from `umls_mondo.csv`."""
    close = ("mondo_exact", "mondo_xref", "hpo_xref")
    concepts = {
        key.removeprefix("UMLS/"): {node for node, method in nodes.items() if method in close}
        for key, nodes in evidence.links.items()
        if key.startswith("UMLS/")
    }
    for path in paths:
        for line, cui, term in umls.read_umls_mondo(path, rejects):
            if nodes := targets.nodes_of(term):
                concepts.setdefault(cui, set()).update(nodes)
            else:
                rejects.add(path, line, "id not in the graph", f"{term} is not a node of the graph", f"{cui},{term}")
    return concepts


def _read_umls(
    evidence: Evidence,
    targets: LinkTargets,
    path: Path,
    concepts: dict[str, set[int]],
    rejects: Rejects,
    progress: bool,
) -> None:
    """Link codes to the nodes with which they share a concept."""
    members: list[tuple[str, str]] = []
    for cui, source, code in umls.read_concepts(path, {*_UMLS_SOURCES, *_UMLS_NODES}, rejects, progress=progress):
        if source == "HPO":
            concepts.setdefault(cui, set()).update(targets.nodes_of(code))
        elif source == "DRUGBANK":
            concepts.setdefault(cui, set()).update(targets.nodes_of(f"DrugBank:{code}"))
        elif source == "OMIM":
            exact = evidence.links.get(f"OMIM/{code}", {})
            concepts.setdefault(cui, set()).update(n for n, method in exact.items() if method == "mondo_exact")
        elif key := _key(_UMLS_SOURCES[source], code):
            members.append((key, cui))
    for key, cui in members:
        if nodes := concepts.get(cui):
            evidence.add(key, nodes, "umls")
