"""Measure how much of each region of the codebook is in use, how evenly, the loss by quantization, and entropies.

The entropy of each token given those before it is what a model pays, in bits, that reads the tokens of a code one after
another, in the order of `Representation.reading_order`. All codes are equally frequent. Entropies of prefixes are
plug-in estimates with the correction of Miller (1955, "Note on the bias of information estimates") and Madow,
(m - 1) / 2n nats for m different prefixes of n codes; that of a token is the difference of two of them. The correction
is meant for samples: where all codes are different, the sum over all tokens is log2 n and .72 bits more.
"""

import numpy as np

from eval.common.measurement import EXPONENTIAL, Measurement
from eval.common.representation import Representation
from eval.quality.context import Context

FAMILY = "codebook"
BITS, TOTAL_BITS = "bits given the tokens before it", "bits of all tokens"
# Positions whose entropy is measured; behind them nothing is left to tell codes apart.
MOST_POSITIONS = 32


def measure(context: Context) -> list[Measurement]:
    """Measure the use of each region by all codes and by each system, and the loss of each embedding."""
    representation = context.representation
    if representation.tokens is None:
        return []
    regions = representation.regions or {"all": (0, representation.num_ids)}
    systems = [("", np.arange(len(representation)))]
    if len(context.systems) > 1:
        systems += [(f", {system}", context.rows_of(system)) for system in context.systems]
    found = []
    for region, bounds in regions.items():
        for suffix, rows in systems:
            found += _use(representation.tokens[rows], bounds, region + suffix, context.items[rows])
    return found + _loss(context) + _entropy(context)


def dead_rows(representation: Representation) -> dict[str, int]:
    """Return the number of rows of each region that no code uses."""
    if representation.tokens is None:
        return {}
    regions = representation.regions or {"all": (0, representation.num_ids)}
    used = np.unique(representation.tokens)
    return {name: int(b - a - ((used >= a) & (used < b)).sum()) for name, (a, b) in regions.items()}


def _use(tokens: np.ndarray, bounds: tuple[int, int], scope: str, items: np.ndarray) -> list[Measurement]:
    """Measure utilization, perplexity and the share of the most frequent token of one region for some codes."""
    start, stop = bounds
    inside = (tokens >= start) & (tokens < stop)
    counts = np.bincount(tokens[inside] - start, minlength=stop - start)
    if not counts.sum():
        return []
    rows = {"unit": "rows", "items": np.arange(start, stop), "values": (counts > 0).astype(float)}
    codes = {"unit": "codes", "items": items}
    # Dividing by the mean number of tokens of a code makes the mean over codes the mean over tokens.
    scale = inside.sum() / len(tokens)
    with np.errstate(divide="ignore"):
        surprise = -np.log(counts / counts.sum())
    local = np.where(inside, tokens - start, 0)
    entropy = np.where(inside, surprise[local], 0).sum(1) / scale
    top = np.where(inside, local == counts.argmax(), False).sum(1) / scale
    where = {"family": FAMILY, "view": "", "scope": scope}
    return [
        Measurement(metric="utilization", **where, **rows),
        Measurement(metric="perplexity", **where, **codes, values=entropy, transform=EXPONENTIAL),
        Measurement(metric="share of the most frequent token", **where, **codes, values=top, better="lower"),
    ]


def _loss(context: Context) -> list[Measurement]:
    """Measure the cosine of each embedding to its quantized vector, and the squared error relative to its length."""
    representation = context.representation
    before, after = representation.unquantized, representation.vectors
    if before is None or after is None or before.shape != after.shape:
        return []
    found = []
    for scope in representation.embeddings or ("all",):
        pair = (before, after)
        if representation.embeddings:
            pair = tuple(representation.part(name, scope) for name in ("unquantized", "vectors"))
        error = np.sum((pair[0] - pair[1]) ** 2, axis=1, dtype=np.float64)
        products = np.einsum("nd,nd->n", *pair, dtype=np.float64)
        lengths = [np.sum(part**2, axis=1, dtype=np.float64) for part in pair]
        cosine = products / np.maximum(np.sqrt(lengths[0] * lengths[1]), 1e-12)
        where = {"family": FAMILY, "view": "", "scope": scope, "unit": "codes", "items": context.items}
        share = error / max(lengths[0].mean(), 1e-12)
        found.append(Measurement(metric="cosine(e, ê)", **where, values=cosine))
        found.append(Measurement(metric="reconstruction error", **where, values=share, better="lower"))
    return found


def _entropy(context: Context) -> list[Measurement]:
    """Measure the entropy of the token at each position given those before it, and of all tokens together."""
    representation = context.representation
    ordered = representation.tokens[:, representation.reading_order()][:, :MOST_POSITIONS]
    values = conditional_bits(ordered)
    where = {"family": FAMILY, "view": "", "unit": "codes", "items": context.items, "better": ""}
    found = [
        Measurement(metric=BITS, scope=f"token {position}", values=column, **where)
        for position, column in enumerate(values.T, start=1)
    ]
    return [*found, Measurement(metric=TOTAL_BITS, scope="code", values=values.sum(1), **where)]


def conditional_bits(tokens: np.ndarray) -> np.ndarray:
    """Return the contribution of each code to the entropy of each token given those before it: float64 `[n, T]` bits.

    The mean of a column is the entropy, with its correction.

    Args:
        tokens: `[n, T]` int, in the order in which they are read.
    """
    count = len(tokens)
    found = np.empty(tokens.shape)
    prefix, size, different = np.zeros(count, np.int64), np.full(count, count), 1
    for position, column in enumerate(tokens.T):
        _, place = np.unique(column, return_inverse=True)
        _, prefix, sizes = np.unique(prefix * np.int64(count + 1) + place, return_inverse=True, return_counts=True)
        correction = (len(sizes) - different) / (2 * count)
        found[:, position] = (np.log(size / sizes[prefix]) + correction) / np.log(2)
        size, different = sizes[prefix], len(sizes)
    return found
