"""Find a tokenizer by its directory, or download the files that are needed from the Hugging Face hub by its name."""

import re
from pathlib import Path

from medtok_jax.lookup.config import CODEBOOK, CONFIG, TOKENS
from preprocessing.common.errors import InputError

PATTERNS = (CONFIG, TOKENS, CODEBOOK, "embeddings.safetensors", "model.safetensors", "model_config.json", "graph/*")
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


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
        if (path / "tokenizer" / CONFIG).is_file() and not (path / CONFIG).is_file():
            return path / "tokenizer"
        is_there = path.exists()
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise InputError(f"A tokenizer must be a directory or a hub name ({error}).") from error
    if is_there or not isinstance(name_or_path, str) or not _NAME.fullmatch(name_or_path):
        return path
    if name_or_path.startswith("."):
        return path
    return _download(name_or_path, revision)


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(PATTERNS)))
    # Across its versions the client lets through its own errors and those of two HTTP libraries, with no common base.
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".: ")
        raise InputError(
            f"The tokenizer {name!r} is not a directory, and the Hugging Face hub did not give it ({reason}): correct"
            " the name, or give a directory."
        ) from error
