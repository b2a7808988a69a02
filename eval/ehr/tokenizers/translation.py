"""Translate ICD-9-CM to ICD-10-CM by the official mapping, to test records of one edition across vocabularies.

Records that hold ICD-9-CM alone, such as Diabetes-130 and MIMIC-III, are tested as if the hospitals of the test
patients had coded in ICD-10-CM. A tokenizer that was trained with crosswalks has seen these translations, and `gem`
goes them backwards, as far as they are codes: shortened codes become categories, which `gem` does not know. No JAX
here.
"""

import collections
import dataclasses
import functools

import numpy as np

from eval.ehr.history import Histories
from eval.ehr.tokenizers.spelling import read_code
from preprocessing.codes import ICD9CM, ICD10CM, CodeRecord, category_of, compact_code, stem_length
from preprocessing.sources.icd import read_forward_gem


def with_translations(histories: Histories) -> Histories:
    """Return histories whose table of codes also names the translations of its codes, behind all that occur.

    Histories that hold ICD-10-CM already are returned as they are.

    Raises:
        InputError: the package that ships the mapping is missing.
    """
    keys = [read_code(name) for name in histories.codes.tolist()]
    if any(key.startswith(f"{ICD10CM}/") for key in keys):
        return histories
    found = [translated(key) for key in keys]
    added = sorted({key for key in found if key})
    if not added:
        return histories
    place = {key: len(keys) + number for number, key in enumerate(added)}
    reads = [place.get(key, number) for number, key in enumerate(found)] + list(place.values())
    return dataclasses.replace(
        histories,
        codes=np.concatenate([histories.codes, added]),
        is_drug=np.concatenate([histories.is_drug, np.zeros(len(added), bool)]),
        translation=np.array(reads, np.int32),
    )


def translated_share(histories: Histories) -> float | None:
    """Return the share of the ICD-9-CM codes that have a translation, None for histories without translations."""
    if histories.translation is None:
        return None
    keys = [read_code(name) for name in histories.codes.tolist()]
    found = [bool(translated(key)) for key in keys if key.startswith(f"{ICD9CM}/")]
    return float(np.mean(found))


def translated(key: str) -> str:
    """Return the key of the translation of a code of ICD-9-CM, `SYSTEM/code`; empty for codes without one.

    An exact translation is preferred, else the first of the file counts. A category or subcategory, to which some
    records shorten their codes, becomes the category that most translations of its codes belong to, of equally many
    the one that comes first.
    """
    system, _, code = key.partition("/")
    if system != ICD9CM:
        return ""
    of_code, of_stem = _tables()
    return of_code.get(code) or of_stem.get(compact_code(code), "")


@functools.cache
def _tables() -> tuple[dict[str, str], dict[str, str]]:
    """Return ICD-9-CM code -> key of its translation, and start of codes -> key of the category of most of these."""
    of_code: dict[str, str] = {}
    # Sorting is stable: among exact translations, and among all others, the first of the file stays first.
    for icd9, icd10, _ in sorted(read_forward_gem(), key=lambda row: not row[2]):
        of_code.setdefault(icd9, f"{ICD10CM}/{icd10}")
    votes: dict[str, collections.Counter] = {}
    for icd9, key in sorted(of_code.items()):
        target = category_of(CodeRecord(ICD10CM, key.partition("/")[2], ""))
        stem = compact_code(icd9)
        for length in range(stem_length(ICD9CM, stem), len(stem)):
            votes.setdefault(stem[:length], collections.Counter())[target] += 1
    # Of equally many, `most_common` gives the one that was counted first.
    return of_code, {stem: found.most_common(1)[0][0] for stem, found in votes.items()}
