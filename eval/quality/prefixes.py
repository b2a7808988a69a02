"""Measure shorter codes: the retrieval figures of the first 4, 8, 12, 16 and 32 tokens of each code.

A prefix of T tokens takes the first token of each embedding, then the second of each, and so on
(`Representation.reading_order`). Its vector is, for each embedding, the sum of the rows that it takes times their
weights, scaled to unit length, so that all embeddings count alike whatever weight their other tokens have; the complete
code keeps its vector. Tokenizers whose codes have different numbers of tokens are not measured.
"""

import dataclasses

import numpy as np

from eval.common.measurement import Measurement
from eval.common.representation import Representation
from eval.quality import cross_system, identity, relations, tree_metrics
from eval.quality.context import NEIGHBOR_QUERIES, Context
from medtok_jax.lookup.similarity import quantize

FAMILY = "prefixes"
PREFIX_LENGTHS = (4, 8, 12, 16, 32)
# Figures of other families that are measured at each length.
PREFIX_METRICS = ("R@1", "R@10", tree_metrics.SAME_CATEGORY, relations.AUC, relations.HITS)
_CHUNK = 8192


def measure(context: Context) -> list[Measurement]:
    """Measure retrieval and collisions at each length that the tokenizer has, by each view."""
    tokens = context.representation.tokens
    if tokens is None or tokens.min() < 0:
        return []
    found = []
    for length in PREFIX_LENGTHS:
        if length > tokens.shape[1]:
            break
        shorter = dataclasses.replace(context, representation=shortened(context.representation, length))
        figures = cross_system.measure(shorter, kinds=("",))
        # As many neighbors as for a first look: there are five lengths.
        figures += tree_metrics.neighbors(shorter, NEIGHBOR_QUERIES[1])
        figures += relations.measure(shorter)
        found += [
            dataclasses.replace(one, family=FAMILY, scope=scope_of(one.scope, length))
            for metric in PREFIX_METRICS
            for one in _pooled([figure for figure in figures if figure.metric == metric])
        ]
        found += _collisions(shorter, length)
    return found


def _pooled(figures: list[Measurement]) -> list[Measurement]:
    """Return the figures over all systems or over all notes where there are such, and otherwise all figures."""
    pooled = [figure for figure in figures if figure.scope in (tree_metrics.ALL, relations.ALL)]
    return pooled or figures


def scope_of(scope: str, length: int) -> str:
    """Return the scope of a figure at a length."""
    return f"{scope}, {length} tokens"


def shortened(representation: Representation, count: int) -> Representation:
    """Return the representation by the first `count` tokens of each code.

    Args:
        representation: a representation whose codes all have the same number of tokens.
        count: at least 1 and at most that number.
    """
    if count == representation.tokens.shape[1]:
        return dataclasses.replace(representation, unquantized=None)
    kept = np.sort(representation.reading_order()[:count])
    bounds = representation.bounds if representation.embeddings else ((0, representation.tokens.shape[1]),)
    ends = np.searchsorted(kept, [stop for _, stop in bounds]).tolist()
    new_bounds = tuple(zip([0, *ends[:-1]], ends, strict=True))
    tokens = representation.tokens[:, kept]
    weights = None if representation.weights is None else representation.weights[:, kept]
    return dataclasses.replace(
        representation,
        tokens=tokens,
        weights=weights,
        vectors=_vectors(representation, tokens, weights, new_bounds),
        unquantized=None,
        token_bounds=new_bounds if representation.embeddings else (),
    )


def _vectors(
    representation: Representation,
    tokens: np.ndarray,
    weights: np.ndarray | None,
    bounds: tuple[tuple[int, int], ...],
) -> np.ndarray | None:
    """Return the vectors of some tokens, `[n, D]` float32, unit length for each embedding; None without a codebook."""
    if representation.vectors is None or representation.codebook is None or weights is None:
        return None
    found = np.empty((len(tokens), len(bounds) * representation.codebook.shape[1]), np.float32)
    for start in range(0, len(tokens), _CHUNK):
        part = slice(start, start + _CHUNK)
        summed = quantize(representation.codebook, tokens[part], weights[part], bounds)
        summed /= np.maximum(np.linalg.norm(summed, axis=-1, keepdims=True), 1e-12)
        found[part] = summed.reshape(len(summed), -1)
    return found


def _collisions(context: Context, length: int) -> list[Measurement]:
    """Measure collisions of the ordered tuple, all of them and by where the other code is."""
    tokens = context.representation.tokens
    _, text = np.unique(context.representation.descriptions.astype(object), return_inverse=True)
    values = {identity.MODEL_MADE: identity.collisions(tokens, text)[0]}
    values |= identity.colliding_with(tokens, text, context.labels)
    where = {"family": FAMILY, "view": "tokens", "scope": scope_of("all codes", length), "unit": "codes"}
    where |= {"items": context.items, "better": "lower"}
    return [Measurement(metric=metric, values=one.astype(float), **where) for metric, one in values.items()]
