"""Running the MCP server as a process: over stdio or HTTP, and its end, whatever it is that ends it."""

import hmac
import os
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

import anyio
import uvicorn

from pyro_mcp.errors import HostFault, InvalidRequest
from pyro_mcp.mcp_server.server import PyroServer

MCP_PATH = "/mcp"
TOKEN_VARIABLE = "PYRO_MCP_TOKEN"  # noqa: S105 - the name of it
TOKEN_CHARS_LEAST = 16
GOODBYE_SECONDS = 2
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Application(Protocol):
    """An ASGI application."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""


def serve_stdio(server: PyroServer) -> int:
    """Serve the client that started this process until it closes the pipe, or a signal comes; the exit code."""
    code = 0
    try:
        code = anyio.run(_stdio, server)
    except* OSError:
        pass  # the client is gone, pipe and all: there is nobody to answer, and everything has been cleaned up
    _leave(code)
    return code


async def _stdio(server: PyroServer) -> int:
    async with anyio.create_task_group() as group:
        group.start_soon(_end_on_signal, server)
        await server.run_stdio_async()
        group.cancel_scope.cancel()
    return 0


async def _end_on_signal(server: PyroServer) -> None:
    """Clean up and go. The thread that reads stdin cannot be interrupted, so this does not wait for it."""
    with anyio.open_signal_receiver(*ENDING) as signals:
        async for number in signals:
            for service in server.services:
                await service.close()
            _flush()
            os._exit(128 + number)


def serve_http(server: PyroServer, host: str, port: int) -> int:
    """Serve HTTP clients that know the token until a signal comes; the exit code."""
    token = _token()
    application = Guarded(server.streamable_http_app(streamable_http_path=MCP_PATH, host=host), token)
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        log_level="warning",
        lifespan="on",
        timeout_graceful_shutdown=GOODBYE_SECONDS,
    )
    listener = uvicorn.Server(config)
    with _signals_end(listener) as received:
        try:
            listener.run()
        except SystemExit as error:  # uvicorn's way to say that it could not begin
            raise HostFault(f"cannot serve on {host}:{port}", remedy="Is the port taken? Choose another.") from error
    code = 128 + received[0] if received else 0
    _leave(code)
    return code


class Guarded:
    """Lets nobody through who does not know the token."""

    def __init__(self, inner: Application, token: str) -> None:
        self._inner = inner
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or self._knows(scope):
            await self._inner(scope, receive, send)
            return
        headers = [(b"content-type", b"application/json"), (b"www-authenticate", b'Bearer realm="pyro"')]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"error":"a bearer token is required"}'})

    def _knows(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._expected)


def _token() -> str:
    """The token clients must send: the user's, or a new one, which is told on stderr."""
    given = os.environ.get(TOKEN_VARIABLE, "")
    if not given:
        made = secrets.token_urlsafe(32)
        _say(f"[mcp] token of this server: {made}")
        return made
    if len(given) < TOKEN_CHARS_LEAST or not given.isascii() or not given.isprintable() or " " in given:
        raise InvalidRequest(
            f"{TOKEN_VARIABLE} is not a good token",
            remedy=f"Use {TOKEN_CHARS_LEAST} or more ASCII letters and digits, or unset it to get a new one.",
        )
    return given


@contextmanager
def _signals_end(listener: uvicorn.Server) -> Iterator[list[int]]:
    """The signals that came. uvicorn takes two of them itself, and raises them again when it has ended."""
    received: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        listener.should_exit = True

    before = {number: signal.signal(number, handle) for number in ENDING}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(code: int) -> None:
    """End the process. A thread that follows a task's command would keep it: nothing is lost with it."""
    _flush()
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
