"""Store the bytes of an incomplete transfer, and the URL and version to which they belong."""

import contextlib
import json
from pathlib import Path

from preprocessing.common import atomic


class PartialFile:
    """Manage `NAME.partial` and, beside it, `NAME.partial.json`.

    Attributes:
        path: path of the complete file.
        url: URL without secret parameters.
        has_checksum: whether a checksum of the complete file is known.
        file: path of the received bytes.
        state_file: path of the JSON object that states their URL, validator and total size.
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
        """Return the number of received bytes."""
        return self.file.stat().st_size if self.file.is_file() else 0

    def state(self) -> dict:
        """Return `validator` and `total` of the version of the bytes; empty if they belong to another URL."""
        with contextlib.suppress(OSError, ValueError):
            state = json.loads(self.state_file.read_text(encoding="utf-8"))
            if isinstance(state, dict) and state.get("url") == self.url and {"validator", "total"} <= set(state):
                return state
        return {}

    def is_complete(self) -> bool:
        """Return whether all bytes were received before the process was stopped."""
        total = self.state().get("total")
        return bool(total) and self.size() == total

    def resumable(self) -> tuple[int, str | None]:
        """Return the number of bytes after which to resume (0: start again) and the validator of their version.

        Bytes without a validator are used only if a checksum would detect that they do not belong together.
        """
        state = self.state()
        have = self.size()
        usable = have and state and (state["validator"] or self.has_checksum)
        if usable and (state["total"] is None or have < state["total"]):
            return have, state["validator"]
        return 0, None

    def restart(self, validator: str | None, total: int | None) -> None:
        """Discard the bytes, and write the state of the new version before its first byte."""
        self.discard()
        self.joined = False
        atomic.write_json(self.state_file, {"url": self.url, "validator": validator, "total": total})

    def discard(self) -> None:
        """Delete the bytes and their state."""
        self.file.unlink(missing_ok=True)
        self.state_file.unlink(missing_ok=True)
