"""Name the readings of the headline that a report prints beside it, each with fewer codes for every tokenizer.

mapped codes only      codes of code systems that the judged tokenizer maps: how it does where it has a say
no outcome proxies     without codes that all but state the outcome, such as orders not to resuscitate
"""

import numpy as np

from eval.ehr.tasks.outcome_proxies import is_outcome_proxy
from eval.ehr.tokenizers.matrix import CodeMatrix
from eval.ehr.tokenizers.spelling import EventCodes

VARIANTS = MAPPED, WITHOUT_PROXIES = ("mapped codes only", "no outcome proxies")


def seen_codes(variant: str, codes: np.ndarray, judged: CodeMatrix) -> np.ndarray:
    """Return a `[codes]` bool mask of the codes that a variant shows to every tokenizer.

    Args:
        variant: one of `VARIANTS`.
        codes: `[codes]` str, codes as the data set spells them.
        judged: what the tokenizer that is judged says of each code.
    """
    if variant == WITHOUT_PROXIES:
        return ~is_outcome_proxy(codes)
    return judged.mapped & EventCodes.read(codes).medical
