"""Codes that say that death is expected are found in every spelling."""

import numpy as np

from eval.ehr.tasks.outcome_proxies import OUTCOME_PROXIES, is_outcome_proxy
from preprocessing.codes import is_wellformed
from preprocessing.sources import icd


def test_codes_are_found_as_data_sets_spell_them():
    codes = ["ICD10CM/Z66", "ICD10CM/Z51.5", "DIAGNOSIS//ICD//10//Z515", "ICD9CM/V49.86", "DIAGNOSIS//ICD//9//V667"]
    others = ["ICD10CM/Z51.0", "ICD9CM/V49.8", "Z66", "NDC/V49.86", "ICD10CM/Z660"]
    assert is_outcome_proxy(np.array(codes + others)).tolist() == [True] * len(codes) + [False] * len(others)


def test_they_are_codes_of_their_systems():
    known = {record.key for record in icd.vocabulary()}
    for system, names in OUTCOME_PROXIES.items():
        assert all(is_wellformed(system, name) for name in names)
        assert system == "SNOMED" or {f"{system}/{name}" for name in names} <= known
