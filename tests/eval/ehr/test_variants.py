"""The variants of the headline show to every tokenizer the codes that they name."""

import numpy as np

from eval.ehr.tokenizers.code_features import codes_as_tokens
from eval.ehr.tokenizers.spelling import EventCodes
from eval.ehr.variants import MAPPED, WITHOUT_PROXIES, seen_codes

CODES = np.array(["DIAGNOSIS//ICD//10//Z515", "ICD10CM/E11.9", "ICD9CM/V66.7", "LAB//1", "MEDICATION//HICL//66"])


def test_codes_of_each_variant():
    judged = codes_as_tokens(EventCodes.read(CODES))
    assert seen_codes(MAPPED, CODES, judged).tolist() == [True, True, True, False, False]
    assert seen_codes(WITHOUT_PROXIES, CODES, judged).tolist() == [False, True, False, True, True]
