"""List the files of a folder with sizes and digests in `files.json`, so that a damaged one is noticed and never used.

The listing is written last: a folder without it is unfinished.
"""

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

from preprocessing.common.atomic import recover, whole_folder, write_json
from preprocessing.common.checksums import sha256_of
from preprocessing.common.errors import InputError
from preprocessing.common.locks import LOCK, exclusive

LISTING = "files.json"
# Sizes and times of the files whose digests were compared.
COMPARED = "files.compared.json"


class Damage(ValueError):
    """Say which file of a folder is not what its listing says."""


def write_listing(folder: Path) -> None:
    """Write the listing of all files in a folder and below.

    Raises:
        InputError: it cannot be written.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    listed = {
        name: {"size": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}
        for name in names
        if name not in (LISTING, COMPARED, LOCK)
    }
    write_json(folder / LISTING, listed)


def check_listing(
    folder: Path, *, part: str = "", remember: bool = False, digest: Callable[[Path], str] = sha256_of
) -> None:
    """Compare the sizes of all files with the listing, and the digests of those whose names begin with `part`.

    Args:
        folder: of the files.
        part: beginning of names.
        remember: whether to compare no digest again as long as size and time of a file stay.
        digest: returns the SHA-256 (hex) of a file.

    Raises:
        Damage: a file is missing or differs, or the listing cannot be read.
    """
    try:
        listed = json.loads((folder / LISTING).read_text(encoding="utf-8"))
        listed = {name: (int(entry["size"]), str(entry["sha256"])) for name, entry in listed.items()}
    except FileNotFoundError:
        raise Damage(f"{LISTING} is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damage(f"{LISTING} cannot be read") from error
    compared = _compared(folder) if remember else {}
    now = {}
    for name, (size, wanted) in listed.items():
        try:
            status = (folder / name).stat()
            if status.st_size != size:
                raise Damage(f"{name} has {status.st_size:,} bytes where {LISTING} lists {size:,}")
            if name.startswith(part):
                now[name] = [size, status.st_mtime_ns]
                if compared.get(name) != now[name] and digest(folder / name) != wanted:
                    raise Damage(f"{name} is not what {LISTING} describes")
        except (OSError, ValueError) as error:
            if isinstance(error, Damage):
                raise
            raise Damage(f"{name} cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if remember and now != compared:
        with contextlib.suppress(InputError):  # Others may only read here.
            write_json(folder / COMPARED, now)


def cached(folder: Path, write: Callable[[Path], None], *, advice: str) -> Path:
    """Return a folder that holds what `write(folder)` writes: made before, or made now where it is absent or damaged.

    Of several processes one makes it, and the others wait.

    Args:
        folder: whose name tells its content.
        write: fills a new folder.
        advice: what the user can do when the disk refuses, without a full stop.

    Raises:
        InputError: it cannot be written.
    """
    recover(folder)
    if not is_whole(folder, quiet=True):
        with exclusive(folder.parent, file=folder.name, wait=True, advice=advice):
            if not is_whole(folder):  # Another process made it while this one waited.
                with whole_folder(folder, advice=advice) as partial:
                    write(partial)
                    write_listing(partial)
    return folder


def is_whole(folder: Path, *, quiet: bool = False) -> bool:
    """Return whether a cache lies in a folder and is intact, and say so where it is damaged, unless `quiet`."""
    try:
        check_listing(folder, remember=True)
    except Damage as error:
        if (folder / LISTING).exists() and not quiet:
            print(f"warning: {folder} is damaged ({error}); it is made anew.", file=sys.stderr)
        return False
    return True


def _compared(folder: Path) -> dict:
    try:
        content = json.loads((folder / COMPARED).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
