"""Make tokenizers without information about codes, whose scores are the chance level."""

import dataclasses

import numpy as np

from eval.common.representation import Representation

_ROWS = ("tokens", "weights", "vectors", "unquantized")


def shuffled(representation: Representation, *, seed: int = 0) -> Representation:
    """Return the representation with tokens and vectors permuted at random between codes."""
    order = np.random.default_rng(seed).permutation(len(representation))
    return _with_rows(representation, order, f"{representation.name}, shuffled")


def constant(representation: Representation) -> Representation:
    """Return the representation in which all codes have the tokens and vectors of the first code."""
    return _with_rows(representation, np.zeros(len(representation), np.int64), f"{representation.name}, constant")


def _with_rows(representation: Representation, order: np.ndarray, name: str) -> Representation:
    arrays = {column: getattr(representation, column) for column in _ROWS}
    moved = {column: a if a is None else a[order] for column, a in arrays.items()}
    return dataclasses.replace(representation, name=name, **moved)
