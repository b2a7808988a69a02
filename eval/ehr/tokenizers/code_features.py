"""Read a code as itself, as its category, or as its translation to the other edition of ICD: no token is shared beyond.

- `codes`: code-as-token, the practice of EHR models. A code that training never saw has a row that nothing trained.
- `rollup`: the category above a code: 3 characters of ICD (4 of external causes in ICD-9-CM), the third level of ATC,
  the product of an NDC. Categories of two editions have nothing in common.
- `gem`: code-as-token after ICD-10-CM diagnoses are translated to ICD-9-CM, as is practice across vocabularies. Of
  several translations the first scenario of the official backward mapping counts, and within it the first choice of
  each list. A combination of several ICD-9-CM codes is read as all of them, equally weighted. Codes without a mapping,
  and those of other systems, stay as they are.
"""

import functools
from collections.abc import Sequence

import numpy as np

from eval.ehr.tokenizers.matrix import CodeMatrix, from_tokens
from eval.ehr.tokenizers.spelling import EventCodes
from preprocessing.codes import ICD9CM, ICD10CM, category_of
from preprocessing.common.extras import load
from preprocessing.common.ragged import offsets_of
from preprocessing.sources.icd import BackwardMapping, read_backward_gem

sparse = load("scipy.sparse")


def codes_as_tokens(codes: EventCodes) -> CodeMatrix:
    """Return the matrix in which each code, in any of its spellings, is a token."""
    return _of_names("codes", codes, [[key] if key else [] for key in codes.keys.tolist()])


def rollup(codes: EventCodes) -> CodeMatrix:
    """Return the matrix in which the category of a code is its token."""
    return _of_names("rollup", codes, [[category_of(record)] if record else [] for record in codes.records()])


def gem(codes: EventCodes) -> CodeMatrix:
    """Return the matrix in which each code is a token, ICD-10-CM diagnoses after their translation to ICD-9-CM.

    Raises:
        InputError: the package that ships the mapping is missing.
    """
    backward = translations()
    names: list[list[str]] = []
    translated = 0
    for record in codes.records():
        targets = backward.get(record.code, ()) if record and record.system == ICD10CM else ()
        translated += bool(targets)
        names.append([f"{ICD9CM}/{code}" for code in targets] or ([record.key] if record else []))
    return _of_names("gem", codes, names, {"translated_codes": translated})


@functools.cache
def translations() -> dict[str, tuple[str, ...]]:
    """Return the ICD-9-CM codes that each ICD-10-CM code is translated to, in display form.

    A code that is mapped to alternatives gets the first scenario, and of each of its choice lists an exact match, else
    the first code of the file. Only a combination, of several lists, has more than one. Codes without a match are left
    out.

    Raises:
        InputError: the package that ships the mapping is missing.
    """
    of_scenario: dict[str, dict[tuple[int, int], str]] = {}
    # Sorting is stable: alternatives stay in the order of the file.
    for pair in sorted(read_backward_gem(), key=_preference):
        of_scenario.setdefault(pair.icd10, {}).setdefault((pair.scenario, pair.choice), pair.icd9)
    found = {}
    for icd10, choices in of_scenario.items():
        least = min(scenario for scenario, _ in choices)
        chosen = [code for (scenario, _), code in sorted(choices.items()) if scenario == least]
        found[icd10] = tuple(dict.fromkeys(chosen))
    return found


def _preference(pair: BackwardMapping) -> tuple[int, int, bool]:
    return pair.scenario, pair.choice, not pair.is_exact


def _of_names(name: str, codes: EventCodes, names: Sequence[Sequence[str]], about: dict | None = None) -> CodeMatrix:
    """Return the matrix of codes whose tokens are names, all of a code equally weighted."""
    flat = [one for of_code in names for one in of_code]
    known, column = np.unique(np.array(flat, dtype=str), return_inverse=True)
    shape = (len(codes), len(known))
    tokens = sparse.csr_matrix((np.ones(len(flat)), column, offsets_of([len(part) for part in names])), shape=shape)
    return from_tokens(name, tokens, medical=codes.medical, about=about)
