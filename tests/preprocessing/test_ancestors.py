"""A code's spelling gives the codes above it."""

import pytest

from preprocessing.codes import ancestors, is_wellformed


@pytest.mark.parametrize(
    ("system", "code", "above"),
    [
        ("ICD10CM", "S72.001A", ["S72.001", "S72.00", "S72.0", "S72"]),
        ("ICD10CM", "E11", []),
        ("ICD9CM", "250.01", ["250.0", "250"]),
        ("ICD9CM", "E849.0", ["E849"]),
        ("ICD9CM", "V10.05", ["V10.0", "V10"]),
        ("ICD9Proc", "36.15", ["36.1", "36"]),
        ("ICD10PCS", "0016070", ["001607", "00160", "0016", "001"]),
        ("ATC", "A10BA02", ["A10BA", "A10B", "A10", "A"]),
        ("ATC", "A10B", ["A10", "A"]),
        ("NDC", "00002143380", ["000021433"]),
        ("NDC", "000021433", []),
        ("SNOMED", "44054006", []),
        ("RxNorm", "860975", []),
        ("CPT4", "99213", []),
        ("HCPCS", "J1815", []),
        ("Custom", "A.1", []),
    ],
)
def test_ancestors(system, code, above):
    assert list(ancestors(system, code)) == above
    if system not in ("ICD10PCS", "Custom"):
        assert all(is_wellformed(system, code) for code in above)
