"""Find a tokenizer, which is a directory, lies in an installed package or on the Hugging Face hub, and use the hub."""

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medtok_jax.lookup import code_files
from medtok_jax.lookup.config import CONFIG
from medtok_jax.lookup.token_table import TABLE
from preprocessing.common.atomic import recover
from preprocessing.common.errors import InputError

PATTERNS = (
    *(CONFIG, TABLE, "tokenizer_config.json", "embeddings.safetensors", "model.safetensors", "model_config.json"),
    *("graph/nodes.parquet", "graph/*.npy", "graph/*.json", *code_files.names()),
)
# Repositories that this project names, at the commit that was tested. Whoever can write to a repository can move its
# branches and tags, and no commit.
PINNED = dict.fromkeys(
    ("bert-base-uncased", "google-bert/bert-base-uncased"), "86b5e0934494bd15c9632b12f734a8a67f723594"
)
# Options of a download, by their names in transformers and `snapshot_download`.
OPTIONS = ("token", "cache_dir", "local_files_only", "force_download")
# A folder of this name, in a work directory or a package, is the tokenizer.
FOLDER = "tokenizer"
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w.-]+)?")


def resolve_tokenizer(name_or_path: str | Path, revision: str | None = None, **options: Any) -> Path:
    """Return the directory of a tokenizer, downloading it if `name_or_path` is a name on the hub.

    Args:
        name_or_path: an existing directory, or the work directory of a training run, whose `tokenizer` is opened; else
            the name of an installed package that holds one; else `OWNER/NAME` or `OWNER/NAME@REVISION` on the hub.
        revision: branch, tag or commit on the hub.
        **options: of the download, see `OPTIONS`.

    Raises:
        InputError: `name_or_path` is none of these, or the download failed.
    """
    try:
        path = Path(name_or_path).expanduser()
        recover(path)
        recover(path / FOLDER)
        if (path / FOLDER / CONFIG).is_file() and not (path / CONFIG).is_file():
            return path / FOLDER
        is_there = path.exists()
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise InputError(f"A tokenizer must be a directory, a package or a hub name ({error}).") from error
    if is_there or not isinstance(name_or_path, str):
        return path
    if package := in_package(name_or_path):
        return package
    if "/" in name_or_path and is_hub_name(name_or_path):
        return download(name_or_path, PATTERNS, what="tokenizer", revision=revision, **options)
    raise InputError(
        f"{name_or_path!r} is not a directory, nor an installed package with a tokenizer, nor OWNER/NAME on the Hugging"
        " Face hub; training writes a tokenizer to WORKDIR/tokenizer."
    )


def in_package(name: str) -> Path | None:
    """Return the directory of the tokenizer in an installed package, which is not imported; None if there is none."""
    if not name.isidentifier():
        return None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    for root in (spec.submodule_search_locations or ()) if spec else ():
        for folder in (Path(root), Path(root) / FOLDER):
            if (folder / CONFIG).is_file():
                return folder
    return None


def is_hub_name(text: str) -> bool:
    """Return True for `name` or `owner/name`, with `@revision` or not, and False for paths such as `./name`."""
    return text[:1] not in (".", "~") and _NAME.fullmatch(text) is not None


def download(
    name: str,
    patterns: Iterable[str],
    *,
    what: str,
    setting: str = "the name",
    revision: str | None = None,
    **options: Any,
) -> Path:
    """Download files from the Hugging Face hub and return the directory in its cache that holds them.

    Args:
        name: a hub name such as `owner/name` or `owner/name@revision`.
        patterns: globs of the files to download.
        what: word for what is downloaded, for the message.
        setting: what the user has to correct where the name is wrong, for the message.
        revision: branch, tag or commit on the hub; by default that in the name, else that in `PINNED`, else the newest.
        **options: of the download, see `OPTIONS`.

    Raises:
        InputError: the name does not exist, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    repository, _, named = name.partition("@")
    revision = revision or named or PINNED.get(repository)
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns), **options))
    # Across its versions the client lets through its own errors and those of two HTTP libraries, with no common base.
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".: ")
        raise InputError(
            f"The {what} {name!r} is not a directory, and the Hugging Face hub did not give it ({reason}): correct"
            f" {setting}, or give a directory."
        ) from error
