"""Make a vocabulary of 960 codes of two systems, with labels, whose vectors represent the meaning of the codes.

There are six chapters of ten categories; a category has 10 codes of ICD-10-CM and 6 of ICD-9-CM, and codes of the same
number have the same meaning in both systems. A vector is the sum of a vector of the chapter, of the category and of the
code.
"""

import numpy as np

from eval.common.representation import Representation
from eval.quality.label_building import BACKWARD, CROSSWALK_KINDS, FORWARD, parts_of
from eval.quality.labels import Labels, Queries

CHAPTERS, CATEGORIES, CODES = "ABCDEF", 10, {"ICD10CM": 10, "ICD9CM": 6}
WIDTH, ROWS, K = 24, 160, 3


def _members() -> list[tuple[str, int, int, int]]:
    """Return (system, chapter, category, number) of each code, in the order of keys."""
    return [
        (system, chapter, category, number)
        for system, size in CODES.items()
        for chapter in range(len(CHAPTERS))
        for category in range(CATEGORIES)
        for number in range(size)
    ]


MEMBERS = _members()
KEYS = np.array([f"{s}/{CHAPTERS[chapter]}{category:02d}.{n}" for s, chapter, category, n in MEMBERS])
ROW = {member: row for row, member in enumerate(MEMBERS)}


def representation(seed: int = 0, **fields) -> Representation:
    """Return a representation of the codes, with two embeddings `a` and `b` quantized by separate codebooks."""
    rng = np.random.default_rng(seed)
    chapters, categories = rng.normal(size=(6, WIDTH)), rng.normal(size=(6, CATEGORIES, WIDTH))
    codes = rng.normal(size=(6, CATEGORIES, 10, WIDTH))
    means = [chapters[c] + 0.7 * categories[c, k] + 0.5 * codes[c, k, n] for _, c, k, n in MEMBERS]
    meant = np.array(means) + 0.05 * rng.normal(size=(len(MEMBERS), WIDTH))
    halves = [meant[:, : WIDTH // 2], meant[:, WIDTH // 2 :]]
    tokens, vectors, books = [], [], []
    for number, half in enumerate(halves):
        book = half[rng.choice(len(half), ROWS, replace=False)]
        nearest = np.argsort(((half[:, None] - book) ** 2).sum(-1), axis=1)[:, :K]
        tokens.append(nearest + number * ROWS)
        vectors.append(book[nearest].mean(1))
        books.append(book)
    arrays = {
        "tokens": np.concatenate(tokens, axis=1).astype(np.int32),
        "weights": np.full((len(KEYS), 2 * K), 1 / K, np.float32),
        "vectors": np.concatenate(vectors, axis=1).astype(np.float32),
        "unquantized": meant.astype(np.float32),
        "codebook": np.concatenate(books).astype(np.float32),
    }
    facts = {
        "name": "hand-made",
        "keys": KEYS,
        "descriptions": np.array([f"what {key} means" for key in KEYS], object),
        "regions": {"first": (0, ROWS), "second": (ROWS, 2 * ROWS)},
        "embeddings": ("a", "b"),
        "region_of_embedding": {"a": "first", "b": "second"},
    }
    return Representation(**facts | arrays | fields)


def labels(**fields) -> Labels:
    """Return labels that the vectors predict: groups are chapters, relations join categories of a chapter."""
    category = np.unique([key.partition(".")[0] for key in KEYS], return_inverse=True)[1].astype(np.int32)
    ten = np.array([member[0] == "ICD10CM" for member in MEMBERS])
    chapter = np.array([member[1] for member in MEMBERS], np.int32)
    nodes = np.stack([chapter + 6 * ~ten, 100 + category, 1000 + np.arange(len(KEYS))], axis=1).astype(np.int32)
    given = {
        "data_set": "medtok_codes/hand_made",
        "fingerprint": "0" * 64,
        "keys": KEYS,
        "systems": np.array([member[0] for member in MEMBERS]),
        "category": category,
        "path": nodes,
        "groups": {"CCSR": np.where(ten, chapter, -1), "CCS": np.where(ten, -1, chapter)},
        "crosswalk": {FORWARD: _crosswalk("ICD9CM", "ICD10CM"), BACKWARD: _crosswalk("ICD10CM", "ICD9CM")},
        "relations": {"excludes1": _notes(1), "code_first": _notes(2)},
        "part": parts_of(KEYS.tolist()),
        "given": {"tree": "GIVEN: the graph contains the code tree"},
    }
    return Labels(**given | fields)


def _crosswalk(system: str, other: str) -> Queries:
    """Return the crosswalk to the code of the same number, which is exact for even numbers."""
    members = [member for member in MEMBERS if member[0] == system and member[3] < CODES["ICD9CM"]]
    query = np.array([ROW[member] for member in members])
    kinds = np.array([member[3] % 2 for member in members], np.int8)
    targets = np.array([ROW[(other, *member[1:])] for member in members])
    return Queries(query, np.arange(len(query) + 1), targets, kinds, CROSSWALK_KINDS, parts_of(KEYS[query].tolist()))


def _notes(step: int) -> Queries:
    """Return queries of one code of each category for the codes of the category `step` further in the chapter."""
    pairs = [(c, k, (k + step) % CATEGORIES) for c in range(len(CHAPTERS)) for k in range(CATEGORIES)]
    query = np.array([ROW["ICD10CM", c, k, 3] for c, k, _ in pairs])
    targets = np.array([ROW["ICD10CM", c, k, n] for c, _, k in pairs for n in range(10)])
    offsets = np.arange(len(pairs) + 1) * 10
    part = np.arange(len(pairs), dtype=np.int8) % 2
    return Queries(query, offsets, targets, np.zeros(len(targets), np.int8), ("note",), part)
