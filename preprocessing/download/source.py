"""Define the record of a source that can be downloaded; `catalogue.py` lists all sources."""

import dataclasses
import re
from typing import Literal

GROUPS = ("codes", "primekg", "crossreferences", "release", "eicu_demo", "diabetes130")


@dataclasses.dataclass(frozen=True)
class Download:
    """Describe one file to fetch.

    Attributes:
        name: file name on disk (of an archive, until it is unpacked).
        url: address, or empty if the source's listing gives it.
        sha256: SHA-256 (hex) of a file that never changes, or None.
        optional: whether to fetch the file only if all files are asked for; no stage of the pipeline reads it.
    """

    name: str
    url: str = ""
    sha256: str | None = None
    optional: bool = False

    @property
    def is_archive(self) -> bool:
        """Return whether the file is unpacked after it was fetched."""
        return self.name.endswith(".zip")


@dataclasses.dataclass(frozen=True)
class DownloadSource:
    """Describe one source of the catalogue.

    Attributes:
        name: name that `--only` takes.
        group: one of `GROUPS`.
        folder: name below the group's folder; empty is that folder itself.
        version, license: values that the manifest records.
        stage: stage of the pipeline that reads the files.
        required: patterns (regular expressions for complete file names, ignoring case) that must all be found.
        optional: patterns of files that are kept if they are found.
        downloads: files to fetch; empty if only the user can fetch them.
        checksums: URL of the publisher's list of SHA-256 in the format of `sha256sum`, for downloads without one.
        listing: URL at the UMLS Terminology Services or a Dataverse that gives the addresses of downloads without URL.
        archives: patterns of the names of archives that users fetch by hand.
        access: `open`, `umls` (fetching needs the user's UMLS key) or `hand` (only the user can fetch).
        how: instructions for the user; part of a sentence.
        replaces: name of a source that is not needed if this one is present.
        max_bytes: limit on the unpacked bytes of an archive.
    """

    name: str
    group: str
    folder: str
    version: str
    license: str
    stage: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    downloads: tuple[Download, ...] = ()
    checksums: str = ""
    listing: str = ""
    archives: tuple[str, ...] = ()
    access: Literal["open", "umls", "hand"] = "open"
    how: str = ""
    replaces: str = ""
    max_bytes: int = 4 << 30

    def wants(self, file_name: str) -> bool:
        """Return whether a file of this name (without folder) belongs to the source."""
        return any(matches(pattern, file_name) for pattern in (*self.required, *self.optional))


def matches(pattern: str, file_name: str) -> bool:
    """Return whether the complete file name matches the regular expression, ignoring case."""
    return re.fullmatch(pattern, file_name, re.IGNORECASE) is not None
