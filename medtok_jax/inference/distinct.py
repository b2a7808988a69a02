"""Give codes of different descriptions different tokens, by the refining token that costs least.

A quantizer gives near synonyms the same tokens ("left ... with high osmolar contrast", "... low osmolar contrast"), and
a model that reads ids alone cannot tell them apart. Of the codes that share all tokens one keeps them; in each other
the last token of one embedding gives way to the row that fits next best. (Rajput et al. 2023, "Recommender Systems with
Generative Retrieval", append a token for this; here the length stays.) Codes of one description stay together.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from medtok_jax.models.search import SMALLEST_WEIGHT, l2_normalize, mixing_weights, share_rows
from medtok_jax.regions import Part, Regions

# Rows of each embedding that may take the place of its last token.
CANDIDATES = 16
_CHUNK = 1024


@dataclasses.dataclass(frozen=True)
class Separated:
    """Hold tokens after codes were separated.

    Attributes:
        ids: `[n, T]` int32.
        weights: `[n, T]` float32.
        moved: `[n]` bool, codes one of whose tokens gave way.
        left: `[n]` bool, codes that share all tokens with a code of another description still.
    """

    ids: np.ndarray
    weights: np.ndarray
    moved: np.ndarray
    left: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Options:
    """Hold what may take the place of a token of each of m codes, cheapest first.

    Attributes:
        position: `[m, O]` int, the column of `ids`.
        row: `[m, O]` int32, global id of the row that would stand there.
        cost: `[m, O]` float32, squared length that the error would grow by; infinite where there is no such row.
    """

    position: np.ndarray
    row: np.ndarray
    cost: np.ndarray


def separate(
    ids: np.ndarray,
    weights: np.ndarray,
    embeddings: np.ndarray,
    codebook: np.ndarray,
    texts: np.ndarray,
    *,
    parts: Sequence[Part],
    regions: Regions,
) -> Separated:
    """Return tokens of `pursuit` by which codes of different descriptions differ, as far as candidates go.

    Args:
        ids: `[n, T]` int32, tokens as the quantizer chose them.
        weights: `[n, T]` float32.
        embeddings: `[n, E, d]`, what was quantized, in any floating-point type.
        codebook: `[N, d]` float32 unit rows.
        texts: `[n]` int, equal for codes that need not differ.
        parts: how each of the E embeddings is quantized.
        regions: of the codebook.
    """
    ids, weights = ids.copy(), weights.copy()
    groups = _groups(ids, texts)
    moved, left = np.zeros(len(ids), bool), np.zeros(len(ids), bool)
    if not groups:
        return Separated(ids, weights, moved, left)
    first = np.array([unit[0] for group in groups for unit in group])
    options = _options(ids[first], weights[first], embeddings[first], codebook, parts, regions)
    changed: dict[int, list[np.ndarray]] = {position: [] for position in _columns(parts)}
    taken = {row.tobytes() for row in ids}
    begin = 0
    for group in groups:
        places = range(begin, begin + len(group))
        begin += len(group)
        # The code whose next best row costs most keeps its tokens; of those that cost alike, the first.
        keeps, *others = sorted(places, key=lambda place: -options.cost[place, 0])
        for place in others:
            unit = group[place - places.start]
            chosen = _first_free(ids[unit[0]], options, place, taken)
            if chosen is None:
                left[unit] = left[group[keeps - places.start]] = True
                continue
            position, row = chosen
            ids[unit, position] = row
            changed[position].append(unit)
            taken.add(ids[unit[0]].tobytes())
            moved[unit] = True
    for position, (number, columns) in _columns(parts).items():
        if changed[position]:
            rows = np.concatenate(changed[position])
            weights[rows, columns] = _mixture(embeddings[rows, number], ids[rows, columns], codebook)
    return Separated(ids, weights, moved, left)


def _columns(parts: Sequence[Part]) -> dict[int, tuple[int, slice]]:
    """Return the position of each embedding's last token -> the number of the embedding, and its columns."""
    stops = list(itertools.accumulate(part.num_tokens for part in parts))
    return {
        stop - 1: (number, slice(stop - part.num_tokens, stop))
        for number, (part, stop) in enumerate(zip(parts, stops, strict=True))
    }


def _groups(ids: np.ndarray, texts: np.ndarray) -> list[list[np.ndarray]]:
    """Return the groups of codes that share all tokens, as lists of units: the codes of one description each.

    Groups of a single unit are left out.
    """
    group = np.unique(ids, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.lexsort((texts, group))
    group, text = group[order], texts[order]
    begins_group = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    found = []
    for begin, end in itertools.pairwise([*begins_group, len(order)]):
        if text[begin] != text[end - 1]:
            changes = np.flatnonzero(np.diff(text[begin:end])) + 1
            found.append(np.split(order[begin:end], changes))
    return found


def _options(
    ids: np.ndarray,
    weights: np.ndarray,
    embeddings: np.ndarray,
    codebook: np.ndarray,
    parts: Sequence[Part],
    regions: Regions,
) -> _Options:
    """Return what may take the place of the last token of each embedding of m codes, where that token refines."""
    # The last column stands for no option at all.
    none = np.full((len(ids), 1), -1, np.int32)
    found, column = [(none, none, np.full(none.shape, np.inf, np.float32))], 0
    for number, part in enumerate(parts):
        columns = slice(column, column + part.num_tokens)
        column += part.num_tokens
        if part.num_nearest == part.num_tokens:
            continue
        start, stop = regions.bounds(part.region)
        start += share_rows(stop - start, part.num_tokens, part.num_nearest)[1]
        chunks = []
        for begin in range(0, len(ids), _CHUNK):
            chunk = slice(begin, begin + _CHUNK)
            embedding = np.asarray(l2_normalize(embeddings[chunk, number]))
            chunks.append(
                _alternatives(embedding, ids[chunk, columns], weights[chunk, columns], codebook[:stop], start)
            )
        row, cost = (np.concatenate(arrays) for arrays in zip(*chunks, strict=True))
        found.append((np.full(row.shape, column - 1, np.int32), row, cost))
    position, row, cost = (np.concatenate(arrays, axis=1) for arrays in zip(*found, strict=True))
    order = np.argsort(cost, axis=1, kind="stable")
    return _Options(*(np.take_along_axis(array, order, axis=1) for array in (position, row, cost)))


def _alternatives(
    embedding: np.ndarray, ids: np.ndarray, weights: np.ndarray, codebook: np.ndarray, start: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows from `start` on that fit next best in place of the last token, and what each costs."""
    left = embedding - np.einsum("mk,mkd->md", weights[:, :-1], codebook[ids[:, :-1]])
    products = left @ codebook[start:].T
    present = np.einsum("md,md->m", left, codebook[ids[:, -1]])
    for column in range(ids.shape[1]):
        place = ids[:, column] - start
        inside = np.flatnonzero((place >= 0) & (place < products.shape[1]))
        products[inside, place[inside]] = -np.inf
    count = min(CANDIDATES, products.shape[1])
    row = np.argsort(-products, axis=1, kind="stable")[:, :count]
    product = np.take_along_axis(products, row, axis=1)
    cost = np.maximum(present, SMALLEST_WEIGHT)[:, None] ** 2 - product**2
    return (row + start).astype(np.int32), np.where(product > SMALLEST_WEIGHT, cost, np.inf)


def _first_free(own: np.ndarray, options: _Options, place: int, taken: set[bytes]) -> tuple[int, int] | None:
    """Return the position and row of the cheapest option by which a code has tokens that no code has."""
    for position, row, cost in zip(options.position[place], options.row[place], options.cost[place], strict=True):
        if np.isinf(cost):
            break
        changed = own.copy()
        changed[position] = row
        if changed.tobytes() not in taken:
            return int(position), int(row)
    return None


def _mixture(embedding: np.ndarray, ids: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Return the weights `[m, K]` by which the rows of an embedding of each code come closest to it."""
    rows = codebook[ids]
    products = np.einsum("mkd,md->mk", rows, np.asarray(l2_normalize(embedding)))
    return np.maximum(np.asarray(mixing_weights(products, rows)), SMALLEST_WEIGHT)
