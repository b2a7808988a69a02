"""Draw hard negatives: codes whose frozen text is near that of an anchor, although they are no partners of it.

Neighbors are codes of the anchor's own system: there two descriptions are two meanings. Across systems the nearest text
mostly has the same meaning, whether or not a crosswalk of the graph says so: held-out crosswalks would be pushed apart.
"""

import hashlib
import itertools
from pathlib import Path

import numpy as np

from medtok_jax.data.dataset import Data
from medtok_jax.data.positives import Positives
from medtok_jax.text.cache import TextCache
from preprocessing.common.listing import cached
from preprocessing.common.progress import Bar
from preprocessing.common.ragged import offsets_of

# Nearest texts of an anchor that its hard negatives are drawn from.
NEIGHBORS = 50
# Components of unit vectors are rounded to whole numbers of this scale. Products and sums of such numbers, which stay
# below 2^24, are exact in float32 in whatever order: every process and machine finds the same neighbors.
SCALE = 2048
# Similarities at once, and columns of which only the largest is looked at first.
BLOCK = 2**25
GROUP = 64
FILE = "neighbors.npy"
ADVICE = "set data.cache_dir"


def whole_vectors(cache: TextCache, texts: np.ndarray) -> np.ndarray:
    """Return the mean token state of some texts at length `SCALE`, rounded: `[texts, hidden]` int16."""
    vectors = np.empty((len(texts), cache.states.shape[1]), np.int16)
    for number, text in enumerate(texts):
        total = np.asarray(cache.states[cache.offsets[text] : cache.offsets[text + 1]], np.float64).sum(0)
        vectors[number] = np.rint(SCALE * total / max(np.sqrt((total**2).sum()), 1e-12))
    return vectors


def nearest(vectors: np.ndarray, count: int, bar: Bar | None = None) -> np.ndarray:
    """Return the vectors of largest inner product with each, itself left out; ties go to the lower position.

    Args:
        vectors: `[n, width]` whole numbers.
        count: how many are looked for.
        bar: advanced by the vectors that are done.

    Returns:
        `[n, count]` int32 positions, nearest first, -1 where there are no more.
    """
    size, found = len(vectors), np.full((len(vectors), count), -1, np.int32)
    groups = -(-size // GROUP)
    columns = np.zeros((groups * GROUP, vectors.shape[1]), np.float32)
    columns[:size] = vectors
    least, kept, taken = -(2**24), min(count, groups), min(count, size - 1)
    queries = max(BLOCK // len(columns), 1)
    for start in range(0, size, queries):
        rows = np.arange(start, min(start + queries, size))
        scores = columns[rows] @ columns.T
        scores[:, size:] = least
        scores[np.arange(len(rows)), rows] = least
        parts = scores.reshape(len(rows), groups, GROUP)
        # A vector among the nearest lies in a group whose best is among the best of as many groups.
        best = _largest(parts.max(-1), kept, np.arange(groups))
        place = (best[:, :, None] * GROUP + np.arange(GROUP)).reshape(len(rows), -1)
        candidates = np.take_along_axis(parts, best[:, :, None], axis=1).reshape(len(rows), -1)
        chosen = _largest(candidates, taken, place)
        found[rows, :taken] = np.take_along_axis(place, chosen, axis=1)
        if bar is not None:
            bar.update(len(rows))
    return found


def _largest(values: np.ndarray, count: int, places: np.ndarray) -> np.ndarray:
    """Return the columns of the largest values of each row, largest first; of equal ones the lower place is first."""
    keys = places - values.astype(np.int64) * 2**32
    part = np.argpartition(keys, count - 1, axis=1)[:, :count] if count < keys.shape[1] else np.argsort(keys, axis=1)
    order = np.argsort(np.take_along_axis(keys, part, axis=1), axis=1)
    return np.take_along_axis(part, order, axis=1)[:, :count]


class HardNegatives:
    """Draw training codes that are near some anchors by frozen text.

    Args:
        data: codes and texts.
        rows: training rows of the table; no other code is drawn.
        cache_dir: where neighbors are kept, which depend on the vectors of the texts and on the systems alone.
        progress: whether to show a bar.
    """

    def __init__(self, data: Data, rows: np.ndarray, cache_dir: Path, *, progress: bool = True):
        # Codes of one system and one text are one item.
        systems, system = np.unique(data.table.system[rows].astype(str), return_inverse=True)
        pairs, item = np.unique(np.stack([system, data.text_id[rows]], axis=1), axis=0, return_inverse=True)
        item = item.reshape(-1)
        self.item_of_row = np.full(len(data.table), -1)
        self.item_of_row[rows] = item
        self.rows = rows[np.argsort(item, kind="stable")]
        self.offsets = offsets_of(np.bincount(item, minlength=len(pairs)))
        vectors = whole_vectors(data.cache, pairs[:, 1])
        starts = np.searchsorted(pairs[:, 0], np.arange(len(systems) + 1))
        self.neighbors = _open_or_find(vectors, starts, cache_dir, progress)

    def draw(self, anchors: np.ndarray, positives: Positives, rng: np.random.Generator) -> np.ndarray:
        """Return a random one of the nearest codes of each anchor, `[anchors]` rows, -1 where there is none.

        Codes of the same text are none, nor are those that a relation of positives joins to the anchor.
        """
        items = self.neighbors[self.item_of_row[anchors]].astype(np.int64)
        owner, row = positives.joined(anchors)
        number = len(self.neighbors)
        joined = owner * number + self.item_of_row[row]
        usable = (items >= 0) & ~np.isin(np.arange(len(anchors))[:, None] * number + items, joined)
        choice = np.argmax(np.where(usable, rng.random(items.shape), -1.0), axis=1)
        chosen = np.maximum(items[np.arange(len(anchors)), choice], 0)
        first, last = self.offsets[chosen], self.offsets[chosen + 1]
        drawn = self.rows[rng.integers(first, last)]
        return np.where(usable.any(axis=1), drawn, -1)


def _open_or_find(vectors: np.ndarray, starts: np.ndarray, cache_dir: Path, progress: bool) -> np.ndarray:
    """Return the neighbors of each item among those of its system, `[items, NEIGHBORS]` int32; keep them on disk.

    Args:
        vectors: `[items, hidden]`, system after system.
        starts: `[systems + 1]` first item of each system.
        cache_dir: where they are kept.
        progress: whether to show a bar.
    """
    digest = hashlib.blake2b(np.ascontiguousarray(vectors), digest_size=8)
    digest.update(np.array([NEIGHBORS, vectors.shape[1], *starts], np.int64).tobytes())

    def write(folder: Path) -> None:
        np.save(folder / FILE, _find(vectors, starts, progress))

    return np.load(cached(cache_dir / f"neighbors-{digest.hexdigest()}", write, advice=ADVICE) / FILE)


def _find(vectors: np.ndarray, starts: np.ndarray, progress: bool) -> np.ndarray:
    found = np.full((len(vectors), NEIGHBORS), -1, np.int32)
    with Bar(total=len(vectors), desc="Finding near texts", unit=" texts", show=progress) as bar:
        for first, last in itertools.pairwise(starts):
            near = nearest(vectors[first:last], NEIGHBORS, bar)
            found[first:last] = np.where(near >= 0, near + first, -1)
    return found
