"""Look at who can read what was written."""

import stat
from pathlib import Path


def readable_by_others(*paths: Path) -> list[str]:
    """Return the files and folders, and those within them, whose modes are not 600 and 700, with their modes."""
    every = [path for root in paths for path in ((root, *sorted(root.rglob("*"))) if root.is_dir() else (root,))]
    assert any(path.is_file() for path in every), "no file was written"
    modes = [(path, stat.S_IMODE(path.lstat().st_mode)) for path in every if not path.is_symlink()]
    return [f"{path} {mode:o}" for path, mode in modes if mode != (0o700 if path.is_dir() else 0o600)]
