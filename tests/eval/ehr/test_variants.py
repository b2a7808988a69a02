"""Codes that all but state an outcome are found in every spelling, and no other code is."""

import numpy as np

from eval.ehr.variants import is_no_proxy


def test_outcome_proxies_in_every_spelling():
    proxies = ["ICD10CM/Z51.5", "DIAGNOSIS//ICD//10//Z515", "ICD10CM//Z66", "ICD9CM/V66.7"]
    proxies += ["DIAGNOSIS//ICD//9//V4986", "ICD9CM/348.82", "ICD10CM/G93.82"]
    others = ["ICD10CM/Z51.0", "ICD9CM/250.00", "LAB//Z66", "Z66", "ICD10PCS/0016070", "MEDICATION//HICL//66"]
    assert not is_no_proxy(np.array(proxies)).any()
    assert is_no_proxy(np.array(others)).all()
