"""Damage a file in the ways in which disks and killed programs do."""

from collections.abc import Callable
from pathlib import Path


def _half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path: Path, place: float = 0.5) -> None:
    """Change one bit, at a place between 0 and 1 of the file."""
    content = bytearray(path.read_bytes())
    if content:
        content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b"") and None,
    "half": _half,
    "one bit": flip,
}
