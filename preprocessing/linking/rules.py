"""Find the links of one code: its own, by cross-references and names, and those it inherits from relatives."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from preprocessing.codes import (
    ATC,
    HCPCS,
    ICD9CM,
    ICD9PROC,
    ICD10CM,
    NDC,
    RXNORM,
    CodeRecord,
    compact_code,
    display_code,
    stem_length,
)
from preprocessing.linking.evidence import METHODS, Evidence
from preprocessing.linking.targets import LinkTargets, named_types

ANCESTOR, MEMBER, CONCEPT = "ancestor", "member", "rxcui"
# Factor by which each step of inheritance reduces the confidence of a link.
INHERITED = {CONCEPT: 0.95, ANCESTOR: 0.8, MEMBER: 0.5}
_ATC_LENGTHS = (1, 3, 4, 5, 7)
_PRODUCT_DIGITS = 9
# Groups of HCPCS that hold drugs: pass-through codes, temporary codes, and drugs that are not taken by mouth.
_HCPCS_DRUGS = ("C", "J", "Q", "S")
_ORDER = {name: position for position, name in enumerate([*METHODS, *INHERITED])}


class Link(NamedTuple):
    """Hold one link of a code to a node.

    Attributes:
        node: node id.
        method: a key of `METHODS`, or `ancestor`, `member` or `rxcui`.
        confidence: in (0, 1].
        exact: whether the node is the code itself rather than a relative.
        via: key of the code whose link was inherited, empty for a link of the code itself.
    """

    node: int
    method: str
    confidence: float
    exact: bool = False
    via: str = ""


class Code(NamedTuple):
    """Hold a code and the attributes that its source gives beside the description (see `process_codes`)."""

    record: CodeRecord
    attributes: Mapping


def own_links(code: Code, targets: LinkTargets, evidence: Evidence) -> list[Link]:
    """Return the links of a code by cross-references and by names."""
    record, attributes = code
    methods = dict(evidence.links.get(record.key, {}))
    kinds = named_types(record.system, attributes.get("semantic_tag", ""))
    named = set(targets.named(kinds, record.description))
    for nodes, method in (
        (named, "name"),
        (targets.with_synonym(kinds, record.description), "synonym"),
        (_ingredients(code, targets), "ingredient"),
    ):
        for node in nodes:
            if node not in methods or METHODS[method].confidence > METHODS[methods[node]].confidence:
                methods[node] = method
    return from_evidence(methods, targets, named)


def _ingredients(code: Code, targets: LinkTargets) -> list[int]:
    record, attributes = code
    if record.system == NDC:
        texts = [attributes.get("generic", ""), *attributes.get("ingredients", ())]
    elif record.system in (RXNORM, ATC) or (record.system == HCPCS and record.code.startswith(_HCPCS_DRUGS)):
        texts = [record.description]
    else:
        return []
    return list(dict.fromkeys(node for text in texts for node in targets.ingredients(text)))


def from_evidence(methods: Mapping[int, str], targets: LinkTargets, named: Iterable[int] = ()) -> list[Link]:
    """Return one link per node of `methods` (node -> method).

    A node that joins several terms is not an exact link, unless it is among the nodes `named` like the code.
    """
    return [
        Link(node, method, METHODS[method].confidence, node in named or _is_exact(method, node, targets))
        for node, method in methods.items()
    ]


def _is_exact(method: str, node: int, targets: LinkTargets) -> bool:
    return METHODS[method].exact and node not in targets.grouped


def inherit(
    code: Code, own: Mapping[str, list[Link]], rxcuis: Mapping[str, list[str]], members: Mapping[str, list[Link]]
) -> list[Link]:
    """Return the links that a code inherits from its relatives.

    A drug code inherits the links of the RxNorm concepts that it belongs to. A code that still has no link inherits
    those of its members if it is an ATC class, or else those of its nearest ancestor that has any.
    """
    key = code.record.key
    system = code.record.system
    concepts = list(rxcuis.get(key, ()))
    if rxcui := code.attributes.get("rxcui"):
        concepts.append(f"{RXNORM}/{rxcui}")
    taken = [link for concept in concepts for link in _passed_down(own.get(concept, ()), CONCEPT, concept, 1)]
    if taken or own[key]:
        return taken
    if key in members:
        return members[key]
    for steps, ancestor in enumerate(ancestors(system, code.record.code), start=1):
        if links := own.get(ancestor) or members.get(ancestor):
            return _passed_down(links, ANCESTOR, ancestor, steps)
    return []


def _passed_down(links: Iterable[Link], method: str, via: str, steps: int) -> list[Link]:
    factor = INHERITED[method] ** steps
    return [Link(link.node, method, link.confidence * factor, False, link.via or via) for link in links]


def ancestors(system: str, code: str) -> Iterator[str]:
    """Yield the keys of the ancestors of a code that its characters give, nearest first.

    ICD: one character less each, down to the category; ATC: one level less; NDC: the product of a package. Sections
    and chapters above ICD categories are left out, because a node that a thousand codes share distinguishes none of
    them.
    """
    if system in (ICD10CM, ICD9CM, ICD9PROC):
        compact = compact_code(code)
        for length in range(len(compact) - 1, stem_length(system, compact) - 1, -1):
            yield f"{system}/{display_code(system, compact[:length])}"
    elif system == ATC:
        yield from (f"{ATC}/{code[:length]}" for length in reversed(_ATC_LENGTHS) if length < len(code))
    elif system == NDC and len(code) > _PRODUCT_DIGITS:
        yield f"{NDC}/{code[:_PRODUCT_DIGITS]}"


def members_of_atc_classes(own: Mapping[str, list[Link]]) -> dict[str, list[Link]]:
    """Return the links of ATC classes to the drugs below them, in the order of their codes."""
    members: dict[str, list[Link]] = {}
    for key in sorted(key for key in own if key.startswith(f"{ATC}/") and own[key]):
        code = key.removeprefix(f"{ATC}/")
        for above in ancestors(ATC, code):
            members.setdefault(above, []).extend(_passed_down(best(own[key], 1), MEMBER, key, 1))
    return members


def best(links: Iterable[Link], most: int) -> list[Link]:
    """Return the `most` best links to different nodes, ordering links of equal confidence by method and node."""
    kept: dict[int, Link] = {}
    for link in sorted(links, key=lambda link: (-link.confidence, _ORDER[link.method], link.node, link.via)):
        kept.setdefault(link.node, link)
        if len(kept) == most:
            break
    return list(kept.values())
