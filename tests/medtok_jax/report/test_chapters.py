"""Chapters of codes, held against the official tabular list."""

import pytest

from medtok_jax.report.chapters import Chapter, chapter_of


def test_every_icd10cm_code_is_in_the_chapter_of_the_tabular_list():
    pytest.importorskip("simple_icd_10_cm")
    from preprocessing.sources.tabular import read_tabular

    nodes, seen = read_tabular().nodes, set()
    for node in nodes:
        top = node
        while top.parent >= 0:
            top = nodes[top.parent]
        if node.is_code:
            assert chapter_of("ICD10CM", node.code) == Chapter("ICD10CM", top.code, top.description), node.code
            seen.add(top.code)
    assert len(seen) == 22


@pytest.mark.parametrize(
    ("system", "code", "span", "title"),
    [
        ("ICD9CM", "250.00", "240-279", "Endocrine, nutritional and metabolic diseases, and immunity disorders"),
        ("ICD9CM", "25000", "240-279", "Endocrine, nutritional and metabolic diseases, and immunity disorders"),
        ("ICD9CM", "001.0", "001-139", "Infectious and parasitic diseases"),
        ("ICD9CM", "999.9", "800-999", "Injury and poisoning"),
        ("ICD9CM", "E849.0", "E000-E999", "Supplementary classification of external causes of injury and poisoning"),
        ("ICD9Proc", "17.71", "17", "Other miscellaneous diagnostic and therapeutic procedures"),
        ("ICD10PCS", "0016070", "0", "Medical and Surgical"),
        ("ICD10PCS", "XW033E5", "X", "New Technology"),
        ("ATC", "A10BA02", "A", "Alimentary tract and metabolism"),
    ],
)
def test_chapter(system, code, span, title):
    assert chapter_of(system, code) == Chapter(system, span, title)


@pytest.mark.parametrize(
    ("system", "code"), [("SNOMED", "44054006"), ("ICD10CM", "??"), ("ICD9CM", ""), ("ICD10PCS", ""), ("ATC", "Z99")]
)
def test_what_has_no_chapter_belongs_to_its_system(system, code):
    assert chapter_of(system, code) == Chapter(system, "", system)
