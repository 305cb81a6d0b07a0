"""The guest's end of a tunnel (docs/protocol.md), for tests: an agent whose only program echoes."""

from dataclasses import dataclass, field

from pyro_mcp.guest.tunnel import HEAD_SIZE, Kind, Reason
from pyro_mcp.guest.wire import FrameType
from pyro_mcp.testing.guest_peer import GuestPeer

WINDOW = 64 << 10
ECHO_PORT = 7
PIECE = 30_000


@dataclass(slots=True)
class _Echo:
    """A stream: what it may send, what waits for that, and whether the host has ended."""

    credit: int
    waiting: bytearray = field(default_factory=bytearray)
    window: int = WINDOW
    ended: bool = False


def begin(peer: GuestPeer, *, streams: int = 128) -> int:
    """Greet, and answer ``tunnel``; the credit each stream of the guest begins with."""
    peer.greet()
    request = peer.request()
    if request["op"] != "tunnel":
        raise AssertionError(f"the host asked for {request['op']}")
    peer.send_json(FrameType.RESPONSE, {"window": WINDOW, "streams": streams})
    return int(request["window"])


def receive(peer: GuestPeer) -> tuple[int, Kind, bytes]:
    """The host's next word: the stream, its kind, its body."""
    kind, payload = peer.receive()
    if kind is not FrameType.TUNNEL_IN:
        raise AssertionError(f"the host sent {kind.name} in a tunnel")
    return int.from_bytes(payload[:4], "big"), Kind(payload[4]), payload[HEAD_SIZE:]


def send(peer: GuestPeer, stream: int, kind: int, body: bytes = b"") -> None:
    """Say something about a stream."""
    peer.send(FrameType.TUNNEL_OUT, stream.to_bytes(4, "big") + bytes([kind]) + body)


def close(peer: GuestPeer, stream: int, reason: Reason) -> None:
    """The last word about a stream."""
    send(peer, stream, Kind.CLOSED, bytes([reason]))


def echo(peer: GuestPeer) -> None:
    """A behaviour: on port 7 a program that sends back what it gets; nobody listens on the others."""
    credit = begin(peer)
    streams: dict[int, _Echo] = {}
    while True:
        number, kind, body = receive(peer)
        if kind is Kind.OPEN:
            if int.from_bytes(body, "big") == ECHO_PORT:
                streams[number] = _Echo(credit)
            else:
                close(peer, number, Reason.REFUSED)
            continue
        stream = streams.get(number)
        if stream is None:
            continue
        if kind is Kind.RESET:
            close(peer, number, Reason.LOST)
            del streams[number]
            continue
        _take(stream, kind, body)
        _send_back(peer, number, stream)
        if stream.ended and not stream.waiting:
            send(peer, number, Kind.END)
            close(peer, number, Reason.ENDED)
            del streams[number]


def _take(stream: _Echo, kind: Kind, body: bytes) -> None:
    if kind is Kind.DATA:
        stream.window -= len(body)
        if stream.window < 0 or not body or stream.ended:
            raise AssertionError("the host sent data it must not send")
        stream.waiting += body
    elif kind is Kind.CREDIT:
        stream.credit += int.from_bytes(body, "big")
    else:
        stream.ended = True


def _send_back(peer: GuestPeer, number: int, stream: _Echo) -> None:
    while (size := min(len(stream.waiting), stream.credit, PIECE)) > 0:
        send(peer, number, Kind.DATA, bytes(stream.waiting[:size]))
        send(peer, number, Kind.CREDIT, size.to_bytes(4, "big"))
        del stream.waiting[:size]
        stream.credit -= size
        stream.window += size
