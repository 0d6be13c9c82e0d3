"""The page about a suite that runs, on this machine alone.

Two documents are served, the page and its numbers; no path names a file. A request must name this machine as its host,
so that a foreign page whose name was pointed at 127.0.0.1 (DNS rebinding) is refused, and nothing may be embedded.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from netsim.errors import HostError, LonghaulError

ADDRESS = "127.0.0.1"
SHORTEST_SECONDS = 0.5  # between two readings of the records, however many pages ask
TIMEOUT_SECONDS = 10.0  # of a connection that says nothing
_PAGE = Path(__file__).with_name("live_page.html")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class LiveServer(ThreadingHTTPServer):
    """Answers on loopback. read: what /status.json holds, JSON-like; may raise LonghaulError or OSError."""

    daemon_threads = True

    def __init__(self, port: int, read: Callable[[], dict[str, Any]]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._answer = (float("-inf"), b"")
        super().__init__((ADDRESS, port), _Handler)

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_address[1]}/"

    @property
    def hosts(self) -> frozenset[str]:
        """What a request may call this server."""
        return frozenset(f"{name}:{self.server_address[1]}" for name in (ADDRESS, "localhost"))

    def status(self) -> bytes:
        with self._lock:
            at, body = self._answer
            if time.monotonic() - at >= SHORTEST_SECONDS:
                try:
                    document = self._read()
                except (LonghaulError, OSError) as error:
                    document = {"error": str(error)}
                body = json.dumps(document, allow_nan=False).encode()
                self._answer = (time.monotonic(), body)
            return body

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is nothing to tell."""


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer
    timeout = TIMEOUT_SECONDS
    server_version = "longhaul"
    sys_version = ""

    def do_GET(self) -> None:
        if self.headers.get("Host") not in self.server.hosts:
            self._send(HTTPStatus.FORBIDDEN, "text/plain", b"this page is for this machine alone\n")
        elif self.path == "/":
            self._send(HTTPStatus.OK, "text/html", _PAGE.read_bytes())
        elif self.path == "/status.json":
            self._send(HTTPStatus.OK, "application/json", self.server.status())
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"not here\n")

    do_HEAD = do_GET

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not printed between the lines of a run."""


@contextmanager
def served(port: int, read: Callable[[], dict[str, Any]]) -> Iterator[LiveServer]:
    """The server, answering until the block ends. port: 0 takes a free one. HostError if the port is taken."""
    try:
        server = LiveServer(port, read)
    except OSError as error:
        raise HostError(f"cannot serve on {ADDRESS}:{port}: {error.strerror}; choose another port") from None
    thread = threading.Thread(target=server.serve_forever, name="live page", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
