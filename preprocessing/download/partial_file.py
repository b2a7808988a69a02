"""The bytes of a transfer that is not complete yet, and which version of which URL they belong to."""

import contextlib
import json
from pathlib import Path

from preprocessing.common import atomic


class PartialFile:
    """`NAME.partial` and, beside it, `NAME.partial.json`.

    Attributes:
        path: where the complete file will be.
        url: without secret parameters.
        joined: whether the bytes come from more than one answer of the server.
    """

    def __init__(self, path: Path, url: str, has_checksum: bool):
        self.path = path
        self.url = url
        self.has_checksum = has_checksum
        self.file = path.with_name(path.name + ".partial")
        self.state_file = path.with_name(path.name + ".partial.json")
        self.joined = self.size() > 0

    def size(self) -> int:
        return self.file.stat().st_size if self.file.is_file() else 0

    def state(self) -> dict:
        """`validator` and `total` of the version that the bytes belong to; empty where they are of no use."""
        with contextlib.suppress(OSError, ValueError):
            state = json.loads(self.state_file.read_text(encoding="utf-8"))
            if isinstance(state, dict) and state.get("url") == self.url and {"validator", "total"} <= set(state):
                return state
        return {}

    def is_complete(self) -> bool:
        """Whether all bytes were there when the process was stopped."""
        total = self.state().get("total")
        return bool(total) and self.size() == total

    def resumable(self) -> tuple[int, str | None]:
        """Number of bytes to go on from (0: from the start) and the validator of their version.

        Without a validator they are used only where a checksum would tell that they do not belong together.
        """
        state, have = self.state(), self.size()
        usable = have and state and (state["validator"] or self.has_checksum)
        if usable and (state["total"] is None or have < state["total"]):
            return have, state["validator"]
        return 0, None

    def restart(self, validator: str | None, total: int | None) -> None:
        """Drops the bytes. The state is written first, so that it never speaks of bytes of another version."""
        self.discard()
        self.joined = False
        atomic.write_json(self.state_file, {"url": self.url, "validator": validator, "total": total})

    def discard(self) -> None:
        self.file.unlink(missing_ok=True)
        self.state_file.unlink(missing_ok=True)
