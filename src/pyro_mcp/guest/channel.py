"""Sessions: the handshake over a fresh connection, then frames both ways."""

import secrets
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from pyro_mcp.errors import GuestProtocol, LinkTimeout
from pyro_mcp.guest import wire
from pyro_mcp.guest.faults import LinkLost
from pyro_mcp.guest.link import Link, Watch, readable
from pyro_mcp.guest.wire import Frame, FrameReader, FrameType, Greeting
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import attempts

QUIET = 1.0
LONGEST_QUIET = 8.0
STALE_MOST = 64 << 20
FIRST_PAUSE = 0.001
LONGEST_PAUSE = 0.05

Connect = Callable[[Deadline], socket.socket]


class Session:
    """An open session. A context manager: leaving it closes the connection; a job goes on in the guest.

    Not thread-safe: one thread at a time, one operation after the other. After any exception but
    :class:`~pyro_mcp.errors.GuestRefused` close it. Other threads act on a running command through
    ``Control``.
    """

    def __init__(self, link: Link, number: int, reader: FrameReader) -> None:
        self.number = number
        # Whether somebody waits for the line; asked by loops that could go on later, on another one.
        self.wanted: Callable[[], bool] = lambda: False
        self._link = link
        self._reader = reader

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. May be called again."""
        self._link.close()

    def send_frame(self, kind: FrameType, payload: bytes, deadline: Deadline) -> None:
        """Send one whole frame. Raises LinkTimeout when the guest does not take it by *deadline*."""
        self.queue(kind, payload)
        self._link.flush()
        while self._link.pending:
            deadline.check("sending to the guest", LinkTimeout)
            self._link.wait(deadline)
            self._link.flush()

    def receive_frame(self, deadline: Deadline) -> Frame:
        """The next frame; its payload lives until the next call.

        Raises LinkTimeout, LinkLost, MachineDied or GuestProtocol.
        """
        while True:
            frame = self._reader.take()
            if frame is not None:
                return frame
            deadline.check("the answer of the guest", LinkTimeout)
            if self._link.wait(deadline).get(-1, 0):
                self.advance()

    # The parts below serve loops that wait for more than this session.

    @property
    def pending(self) -> bool:
        """Whether queued frames wait to be sent."""
        return self._link.pending

    def queue(self, kind: FrameType, payload: bytes = b"") -> None:
        """Add a frame to what :meth:`advance` sends; *payload* is not copied."""
        header, trailer = wire.envelope(self.number, kind, len(payload))
        self._link.queue(header, payload, trailer)

    def wait(self, deadline: Deadline, others: Sequence[tuple[int, int]] = ()) -> dict[int, int]:
        """As :meth:`Link.wait`: what is ready by descriptor, the session itself under ``-1``."""
        return self._link.wait(deadline, others)

    def advance(self) -> None:
        """Send and receive what can be without waiting. Ends the life of payloads taken before."""
        self._link.flush()
        space = self._reader.space()
        if not space:
            return
        try:
            self._reader.filled(self._link.receive_into(space))
        except LinkLost as lost:
            raise self._link.cause_of(lost) from lost

    def take(self) -> Frame | None:
        """The next whole frame that has been received, or ``None``; raises GuestProtocol."""
        return self._reader.take()


def open_session(
    connect: Connect,
    deadline: Deadline,
    *,
    watch: Watch | None = None,
    quiet: float = QUIET,
    stale_most: int = STALE_MOST,
    redial: bool = False,
) -> Session:
    """Open a session with the agent.

    *connect* gives a connected stream socket, or raises OSError when there is none yet: then, and when the
    connection is closed before the agent's WELCOME, it is called again until *deadline*. Bytes for an earlier
    client are dropped, at most *stale_most*. After *quiet* seconds without a WELCOME the agent is
    resynchronised, then again after twice that time, and so on; with *redial*, where a connection costs nothing and
    may have been lost without a word, it is given up then and made anew.

    Raises LinkTimeout at the deadline, the watch's error at once when the machine ends, GuestProtocol when
    the agent speaks another generation or sends too many stale bytes.
    """
    reason = ""
    for _ in _pauses(deadline, watch):
        try:
            link = Link(connect(deadline), watch)
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
        else:
            greeter = _Greeter(link, quiet, stale_most, redial=redial)
            try:
                return greeter.open(deadline)
            except LinkLost as lost:
                reason = lost.cause
                stale_most -= greeter.stale
                if greeter.silent:
                    quiet = min(quiet * 2, LONGEST_QUIET)
            finally:
                if not greeter.opened:
                    link.close()
        if deadline.passed:
            break
    raise LinkTimeout(f"no connection to the agent in the guest: {reason}")


def _pauses(deadline: Deadline, watch: Watch | None) -> Iterator[int]:
    """Growing pauses between connections; raises the watch's error at once when the machine ends."""
    if watch is None:
        yield from attempts(deadline, longest=LONGEST_PAUSE)
    else:
        pause = FIRST_PAUSE
        yield 0
        while not readable(watch.descriptor, min(pause, deadline.remaining)):
            yield 1
            pause = min(pause * 2, LONGEST_PAUSE)
        raise watch.explain()


class _Greeter:
    """HELLO and WELCOME on one connection."""

    def __init__(self, link: Link, quiet: float, stale_most: int, *, redial: bool) -> None:
        number = secrets.randbelow(wire.SESSION_MOST) + 1
        self._greeting = Greeting(wire.GENERATION, number, secrets.token_bytes(wire.NONCE_SIZE))
        self._hello = wire.pack_hello(self._greeting)
        self._link = link
        self._quiet = quiet
        self._stale_most = stale_most
        self._redial = redial
        self._hellos = 0
        self._seen = b""
        self.stale = 0
        self.silent = False
        self.opened = False

    def open(self, deadline: Deadline) -> Session:
        """The session; raises LinkLost when the connection ends before."""
        space = memoryview(bytearray(wire.PAYLOAD_MOST))
        self._say(self._hello)
        again = Deadline.after(self._quiet)
        while True:
            deadline.check("the greeting of the agent in the guest", LinkTimeout)
            if again.passed and self._redial:
                self.silent = True
                raise LinkLost("the agent did not greet")
            if again.passed and not self._link.pending:
                self._say(wire.RESYNC, self._hello)
                self._quiet = min(self._quiet * 2, LONGEST_QUIET)
                again = Deadline.after(self._quiet)
            sooner = deadline if self._link.pending else Deadline(min(deadline.at, again.at))
            if self._link.wait(sooner).get(-1, 0) & ~select.POLLOUT:
                count = self._link.receive_into(space)
                session = self._look(bytes(space[:count]))
                if session is not None:
                    self._finish(deadline)
                    return session
            self._link.flush()

    def _say(self, *parts: bytes) -> None:
        self._hellos += 1
        self._link.queue(*parts)
        self._link.flush()

    def _look(self, data: bytes) -> Session | None:
        """Look for our WELCOME.

        It is found by the session and the nonce, which nobody could know before our HELLO.
        """
        data = self._seen + data
        ours = self._hello[20:]
        position = data.find(ours, 20)
        while position >= 0:
            start = position - 20
            if data.startswith(wire.WELCOME_MAGIC, start):
                end = start + wire.GREETING_SIZE
                return self._welcomed(data[start:end], data[end:])
            position = data.find(ours, position + 1)
        self._seen = data[1 - wire.GREETING_SIZE :]
        self.stale += len(data) - len(self._seen)
        if self.stale > self._stale_most:
            raise GuestProtocol("the guest sends without end instead of greeting")
        return None

    def _welcomed(self, welcome: bytes, rest: bytes) -> Session:
        generation = wire.unpack_welcome(welcome).generation
        if generation != wire.GENERATION:
            raise GuestProtocol(
                f"the agent speaks generation {generation} of the protocol, this pyro {wire.GENERATION}",
                remedy="Delete the machine and create it again: it was started by another version of pyro.",
            )
        reader = FrameReader(self._greeting.session, welcome=welcome, repeats=self._hellos)
        space = reader.space()
        space[: len(rest)] = rest
        reader.filled(len(rest))
        return Session(self._link, self._greeting.session, reader)

    def _finish(self, deadline: Deadline) -> None:
        """Send the rest of a resync that a late WELCOME overtook: frames follow a whole HELLO only."""
        while self._link.pending:
            deadline.check("the greeting of the agent in the guest", LinkTimeout)
            self._link.wait(deadline)
            self._link.flush()
        self.opened = True
