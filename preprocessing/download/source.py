"""What is said of a source that can be downloaded; the table of them is `catalogue.py`."""

import dataclasses
import re
from typing import Literal

GROUPS = ("codes", "primekg", "crossreferences", "release")


@dataclasses.dataclass(frozen=True)
class Download:
    """One file to fetch.

    Attributes:
        name: file name under which it is kept (an archive until it is unpacked).
        url: where it is; empty where a listing of the source says that.
        sha256: hex, where the file is fixed.
        optional: fetched only when all files are asked for; no stage of the pipeline reads it.
    """

    name: str
    url: str = ""
    sha256: str | None = None
    optional: bool = False

    @property
    def is_archive(self) -> bool:
        return self.name.endswith(".zip")


@dataclasses.dataclass(frozen=True)
class Source:
    """One source.

    Attributes:
        name: as `--only` takes it.
        group: one of `GROUPS`.
        folder: below the group's folder; empty is that folder itself.
        version, license: as recorded in the manifest.
        stage: which stage of the pipeline reads it.
        required: patterns (regular expressions for whole file names, in any case) that must all be found.
        optional: patterns of files that are taken where they are found.
        downloads: what to fetch; none where a person has to.
        listing: where downloads without URL are looked up: of the UMLS Terminology Services, or of a Dataverse dataset.
        archives: patterns of the names of archives that people fetch by hand.
        access: what fetching needs: nothing, the user's UMLS key, or a person.
        how: where a person gets it and which file to take; part of a sentence.
        replaces: name of a source that is not needed where this one is there.
        max_bytes: limit when an archive is unpacked.
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
    listing: str = ""
    archives: tuple[str, ...] = ()
    access: Literal["open", "umls", "hand"] = "open"
    how: str = ""
    replaces: str = ""
    max_bytes: int = 4 << 30

    def wants(self, file_name: str) -> bool:
        """Whether a file of this name (without folder) belongs to the source."""
        return any(matches(pattern, file_name) for pattern in (*self.required, *self.optional))


def matches(pattern: str, file_name: str) -> bool:
    """Whether the whole file name fits the pattern, in upper or lower case."""
    return re.fullmatch(pattern, file_name, re.IGNORECASE) is not None
