"""Identity: how many codes cannot be told from another one by their tokens.

Codes of the same text cannot be blamed on the model, so a collision is the model's own only where a code that it
collides with has another description.
"""

import numpy as np

from eval.common.measurement import Measurement
from eval.quality.context import Context

FAMILY = "identity"
MODEL_MADE, DUPLICATES = "collisions made by the model", "collisions of duplicate texts only"


def measure(context: Context) -> list[Measurement]:
    """Share of codes that collide by the ordered tokens, by their set, and by the first token of each embedding."""
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
    return found


def as_sets(tokens: np.ndarray) -> np.ndarray:
    """`[n, T]` rows sorted, each token once, -1 in front."""
    ordered = np.sort(tokens, axis=1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = -1
    return np.sort(ordered, axis=1)


def collisions(tuples: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which codes share their tuple with another one.

    Args:
        tuples: `[n, T]` int.
        text: `[n]` number of each code's description.

    Returns:
        bool [n]: shared with a code of another text; shared with codes of the same text only.
    """
    _, group = np.unique(_as_bytes(tuples), return_inverse=True)
    size = np.bincount(group)[group]
    # A group is of one text where its smallest and largest text are the same.
    smallest, largest = np.full(group.max() + 1, np.iinfo(np.int64).max), np.full(group.max() + 1, -1)
    np.minimum.at(smallest, group, text)
    np.maximum.at(largest, group, text)
    mixed = (smallest != largest)[group]
    return (size > 1) & mixed, (size > 1) & ~mixed


def _as_bytes(rows: np.ndarray) -> np.ndarray:
    """Each row as one value that sorts."""
    rows = np.ascontiguousarray(rows)
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).reshape(-1)
