"""Check the files for BEHRT against everything that its data loaders and its model assume."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medtok_jax.convert.ehr_models import unpickling
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading

PAD, UNKNOWN, SEP, CLS, MASK = SPECIAL = ("PAD", "UNK", "SEP", "CLS", "MASK")
# Number of months in `age_vocab(max_age=110, mon=1)` of model/utils.py.
MAX_MONTHS = 110 * 12
_TABLES = {"mlm": "caliber_id", "train": "code", "tuning": "code", "test": "code"}


def check_behrt(folder: Path) -> dict[str, int]:
    """Read the files that `behrt` wrote, and return the number of histories in each table.

    Raises:
        InputError: names the first value that BEHRT cannot use, with its table and row.
    """
    with reading(folder, "the files of BEHRT", "convert again"):
        return _check_files(Path(folder))


def _check_files(folder: Path) -> dict[str, int]:
    config = json.loads((folder / "model_config.json").read_text())
    tokens = _check_vocabulary(folder / "vocabulary.pkl", SPECIAL)
    labels = _check_vocabulary(folder / "label_vocabulary.pkl", (UNKNOWN,))
    matrix = np.load(folder / "word_embeddings.npy", allow_pickle=False)
    if matrix.shape != (config["vocab_size"], config["hidden_size"]) or len(tokens) != len(matrix):
        raise InputError(f"{folder}/word_embeddings.npy has the shape {matrix.shape}; there are {len(tokens)} tokens.")
    if matrix.dtype != np.float32 or not np.isfinite(matrix).all():
        raise InputError(f"{folder}/word_embeddings.npy must hold finite float32.")
    return {
        name: _check_table(folder / f"{name}.parquet", column, config["max_len_seq"], tokens, labels)
        for name, column in _TABLES.items()
    }


def _check_vocabulary(path: Path, special: tuple[str, ...]) -> dict[str, int]:
    vocabulary = unpickling.load(path)
    if not isinstance(vocabulary, dict) or set(vocabulary) != {"token2idx", "idx2token"}:
        raise InputError(f"{path} must hold the dicts token2idx and idx2token.")
    token2idx, idx2token = vocabulary["token2idx"], vocabulary["idx2token"]
    if list(token2idx.values()) != list(range(len(token2idx))) or not all(isinstance(t, str) for t in token2idx):
        raise InputError(
            f"{path}: tokens must be text, numbered from 0: BEHRT uses their count as the size of its embedding table."
        )
    if idx2token != {number: token for token, number in token2idx.items()}:
        raise InputError(f"{path}: idx2token is not the inverse of token2idx.")
    missing = [token for token in special if token not in token2idx]
    if missing or (special == SPECIAL and token2idx[PAD] != 0):
        raise InputError(f"{path} must hold {', '.join(special)}, PAD first; it lacks {missing}.")
    return token2idx


def _check_table(path: Path, column: str, max_len: int, tokens: dict[str, int], labels: dict[str, int]) -> int:
    table = pq.read_table(path)
    wanted = ["patid", column, "age"] + ([] if column == "caliber_id" else ["label"])
    if table.column_names != wanted or not pa.types.is_int64(table["patid"].type):
        raise InputError(f"{path} must have the columns {', '.join(wanted)}; it has {', '.join(table.column_names)}.")
    known_ages = {str(month) for month in range(MAX_MONTHS)} | {UNKNOWN}
    for row, history in enumerate(_rows(table)):
        where = f"{path}, row {row}"
        _check_history(where, history[column], history["age"], max_len, tokens, known_ages)
        if "label" in history:
            unknown = sum(label not in labels for label in history["label"])
            if unknown or not history["label"]:
                raise InputError(f"{where}: label must be codes of the label vocabulary, but {unknown} codes are not.")
    return len(table)


def _rows(table: pa.Table) -> Iterator[dict]:
    for batch in table.to_batches(max_chunksize=1024):
        yield from batch.to_pylist()


def _check_history(
    where: str, codes: list[str], ages: list[str], max_len: int, tokens: dict[str, int], known_ages: set[str]
) -> None:
    if len(codes) != len(ages):
        raise InputError(f"{where} has {len(codes)} tokens and {len(ages)} ages.")
    if len(codes) >= max_len:
        raise InputError(f"{where} has {len(codes)} tokens; besides CLS there is room for {max_len - 1}.")
    if not codes or codes[-1] != SEP or codes[0] == SEP:
        raise InputError(f"{where} must begin with a code and end with SEP.")
    if any(one == SEP == other for one, other in itertools.pairwise(codes)):
        raise InputError(f"{where} has a visit without codes.")
    strange = [place for place, code in enumerate(codes) if code not in tokens or code in (PAD, CLS, MASK)]
    if strange:
        raise InputError(f"{where}: token {strange[0]} is not in the vocabulary, or is one that data must not contain.")
    strange = [place for place, age in enumerate(ages) if age not in known_ages]
    if strange:
        raise InputError(f"{where}: age {strange[0]} is not a month from 0 to {MAX_MONTHS - 1}.")
    changes = [position for position in range(1, len(ages)) if ages[position] != ages[position - 1]]
    if any(codes[position - 1] != SEP for position in changes):
        raise InputError(f"{where}: the age changes within a visit.")
