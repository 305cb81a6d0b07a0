"""A registry that misbehaves as a test wants it to, and counts what it serves."""

import contextlib
import json
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.loopback import running
from tests.oci_images import MadeImage

# Called with the handler and the path before the usual answer; ``True``: it has answered.
Fault = Callable[["Handler", str], bool]
PIECE = 1 << 14


class Server(ThreadingHTTPServer):
    """Serves one image under any repository and tag."""

    daemon_threads = True

    def __init__(self, image: MadeImage, fault: Fault | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.image = image
        self.fault = fault
        self.asked: list[tuple[str, str]] = []
        self.headers_of: list[tuple[str, dict[str, str]]] = []
        self.served: Counter[str] = Counter()
        self.released = threading.Event()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error here."""


class Handler(BaseHTTPRequestHandler):
    """The part of the protocol that a pull needs."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """Answer."""
        self.server.asked.append((self.command, self.path))
        self.server.headers_of.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        if self.server.fault is not None and self.server.fault(self, self.path):
            return
        self.usual()

    def usual(self) -> None:
        """The right answer."""
        image = self.server.image
        kind, _, wanted = self.path.rpartition("/")
        if kind.endswith("/manifests"):
            self.answer(200, image.manifest, {"Content-Type": "application/vnd.oci.image.manifest.v1+json"})
        elif kind.endswith("/blobs") and wanted in image.blobs:
            self.blob(image.blobs[wanted], wanted)
        else:
            self.answer(404, b'{"errors":[{"code":"NAME_UNKNOWN","message":"no such thing"}]}')

    def blob(self, data: bytes, digest: str) -> None:
        """A blob, or the part of it that is asked for."""
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if asked else {}
        self.answer(206 if asked else 200, data[start:], headers, digest)

    def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None, counted: str = "") -> None:
        """A whole answer."""
        self.begin(status, len(data), headers)
        self.give(data, counted)

    def begin(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        """The head of an answer."""
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def give(self, data: bytes, counted: str = "") -> None:
        """Bytes of a body."""
        for at in range(0, len(data), PIECE):
            self.wfile.write(data[at : at + PIECE])
            self.server.served[counted] += len(data[at : at + PIECE])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


@contextlib.contextmanager
def serving(image: MadeImage, fault: Fault | None = None, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """The server, on a port of loopback."""
    server = Server(image, fault)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    with running(server):
        try:
            yield server
        finally:
            server.released.set()


def first(count: int, fault: Fault, *, path: str = "") -> Fault:
    """*fault* for the first *count* requests whose path holds *path*, then none."""
    left = [count]

    def once(handler: Handler, asked: str) -> bool:
        if path not in asked or left[0] == 0:
            return False
        left[0] -= 1
        return fault(handler, asked)

    return once


def status(code: int, headers: dict[str, str] | None = None, *, body: bytes = b"") -> Fault:
    """Answer with *code*."""

    def refuse(handler: Handler, _path: str) -> bool:
        handler.answer(code, body or json.dumps({"errors": [{"code": "X", "message": "no"}]}).encode(), headers)
        return True

    return refuse


def challenge(server_token: str, header: str) -> Fault:
    """Ask for *server_token* as a bearer; *header* is the WWW-Authenticate."""

    def ask(handler: Handler, path: str) -> bool:
        if not path.startswith("/v2/") or handler.headers.get("Authorization") == f"Bearer {server_token}":
            return False
        handler.answer(401, b"{}", {"WWW-Authenticate": header})
        return True

    return ask
