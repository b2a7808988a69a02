"""Codes of different descriptions are separated by the cheapest change, and nothing else changes."""

import itertools

import numpy as np

from medtok_jax.inference.distinct import separate
from medtok_jax.models.search import SMALLEST_WEIGHT, share_rows
from medtok_jax.regions import Part, Regions

REGIONS = Regions(text=12, graph=12, shared=24)
PARTS = (
    Part("text_specific", "text", "text", 2, 1),
    Part("graph_specific", "graph", "graph", 2, 1),
    Part("shared", "shared", "shared", 4, 2),
)
COLUMNS = {1: (0, slice(0, 2)), 3: (1, slice(2, 4)), 7: (2, slice(4, 8))}
WIDTH = 6


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def refining(part: Part) -> np.ndarray:
    """The rows that the last token of an embedding may be."""
    start, stop = REGIONS.bounds(part.region)
    return np.arange(start + share_rows(stop - start, part.num_tokens, part.num_nearest)[1], stop)


def product(embedding, ids, weights, codebook) -> float:
    """Inner product of the last row with what the rows before it leave of an embedding."""
    left = embedding - weights[:-1] @ codebook[ids[:-1]]
    return float(left @ codebook[ids[-1]])


def make(count: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Codes that share all tokens in groups of three, with embeddings near one another in each."""
    rng = np.random.default_rng(seed)
    codebook = unit(rng.normal(size=(REGIONS.size, WIDTH)))
    center = np.repeat(rng.normal(size=(count // 3, 3, WIDTH)), 3, axis=0)
    embeddings = unit(center + 0.1 * rng.normal(size=center.shape))
    ids = np.empty((count, 8), np.int32)
    for position, part, place in zip(range(8), [p for p in PARTS for _ in range(p.num_tokens)], itertools.count()):
        start, stop = REGIONS.bounds(part.region)
        first = start + share_rows(stop - start, part.num_tokens, part.num_nearest)[1]
        level = place - sum(p.num_tokens for p in PARTS[: PARTS.index(part)])
        low, high = (start, first) if level < part.num_nearest else (first, stop)
        ids[:, position] = np.repeat(rng.integers(low, high, count // 3), 3)
    # The rows of the shared embedding are two of each kind.
    ids[:, 5] = np.where(ids[:, 5] == ids[:, 4], 24 + (ids[:, 4] - 24 + 1) % 12, ids[:, 5])
    ids[:, 7] = np.where(ids[:, 7] == ids[:, 6], 36 + (ids[:, 6] - 36 + 1) % 12, ids[:, 7])
    weights = rng.uniform(0.1, 0.4, size=ids.shape).astype(np.float32)
    return ids, weights, embeddings, codebook


def test_all_codes_of_other_texts_differ_and_little_else_changes():
    ids, weights, embeddings, codebook = make(300)
    found = separate(ids, weights, embeddings, codebook, np.arange(300), parts=PARTS, regions=REGIONS)
    assert len(np.unique(found.ids, axis=0)) == 300
    assert not found.left.any()
    changed = found.ids != ids
    np.testing.assert_array_equal(changed.sum(1), found.moved)
    assert set(np.nonzero(changed)[1]) <= set(COLUMNS)
    # One of each group keeps its tokens, so that as few give way as can.
    assert found.moved.sum() == 300 - len(np.unique(ids, axis=0))
    again = np.zeros_like(changed)
    for code, position in zip(*np.nonzero(changed), strict=True):
        again[code, COLUMNS[position][1]] = True
    np.testing.assert_array_equal(found.weights[~again], weights[~again])
    for code, position in zip(*np.nonzero(changed), strict=True):
        number, columns = COLUMNS[position]
        assert found.ids[code, position] in refining(PARTS[number])
        assert found.ids[code, position] not in ids[code, columns]
        rows, embedding = codebook[found.ids[code, columns]].astype(np.float64), embeddings[code, number]
        wanted = np.maximum(np.linalg.solve(rows @ rows.T + 1e-2 * np.eye(len(rows)), rows @ embedding), 0.0)
        wanted *= (wanted @ rows @ embedding) / max((wanted @ rows) @ (wanted @ rows), 1e-12)
        np.testing.assert_allclose(found.weights[code, columns], np.maximum(wanted, SMALLEST_WEIGHT), atol=2e-4)


def test_the_cheapest_change_is_made():
    """Two codes of a pair: the one whose best change costs less makes it, by a search over all rows."""
    ids, weights, embeddings, codebook = make(300, seed=1)
    chosen = np.sort(np.concatenate([np.arange(0, 300, 3), np.arange(1, 300, 3)]))
    _, first = np.unique(ids[chosen], axis=0, return_index=True)
    ids, weights, embeddings = ids[chosen], weights[chosen], embeddings[chosen]
    found = separate(ids, weights, embeddings, codebook, np.arange(len(ids)), parts=PARTS, regions=REGIONS)
    assert len(first) == 100
    for pair in range(0, len(ids), 2):
        costs = [cheapest(ids[code], weights[code], embeddings[code], codebook) for code in (pair, pair + 1)]
        mover = pair + int(np.argmin([cost for cost, _, _ in costs]))
        _, position, row = costs[mover - pair]
        assert found.moved[[pair, pair + 1]].tolist() == [mover == pair, mover == pair + 1]
        assert found.ids[mover, position] == row


def cheapest(ids, weights, embeddings, codebook) -> tuple[float, int, int]:
    """The change of one last token that costs least, by trying all rows."""
    best = (np.inf, -1, -1)
    for position, (number, columns) in COLUMNS.items():
        own = max(product(embeddings[number], ids[columns], weights[columns], codebook), SMALLEST_WEIGHT)
        for row in refining(PARTS[number]):
            if row in ids[columns]:
                continue
            changed = ids[columns].copy()
            changed[-1] = row
            other = product(embeddings[number], changed, weights[columns], codebook)
            if other > SMALLEST_WEIGHT:
                best = min(best, (own**2 - other**2, position, int(row)))
    return best


def test_codes_of_one_text_stay_together():
    ids, weights, embeddings, codebook = make(30)
    texts = np.arange(30) // 3 * 3 + np.tile([0, 0, 1], 10)
    found = separate(ids, weights, embeddings, codebook, texts, parts=PARTS, regions=REGIONS)
    np.testing.assert_array_equal(found.ids[0::3], found.ids[1::3])
    assert (found.ids[0::3] != found.ids[2::3]).any(axis=1).all()
    assert len(np.unique(found.ids, axis=0)) == 20


def test_nothing_changes_without_collisions():
    ids, weights, embeddings, codebook = make(300)
    found = separate(ids[::3], weights[::3], embeddings[::3], codebook, np.arange(100), parts=PARTS, regions=REGIONS)
    np.testing.assert_array_equal(found.ids, ids[::3])
    np.testing.assert_array_equal(found.weights, weights[::3])
    assert not found.moved.any()
    assert not found.left.any()


def test_the_order_of_codes_does_not_matter():
    ids, weights, embeddings, codebook = make(300, seed=2)
    texts = np.arange(300)
    found = separate(ids, weights, embeddings, codebook, texts, parts=PARTS, regions=REGIONS)
    order = np.random.default_rng(0).permutation(300)
    other = separate(
        ids[order], weights[order], embeddings[order], codebook, texts[order], parts=PARTS, regions=REGIONS
    )
    np.testing.assert_array_equal(other.ids, found.ids[order])
    np.testing.assert_array_equal(other.moved, found.moved[order])


def test_codes_that_no_candidate_separates_are_counted():
    """More codes of one place than rows that fit: the others share tokens still, and are said to."""
    ids, weights, embeddings, codebook = make(3)
    ids, weights = np.repeat(ids[:1], 60, axis=0), np.repeat(weights[:1], 60, axis=0)
    embeddings = np.repeat(embeddings[:1], 60, axis=0)
    found = separate(ids, weights, embeddings, codebook, np.arange(60), parts=PARTS, regions=REGIONS)
    _, group, size = np.unique(found.ids, axis=0, return_inverse=True, return_counts=True)
    np.testing.assert_array_equal(size[group.reshape(-1)] > 1, found.left)
    assert 0 < found.left.sum() < 60


def test_tokens_that_all_are_nearest_rows_stay():
    """Without a refining token there is nothing that can give way."""
    ids, weights, embeddings, codebook = make(30)
    parts = tuple(Part(p.embedding, p.region, p.searched, p.num_tokens, p.num_tokens) for p in PARTS)
    found = separate(ids, weights, embeddings, codebook, np.arange(30), parts=parts, regions=REGIONS)
    np.testing.assert_array_equal(found.ids, ids)
    assert found.left.all()
