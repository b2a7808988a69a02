"""Codes of MIMIC's tables become keys, or keep their spelling and are counted as malformed."""

import pytest

pl = pytest.importorskip("polars")

from preprocessing.meds.mimic_codes import MimicCodes  # noqa: E402


@pytest.mark.parametrize(
    ("role", "version", "raw", "code"),
    [
        ("DIAGNOSIS", "9", "0340", "ICD9CM/034.0"),
        ("DIAGNOSIS", "9", "034.0", "ICD9CM/034.0"),
        ("DIAGNOSIS", "9", "34.0", "DIAGNOSIS//ICD//9//34.0"),
        ("DIAGNOSIS", "9", "8.45", "DIAGNOSIS//ICD//9//8.45"),
        ("PROCEDURE", "9", "8.45", "PROCEDURE//ICD//9//8.45"),
        ("DIAGNOSIS", "10", "E1.19", "DIAGNOSIS//ICD//10//E1.19"),
        ("DIAGNOSIS", "10", "E11.9", "ICD10CM/E11.9"),
    ],
)
def test_a_dot_elsewhere_is_malformed(role, version, raw, code):
    normalizer = MimicCodes()
    found = normalizer.icd(role, pl.Series([raw] * 3), pl.Series([version] * 3))
    assert found.to_list() == [code] * 3
    assert sum(normalizer.malformed.values()) == (3 if "//" in code else 0)
