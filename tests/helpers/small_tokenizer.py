"""Write small tokenizer directories with real files and random tokens."""

import dataclasses
from pathlib import Path

import numpy as np

from medtok_jax.lookup import directory
from medtok_jax.lookup.directory import Tokens
from medtok_jax.regions import EMBEDDINGS, REGION_OF_EMBEDDING, Position, Regions

K = 2
REGIONS = Regions(text=12, graph=10, shared=14)
DIM = 4
KEYS = (
    *("ICD10CM/E11", "ICD10CM/E11.9", "ICD10CM/E11.65", "ICD10CM/E10.9", "ICD10CM/S72.001A", "ICD10PCS/0016070"),
    *("ICD9CM/250.00", "ICD9CM/001.0", "ICD9CM/E849.0", "ICD9Proc/00.10", "ICD9Proc/25.0", "SNOMED/44054006"),
    *("RxNorm/860975", "NDC/00002143380", "ATC/A10BA02", "CPT4/99213", "HCPCS/J1815", "CPT4/10021", "SNOMED/10021"),
)


def make_tokens(keys=KEYS, *, seed: int = 0, kind: str = "top_k", embeddings: bool = False, dim: int = DIM) -> Tokens:
    """Draw random tokens for codes; the two cross embeddings of a code may share tokens."""
    rng = np.random.default_rng(seed)
    ids = np.concatenate(
        [
            REGIONS.bounds(REGION_OF_EMBEDDING[name])[0]
            + np.argsort(rng.random((len(keys), getattr(REGIONS, REGION_OF_EMBEDDING[name]))), axis=1)[:, :K]
            for name in EMBEDDINGS
        ],
        axis=1,
    ).astype(np.int32)
    weights = rng.dirichlet(np.ones(K), (len(keys), 4)).reshape(len(keys), -1).astype(np.float32)
    return Tokens(
        strings={
            "key": np.array(keys),
            "description": np.array([f"what {key} means" for key in keys]),
            "split": np.array(["train", "validation", "test"])[rng.integers(3, size=len(keys))],
            "kind": np.array(["code"] * len(keys)),
        },
        ids=ids,
        weights=weights if kind == "top_k" else np.ones_like(weights),
        has_text=rng.random(len(keys)) < 0.8,
        has_graph=rng.random(len(keys)) < 0.8,
        codebook=rng.normal(size=(REGIONS.size, dim)).astype(np.float32),
        embeddings=rng.normal(size=(len(keys), 4, dim)).astype(np.float32) if embeddings else None,
    )


def positions(count: int, *, searches_all: bool = False) -> tuple[Position, ...]:
    """Return the positions of a code whose four embeddings have `count` tokens each."""
    return tuple(
        Position(name, "all" if searches_all and region == "shared" else region, level)
        for name, region in REGION_OF_EMBEDDING.items()
        for level in range(count)
    )


def ranked(row: np.ndarray) -> list[int]:
    """Return the distinct tokens of a code (K = 2) in the order of exports: first those of rank 1, then of rank 2."""
    return list(dict.fromkeys(row[[0, 2, 4, 6, 1, 3, 5, 7]].tolist()))


# The number of tokens and the region of each embedding of `write_uneven`.
UNEVEN = {"text_specific": ("text", 1), "shared_first": ("shared", 3), "graph_specific": ("graph", 2)}


def write_uneven(path: Path) -> Path:
    """Write a directory of another quantizer: three embeddings of 1, 3 and 2 tokens, all of weight 1."""
    places = tuple(Position(name, region, level) for name, (region, count) in UNEVEN.items() for level in range(count))
    rng = np.random.default_rng(0)
    ids = np.stack([rng.integers(*REGIONS.bounds(place.region), len(KEYS)) for place in places], 1).astype(np.int32)
    tokens = dataclasses.replace(make_tokens(), ids=ids, weights=np.ones(ids.shape, np.float32))
    directory.write(path, tokens, about("residual") | {"positions": places})
    return path


def write_wide(path: Path, tokens: Tokens, codebook_size: int) -> Path:
    """Write a directory with the codes of `tokens`, drawn from a codebook of a usual size, in three equal regions."""
    third = codebook_size // 3
    regions = Regions(text=third, graph=third, shared=codebook_size - 2 * third)
    rng = np.random.default_rng(0)
    ids = []
    for name in EMBEDDINGS:
        low, high = regions.bounds(REGION_OF_EMBEDDING[name])
        first = rng.integers(0, high - low, len(tokens.ids))
        second = (first + rng.integers(1, high - low, len(first))) % (high - low)
        ids += [low + first, low + second]
    codebook = rng.normal(size=(regions.size, DIM)).astype(np.float32)
    wide = dataclasses.replace(tokens, ids=np.stack(ids, 1).astype(np.int32), codebook=codebook)
    directory.write(path, wide, about() | {"regions": regions})
    return path


def about(kind: str = "top_k", prefer=()) -> dict:
    """Return the metadata of a directory."""
    return {
        "regions": REGIONS,
        "positions": positions(K),
        "quantizer_kind": kind,
        "prefer": list(prefer),
        "data_set": {"name": "medtok_codes/hand_made", "fingerprint": "0" * 64},
        "text_encoder": {"name": "none", "identity": "0" * 64},
        "training": {"step": 1, "model": {}, "train": {}},
    }


def write(path: Path, tokens: Tokens | None = None, *, kind: str = "top_k", prefer=(), **options) -> Path:
    """Write a complete directory to `path` and return it."""
    tokens = make_tokens(kind=kind) if tokens is None else tokens
    directory.write(path, tokens, about(kind, prefer), **options)
    return path
