"""Read `medtok.json`, and check the files of a tokenizer directory against it. No JAX here."""

import json
from pathlib import Path

from medtok_jax.lookup.config import AGAIN, CONFIG, TokenizerConfig
from medtok_jax.lookup.token_table import TABLE
from preprocessing.common.atomic import recover
from preprocessing.common.checksums import sha256_of
from preprocessing.common.errors import InputError

# Files of up to this many bytes have their contents checked whenever a directory is opened.
SMALL = 1 << 20
# Written anew by whoever saves or publishes a tokenizer, so that they are not listed; read by transformers.
UNLISTED_JSON = ("tokenizer_config.json", "added_tokens.json")


def read_config(path: Path) -> TokenizerConfig:
    """Read the configuration of a tokenizer directory.

    Raises:
        InputError: the directory has none, or it cannot be used.
    """
    recover(path)
    try:
        text = (path / CONFIG).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        problem = "is not a directory" if not path.is_dir() else f"holds no readable {CONFIG}"
        raise InputError(
            f"{path} {problem}; a tokenizer is written by training (WORKDIR/tokenizer) and by"
            " `python -m medtok_jax.tokenize vocabulary`."
        ) from error
    config = TokenizerConfig.from_json(text, path / CONFIG)
    if TABLE not in config.files:
        raise damaged(path / CONFIG, f"it does not list {TABLE}")
    return config


def check_files(path: Path, config: TokenizerConfig, *, verify: bool = False) -> None:
    """Compare the files of a directory with the sizes and sha256 digests that the configuration lists.

    Large files are hashed only with `verify`: their metadata hold the identity of the tokenizer that they belong to.

    Raises:
        InputError: a file is missing or differs.
    """
    for name, wanted in config.files.items():
        file = path / name
        if not file.is_file():
            raise InputError(f"{file} is missing; {AGAIN}.")
        size = file.stat().st_size
        if size != wanted["size"]:
            raise damaged(file, f"it has {size:,} bytes where {CONFIG} lists {wanted['size']:,}")
        if (verify or size <= SMALL) and sha256_of(file) != wanted["sha256"]:
            raise damaged(file, f"its sha256 is not the one in {CONFIG}")
    for name in UNLISTED_JSON:
        try:
            content = json.loads((path / name).read_text(encoding="utf-8")) if (path / name).exists() else {}
        except (OSError, ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise damaged(path / name, "it is no JSON object")


def damaged(path: Path, what: object) -> InputError:
    """Return the error to raise for a file that does not match the configuration."""
    return InputError(f"{path} is damaged ({what}); {AGAIN}.")


def foreign(path: Path) -> InputError:
    """Return the error to raise for a file of another tokenizer."""
    return InputError(f"{path} belongs to another tokenizer than the {CONFIG} beside it; {AGAIN}.")
