"""A guest that means harm: whatever it sends during a command, the host ends with an error of its own, and soon."""

import hashlib
import os
from collections.abc import Callable, Iterator

import pytest

from pyro_mcp.errors import GuestProtocol, LinkTimeout
from pyro_mcp.guest import wire
from pyro_mcp.guest.capture import CaptureSinks
from pyro_mcp.guest.execution import execute
from pyro_mcp.guest.faults import LinkLost
from pyro_mcp.guest.outcome import new_job
from pyro_mcp.guest.stdin import BytesStdin
from pyro_mcp.guest.wire import FrameType, pack_frame
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.model import CommandSpec
from pyro_mcp.testing.fake_agent import exit_fields, started
from pyro_mcp.testing.guest_peer import FakeGuest, GuestPeer

Script = Callable[[int], Iterator[bytes]]  # from the session to the bytes sent after the RESPONSE


def output(session: int, offset: int, data: bytes) -> bytes:
    return pack_frame(session, FrameType.STDOUT, offset.to_bytes(8, "big") + data)


def oversized(session: int) -> Iterator[bytes]:
    yield session.to_bytes(4, "big") + bytes([FrameType.STDOUT, 0, 0, 0]) + (0xFFFFFFFF).to_bytes(4, "big")


def truncated(session: int) -> Iterator[bytes]:
    yield output(session, 0, b"whole") + output(session, 5, b"cut short")[:-3]


def random_bytes(session: int) -> Iterator[bytes]:
    del session
    yield b"".join(hashlib.sha256(bytes([seed])).digest() for seed in range(256))


def wrong_session(session: int) -> Iterator[bytes]:
    yield output(session ^ 1, 0, b"x")


def wrong_trailer(session: int) -> Iterator[bytes]:
    yield output(session, 0, b"x")[:-1] + b"?"


def host_frame(session: int) -> Iterator[bytes]:
    yield pack_frame(session, FrameType.REQUEST, b"{}")


def second_response(session: int) -> Iterator[bytes]:
    yield pack_frame(session, FrameType.RESPONSE, b"{}")


def offset_going_back(session: int) -> Iterator[bytes]:
    yield output(session, 0, b"abc") + output(session, 2, b"c")


def offset_beyond_all(session: int) -> Iterator[bytes]:
    yield output(session, (1 << 64) - 1, b"x")


def output_without_offset(session: int) -> Iterator[bytes]:
    yield pack_frame(session, FrameType.STDERR, bytes(7))


def short_credit(session: int) -> Iterator[bytes]:
    yield pack_frame(session, FrameType.CREDIT, bytes(3))


def exit_bomb(session: int) -> Iterator[bytes]:
    yield pack_frame(session, FrameType.EXIT, b'{"exit_code":' * 15_000)


def error_bomb(session: int) -> Iterator[bytes]:
    yield pack_frame(session, FrameType.ERROR, b"[" * 260_000)


def endless_output(session: int) -> Iterator[bytes]:
    offset, data = 0, bytes(60_000)
    while True:
        yield output(session, offset, data)
        offset += len(data)


def endless_empty_frames(session: int) -> Iterator[bytes]:
    while True:
        yield output(session, 0, b"") * 100


def endless_credit(session: int) -> Iterator[bytes]:
    while True:
        yield pack_frame(session, FrameType.CREDIT, b"\xff" * 4) * 100


def endless_welcomes(session: int) -> Iterator[bytes]:
    while True:
        yield wire.pack_welcome(wire.Greeting(1, session, bytes(16)))


def silence(session: int) -> Iterator[bytes]:
    del session
    yield from ()


HOSTILE: list[tuple[Script, type[Exception]]] = [
    (oversized, GuestProtocol),
    (truncated, LinkTimeout),
    (random_bytes, GuestProtocol),
    (wrong_session, GuestProtocol),
    (wrong_trailer, GuestProtocol),
    (host_frame, GuestProtocol),
    (second_response, GuestProtocol),
    (offset_going_back, GuestProtocol),
    (offset_beyond_all, GuestProtocol),
    (output_without_offset, GuestProtocol),
    (short_credit, GuestProtocol),
    (exit_bomb, GuestProtocol),
    (error_bomb, GuestProtocol),
    (endless_output, LinkTimeout),
    (endless_empty_frames, LinkTimeout),
    (endless_credit, LinkTimeout),
    (endless_welcomes, GuestProtocol),
    (silence, LinkTimeout),
]


@pytest.mark.parametrize(("script", "error"), HOSTILE, ids=lambda item: item.__name__)
def test_hostile_guest_ends_in_an_error_of_ours(script: Script, error: type[Exception]) -> None:
    def hostile(peer: GuestPeer) -> None:
        peer.greet()
        peer.send_json(FrameType.RESPONSE, started(peer.request()["job"]))
        for data in script(peer.greeting.session):
            peer.send_bytes(data)
        while True:
            peer.receive_bytes()

    sinks = CaptureSinks(1 << 16)
    deadline = Deadline.after(0.5 if error is LinkTimeout else 20)
    with FakeGuest(hostile) as guest, guest.open(Deadline.after(20)) as session, pytest.raises(error) as caught:
        execute(
            session,
            CommandSpec("true"),
            new_job(),
            sinks=sinks,
            stdin=BytesStdin(b"input"),
            deadline=deadline,
        )
    assert not isinstance(caught.value, LinkLost)
    assert len(sinks.stdout.parts()[0] + sinks.stdout.parts()[1]) <= 1 << 16


def test_truncated_frame_before_the_end_of_the_link_is_a_lost_link() -> None:
    def cut(peer: GuestPeer) -> None:
        peer.greet()
        peer.send_json(FrameType.RESPONSE, started(peer.request()["job"]))
        peer.send_bytes(next(truncated(peer.greeting.session)))

    with FakeGuest(cut) as guest, guest.open(Deadline.after(20)) as session, pytest.raises(LinkLost) as caught:
        execute(session, CommandSpec("true"), new_job(), sinks=CaptureSinks())
    assert caught.value.progress is not None
    assert caught.value.progress.stdout_offset == len(b"whole")


@pytest.mark.parametrize("kind", [FrameType.STDOUT, FrameType.EXIT, FrameType.CREDIT])
def test_frame_before_the_answer_is_a_protocol_error(kind: FrameType) -> None:
    def early(peer: GuestPeer) -> None:
        peer.greet()
        peer.request()
        peer.send(kind, bytes(8))
        peer.receive_bytes()

    with FakeGuest(early) as guest, guest.open(Deadline.after(20)) as session, pytest.raises(GuestProtocol):
        execute(session, CommandSpec("true"), new_job(), sinks=CaptureSinks())


def test_answer_for_another_job_is_a_protocol_error() -> None:
    def other(peer: GuestPeer) -> None:
        peer.greet()
        peer.request()
        peer.send_json(FrameType.RESPONSE, started("0" * 16))
        peer.receive_bytes()

    with (
        FakeGuest(other) as guest,
        guest.open(Deadline.after(20)) as session,
        pytest.raises(GuestProtocol, match="another job"),
    ):
        execute(session, CommandSpec("true"), new_job(), sinks=CaptureSinks())


def test_no_descriptor_is_left_open_by_failed_sessions() -> None:
    def rude(peer: GuestPeer) -> None:
        peer.greet()
        peer.send_bytes(b"x" * 100)

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  (a count, no paths)

    before = descriptors()
    for _ in range(5):
        with FakeGuest(rude) as guest, pytest.raises(GuestProtocol), guest.open(Deadline.after(20)) as session:
            execute(session, CommandSpec("true"), new_job(), sinks=CaptureSinks())
    assert descriptors() == before


EXIT_ABSURDITIES = {
    "no JSON": b"\xff",
    "a list": b"[]",
    "empty": b"{}",
    **{
        f"{field} {value!r:.20}": {field: value}
        for field, value in [
            ("exit_code", 256),
            ("exit_code", -1),
            ("exit_code", True),
            ("exit_code", "0"),
            ("exit_code", 1 << 70),
            ("signal", 65),
            ("timed_out", 0),
            ("causes", "oom"),
            ("causes", [1]),
            ("causes", ["x"] * 1000),
            ("causes", ["x" * 1000]),
            ("error", None),
            ("error", "x" * 100_000),
            ("duration_ms", -1),
            ("duration_ms", 0.5),
            ("stdout_bytes", 1 << 64),
            ("stderr_dropped", None),
        ]
    },
}


@pytest.mark.parametrize("fields", EXIT_ABSURDITIES.values(), ids=EXIT_ABSURDITIES)
def test_absurd_exit_is_a_protocol_error(fields: bytes | dict[str, object]) -> None:
    def absurd(peer: GuestPeer) -> None:
        peer.greet()
        peer.send_json(FrameType.RESPONSE, started(peer.request()["job"]))
        if isinstance(fields, bytes):
            peer.send(FrameType.EXIT, fields)
        else:
            peer.send_json(FrameType.EXIT, exit_fields(**fields))
        peer.receive_bytes()

    with FakeGuest(absurd) as guest, guest.open(Deadline.after(20)) as session, pytest.raises(GuestProtocol):
        execute(session, CommandSpec("true"), new_job(), sinks=CaptureSinks())
