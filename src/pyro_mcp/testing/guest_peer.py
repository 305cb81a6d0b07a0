"""The guest's end of connections, for tests: each is served in a thread by a *behaviour*, which may send anything.

:class:`pyro_mcp.testing.fake_agent.FakeAgent` is a behaviour that keeps to the protocol.
"""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

from pyro_mcp.guest import wire
from pyro_mcp.guest.channel import Session, open_session
from pyro_mcp.guest.link import Watch
from pyro_mcp.guest.wire import FROM_HOST, FrameReader, FrameType, Greeting
from pyro_mcp.host.deadline import Deadline

STUCK_SECONDS = 30.0


class HostGone(Exception):
    """The host closed the connection."""


class GuestPeer:
    """The guest's end of one connection, blocking. Its methods raise HostGone when the host has closed it."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(STUCK_SECONDS)
        self._socket = connected
        self._scanned = b""
        self._reader = FrameReader(0, FROM_HOST)
        self.greeting = Greeting(0, 0, b"")

    def close(self) -> None:
        """Close the connection, as a guest or a VMM that ends does."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def send_bytes(self, data: bytes) -> None:
        """Send these bytes, whatever they are."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise HostGone from error

    def receive_bytes(self) -> bytes:
        """Some bytes from the host."""
        try:
            data = self._socket.recv(wire.PAYLOAD_MOST)
        except OSError as error:
            raise HostGone from error
        if not data:
            raise HostGone
        return data

    def hello(self) -> Greeting:
        """Drop bytes up to the next whole HELLO, and take it."""
        while True:
            start = self._scanned.find(wire.HELLO_MAGIC)
            if start >= 0 and len(self._scanned) >= start + wire.GREETING_SIZE:
                break
            self._scanned = self._scanned[start if start >= 0 else 1 - len(wire.HELLO_MAGIC) :]
            self._scanned += self.receive_bytes()
        end = start + wire.GREETING_SIZE
        self.greeting = wire.unpack_hello(self._scanned[start:end])
        self._reader = FrameReader(self.greeting.session, FROM_HOST)
        rest = self._scanned[end:]
        self._reader.space()[: len(rest)] = rest
        self._reader.filled(len(rest))
        self._scanned = b""
        return self.greeting

    def welcome(self, *, generation: int = wire.GENERATION) -> None:
        """Answer the HELLO."""
        self.send_bytes(wire.pack_welcome(self.greeting._replace(generation=generation)))

    def greet(self) -> None:
        """Take a HELLO and answer it."""
        self.hello()
        self.welcome()

    def receive(self) -> tuple[FrameType, bytes]:
        """The next frame of the host."""
        while (frame := self._reader.take()) is None:
            space = self._reader.space()
            data = self._receive_at_most(len(space))
            space[: len(data)] = data
            self._reader.filled(len(data))
        return frame.kind, bytes(frame.payload)

    def request(self) -> dict[str, Any]:
        """The next request; frames of an operation that has ended are dropped."""
        while True:
            kind, payload = self.receive()
            if kind is FrameType.REQUEST:
                fields: dict[str, Any] = json.loads(payload)
                return fields

    def send(self, kind: FrameType, payload: bytes = b"") -> None:
        """Send a frame."""
        self.send_bytes(wire.pack_frame(self.greeting.session, kind, payload))

    def send_json(self, kind: FrameType, value: object) -> None:
        """Send a frame with JSON in it."""
        self.send(kind, json.dumps(value).encode())

    def _receive_at_most(self, most: int) -> bytes:
        try:
            data = self._socket.recv(most)
        except OSError as error:
            raise HostGone from error
        if not data:
            raise HostGone
        return data


Behaviour = Callable[[GuestPeer], None]


class FakeGuest:
    """A machine for tests. Its connections are served by *behaviours*, one after the other, the last one for ever.

    A context manager. Leaving it cuts the connections, waits for the threads and raises what one of them ran into.
    It is also a ``ChannelOpener``.
    """

    def __init__(self, *behaviours: Behaviour, watch: Watch | None = None, quiet: float = 30.0) -> None:
        self._behaviours = list(behaviours)
        self._watch = watch
        self._quiet = quiet
        self._peers: list[GuestPeer] = []
        self._threads: list[threading.Thread] = []
        self._faults: list[BaseException] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.cut()
        for thread in self._threads:
            thread.join(STUCK_SECONDS)
            if thread.is_alive():
                raise AssertionError("a behaviour does not end")
        if self._faults and error is None:
            raise self._faults[0]

    @property
    def connections(self) -> int:
        """How often it was connected to."""
        return len(self._threads)

    def connect(self, _deadline: Deadline | None = None) -> socket.socket:
        """A new connection."""
        host, guest = socket.socketpair()
        peer = GuestPeer(guest)
        with self._lock:
            behaviour = self._behaviours.pop(0) if len(self._behaviours) > 1 else self._behaviours[0]
            thread = threading.Thread(target=self._serve, args=(behaviour, peer))
            self._peers.append(peer)
            self._threads.append(thread)
        thread.start()
        return host

    @contextlib.contextmanager
    def open(self, deadline: Deadline) -> Iterator[Session]:
        """A session, as a driver opens one."""
        with open_session(self.connect, deadline, watch=self._watch, quiet=self._quiet) as session:
            yield session

    def cut(self) -> None:
        """Close all connections on the guest's side."""
        for peer in self._peers:
            peer.close()

    def _serve(self, behaviour: Behaviour, peer: GuestPeer) -> None:
        try:
            behaviour(peer)
        except HostGone:
            pass
        except BaseException as fault:  # noqa: BLE001  (raised again where the guest is left)
            self._faults.append(fault)
        finally:
            peer.close()
