"""Read and write `manifest.json`, which records the origin and checksum of each file in a folder of downloads.

    {"format": 1, "files": {"ICD10CM/icd10cm_order_2026.txt": {"source": "https://...", "version": "FY2026", ...}}}

Names are relative to the folder, with forward slashes. Keys are sorted, so equal contents are equal bytes.
"""

import datetime
import json
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from preprocessing.common import atomic
from preprocessing.common.checksums import sha256_of
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading

FILE_NAME = "manifest.json"
_FORMAT = 1
_FIELDS = {"source": str, "version": str, "license": str, "date": str, "size": int, "sha256": str}


class Manifest:
    """Hold the provenance of the files in one folder.

    Attributes:
        folder: the folder.
        files: relative name -> fields: `source` (URL, or the name of the file supplied by hand), `version`, `license`,
            `date` (ISO, UTC, when it was fetched or taken), `size` (bytes), `sha256` (hex); if known also `catalogue`
            (name of the source in the catalogue), `by_hand`, `verified` (against a published checksum), and `archive`
            and `archive_sha256` of the archive from which it was unpacked.
    """

    def __init__(self, folder: Path, files: dict[str, dict] | None = None):
        self.folder = Path(folder)
        self.files = files or {}

    @classmethod
    def read(cls, folder: str | os.PathLike) -> "Manifest":
        """Read the manifest of `folder`; return an empty one if there is none.

        Raises:
            InputError: the file is not a manifest of this format.
        """
        path = Path(folder) / FILE_NAME
        if not path.is_file():
            return cls(Path(folder))
        with reading(path, "a manifest", "delete it and download again"):
            content = json.loads(path.read_text(encoding="utf-8"))
        files = content.get("files") if isinstance(content, dict) and content.get("format") == _FORMAT else None
        if not isinstance(files, dict) or not all(_is_entry(name, entry) for name, entry in files.items()):
            raise InputError(f"{path} is not a manifest of this version; delete it and download again.")
        return cls(Path(folder), files)

    def write(self) -> None:
        """Write `manifest.json` into the folder atomically."""
        content = {"format": _FORMAT, "files": self.files}
        atomic.write_json(self.folder / FILE_NAME, content, sort_keys=True, ensure_ascii=False)

    def record(
        self, name: str, *, source: str, version: str, license: str, size: int, sha256: str, **known: str | bool
    ) -> None:
        """Add or replace the entry of one file in memory; `write` saves it.

        Args:
            name: path relative to the folder, with forward slashes.
            source, version, license, size, sha256: see the class.
            known: `date` (default: today), `catalogue`, `by_hand`, `verified`, `archive`, `archive_sha256`.

        Raises:
            ValueError: the name leaves the folder, or a field has the wrong type.
        """
        entry = {"source": source, "version": version, "license": license, "size": size, "sha256": sha256, **known}
        entry.setdefault("date", datetime.datetime.now(datetime.UTC).date().isoformat())
        if not _is_entry(name, entry):
            raise ValueError(f"{name!r} cannot be recorded with {entry}.")
        self.files[name] = entry

    def remove(self, name: str) -> None:
        """Remove the entry of one file."""
        del self.files[name]

    def names(self, catalogue: str) -> list[str]:
        """Return the sorted names of the files that are recorded for one source of the catalogue."""
        return sorted(name for name, entry in self.files.items() if entry.get("catalogue") == catalogue)

    def problem(self, name: str) -> str | None:
        """Check one recorded file on disk; return a sentence without its period if it is wrong, and None if not."""
        entry = self.files[name]
        path = self.folder / name
        if not path.is_file():
            return f"{path} is missing"
        if (size := path.stat().st_size) != entry["size"]:
            return f"{path} has {size:,} bytes where {entry['size']:,} are recorded"
        if sha256_of(path) != entry["sha256"]:
            return f"{path} has changed since it was recorded (its sha256 differs)"
        return None

    def verify(self, folder: str | os.PathLike | None = None, names: Iterable[str] | None = None) -> None:
        """Check that recorded files exist on disk with their size and SHA-256.

        Args:
            folder: folder of the files; None is the manifest's own folder.
            names: names of the files; None is all.

        Raises:
            InputError: a file is missing or differs, or one of `names` is not recorded.
        """
        where = self if folder is None else Manifest(Path(folder), self.files)
        chosen = sorted(self.files if names is None else names)
        unknown = [name for name in chosen if name not in self.files]
        if unknown:
            raise InputError(f"{where.folder / FILE_NAME} does not record {unknown[0]}; download it again.")
        problems = [problem for name in chosen if (problem := where.problem(name))]
        if problems:
            others = f" (and {len(problems) - 1} more like it)" if len(problems) > 1 else ""
            raise InputError(f"{problems[0]}{others}; download it again.")


def _is_entry(name: str, entry: object) -> bool:
    """Return whether the name is inside the folder and all fields exist with their types."""
    path = PurePosixPath(name)
    inside = bool(name) and not path.is_absolute() and ".." not in path.parts and "\\" not in name
    return (
        inside
        and isinstance(entry, dict)
        and all(type(entry.get(field)) is kind for field, kind in _FIELDS.items())
        and len(entry["sha256"]) == 64
    )
