"""Name codes that say that death is expected: they may be seen, and a benchmark shows its results without them too."""

import numpy as np

from preprocessing.codes import ICD9CM, ICD10CM, SNOMED

# Not to be resuscitated, palliative care, and brain death.
OUTCOME_PROXIES = {
    ICD9CM: ("V49.86", "V66.7", "348.82"),
    ICD10CM: ("Z66", "Z51.5", "G93.82"),
    SNOMED: ("304253006", "103735009", "230802007"),
}
# How MEDS data sets write a code without a slash: DIAGNOSIS//ICD//10//Z515.
_LONG_NAMES = {ICD9CM: "DIAGNOSIS//ICD//9//", ICD10CM: "DIAGNOSIS//ICD//10//", SNOMED: "SNOMED//"}


def is_outcome_proxy(codes: np.ndarray) -> np.ndarray:
    """Return a `[codes]` bool mask of the codes that say that death is expected.

    Args:
        codes: `[codes]` str, as the data set spells them, with or without dots.
    """
    spelled = set()
    for system, names in OUTCOME_PROXIES.items():
        for name in names:
            for code in (name, name.replace(".", "")):
                spelled |= {f"{system}/{code}", f"{_LONG_NAMES[system]}{code}"}
    return np.isin(codes, sorted(spelled))
