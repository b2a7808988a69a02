"""Compute the checksums of files by which manifests, stamps, tokenizers and caches are compared."""

import functools
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

CHECKSUM = "checksum"


def sha256_of(path: str | os.PathLike) -> str:
    """Return the SHA-256 (hex) of the contents of a file.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_once(path: str | os.PathLike) -> str:
    """Return the SHA-256 (hex) of a file, computed once in a process as long as size and time of the file stay.

    Raises:
        OSError: the file cannot be read.
    """
    status = os.stat(path)
    return _sha256_at(os.path.abspath(path), status.st_ino, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1000)
def _sha256_at(path: str, *_: int) -> str:
    return sha256_of(path)


def sealed(content: dict) -> dict:
    """Return what is written as JSON with a last entry, `checksum`, by which `unsealed` notices any change of it."""
    kept = {name: value for name, value in content.items() if name != CHECKSUM}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
    return kept | {CHECKSUM: digest[:16]}


def unsealed(content: object) -> dict:
    """Return what `sealed` was given.

    Raises:
        ValueError: it is not what was written.
    """
    if not isinstance(content, dict) or content.get(CHECKSUM) != sealed(content)[CHECKSUM]:
        raise ValueError("it does not have the checksum that it was written with")
    return {name: value for name, value in content.items() if name != CHECKSUM}


def md5_of(path: str | os.PathLike) -> str:
    """Return the MD5 (hex) of the contents of a file, for publishers who give no other checksum.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def sha256_of_files(paths: Iterable[str | os.PathLike]) -> str:
    """Return one SHA-256 (hex) over the names (without folders) and the contents of files, in the order given.

    Raises:
        OSError: one of the files cannot be read.
    """
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{Path(path).name}\0{sha256_of(path)}\n".encode())
    return total.hexdigest()
