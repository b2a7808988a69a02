"""Serve bytes from a small local HTTP server, with the failures that a test asks for."""

import base64
import dataclasses
import hashlib
import http.server
import re
import threading
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit


@dataclasses.dataclass
class Served:
    """Hold a file with the settings of its responses.

    Attributes:
        content: content of the file.
        etag, last_modified: validators; an empty one is not sent.
        cuts: number of bytes that each of the next responses sends before the connection is closed.
        stall: seconds to wait after each block of a response.
        failures: statuses of the next responses, before the file itself is sent.
        headers: additional headers, also of failures.
        ignores_range: whether to send the complete file always.
        auth: required user name and password.
        redirect: address to redirect to.
        kind: content type.
        hides_length: whether to omit Content-Length.
        before: function called before each response, with the file and the number of requests so far.
    """

    content: bytes = b""
    etag: str = ""
    last_modified: str = ""
    cuts: list[int] = dataclasses.field(default_factory=list)
    stall: float = 0.0
    failures: list[int] = dataclasses.field(default_factory=list)
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    ignores_range: bool = False
    auth: tuple[str, str] | None = None
    redirect: str = ""
    kind: str = "application/octet-stream"
    hides_length: bool = False
    before: Callable[["Served", int], None] | None = None

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclasses.dataclass(frozen=True)
class Asked:
    """Hold a received request."""

    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]


class FileServer:
    """Serve `files` (path -> Served) at `url`, and record all requests in `asked`."""

    def __init__(self):
        self.files: dict[str, Served] = {}
        self.asked: list[Asked] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        # Tests close connections on purpose.
        self._server.handle_error = lambda *_: None
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        # For a client, this name of the same server is another host.
        self.other_url = f"http://localhost:{self.port}"

    def __enter__(self) -> "FileServer":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    def requests(self, path: str) -> list[Asked]:
        """Return the requests of one path."""
        return [asked for asked in self.asked if asked.path == path]


def _handler(server: FileServer) -> type:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            server.asked.append(Asked(parts.path, parse_qs(parts.query), headers))
            served = server.files.get(parts.path)
            if served is None:
                return self._fail(404)
            if served.before:
                served.before(served, len(server.requests(parts.path)))
            if served.failures:
                return self._fail(served.failures.pop(0), served.headers)
            if served.auth and self.headers.get("Authorization") != _basic(*served.auth):
                return self._fail(401, {"WWW-Authenticate": 'Basic realm="test"'})
            if served.redirect:
                return self._fail(302, {"Location": served.redirect})
            self._send(served)
            return None

        def _fail(self, status, headers=None):
            body = b"no"
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _send(self, served):
            start, partial = self._start(served)
            if partial and start >= len(served.content):
                self._fail(416, {"Content-Range": f"bytes */{len(served.content)}"})
                return
            body = served.content[start:]
            self.send_response(206 if partial else 200)
            self.send_header("Content-Type", served.kind)
            for name, value in (("ETag", served.etag), ("Last-Modified", served.last_modified)):
                if value:
                    self.send_header(name, value)
            for name, value in served.headers.items():
                self.send_header(name, value)
            if partial:
                end, total = len(served.content) - 1, len(served.content)
                self.send_header("Content-Range", f"bytes {start}-{end}/{total}")
            if served.hides_length:
                self.send_header("Connection", "close")
            else:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self._write(served, body)
            self.close_connection = self.close_connection or served.hides_length

        def _write(self, served, body):
            if served.cuts and (cut := served.cuts.pop(0)) < len(body):
                body, self.close_connection = body[:cut], True
            try:
                for position in range(0, len(body), 1 << 16):
                    self.wfile.write(body[position : position + (1 << 16)])
                    if served.stall:
                        threading.Event().wait(served.stall)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def _start(self, served):
            """Return the first byte of the response, and whether it is partial, by Range and If-Range (RFC 9110)."""
            match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if not match or served.ignores_range:
                return 0, False
            condition = self.headers.get("If-Range")
            if condition and condition not in (served.etag, served.last_modified):
                return 0, False
            return int(match[1]), True

    return Handler


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
