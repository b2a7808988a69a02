"""Measure how much of each region of the codebook is in use, how evenly, and the loss by quantization."""

import numpy as np

from eval.common.measurement import EXPONENTIAL, Measurement
from eval.common.representation import Representation
from eval.quality.context import Context

FAMILY = "codebook"


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
    return found + _loss(context)


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
