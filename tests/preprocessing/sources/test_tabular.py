"""The tabular list against simple_icd_10_cm's own functions."""

import random
import re
import xml.etree.ElementTree as ET

import pytest

from preprocessing.sources.tabular import _first_codes as first_codes
from preprocessing.sources.tabular import _resolve, note_edges, parse_tabular


@pytest.fixture(scope="module")
def sampled(tabular):
    codes = [node for node in tabular.nodes if node.is_code]
    return random.Random(0).sample(codes, 4000)


def test_all_codes_are_there(tabular, simple_icd_10_cm):
    theirs = {code for code in simple_icd_10_cm.get_all_codes() if simple_icd_10_cm.is_category_or_subcategory(code)}
    assert {node.code for node in tabular.nodes if node.is_code} == theirs
    assert tabular.unplaced == ()


def test_parents_descriptions_and_leaves(tabular, sampled, simple_icd_10_cm):
    for node in sampled:
        parent = tabular.nodes[node.parent]
        theirs = simple_icd_10_cm.get_parent(node.code)
        if parent.is_code or "-" in theirs:
            assert parent.code == theirs
        else:
            assert parent.code == f"{theirs}-{theirs}"  # A section of one category is named like the category there.
        assert node.description.split() == simple_icd_10_cm.get_description(node.code).replace("/\t", "/").split()
        assert node.is_leaf == simple_icd_10_cm.is_leaf(node.code)


def test_sections_of_sections_contain_them(tabular):
    def parent(code):
        return tabular.nodes[tabular.nodes[tabular.index[code]].parent].code

    assert parent("M05-M14") == "M00-M25"
    assert parent("M00-M25") == parent("M30-M36") == "M00-M99"
    assert parent("C15-C26") == "C00-C75"
    assert parent("C00-C75") == parent("C7A-C7A") == "C00-C96"
    assert parent("V10-V19") == "V00-V99"
    assert parent("V00-V99") == "V00-X58"
    assert not any(node.is_leaf for node in tabular.nodes if node.kind in ("chapter", "section"))


def test_last_descendant(tabular, sampled, simple_icd_10_cm):
    for node in sampled[:300]:
        position = tabular.index[node.code]
        below = {tabular.nodes[i].code for i in range(position + 1, node.last + 1)}
        assert below == set(simple_icd_10_cm.get_descendants(node.code))


def test_seventh_characters_are_described(tabular):
    node = tabular.nodes[tabular.index["S02.110A"]]
    assert node.kind == "extended"
    assert (
        node.description == "Type I occipital condyle fracture, unspecified side, initial encounter for closed fracture"
    )


def test_retired_code_hangs_below_its_stem(tabular):
    assert tabular.nodes[tabular.nearest("S02.10XA")].code == "S02.10"
    assert tabular.nearest("E11.9") == tabular.index["E11.9"]
    assert tabular.nearest("A999") == tabular.index["A99"]


@pytest.mark.parametrize(
    ("annotated", "relation", "named"),
    [
        ("A06", "excludes1", "A07"),
        ("M36.2", "code_first", "D66"),
        ("E11", "use_additional", "Z79.4"),
        ("B20-B20", None, None),
    ],
)
def test_notes_of_the_real_list(tabular, annotated, relation, named):
    assert annotated in tabular.index
    if relation is not None:
        edges, _ = note_edges(tabular)
        assert (tabular.index[annotated], tabular.index[named], relation) in set(edges)


def test_every_plain_reference_becomes_an_edge(tabular):
    """Notes that end in one plain code in brackets, found by another expression, are all edges."""
    edges = set(note_edges(tabular)[0])
    checked = 0
    for position, node in enumerate(tabular.nodes):
        for relation, text in node.notes:
            match = re.search(r"\(([A-Z]\d[0-9A-Z](\.[0-9A-Z]+)?)(\.?-)?\)$", text)
            if match and match[1] in tabular.index and match[1] != node.code:
                checked += 1
                assert (position, tabular.index[match[1]], relation) in edges, text
    assert checked > 7000


def test_ranges_become_the_largest_nodes_inside(tabular):
    firsts = first_codes(tabular.nodes)

    def named(first, last):
        return [tabular.nodes[position].code for position in _resolve(tabular, firsts, first, last)]

    assert named("B38.0", "B38.2") == ["B38.0", "B38.1", "B38.2"]
    assert named("E00", "E07") == ["E00-E07"]
    assert named("T36", "T65") == ["T36-T50", "T51-T65"]
    assert named("A00", "B99") == ["A00-B99"]
    assert named("M00", "M25") == ["M00-M25"]
    assert named("E11", "") == ["E11"]
    assert named("Q99Z", "") == []


def _cover_by_brute_force(nodes, start, end):
    """Largest nodes whose codes all lie between two positions in document order."""
    codes = {i: {j for j in range(i, nodes[i].last + 1) if nodes[j].is_code} for i in range(len(nodes))}
    inside = set(range(start, nodes[end].last + 1))
    fits = [i for i in range(len(nodes)) if codes[i] and codes[i] <= inside]
    return sorted(i for i in fits if nodes[i].parent not in fits)


def test_ranges_against_brute_force():
    xml = (
        "<r>"
        + "".join(
            f"<chapter><name>{c}</name><desc>C ({s[0][0]}-{s[-1][-1]})</desc>"
            + "".join(
                f"<section id='x'><desc>S ({codes[0]}-{codes[-1]})</desc>"
                + "".join(
                    f"<diag><name>{code}</name><desc>d</desc>"
                    + "".join(f"<diag><name>{code}.{k}</name><desc>d</desc></diag>" for k in range(3))
                    + "</diag>"
                    for code in codes
                )
                + "</section>"
                for codes in s
            )
            + "</chapter>"
            for c, s in enumerate([[["A00", "A01"], ["A02", "A03", "A04"]], [["B00"], ["B01", "B02"]]])
        )
        + "</r>"
    )
    tabular = parse_tabular(ET.fromstring(xml), set())
    firsts = first_codes(tabular.nodes)
    codes = [i for i, node in enumerate(tabular.nodes) if node.is_code]
    for start in codes:
        for end in codes:
            if start <= end and tabular.nodes[end].last >= tabular.nodes[start].last:
                found = _resolve(tabular, firsts, tabular.nodes[start].code, tabular.nodes[end].code)
                assert found == _cover_by_brute_force(tabular.nodes, start, end)


def test_extensions_follow_the_list_of_valid_codes():
    xml = """<r><chapter><name>1</name><desc>One (A00-A01)</desc><section id="A00-A01"><desc>S (A00-A01)</desc>
    <diag><name>A00</name><desc>Ache</desc><sevenChrDef><extension char="A">first</extension>
    <extension char="D">later</extension><note>more</note></sevenChrDef>
    <diag><name>A00.1</name><desc>Sore</desc></diag></diag></section></chapter></r>"""
    tabular = parse_tabular(ET.fromstring(xml), {"A001XXD", "A009"})
    assert [(n.code, n.description) for n in tabular.nodes if n.kind == "extended"] == [
        ("A00.1XXD", "Sore, later/more")
    ]
    assert tabular.unplaced == ("A009",)
