"""Read and write the vocabulary of ETHOS's first release: a pickled dict.

    vocab_size, stoi {token: id}, itos {id: token}, q_storage {table: {measurement: breaks}}, meta {separators: lengths}

The format is that of `ethos/tokenize/vocabulary.py` and `special_tokens.py` of github.com/ipolharvard/ethos-paper.
"""

import pickle  # nosec B403 # It only writes.
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medtok_jax.convert.ehr_models import unpickling
from medtok_jax.convert.ethos.vocabulary import UNK, medtok_token
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading

# Timelines are stored as 16-bit integers.
MOST_TOKENS = 1 << 16
_SEPARATORS = (
    *("_5m-15m", "_15m-1h", "_1h-2h", "_2h-6h", "_6h-12h", "_12h-1d", "_1d-3d", "_3d-1w", "_1w-2w", "_2w-1mt"),
    *("_1mt-3mt", "_3mt-6mt", "_=6mt"),
)
_YEARS = ("_<5", *(f"_{age - 5}-{age}y" for age in range(10, 101, 5)), "_>100")
# Every vocabulary begins with these tokens, as separators are recognized by their ids.
SPECIAL = (*_SEPARATORS, "_TIMELINE_END", "_DEATH", *_YEARS, *(f"_Q{number}" for number in range(1, 11)))
_KEYS = {"vocab_size", "stoi", "itos", "q_storage", "meta"}
# Breaks between quantiles are NumPy arrays, ids may be NumPy numbers.
_ALLOWED = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    **{
        f"numpy.{core}.multiarray.{name}": getattr(np._core.multiarray, name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    },
}


def vocabulary(codebook_size: int, base: dict | None = None) -> dict:
    """Return a vocabulary with all MedTok tokens after those of `base`, whose ids do not change.

    Args:
        codebook_size: N.
        base: result of `read`; None for a vocabulary of special tokens only.

    Raises:
        InputError: the ids do not fit into 16 bits.
    """
    base = base or {"stoi": {token: number for number, token in enumerate(SPECIAL)}, "q_storage": {}, "meta": {}}
    tokens: Sequence[str] = [*(medtok_token(number) for number in range(codebook_size)), UNK]
    stoi = {str(token): int(number) for token, number in base["stoi"].items()}
    for token in tokens:
        stoi.setdefault(token, len(stoi))
    if len(stoi) > MOST_TOKENS:
        raise InputError(f"{len(stoi):,} tokens do not fit into the 16-bit timelines of this release of ETHOS.")
    itos = {number: token for token, number in stoi.items()}
    return {"vocab_size": len(stoi), "stoi": stoi, "itos": itos, "q_storage": base["q_storage"], "meta": base["meta"]}


def write(folder: Path, content: dict) -> Path:
    """Write `medtok_vocab_t{N}.pkl` and return its path."""
    path = folder / f"medtok_vocab_t{content['vocab_size']}.pkl"
    with open(path, "wb") as file:
        pickle.dump(content, file)
    return path


def read(path: Path) -> dict:
    """Read and check a vocabulary, in which only text, numbers and arrays of numbers are allowed.

    Raises:
        InputError: the file is not a vocabulary, or special tokens do not have the ids that ETHOS expects.
    """
    content = unpickling.load(path, _ALLOWED)
    with reading(path, "a vocabulary of ETHOS", "write it again"):
        return _checked(path, content)


def _checked(path: Path, content: object) -> dict:
    if not isinstance(content, dict) or not content.keys() >= _KEYS:
        raise InputError(f"{path} is not a vocabulary of ETHOS: it must be a dict of {', '.join(sorted(_KEYS))}.")
    stoi = content["stoi"]
    itos = content["itos"]
    if sorted(stoi.values()) != list(range(len(stoi))) or itos != {number: token for token, number in stoi.items()}:
        raise InputError(f"{path}: the ids of the tokens must be 0 to {len(stoi) - 1}, each once, in stoi and itos.")
    if content["vocab_size"] != len(stoi):
        raise InputError(f"{path}: vocab_size is {content['vocab_size']}, but there are {len(stoi)} tokens.")
    misplaced = [token for number, token in enumerate(SPECIAL) if stoi.get(token) != number]
    if misplaced:
        raise InputError(f"{path}: {misplaced[0]!r} must have the id {SPECIAL.index(misplaced[0])}.")
    return content
