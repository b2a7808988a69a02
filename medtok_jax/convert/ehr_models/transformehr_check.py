"""Check the files for TransformEHR, read as its `sample_load.py` does, against the needs of its model."""

import datetime
import itertools
import json
from pathlib import Path

import numpy as np

from medtok_jax.convert.ehr_models import unpickling
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading
from preprocessing.meds.splits import HELD_OUT, TRAIN, TUNING

PARTS = {"train": TRAIN, "dev": TUNING, "test": HELD_OUT}
UNKNOWN = "[UNK]"
# The tokens as `preprocess.py` writes them: `[PAD]` is 0, and `[UNK]` to `[MASK]` are 100 to 103, as in BERT.
SPECIAL = (
    "[PAD]",
    *(f"[unused{number}]" for number in range(99)),
    *(UNKNOWN, "[CLS]", "[SEP]", "[MASK]"),
    *(f"[unused{number}]" for number in range(99, 194)),
)
_CONFIG = ("static_position_embeddings", "normalize_embedding", "normalize_before", "add_final_layer_norm")


def check_transformehr(folder: Path) -> dict[str, tuple[int, int]]:
    """Read the files that `transformehr` wrote, and return the numbers of patients and visits of each part.

    Raises:
        InputError: names the first value that the model cannot use, with its part and patient.
    """
    with reading(folder, "the files of TransformEHR", "convert again"):
        return _check_files(Path(folder))


def _check_files(folder: Path) -> dict[str, tuple[int, int]]:
    tokens = (folder / "dict.txt").read_text(encoding="utf-8").split("\n")[:-1]
    known = set(tokens)
    if tuple(tokens[: len(SPECIAL)]) != SPECIAL or len(known) != len(tokens) or "" in known:
        raise InputError(f"{folder}/dict.txt must begin with BERT's {len(SPECIAL)} tokens and hold no token twice.")
    if (folder / "tokenizer" / "vocab.txt").read_bytes() != (folder / "dict.txt").read_bytes():
        raise InputError(f"{folder}/tokenizer/vocab.txt differs from dict.txt; they must be equal.")
    config = json.loads((folder / "model" / "config.json").read_text())
    missing = [name for name in _CONFIG if name not in config]
    if missing:
        raise InputError(f"{folder}/model/config.json lacks {', '.join(missing)}, which the model reads.")
    matrix = np.load(folder / "embed_tokens.npy", allow_pickle=False)
    if not matrix.shape == (len(tokens), config["d_model"]) == (config["vocab_size"], config["d_model"]):
        raise InputError(
            f"{folder}/embed_tokens.npy has the shape {matrix.shape}; dict.txt has {len(tokens)} tokens, and"
            f" model/config.json sets vocab_size {config['vocab_size']} and d_model {config['d_model']}."
        )
    if matrix.dtype != np.float32 or not np.isfinite(matrix).all():
        raise InputError(f"{folder}/embed_tokens.npy must hold finite float32.")
    counts = {}
    seen = set()
    allowed = known - (set(SPECIAL) - {UNKNOWN})
    for part in PARTS:
        counts[part] = _check_part(folder / part, allowed, seen)
    return counts


def _check_part(folder: Path, allowed: set[str], seen: set[str]) -> tuple[int, int]:
    keys = (folder / "key.txt").read_text(encoding="utf-8").split("\n")[:-1]
    values = unpickling.load_each(folder / "value.pickle")
    dates = unpickling.load_each(folder / "dates.pickle")
    number = 0
    for patient, (key, visits, days) in enumerate(itertools.zip_longest(keys, values, dates)):
        if key is None or visits is None or days is None:
            raise InputError(f"{folder}: key.txt, value.pickle and dates.pickle must hold equally many patients.")
        if key in seen or not key.isascii() or key != key.strip() or not key:
            raise InputError(f"{folder}/key.txt: line {patient + 1} is empty, repeated, or not plain ASCII.")
        seen.add(key)
        _check_patient(f"{folder}, patient number {patient}", visits, days, allowed)
        number += len(visits)
    return len(keys), number


def _check_patient(where: str, visits: list, days: list, allowed: set[str]) -> None:
    if not isinstance(visits, list) or not visits or len(visits) != len(days):
        raise InputError(f"{where}: there must be as many visits as dates, and at least one.")
    for place, visit in enumerate(visits):
        if not isinstance(visit, tuple) or len(visit) != 3 or visit[1:] != ([], []) or not visit[0]:
            raise InputError(f"{where}: a visit must be a tuple of tokens and two empty lists.")
        if not allowed.issuperset(visit[0]):
            raise InputError(
                f"{where}: visit {place} has a token that is not in dict.txt, or one that data must not contain."
            )
    try:
        parsed = [datetime.datetime.strptime(day, "%Y-%m-%d") for day in days]
    except (TypeError, ValueError):
        raise InputError(f"{where}: a date is not written as YYYY-MM-DD.") from None
    if any(one >= other for one, other in itertools.pairwise(parsed)):
        raise InputError(f"{where}: dates must be ascending.")
