"""A proxy as companies have them: whatever is asked for, it is fetched from one server of the test's own."""

import contextlib
import http.client
import select
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.loopback import running

PIECE = 1 << 16


class Proxy(ThreadingHTTPServer):
    """Takes CONNECT and absolute URLs; *login* is what ``Proxy-Authorization`` must be, if anything."""

    daemon_threads = True

    def __init__(self, upstream: str, login: str) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.upstream = upstream
        self.login = login
        self.asked: list[tuple[str, str]] = []
        self.headers_of: list[dict[str, str]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error here."""


class Passing(BaseHTTPRequestHandler):
    """Passes on."""

    protocol_version = "HTTP/1.1"
    server: Proxy

    def let_in(self) -> bool:
        self.server.asked.append((self.command, self.path))
        self.server.headers_of.append({name.lower(): value for name, value in self.headers.items()})
        if not self.server.login or self.headers.get("Proxy-Authorization") == self.server.login:
            return True
        self.send_response(407)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False

    def do_GET(self) -> None:
        """A request of plain HTTP."""
        if not self.let_in():
            return
        path = "/" + self.path.split("/", 3)[3]
        upstream = http.client.HTTPConnection(self.server.upstream)
        with contextlib.closing(upstream):
            upstream.request(
                "GET", path, headers={name: value for name, value in self.headers.items() if name != "Host"}
            )
            answer = upstream.getresponse()
            data = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() in ("content-type", "content-length", "content-range", "location"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_CONNECT(self) -> None:
        """A tunnel."""
        if not self.let_in():
            return
        host, _, port = self.server.upstream.rpartition(":")
        with socket.create_connection((host, int(port))) as upstream:
            self.send_response(200)
            self.end_headers()
            self.close_connection = True
            pairs = {self.connection: upstream, upstream: self.connection}
            while True:
                for ready in select.select(list(pairs), [], [], 20)[0]:
                    data = ready.recv(PIECE)
                    if not data:
                        return
                    pairs[ready].sendall(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


@contextlib.contextmanager
def proxying(upstream: str, login: str = "") -> Iterator[Proxy]:
    """The proxy, on a port of loopback."""
    with running(Proxy(upstream, login)) as proxy:
        yield proxy
