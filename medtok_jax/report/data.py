"""Compute the figures of a report, over the complete vocabulary and for the codes that it shows, ready for JSON."""

import base64
import dataclasses
from collections.abc import Sequence

import numpy as np

from medtok_jax.lookup.directory import TokenizerDirectory
from medtok_jax.regions import REGIONS, Position, Regions
from medtok_jax.report.chapters import chapter_of
from medtok_jax.report.codes import Selection

# The map of the codebook shows at most this many tokens; more take too long to project.
MAX_TOKENS = 12_000
LONGEST_DESCRIPTION = 300
MAX_REJECTED = 20
# The report opens with this code, which most readers know.
WELL_KNOWN = "ICD10CM/E11.9"


@dataclasses.dataclass(frozen=True)
class RegionUse:
    """Describe the use of one region of the codebook over the complete vocabulary.

    Attributes:
        name, start, size: of the region; `start` is its first token id.
        used: number of tokens that at least one code has.
        perplexity: exp of the entropy of token use, the number of equally used tokens of the same diversity.
        busiest: share of all uses that fall on the most used hundredth of the region's tokens.
    """

    name: str
    start: int
    size: int
    used: int
    perplexity: float
    busiest: float


def region_use(ids: np.ndarray, regions: Regions) -> list[RegionUse]:
    """Return the use of each region by the tokens `[codes, T]` of all codes."""
    counts = np.bincount(ids.reshape(-1), minlength=regions.size)
    found = []
    for name in REGIONS:
        start, stop = regions.bounds(name)
        part = np.sort(counts[start:stop])[::-1]
        share = part / max(part.sum(), 1)
        entropy = -np.sum(share[share > 0] * np.log(share[share > 0]))
        top = max(1, round(len(part) / 100))
        found.append(
            RegionUse(
                name=name,
                start=start,
                size=len(part),
                used=int((part > 0).sum()),
                perplexity=float(np.exp(entropy)),
                busiest=float(share[:top].sum()),
            )
        )
    return found


def codes_of_tokens(ids: np.ndarray, size: int) -> np.ndarray:
    """Return the number of codes that hold each token, `[size]` int32; a token that a code holds twice counts once."""
    ordered = np.sort(ids, axis=1)
    first = np.ones(ids.shape, bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return np.bincount(ordered[first], minlength=size).astype(np.int32)


def alone(ids: np.ndarray) -> float:
    """Return the share of codes whose tokens `[codes, T]` differ, as multisets, from those of every other code."""
    ordered = np.ascontiguousarray(np.sort(ids, axis=1))
    rows = ordered.view(np.dtype((np.void, ordered.itemsize * ordered.shape[1]))).reshape(-1)
    return float((np.unique(rows, return_counts=True)[1] == 1).sum() / len(rows))


def main_region(
    ids: np.ndarray, weights: np.ndarray, codebook: np.ndarray, positions: Sequence[Position]
) -> np.ndarray:
    """Return the region that contributes most to each code, `[codes]` uint8 indices into `REGIONS`.

    It is the region of the token that adds the longest vector: weight times norm of the codebook row. (Sums of weights
    do not distinguish regions, as the weights of every embedding have the same sum.)
    """
    part = np.abs(weights) * np.linalg.norm(codebook, axis=1)[ids]
    return np.array([_region_number(place) for place in positions], np.uint8)[part.argmax(1)]


def _region_number(place: Position) -> int:
    """Return the position in `REGIONS` of a token's region; tokens of the whole codebook count as shared ones."""
    return REGIONS.index("shared" if place.region == "all" else place.region)


def tokens_on_map(regions: Regions) -> np.ndarray:
    """Return the token ids that the map of the codebook shows, ascending int32: all, or evenly spaced ones."""
    return np.linspace(0, regions.size - 1, min(regions.size, MAX_TOKENS)).round().astype(np.int32)


def describe(directory: TokenizerDirectory, selection: Selection, method: str) -> dict:
    """Return the figures of the codes of the data set and the metadata of the tokenizer, ready for JSON."""
    config = directory.config
    ids = directory.ids[directory.codes]
    return {
        "name": directory.path.resolve().name,
        "identity": config.identity[:12],
        "data_set": str(config.data_set.get("name", "")),
        "method": method,
        "vocabulary": len(ids),
        "listed": selection.listed,
        "rejected": [list(pair) for pair in selection.rejected[:MAX_REJECTED]],
        "num_rejected": len(selection.rejected),
        "kind": config.quantizer_kind,
        "bounds": [list(pair) for pair in config.bounds],
        "dim": config.embedding_dim,
        "codebook_size": config.codebook_size,
        "alone": alone(ids),
        "perplexity": region_use(ids, Regions(0, 0, config.codebook_size))[-1].perplexity,
        "regions": [dataclasses.asdict(use) for use in region_use(ids, config.regions)],
        "embeddings": [
            {"name": place.embedding.replace("_", " "), "region": _region_number(place)}
            for place in (config.positions[start] for start, _ in config.bounds)
        ],
    }


def shown_codes(directory: TokenizerDirectory, rows: np.ndarray, points: np.ndarray) -> dict:
    """Return all data of the codes that the page shows, ready for JSON.

    Args:
        directory: the tokenizer.
        rows: `[codes]` rows of its table.
        points: `[codes, 2]` float32, coordinates of each code on the map.
    """
    text = {name: directory.table[name].take(rows).to_pylist() for name in ("key", "system", "code", "description")}
    ids, weights = directory.ids[rows], directory.weights[rows]
    chapters = [chapter_of(system, code) for system, code in zip(text["system"], text["code"], strict=True)]
    distinct = sorted(set(chapters))
    systems = sorted(directory.config.systems)
    flags = [directory.table[name].take(rows).to_numpy(zero_copy_only=False) for name in ("has_text", "has_graph")]
    return {
        "codes": text["code"],
        "descriptions": [_cut(description) for description in text["description"]],
        "systems": [{"name": name, "vocabulary": directory.config.systems[name]} for name in systems],
        "chapters": [dataclasses.asdict(chapter) | {"system": systems.index(chapter.system)} for chapter in distinct],
        "system": _encode([systems.index(name) for name in text["system"]]),
        "chapter": _encode([distinct.index(chapter) for chapter in chapters]),
        "region": _encode(main_region(ids, weights, directory.codebook, directory.config.positions)),
        "modalities": _encode(flags[0] + 2 * flags[1]),
        "ids": _encode(ids),
        "weights": _encode(weights),
        "points": _encode(points),
        "start": text["key"].index(WELL_KNOWN) if WELL_KNOWN in text["key"] else 0,
    }


def shown_tokens(directory: TokenizerDirectory, tokens: np.ndarray, points: np.ndarray) -> dict:
    """Return the data of the codebook: `tokens` with their map coordinates `[tokens, 2]`, and codes by token.

    The number of codes is given for every token of the codebook, also for those that the map does not show.
    """
    codes = codes_of_tokens(directory.ids[directory.codes], directory.config.codebook_size)
    return {"mapped": _encode(tokens), "points": _encode(points), "codes": _encode(codes)}


def _cut(description: str) -> str:
    return description if len(description) <= LONGEST_DESCRIPTION else description[:LONGEST_DESCRIPTION] + " ..."


def _encode(values) -> dict[str, str]:
    """Encode numbers as the bytes of a JavaScript typed array: little-endian int32 or float32 in base64."""
    array = np.asarray(values)
    name, dtype = ("float32", "<f4") if array.dtype.kind == "f" else ("int32", "<i4")
    return {"type": name, "base64": base64.b64encode(array.astype(dtype).tobytes()).decode()}
