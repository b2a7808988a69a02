"""Define paths that tests read: the root of the project, and the open samples that may be beside it."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
