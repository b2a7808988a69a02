"""Name the readings of the headline that a report prints beside it, each with fewer codes for every tokenizer.

mapped codes only      codes that the first tokenizer maps: how it does where it has a say
no outcome proxies     without codes of palliative care and orders not to resuscitate, which all but state the outcome
"""

import numpy as np

from eval.ehr.tokenizers.matrix import CodeMatrix
from eval.ehr.tokenizers.spelling import EventCodes, read_code

VARIANTS = MAPPED, WITHOUT_PROXIES = ("mapped codes only", "no outcome proxies")
# Palliative care, do not resuscitate, brain death.
PROXIES = (
    *("ICD10CM/Z51.5", "ICD10CM/Z66", "ICD10CM/G93.82"),
    *("ICD9CM/V66.7", "ICD9CM/V49.86", "ICD9CM/348.82"),
)


def is_no_proxy(codes: np.ndarray) -> np.ndarray:
    """Return a `[codes]` bool mask of codes that do not all but state an outcome.

    Args:
        codes: `[codes]` str, codes as a data set spells them.
    """
    return np.array([_compact(read_code(str(code))) not in _COMPACT for code in codes], bool)


def _compact(key: str) -> str:
    return key.replace(".", "").upper()


_COMPACT = {_compact(key) for key in PROXIES}


def seen_codes(variant: str, codes: np.ndarray, judged: CodeMatrix) -> np.ndarray:
    """Return a `[codes]` bool mask of the codes that a variant shows to every tokenizer.

    Args:
        variant: `MAPPED` or `WITHOUT_PROXIES`.
        codes: `[codes]` str, codes as the data set spells them.
        judged: what the tokenizer that is judged says of each code.
    """
    if variant == WITHOUT_PROXIES:
        return is_no_proxy(codes)
    return judged.mapped & EventCodes.read(codes).medical
