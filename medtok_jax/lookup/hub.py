"""Find a tokenizer, which is a directory or a name on the Hugging Face hub, and download files from the hub."""

import re
from collections.abc import Iterable
from pathlib import Path

from medtok_jax.lookup.config import CODEBOOK, CONFIG, TOKENS
from preprocessing.common.atomic import recover
from preprocessing.common.errors import InputError

PATTERNS = (CONFIG, TOKENS, CODEBOOK, "embeddings.safetensors", "model.safetensors", "model_config.json", "graph/*")
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def resolve_tokenizer(name_or_path: str | Path, revision: str | None = None) -> Path:
    """Return the directory of a tokenizer, downloading it if `name_or_path` is a name on the hub.

    Args:
        name_or_path: a directory, the work directory of a training run (whose `tokenizer` is opened), or a hub name.
        revision: branch, tag or commit on the hub.

    Raises:
        InputError: `name_or_path` is none of these, or the download failed.
    """
    try:
        path = Path(name_or_path).expanduser()
        recover(path)
        recover(path / "tokenizer")
        if (path / "tokenizer" / CONFIG).is_file() and not (path / CONFIG).is_file():
            return path / "tokenizer"
        is_there = path.exists()
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise InputError(f"A tokenizer must be a directory or a hub name ({error}).") from error
    if is_there or not isinstance(name_or_path, str) or "/" not in name_or_path or not is_hub_name(name_or_path):
        return path
    return download(name_or_path, PATTERNS, what="tokenizer", revision=revision)


def is_hub_name(text: str) -> bool:
    """Return True for text in the form `name` or `owner/name`, and False for paths such as `./name` and `~/name`."""
    return text[:1] not in (".", "~") and _NAME.fullmatch(text) is not None


def download(
    name: str, patterns: Iterable[str], *, what: str, setting: str = "the name", revision: str | None = None
) -> Path:
    """Download files from the Hugging Face hub and return the directory in its cache that holds them.

    Args:
        name: a hub name such as `owner/name`.
        patterns: globs of the files to download.
        what: word for what is downloaded, for the message.
        setting: what the user has to correct where the name is wrong, for the message.
        revision: branch, tag or commit on the hub.

    Raises:
        InputError: the name does not exist, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    # Across its versions the client lets through its own errors and those of two HTTP libraries, with no common base.
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".: ")
        raise InputError(
            f"The {what} {name!r} is not a directory, and the Hugging Face hub did not give it ({reason}): correct"
            f" {setting}, or give a directory."
        ) from error
