"""Run a local server with the protocol of the Hugging Face hub, and Python processes that use it."""

import contextlib
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from tests.helpers.paths import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """Answer requests for model information, file lists and files like a Hugging Face hub."""

    # A test starts only one hub: the files of each model, the requested paths, and the credentials that came with them.
    models: ClassVar[dict[str, dict[str, bytes]]] = {}
    asked: ClassVar[list[str]] = []
    credentials: ClassVar[set[str | None]] = set()

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        self.asked.append(path)
        self.credentials.add(self.headers.get("Authorization"))
        name, files = next(((n, f) for n, f in self.models.items() if n in path), ("absent/absent", {}))
        if path.startswith(f"/api/models/{name}/tree/"):
            entries = [
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for file, content in files.items()
            ]
            self.send(json.dumps(entries).encode(), "application/json", body)
        elif path.startswith(f"/api/models/{name}"):
            siblings = [{"rfilename": file} for file in files]
            info = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            self.send(json.dumps(info).encode(), "application/json", body)
        elif path.startswith(f"/{name}/resolve/") and path.split("/", 5)[-1] in files:
            self.send(files[path.split("/", 5)[-1]], "application/octet-stream", body)
        elif path.startswith(f"/{name}/resolve/"):
            self.send(b'{"error": "Entry not found"}', "application/json", body, missing="EntryNotFound")
        else:
            self.send(b'{"error": "Repository not found"}', "application/json", body, missing="RepoNotFound")

    def send(self, content: bytes, kind: str, body: bool, missing: str = "") -> None:
        self.send_response(404 if missing else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if missing:
            self.send_header("X-Error-Code", missing)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        """Write no log."""


@contextlib.contextmanager
def serve(models: dict[str, dict[str, bytes]]) -> Iterator[str]:
    """Run a hub with some models (name -> files by path), and yield its address."""
    server = http.server.ThreadingHTTPServer(("localhost", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Hub.models.clear()
    Hub.models.update(models)
    Hub.asked.clear()
    Hub.credentials.clear()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()


def run_python(code: str, endpoint: str, home: Path) -> subprocess.CompletedProcess:
    """Run code in a separate process, because the client reads its endpoint when it is imported."""
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
