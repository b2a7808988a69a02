"""Tokenizers that are broken on purpose: what they score is chance, and what scores no better is worth nothing."""

import dataclasses

import numpy as np

from eval.common.representation import Representation

_ROWS = ("tokens", "weights", "vectors", "unquantized")


def shuffled(representation: Representation, *, seed: int = 0) -> Representation:
    """Each code gets the tokens and vectors of another one, drawn at random."""
    order = np.random.default_rng(seed).permutation(len(representation))
    return _with_rows(representation, order, f"{representation.name}, shuffled")


def constant(representation: Representation) -> Representation:
    """All codes get the tokens and vectors of the first one."""
    return _with_rows(representation, np.zeros(len(representation), np.int64), f"{representation.name}, constant")


def _with_rows(representation: Representation, order: np.ndarray, name: str) -> Representation:
    arrays = {column: getattr(representation, column) for column in _ROWS}
    moved = {column: a if a is None else a[order] for column, a in arrays.items()}
    return dataclasses.replace(representation, name=name, **moved)
