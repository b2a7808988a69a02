"""Compute the checksums of files by which manifests, stamps, tokenizers and caches are compared."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


def sha256_of(path: str | os.PathLike) -> str:
    """Return the SHA-256 (hex) of the contents of a file.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
