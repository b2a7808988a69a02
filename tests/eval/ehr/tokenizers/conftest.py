"""Provide the codes of a small data set, a small tokenizer, and what tokenizers need beside them."""

import numpy as np
import pytest

from eval.ehr.tokenizers.context import TokenizerContext
from tests.helpers import small_tokenizer

# Codes as data sets spell them: other events, codes of the small tokenizer in several spellings, and others.
CODES = np.array(
    [
        "DIAGNOSIS//ICD//9//25000",
        "ICD10CM/E10.9",
        "ICD10CM/E11",
        "ICD10CM/E11.9",
        "ICD10CM/E1165",
        "ICD10CM/I50.9",
        "ICD9CM/401.9",
        "ICD9CM/428",
        "LAB//50912//mg/dL",
        "MEDICATION//HICL//2803",
        "MEDICATION//NDC//00002143380",
    ]
)
MEDICAL = np.array([True] * 8 + [False, False, True])


@pytest.fixture(scope="session")
def small_dir(tmp_path_factory):
    """Return a tokenizer directory of 19 codes, 36 tokens, K = 2, d = 4."""
    return small_tokenizer.write(tmp_path_factory.mktemp("tokenizers") / "small")


@pytest.fixture
def context(small_dir, tmp_path):
    given = {"MEDICATION//NDC//00002143380": "insulin lispro", "MEDICATION//HICL//2803": "alteplase"}
    return TokenizerContext(folder=tmp_path / "made", descriptions=given, first=str(small_dir), progress=False)
