"""Weigh the terms of texts by how often a text has them and how few other texts do."""

import numpy as np
import scipy.sparse as sp

from preprocessing.common.ragged import offsets_of


def tf_idf(owner: np.ndarray, term: np.ndarray, *, texts: int, terms: int) -> sp.csr_array:
    """Return the weights of terms in texts: `[texts, terms]` float32, those of a text sorted, with a sum of one.

    The weight is tf x idf, with idf = ln((1 + n) / (1 + df)) + 1 over the n texts that have a term.

    Args:
        owner: `[m]` row of the text of each occurrence.
        term: `[m]` column of the term.
        texts, terms: their numbers.
    """
    # Each term of a text is in these arrays once, with the number of its occurrences.
    pair, times = np.unique(owner * np.int64(terms) + term, return_counts=True)
    owner, term = pair // terms, pair % terms
    counts = np.bincount(owner, minlength=texts)
    frequency = np.bincount(term, minlength=terms)
    weight = times * (np.log((1 + np.count_nonzero(counts)) / (1 + frequency[term])) + 1)
    weight = (weight / np.bincount(owner, weight, minlength=texts)[owner]).astype(np.float32)
    return sp.csr_array((weight, term.astype(np.int32), offsets_of(counts)), shape=(texts, terms))
