"""Read the ICD-10-CM tabular list (NCHS XML) from the package simple-icd-10-cm.

The XML nests `chapter > section > diag > diag ...`; each level has a `desc`, notes (`excludes1`, `codeFirst`, ...) and
inclusion terms. Codes of 7 characters are not spelled out: `sevenChrDef` lists the 7th characters that its leaves take,
after padding with `X` to 6 characters, and the package's list of valid codes decides which of these codes exist.
"""

import bisect
import dataclasses
import functools
import re
import xml.etree.ElementTree as ET  # nosec B405 # A file of an installed package.

from preprocessing.codes import ICD10CM, compact_code, display_code, is_wellformed
from preprocessing.common.foreign_files import reading
from preprocessing.sources.packages import package_file

# XML element -> relation of the knowledge graph.
NOTE_RELATIONS = {
    "excludes1": "excludes1",
    "excludes2": "excludes2",
    "codeFirst": "code_first",
    "codeAlso": "code_also",
    "useAdditionalCode": "use_additional",
}
_CODE = r"[A-Z](?:[0-9][0-9A-Z]|A[0-9])(?:\.[0-9A-Z]{1,4})?"
_REFERENCE = re.compile(rf"\b({_CODE})(?:\.?-)?\.?(?:\s*(?:-|\bto\b)\s*({_CODE})\b)?(?![0-9A-Za-z])")
_RANGE_SUFFIX = re.compile(r"\(([A-Z][0-9A][0-9A-Z][^\s()]*)\)$")


@dataclasses.dataclass(slots=True)
class TabularNode:
    """Hold one node of the list, in document order.

    Attributes:
        code: display code of a category or code; `first-last` for sections and chapters, so that the section `B20-B20`
            and the category `B20` differ.
        kind: `chapter`, `section`, `category` (3 characters), `subcategory` or `extended` (by a 7th character).
        description: title of the node.
        parent: position of the parent in the list, -1 for chapters.
        last: position of the last descendant (the node's own position for a leaf).
        terms: inclusion terms.
        notes: `(relation, text)` pairs of the notes at this node.
        is_leaf: whether the node has no children.
    """

    code: str
    kind: str
    description: str
    parent: int
    last: int = -1
    terms: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    is_leaf: bool = False

    @property
    def is_code(self) -> bool:
        """Return whether the node is a category or code rather than a chapter or section."""
        return self.kind not in ("chapter", "section")


@dataclasses.dataclass(frozen=True)
class Tabular:
    """Hold the tabular list as a tree.

    Attributes:
        nodes: all nodes, in document order.
        index: display code (or range of a section or chapter) -> position in `nodes`.
        unplaced: valid codes of the package's list that the tree does not produce, sorted.
    """

    nodes: tuple[TabularNode, ...]
    index: dict[str, int]
    unplaced: tuple[str, ...]

    def nearest(self, code: str) -> int | None:
        """Return the position of `code` or of its longest prefix in the tree, to which a retired code is attached."""
        compact = compact_code(code)
        for length in range(len(compact), 2, -1):
            position = self.index.get(display_code(ICD10CM, compact[:length]))
            if position is not None:
                return position
        return None


@functools.cache
def read_tabular() -> Tabular:
    """Return the complete list, including codes of 7 characters.

    Raises:
        InputError: the package that ships it is missing.
    """
    again = "install the package simple-icd-10-cm again"
    codes = package_file("simple_icd_10_cm", "data/code-list-*.txt")
    with reading(codes, "a list of codes", again):
        valid = {compact_code(line.split(" ")[0]) for line in codes.read_text(encoding="utf-8").splitlines()}
    tree = package_file("simple_icd_10_cm", "data/*.xml")
    with reading(tree, "the tabular list", again):
        return parse_tabular(ET.parse(tree).getroot(), valid)  # nosec B314 # A file of an installed package.


def parse_tabular(root: ET.Element, valid: set[str]) -> Tabular:
    """Parse the XML element `root`; `valid` holds the compact codes that exist."""
    nodes: list[TabularNode] = []
    for chapter in root.iterfind("chapter"):
        _add_chapter(nodes, chapter, valid)
    for position, node in reversed(list(enumerate(nodes))):
        node.last = max(node.last, position)
        node.is_leaf = node.last == position
        if node.parent >= 0:
            nodes[node.parent].last = max(nodes[node.parent].last, node.last)
    index = {node.code: position for position, node in enumerate(nodes)}
    known = {compact_code(node.code) for node in nodes if node.is_code}
    unplaced = sorted(code for code in valid - known if is_wellformed(ICD10CM, code))
    return Tabular(tuple(nodes), index, tuple(unplaced))


def _add_chapter(nodes: list[TabularNode], chapter: ET.Element, valid: set[str]) -> None:
    enclosing = [len(nodes)]
    nodes.append(_read_node(chapter, -1))
    for element in chapter.iterfind("section"):
        section = _read_node(element, -1)
        first, last = section.code.split("-")
        while len(enclosing) > 1:
            outer_first, outer_last = nodes[enclosing[-1]].code.split("-")
            if outer_first <= first and last <= outer_last:
                break
            enclosing.pop()
        section.parent = enclosing[-1]
        position = len(nodes)
        nodes.append(section)
        if element.find("diag") is None:
            enclosing.append(position)
        for child in element.iterfind("diag"):
            _add_code(nodes, child, position, None, valid)


def _add_code(
    nodes: list[TabularNode], element: ET.Element, parent: int, seventh: dict[str, str] | None, valid: set[str]
) -> None:
    position = len(nodes)
    nodes.append(_read_node(element, parent))
    own = element.find("sevenChrDef")
    seventh = _seventh_characters(own) if own is not None else seventh
    children = element.findall("diag")
    for child in children:
        _add_code(nodes, child, position, seventh, valid)
    if not children:
        _add_extensions(nodes, position, seventh or {}, valid)


def _read_node(element: ET.Element, parent: int) -> TabularNode:
    description = (element.findtext("desc") or "").strip()
    if element.tag == "diag":
        code = (element.findtext("name") or "").strip()
        kind = "category" if len(code) == 3 else "subcategory"
    else:
        kind = element.tag
        match = _RANGE_SUFFIX.search(description)
        # A section's id is right even where its title has a misprinted range; chapters are only numbered.
        span = element.get("id") or (match[1] if match else "")
        if not span:
            raise ValueError("a chapter or section has no range of codes")
        first, _, last = span.partition("-")
        code = f"{first}-{last or first}"
        description = description[: match.start()] if match else description
    notes = tuple(
        (NOTE_RELATIONS[group.tag], note.text)
        for group in element
        if group.tag in NOTE_RELATIONS
        for note in group
        if note.text
    )
    terms = tuple(note.text for group in element.iterfind("inclusionTerm") for note in group if note.text)
    return TabularNode(code, kind, description.strip(), parent, terms=terms, notes=notes)


def _seventh_characters(element: ET.Element) -> dict[str, str]:
    """Return the meaning of each 7th character; a `note` continues the extension before it."""
    meanings: dict[str, str] = {}
    last = None
    for child in element:
        if child.tag == "extension":
            last = child.attrib["char"]
            meanings[last] = " ".join((child.text or "").split())
        elif child.tag == "note" and last is not None and child.text:
            meanings[last] += "/" + " ".join(child.text.split())
    return meanings


def _add_extensions(nodes: list[TabularNode], position: int, meanings: dict[str, str], valid: set[str]) -> None:
    stem = nodes[position]
    padded = compact_code(stem.code).ljust(6, "X")
    for character, meaning in meanings.items():
        if padded + character in valid:
            code = display_code(ICD10CM, padded + character)
            nodes.append(TabularNode(code, "extended", f"{stem.description}, {meaning}", position))


def note_edges(tabular: Tabular) -> tuple[list[tuple[int, int, str]], dict[str, int]]:
    """Resolve the codes and ranges that notes name to edges between nodes.

    A range becomes the largest nodes that lie entirely inside it: `T36-T50` is one section, `B38.0-B38.2` three
    subcategories. Qualifiers after a range ("with fifth or sixth character 5") are ignored: the edge then names
    the entire range.

    Returns:
        `(annotated position, named position, relation)` triples in order, without self-loops or repeats; and
        counts of `notes`, `notes_without_code`, `references` and `references_unresolved`.
    """
    firsts = _first_codes(tabular.nodes)
    edges: dict[tuple[int, int, str], None] = {}
    counts = {"notes": 0, "notes_without_code": 0, "references": 0, "references_unresolved": 0}
    for position, node in enumerate(tabular.nodes):
        for relation, text in node.notes:
            references = _REFERENCE.findall(text)
            counts["notes"] += 1
            counts["notes_without_code"] += not references
            for first, last in references:
                targets = _resolve(tabular, firsts, first, last)
                counts["references"] += 1
                counts["references_unresolved"] += not targets
                edges.update(((position, target, relation), None) for target in targets if target != position)
    return list(edges), counts


def _first_codes(nodes: tuple[TabularNode, ...]) -> list[int]:
    """Return the position of the first category at or after each node, which begins the node's range of codes."""
    codes = [position for position, node in enumerate(nodes) if node.is_code]
    return [codes[min(bisect.bisect_left(codes, position), len(codes) - 1)] for position in range(len(nodes))]


def _resolve(tabular: Tabular, firsts: list[int], first: str, last: str) -> list[int]:
    start = tabular.index.get(first)
    if start is None:
        return []
    if not last:
        return [start]
    end = tabular.index.get(last)
    if end is None or end < start:
        return [start]
    nodes = tabular.nodes
    end = nodes[end].last
    targets = []
    position = start
    while position <= end:
        if nodes[position].last > end:  # The range ends inside this node: look at its children.
            position += 1
            continue
        top = position
        while nodes[top].parent >= 0 and firsts[nodes[top].parent] >= start and nodes[nodes[top].parent].last <= end:
            top = nodes[top].parent
        targets.append(top)
        position = nodes[top].last + 1
    return targets
