"""TCP connections to programs in the guest, many over one session: the host's side of the operation ``tunnel``.

Each direction of each stream has a credit. What a guest sends beyond it, or out of turn, ends the session.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from pyro_mcp.errors import GuestProtocol
from pyro_mcp.guest.answers import refusal
from pyro_mcp.guest.channel import Session
from pyro_mcp.guest.operations import exchange
from pyro_mcp.guest.wire import FrameType
from pyro_mcp.host.deadline import Deadline

WINDOW = 64 << 10  # bytes of a stream that may be on their way to us, or wait here
GRANT_LEAST = WINDOW // 4
WINDOW_MOST = 1 << 20
STREAMS_MOST = 1024
STREAM_MOST = 0xFFFFFFFF
HEAD_SIZE = 5


class Kind(IntEnum):
    """What a frame does to its stream. OPEN and RESET are ours; CLOSED is the guest's last word about a stream."""

    OPEN = 1
    DATA = 2
    END = 3
    CREDIT = 4
    RESET = 5
    CLOSED = 6


class Reason(IntEnum):
    """Why a stream is closed: both sides had ended, nobody listens, one side broke off, a limit is reached."""

    ENDED = 0
    REFUSED = 1
    LOST = 2
    TOO_MANY = 3


@dataclass(slots=True)
class Stream:
    """One connection. *credit*: bytes we may send. *owed*: bytes the guest may send; *taken*: what it may again."""

    number: int
    credit: int
    owed: int = WINDOW
    taken: int = 0
    ended: bool = False  # the guest sends no more
    closed: Reason | None = None


class Tunnel:
    """The streams over *session*, which is its own from now on. Not thread-safe.

    Raises what ``exchange`` does.
    """

    def __init__(self, session: Session, deadline: Deadline) -> None:
        answer = exchange(session, "tunnel", {"window": WINDOW}, deadline)
        self._session = session
        self._window = answer.integer("window", 1, WINDOW_MOST)
        self.streams_most = answer.integer("streams", 1, STREAMS_MOST)
        self._last = 0
        self._streams: dict[int, Stream] = {}

    def __len__(self) -> int:
        """How many streams the guest has not closed."""
        return len(self._streams)

    @property
    def full(self) -> bool:
        """Whether no further stream may be opened now, or ever."""
        return len(self._streams) >= self.streams_most or self._last >= STREAM_MOST

    def open(self, port: int) -> Stream:
        """Begin a connection to a port of the guest; data may follow at once."""
        self._last += 1
        stream = self._streams[self._last] = Stream(self._last, self._window)
        self._send(stream, Kind.OPEN, port.to_bytes(2, "big"))
        return stream

    def send(self, stream: Stream, data: bytes) -> None:
        """Send at most ``stream.credit`` bytes."""
        stream.credit -= len(data)
        self._send(stream, Kind.DATA, data)

    def end(self, stream: Stream) -> None:
        """Send no more in this direction."""
        self._send(stream, Kind.END)

    def reset(self, stream: Stream) -> None:
        """Break a stream off; the guest still says that it is closed."""
        self._send(stream, Kind.RESET)

    def taken(self, stream: Stream, count: int) -> None:
        """*count* bytes of the guest's data are gone from here: it may send as many again."""
        stream.taken += count
        if stream.taken >= GRANT_LEAST and not stream.ended and stream.closed is None:
            self._send(stream, Kind.CREDIT, stream.taken.to_bytes(4, "big"))
            stream.owed += stream.taken
            stream.taken = 0

    def events(self) -> Iterator[tuple[Stream, memoryview]]:
        """The streams of which there is news, with the data that came; it lives until the next is asked for.

        Raises GuestProtocol, and AgentRefused when the guest gives the tunnel up.
        """
        while (frame := self._session.take()) is not None:
            if frame.kind is FrameType.ERROR:
                raise refusal(frame.payload)
            if frame.kind is not FrameType.TUNNEL_OUT or len(frame.payload) < HEAD_SIZE:
                raise GuestProtocol(f"the guest sent {frame.kind.name} in a tunnel")
            stream = self._streams.get(int.from_bytes(frame.payload[:4], "big"))
            if stream is None:
                raise GuestProtocol("the guest sent a frame of a stream that there is not")
            yield stream, self._news(stream, frame.payload[4], frame.payload[HEAD_SIZE:])

    def _news(self, stream: Stream, kind: int, body: memoryview) -> memoryview:
        """What a frame says of *stream*; its data."""
        size = len(body)
        if kind == Kind.DATA and 0 < size <= stream.owed and not stream.ended:
            stream.owed -= size
            return body
        if kind == Kind.END and not size and not stream.ended:
            stream.ended = True
        elif kind == Kind.CREDIT and size == 4 and stream.credit + int.from_bytes(body, "big") <= self._window:
            stream.credit += int.from_bytes(body, "big")
        elif kind == Kind.CLOSED and size == 1 and body[0] in set(Reason):
            stream.closed = Reason(body[0])
            del self._streams[stream.number]
        else:
            raise GuestProtocol("the guest broke the rules of a tunnel")
        return body[:0]

    def _send(self, stream: Stream, kind: Kind, body: bytes = b"") -> None:
        head = stream.number.to_bytes(4, "big") + bytes([kind])
        self._session.queue(FrameType.TUNNEL_IN, head + body)
