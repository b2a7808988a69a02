"""Measure whether a description in other words finds its code: what a search box asks, and a new code's description.

Queries are terms that no text and no edge of the data set contains (`held_terms`), encoded as the tokenizer encodes a
new description, without a graph. They are searched among all codes of ICD-10-CM, by their tokens, or by their vectors
before quantization among the quantized ones of the codes, as a search box does. R@k is the share of terms with one of
their codes among the k nearest, AP@100 the average precision within the first 100.
"""

import dataclasses

import numpy as np

from eval.common.measurement import Measurement
from eval.common.representation import Representation
from eval.quality import retrieval
from eval.quality.context import Context
from eval.quality.labels import Queries, Terms
from preprocessing.codes import ICD10CM
from preprocessing.common.hashing import hash_strings

FAMILY = "free_text"
TERM_RANKS = (1, 10)
PRECISION_DEPTH = 100
AP = f"AP@{PRECISION_DEPTH}"
# Terms of each kind: (in full, quick).
MOST_TERMS = (4000, 500)


def measure(context: Context) -> list[Measurement]:
    """Measure R@1, R@10 and AP@100 of each kind of terms by each view.

    Nothing is measured for a representation that cannot encode a description.
    """
    # JAX is only needed to encode texts.
    from eval.baselines import new_texts

    candidates = context.rows_of(ICD10CM)
    found = []
    for kind, terms in context.labels.terms.items():
        terms = _drawn(terms.of_split(context.split), context.limit(MOST_TERMS))
        if not len(terms):
            continue
        encoded = new_texts.encode(context.representation, terms.text.tolist())
        if encoded is None:
            return []
        found += _figures(context, kind, terms, candidates, encoded)
    return found


def _drawn(terms: Terms, count: int) -> Terms:
    """Return at most `count` terms, chosen by a stable hash."""
    order = np.argsort(hash_strings("eval/terms", terms.text.tolist()), kind="stable")
    return terms.take(np.sort(order[:count]))


def _figures(
    context: Context, kind: str, terms: Terms, candidates: np.ndarray, encoded: dict[str, np.ndarray]
) -> list[Measurement]:
    both = with_texts(context.representation, terms.text, encoded)
    numbers = len(context.representation) + np.arange(len(terms))
    zeros = np.zeros(len(terms.targets), np.int8)
    queries = Queries(numbers, terms.offsets, terms.targets, zeros, (kind,), terms.part)
    where = {"family": FAMILY, "scope": kind, "unit": "terms", "given": context.given(terms.given)}
    where |= {"items": hash_strings("eval/terms", terms.text.tolist())}
    where |= {"clusters": context.labels.category[terms.targets[terms.offsets[:-1]]]}
    found = []
    for scorer in retrieval.scorers(both):
        ranks = retrieval.find(scorer, queries, candidates)
        for depth in TERM_RANKS:
            found.append(Measurement(metric=f"R@{depth}", view=scorer.name, values=ranks.hits(depth), **where))
        precision = retrieval.average_precision(scorer, queries, candidates, PRECISION_DEPTH)
        found.append(Measurement(metric=AP, view=scorer.name, values=precision, **where))
    return found


def with_texts(representation: Representation, texts: np.ndarray, encoded: dict[str, np.ndarray]) -> Representation:
    """Return the representation with new descriptions in further rows behind those of the codes.

    Args:
        representation: representation of the codes.
        texts: `[q]` str.
        encoded: arrays of `new_texts.encode`.
    """
    # The prefix "~" keeps the keys sorted.
    names = [f"~{number:09d}" for number in range(len(texts))]
    arrays = {
        name: None if getattr(representation, name) is None else np.concatenate([getattr(representation, name), rows])
        for name, rows in encoded.items()
    }
    return dataclasses.replace(
        representation,
        keys=np.concatenate([representation.keys, names]),
        descriptions=np.concatenate([representation.descriptions, texts.astype(object)]),
        unquantized=None,
        **arrays,
    )
