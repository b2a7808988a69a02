"""Read and write the vocabulary of ETHOS: a headerless CSV in which the line number of a token is its id.

The format is that of `ethos/vocabulary.py` and `ethos/constants.py` of github.com/ipolharvard/ethos-ares.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from medtok_jax.convert.ethos.files import events
from medtok_jax.convert.ethos.files.code_tokens import MEDTOK, UNK
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load
from preprocessing.common.foreign_files import reading

pl = load("polars")

# Prefixes of all static data that ETHOS itself or `events` writes.
STATIC_PREFIXES = ("BMI", *events.STATIC_PREFIXES)
# Tasks look up these tokens when they are opened, and fail if one is not in the vocabulary.
SPECIAL = (
    *("MEDS_DEATH", "TIMELINE_END", "HOSPITAL_ADMISSION", "HOSPITAL_DISCHARGE"),
    *("ICU_ADMISSION", "ICU_DISCHARGE", "ED_REGISTRATION", "ED_OUT", "SOFA", "DRG//UNKNOWN"),
)
_NUMERIC = re.compile(r"[+-]?[0-9.]+")
_QUANTILE = re.compile(r"Q[0-9]+")


def medtok_token(number: int) -> str:
    """Return the token of a row of the codebook."""
    return f"{MEDTOK}{number}"


def required(codebook_size: int, num_quantiles: int = events.NUM_QUANTILES) -> list[str]:
    """Return the tokens that every vocabulary must hold: all MedTok tokens, and those that ETHOS looks up in any case.

    ETHOS spells the age of a patient in quantile tokens, and unknown static data as `PREFIX//UNKNOWN`.
    """
    return [
        *(medtok_token(number) for number in range(codebook_size)),
        UNK,
        *(f"{prefix}//UNKNOWN" for prefix in STATIC_PREFIXES),
        *(f"Q{number}" for number in range(1, num_quantiles + 1)),
        *events.INTERVALS,
        *SPECIAL,
    ]


def complete(tokens: Iterable[str], codebook_size: int) -> list[str]:
    """Return `tokens` followed by the missing ones of `required`, so that the ids of `tokens` do not change.

    The number of quantiles is that of `tokens`, or else `NUM_QUANTILES`.
    """
    tokens = list(tokens)
    quantiles = len(quantile_tokens(tokens)) or events.NUM_QUANTILES
    return list(dict.fromkeys([*tokens, *required(codebook_size, quantiles)]))


def quantile_tokens(tokens: Iterable[str]) -> list[str]:
    """Return the tokens that ETHOS counts as quantiles."""
    return [token for token in tokens if _QUANTILE.fullmatch(token)]


def check_tokens(tokens: Sequence[str]) -> None:
    """Check that ETHOS can use a vocabulary.

    Raises:
        InputError: a token is repeated, ETHOS would not read it as a token, or quantiles are not Q1 to Qn.
    """
    seen: set[str] = set()
    for line, token in enumerate(tokens, 1):
        if token in seen:
            raise InputError(f"The vocabulary holds the token of line {line:,} twice; each line must be another token.")
        seen.add(token)
    for line, token in enumerate(tokens, 1):
        # The token is not quoted: codes of records may be anything, such as ids.
        if not isinstance(token, str) or not token or "\n" in token or "\r" in token or _NUMERIC.fullmatch(token):
            raise InputError(
                f"The token of line {line:,} of the vocabulary is a number, is empty or has several lines, which"
                " ETHOS does not read back as a token; rename that code in the events."
            )
    quantiles = sorted(int(token[1:]) for token in quantile_tokens(tokens))
    if quantiles != list(range(1, len(quantiles) + 1)) or not quantiles:
        raise InputError(
            f"The vocabulary has {len(quantiles):,} tokens Q<number>, which ETHOS reads as quantiles, but they are not"
            " Q1 to Qn; rename codes of that form."
        )


def write(folder: Path, tokens: Sequence[str]) -> Path:
    """Write `vocab_t{N}.csv` and return its path.

    Raises:
        InputError: see `check_tokens`.
    """
    check_tokens(tokens)
    path = folder / f"vocab_t{len(tokens)}.csv"
    pl.DataFrame({"token": tokens}).write_csv(path, include_header=False)
    return path


def find(folder: Path) -> Path:
    """Return the path of the only vocabulary of a directory.

    Raises:
        InputError: the directory holds none, or several.
    """
    found = sorted(folder.glob("vocab_t*.csv"))
    if len(found) != 1:
        named = ", ".join(path.name for path in found) or "none"
        raise InputError(f"{folder} must hold exactly one vocabulary vocab_t*.csv, but holds {named}.")
    return found[0]


def read(folder: Path) -> list[str]:
    """Read the tokens of a directory's vocabulary, in the order of their ids.

    Raises:
        InputError: there is not exactly one vocabulary, or ETHOS cannot read it.
    """
    path = find(folder)
    with reading(path, "a vocabulary", "tokenize the records again"):
        # This is how ETHOS reads it, so a token that the reader changes is found here.
        tokens = pl.read_csv(path, has_header=False).to_series(0).to_list()
    try:
        check_tokens(tokens)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if path.name != f"vocab_t{len(tokens)}.csv":
        raise InputError(f"{path} holds {len(tokens):,} tokens, so its name must be vocab_t{len(tokens)}.csv.")
    return tokens
