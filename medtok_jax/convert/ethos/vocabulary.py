"""The vocabulary of ETHOS: a headerless CSV in which the line number of a token is its id.

Source of the format: `ethos/vocabulary.py` and `ethos/constants.py` of github.com/ipolharvard/ethos-ares.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from medtok_jax.convert.ethos.files import events
from preprocessing.common.errors import InputError
from preprocessing.common.extras import load

pl = load("polars")

UNK = events.UNK
# Of all that ETHOS itself or `events` says ahead of a timeline.
STATIC_PREFIXES = ("BMI", *events.STATIC_PREFIXES)
# Tasks look these up when they are opened, and a token that is not in the vocabulary raises.
SPECIAL = (
    *("MEDS_DEATH", "TIMELINE_END", "HOSPITAL_ADMISSION", "HOSPITAL_DISCHARGE"),
    *("ICU_ADMISSION", "ICU_DISCHARGE", "ED_REGISTRATION", "ED_OUT", "SOFA", "DRG//UNKNOWN"),
)
_NUMERIC = re.compile(r"[+-]?[0-9.]+")
_QUANTILE = re.compile(r"Q[0-9]+")


def medtok_token(number: int) -> str:
    """The token of a row of the codebook."""
    return f"{events.MEDTOK}{number}"


def required(codebook_size: int, num_quantiles: int = events.NUM_QUANTILES) -> list[str]:
    """Tokens that any vocabulary must end up with: all of MedTok, then what ETHOS looks up whether it occurred or not.

    ETHOS spells the age of a patient in quantile tokens, and what is not known of one as `PREFIX//UNKNOWN`.
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
    """`tokens` in their order, then those of `required` that are missing; ids that were given stay as they are.

    The number of quantiles is that of `tokens` where they have any.
    """
    tokens = list(tokens)
    quantiles = len(quantile_tokens(tokens)) or events.NUM_QUANTILES
    return list(dict.fromkeys([*tokens, *required(codebook_size, quantiles)]))


def quantile_tokens(tokens: Iterable[str]) -> list[str]:
    """Those of `tokens` that ETHOS counts as quantiles."""
    return [token for token in tokens if _QUANTILE.fullmatch(token)]


def check_tokens(tokens: Sequence[str]) -> None:
    """Holds a vocabulary against what ETHOS does with it.

    Raises:
        InputError: a token would be read as something else, stands twice, or quantiles are not Q1 to Qn.
    """
    if len(set(tokens)) != len(tokens):
        twice = next(token for number, token in enumerate(tokens) if token in tokens[:number])
        raise InputError(f"The vocabulary holds the token {twice!r} twice; each line must be another token.")
    for token in tokens:
        if not isinstance(token, str) or not token or "\n" in token or "\r" in token or _NUMERIC.fullmatch(token):
            raise InputError(f"The vocabulary holds {token!r}, which ETHOS does not read back as a token.")
    quantiles = sorted(int(token[1:]) for token in quantile_tokens(tokens))
    if quantiles != list(range(1, len(quantiles) + 1)) or not quantiles:
        raise InputError(
            f"The quantile tokens of the vocabulary are {quantiles[:20]}, but ETHOS takes any token Q<number> for one"
            " and needs Q1 to Qn."
        )


def write(folder: Path, tokens: Sequence[str]) -> Path:
    """Writes `vocab_t{N}.csv`.

    Raises:
        InputError: see `check_tokens`.
    """
    check_tokens(tokens)
    path = folder / f"vocab_t{len(tokens)}.csv"
    pl.DataFrame({"token": tokens}).write_csv(path, include_header=False)
    return path


def find(folder: Path) -> Path:
    """The one vocabulary of a directory.

    Raises:
        InputError: there is none, or several.
    """
    found = sorted(folder.glob("vocab_t*.csv"))
    if len(found) != 1:
        named = ", ".join(path.name for path in found) or "none"
        raise InputError(f"{folder} must hold exactly one vocabulary vocab_t*.csv, but holds {named}.")
    return found[0]


def read(folder: Path) -> list[str]:
    """The tokens of a directory's vocabulary, in the order of their ids.

    Raises:
        InputError: there is not exactly one file, or it cannot be what ETHOS writes.
    """
    path = find(folder)
    try:
        # As ETHOS reads it, so that a token which changes on the way is seen here.
        tokens = pl.read_csv(path, has_header=False).to_series(0).to_list()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path} is no vocabulary ({str(error).splitlines()[0]}).") from error
    try:
        check_tokens(tokens)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if path.name != f"vocab_t{len(tokens)}.csv":
        raise InputError(f"{path} holds {len(tokens):,} tokens, which its name must tell: vocab_t{len(tokens)}.csv.")
    return tokens
