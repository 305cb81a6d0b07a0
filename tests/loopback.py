"""Servers of the tests: each on a port of loopback, in a thread, until its block ends."""

import contextlib
import socketserver
import threading
from collections.abc import Iterator
from typing import TypeVar

Server = TypeVar("Server", bound=socketserver.BaseServer)
POLL_SECONDS = 0.02


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """*server*, answering; closed at the end."""
    thread = threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
