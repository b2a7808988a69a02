"""Parents of codes: categories that exist in the published trees."""

import pytest

from preprocessing.meds import metadata


def test_parents_are_categories_that_exist():
    """Every code and category of ICD-10-CM: the nearest ancestor in the published tree that does not end in X."""
    icd10 = pytest.importorskip("simple_icd_10_cm")
    nodes = [code for code in icd10.get_all_codes(with_dots=True) if icd10.is_category_or_subcategory(code)]
    assert sum(map(icd10.is_leaf, nodes)) > 70_000
    for code in nodes:
        # A block of one category has its name.
        above = [name for name in icd10.get_ancestors(code) if icd10.is_category_or_subcategory(name) and name != code]
        above = [f"ICD10CM/{name}" for name in above if not name.endswith("X")]
        assert metadata.parents(f"ICD10CM/{code}", None) == (above[:1] or None)


@pytest.mark.parametrize(
    ("code", "parents"),
    [
        ("ICD10CM/T81.4XXA", ["ICD10CM/T81.4"]),
        ("ICD10CM/E11", None),
        ("ICD10PCS/0016070", ["ICD10PCS/001"]),
        ("ICD9CM/250.00", ["ICD9CM/250.0"]),
        ("ICD9CM/E849.0", ["ICD9CM/E849"]),
        ("ICD9Proc/00.10", ["ICD9Proc/00.1"]),
        ("NDC/00002143380", ["NDC/000021433"]),
        ("NDC/000021433", None),
        ("CPT4/99213", None),
        ("DIAGNOSIS//ICD//9//2500X", None),
        ("GENDER//F", None),
    ],
)
def test_parents_of_a_code(code, parents):
    assert metadata.parents(code, None) == parents
