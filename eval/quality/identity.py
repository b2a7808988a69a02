"""Measure how many codes collide, that is, share their tokens with another code.

A model cannot separate codes of the same text, so a collision is counted as made by the model only where one of the
colliding codes has another description.
"""

import numpy as np

from eval.common.measurement import Measurement
from eval.quality.context import Context
from eval.quality.labels import Labels

FAMILY = "identity"
MODEL_MADE, DUPLICATES = "collisions made by the model", "collisions of duplicate texts only"
WITHIN, ACROSS, OTHER_SYSTEM = (
    "collisions within a category",
    "collisions with another category",
    "collisions with another system",
)


def measure(context: Context) -> list[Measurement]:
    """Measure the share of codes that collide by ordered tokens, by their set, or by the first of each embedding."""
    representation = context.representation
    if representation.tokens is None:
        return []
    tuples = {"ordered tuple": representation.tokens, "set": as_sets(representation.tokens)}
    if representation.embeddings:
        firsts = [representation.part("tokens", name)[:, :1] for name in representation.embeddings]
        tuples["top-1"] = np.concatenate(firsts, axis=1)
    _, text = np.unique(representation.descriptions.astype(object), return_inverse=True)
    found = []
    for scope, tokens in tuples.items():
        made, duplicate = collisions(tokens, text)
        for metric, values in ((MODEL_MADE, made), (DUPLICATES, duplicate)):
            where = {"family": FAMILY, "metric": metric, "view": "tokens", "unit": "codes", "better": "lower"}
            where["better"] = "lower" if metric == MODEL_MADE else ""
            found.append(Measurement(scope=scope, items=context.items, values=values.astype(float), **where))
            if len(context.systems) > 1:
                for system in context.systems:
                    rows = context.rows_of(system)
                    part = {"items": context.items[rows], "values": values[rows].astype(float)}
                    found.append(Measurement(scope=f"{scope}, {system}", **part, **where))
        for metric, values in colliding_with(tokens, text, context.labels).items():
            found.append(
                Measurement(
                    family=FAMILY,
                    metric=metric,
                    view="tokens",
                    scope=scope,
                    unit="codes",
                    items=context.items,
                    values=values.astype(float),
                    better="lower",
                )
            )
    return found


def colliding_with(tuples: np.ndarray, text: np.ndarray, labels: Labels) -> dict[str, np.ndarray]:
    """Return which codes share their tuple with a code of another text, by where that code is.

    Args:
        tuples: `[n, T]` int.
        text: `[n]` int, number of the description of each code.
        labels: labels of the codes, for their categories and systems.

    Returns:
        `WITHIN` (that code has the same category), `ACROSS` (it has another category of the same system) and
        `OTHER_SYSTEM` -> bool `[n]`.
    """
    _, group = np.unique(_as_bytes(tuples), return_inverse=True)
    _, category = np.unique(labels.category, return_inverse=True)
    _, system = np.unique(labels.systems, return_inverse=True)

    def count(*parts: np.ndarray) -> np.ndarray:
        """Count the codes that agree with each code in its tuple and in these parts."""
        number = group
        for part in parts:
            _, number = np.unique(number * np.int64(part.max() + 1) + part, return_inverse=True)
        return np.bincount(number)[number]

    # Codes that differ in two properties are all codes without those that agree in one, and with those that agree in
    # both, which were taken away twice.
    return {
        WITHIN: count(category) > count(category, text),
        ACROSS: count(system) - count(category) - count(system, text) + count(category, text) > 0,
        OTHER_SYSTEM: count() - count(system) - count(text) + count(system, text) > 0,
    }


def as_sets(tokens: np.ndarray) -> np.ndarray:
    """Return each row of `[n, T]` as a sorted set of tokens, padded with -1 in front."""
    ordered = np.sort(tokens, axis=1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = -1
    return np.sort(ordered, axis=1)


def collisions(tuples: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which codes share their tuple with another code.

    Args:
        tuples: `[n, T]` int.
        text: `[n]` int, number of the description of each code.

    Returns:
        Two masks, bool `[n]`: shared with a code of another text; shared with codes of the same text only.
    """
    _, group = np.unique(_as_bytes(tuples), return_inverse=True)
    size = np.bincount(group)[group]
    smallest = np.full(group.max() + 1, np.iinfo(np.int64).max)
    largest = np.full(group.max() + 1, -1)
    np.minimum.at(smallest, group, text)
    np.maximum.at(largest, group, text)
    mixed = (smallest != largest)[group]
    return (size > 1) & mixed, (size > 1) & ~mixed


def _as_bytes(rows: np.ndarray) -> np.ndarray:
    """Return each row as one sortable value."""
    rows = np.ascontiguousarray(rows)
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(-1)
