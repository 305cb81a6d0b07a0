"""The host's side of a tunnel: its bytes, its credits, and what a guest must not do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyro_mcp.errors import GuestProtocol
from pyro_mcp.guest.faults import AgentRefused
from pyro_mcp.guest.tunnel import GRANT_LEAST, WINDOW, Kind, Reason, Stream, Tunnel
from pyro_mcp.guest.wire import FrameType
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.testing.fake_tunnel import begin, close, receive, send
from pyro_mcp.testing.guest_peer import FakeGuest, GuestPeer

FRAMES: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "golden" / "wire.json").read_text())["frames"]
SOON = 20.0


def golden(name: str) -> bytes:
    return next(bytes.fromhex(row["payload_hex"]) for row in FRAMES if row["name"] == name)


def drive(behaviour: Callable[[GuestPeer], None], work: Callable[[Tunnel], None]) -> list[tuple[Stream, bytes]]:
    """Do *work* in a tunnel to a guest that behaves so; the news until the last stream is closed."""
    news = []
    deadline = Deadline.after(SOON)
    with FakeGuest(behaviour) as guest, guest.open(deadline) as session:
        tunnel = Tunnel(session, deadline)
        work(tunnel)
        while len(tunnel):
            deadline.check("the news of the guest")
            session.wait(deadline)
            session.advance()
            news += [(stream, bytes(data)) for stream, data in tunnel.events()]
    return news


def one_stream(tunnel: Tunnel) -> None:
    tunnel.open(80)


def two_streams(tunnel: Tunnel) -> None:
    """The second is never closed: the host listens on whatever the guest says of the first."""
    tunnel.open(80)
    tunnel.open(81)


def test_what_the_host_says_has_its_golden_bytes() -> None:
    said = []

    def listen(peer: GuestPeer) -> None:
        peer.greet()
        said.append(peer.receive()[1])
        peer.send_json(FrameType.RESPONSE, {"window": WINDOW, "streams": 2})
        said.extend(peer.receive()[1] for _ in range(5))
        close(peer, 1, Reason.LOST)

    def work(tunnel: Tunnel) -> None:
        stream = tunnel.open(8080)
        tunnel.send(stream, b"GET /\r\n")
        tunnel.end(stream)
        tunnel.taken(stream, GRANT_LEAST - 1)
        tunnel.taken(stream, 1)
        tunnel.reset(stream)

    drive(listen, work)
    assert said[:5] == [
        golden("request tunnel"),
        golden("tunnel open, port 8080"),
        golden("tunnel data to the guest"),
        golden("tunnel end to the guest"),
        golden("tunnel credit to the guest"),
    ]
    assert said[5] == bytes(3) + b"\1" + golden("tunnel reset")[4:]


def test_what_the_guest_says_is_read_from_its_golden_bytes() -> None:
    def talk(peer: GuestPeer) -> None:
        begin(peer)
        receive(peer)
        receive(peer)
        close(peer, 2, Reason.REFUSED)
        receive(peer)
        for name in ("tunnel data to the host", "tunnel end to the host", "tunnel credit to the host"):
            peer.send(FrameType.TUNNEL_OUT, golden(name))
        close(peer, 1, Reason.ENDED)

    def work(tunnel: Tunnel) -> None:
        first = tunnel.open(80)
        tunnel.open(81)
        tunnel.send(first, bytes(WINDOW - 1))

    news = drive(talk, work)
    assert [data for _, data in news] == [b"", bytes(range(8)), b"", b"", b""]
    assert [stream.closed for stream, _ in news[:2]] == [Reason.REFUSED, Reason.ENDED]
    assert news[1][0].credit == 1 + 65535 == WINDOW
    assert golden("tunnel closed, refused") == b"\0\0\0\2\6\1"


Words = tuple[tuple[int, int, bytes], ...]
BREAKS: dict[str, Words] = {
    "more data than its credit": ((1, Kind.DATA, bytes(WINDOW)), (1, Kind.DATA, b"x")),
    "empty data": ((1, Kind.DATA, b""),),
    "data after its end": ((1, Kind.END, b""), (1, Kind.DATA, b"x")),
    "a second end": ((1, Kind.END, b""), (1, Kind.END, b"")),
    "credit beyond the window": ((1, Kind.CREDIT, b"\0\0\0\1"),),
    "a short credit": ((1, Kind.CREDIT, b"\0"),),
    "a stream that was never opened": ((3, Kind.DATA, b"x"),),
    "a stream that is closed": ((1, Kind.CLOSED, b"\2"), (1, Kind.DATA, b"x")),
    "an unknown reason": ((1, Kind.CLOSED, b"\x09"),),
    "a host's kind": ((1, Kind.OPEN, b"\0\1"),),
    "an unknown kind": ((1, 99, b""),),
}


@pytest.mark.parametrize("name", BREAKS)
def test_guest_that_breaks_the_rules_is_not_listened_to(name: str) -> None:
    def misbehave(peer: GuestPeer) -> None:
        begin(peer)
        receive(peer)
        for word in BREAKS[name]:
            send(peer, *word)
        peer.receive_bytes()

    with pytest.raises(GuestProtocol):
        drive(misbehave, two_streams)


@pytest.mark.parametrize(("kind", "payload"), [(FrameType.TUNNEL_OUT, bytes(4)), (FrameType.STDOUT, bytes(9))])
def test_frame_that_is_none_of_a_tunnel_is_refused(kind: FrameType, payload: bytes) -> None:
    def misbehave(peer: GuestPeer) -> None:
        begin(peer)
        receive(peer)
        peer.send(kind, payload)
        peer.receive_bytes()

    with pytest.raises(GuestProtocol):
        drive(misbehave, one_stream)


def test_full_tunnel_says_so() -> None:
    def few(peer: GuestPeer) -> None:
        begin(peer, streams=2)
        receive(peer)
        receive(peer)
        close(peer, 1, Reason.ENDED)
        close(peer, 2, Reason.ENDED)

    def work(tunnel: Tunnel) -> None:
        tunnel.open(1)
        assert not tunnel.full
        tunnel.open(2)
        assert tunnel.full

    drive(few, work)


def test_older_agent_refuses_with_a_remedy() -> None:
    def old(peer: GuestPeer) -> None:
        peer.greet()
        peer.request()
        peer.send_json(FrameType.ERROR, {"code": "unknown_op", "message": "no operation"})

    with pytest.raises(AgentRefused) as caught:
        drive(old, one_stream)
    assert "create it again" in caught.value.remedy
