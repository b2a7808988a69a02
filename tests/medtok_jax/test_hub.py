"""A text encoder taken by its hub name, from a local server that speaks the hub's protocol."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAME = "team/tiny-bert"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"a pickle that is not wanted",
}


class Hub(http.server.BaseHTTPRequestHandler):
    """The model information, file list and file endpoints of a Hugging Face hub with one model."""

    asked: list[str] = []  # noqa: RUF012  (one list for all requests is what the test looks at)

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        self.asked.append(path)
        siblings = [{"rfilename": name} for name in FILES]
        if path.startswith(f"/api/models/{NAME}/tree/"):
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in FILES.items()
            ]
            self.send(json.dumps(entries).encode(), "application/json", body)
        elif path.startswith(f"/api/models/{NAME}"):
            info = {"id": NAME, "modelId": NAME, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            self.send(json.dumps(info).encode(), "application/json", body)
        elif path.startswith(f"/{NAME}/resolve/") and path.rsplit("/", 1)[-1] in FILES:
            self.send(FILES[path.rsplit("/", 1)[-1]], "application/octet-stream", body)
        else:
            self.send(b'{"error": "Repository not found"}', "application/json", body, status=404)

    def send(self, content: bytes, kind: str, body: bool, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        """The test's output stays its own."""


@pytest.fixture
def hub():
    server = http.server.ThreadingHTTPServer(("localhost", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Hub.asked.clear()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()


def resolve(name: str, endpoint: str, home: Path) -> subprocess.CompletedProcess:
    """Resolves a name in a process of its own: the client reads its endpoint when it is imported."""
    code = f"from medtok_jax.text_model import resolve_text_encoder as r; print(r({name!r}))"
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_only_the_needed_files_are_downloaded(hub, tmp_path):
    done = resolve(NAME, hub, tmp_path)
    assert done.returncode == 0, done.stderr
    directory = Path(done.stdout.splitlines()[-1])
    assert directory.is_relative_to(tmp_path)
    found = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert found == {name: content for name, content in FILES.items() if name != "pytorch_model.bin"}
    assert not any("pytorch_model.bin" in path for path in Hub.asked if "/resolve/" in path)


def test_an_unknown_model_is_one_sentence(hub, tmp_path):
    done = resolve("team/absent", hub, tmp_path)
    assert done.returncode != 0
    sentence = done.stderr.strip().splitlines()[-1]
    assert "InputError: The text encoder 'team/absent' is not a directory, and the Hugging Face hub did not" in sentence
