"""Opening sessions over real sockets: stale bytes, resync, broken and dead peers."""

import os
import socket
import threading

import pytest

from pyro_mcp.errors import GuestProtocol, LinkTimeout, MachineDied, PyroError
from pyro_mcp.guest import wire
from pyro_mcp.guest.channel import open_session
from pyro_mcp.guest.faults import LinkLost
from pyro_mcp.guest.link import Watch
from pyro_mcp.guest.wire import FrameType
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.testing.guest_peer import FakeGuest, GuestPeer

SOON = 20.0  # seconds; no test waits that long unless it fails


def soon() -> Deadline:
    return Deadline.after(SOON)


def echo(peer: GuestPeer) -> None:
    peer.greet()
    while True:
        _, payload = peer.receive()
        peer.send(FrameType.RESPONSE, payload)


def asks(guest: FakeGuest, payload: bytes = b"ping", *, quiet: float = SOON) -> bytes:
    with open_session(guest.connect, soon(), quiet=quiet) as session:
        session.send_frame(FrameType.REQUEST, payload, soon())
        return bytes(session.receive_frame(soon()).payload)


def test_session_carries_frames_both_ways() -> None:
    with FakeGuest(echo) as guest:
        assert asks(guest) == b"ping"


def test_frame_larger_than_the_socket_buffer_is_sent_whole() -> None:
    payload = os.urandom(wire.PAYLOAD_MOST)
    with FakeGuest(echo) as guest:
        assert asks(guest, payload) == payload


def test_bytes_for_an_earlier_client_are_dropped() -> None:
    def stale_then_echo(peer: GuestPeer) -> None:
        peer.send_bytes(os.urandom(300_000))
        peer.send_bytes(wire.pack_welcome(wire.Greeting(1, 77, bytes(16))))
        peer.send_bytes(wire.pack_frame(77, FrameType.STDOUT, bytes(5000)))
        echo(peer)

    with FakeGuest(stale_then_echo) as guest:
        assert asks(guest) == b"ping"


def test_hello_that_comes_back_is_not_taken_for_a_welcome() -> None:
    def terminal_then_echo(peer: GuestPeer) -> None:
        greeting = peer.hello()
        peer.send_bytes(wire.pack_hello(greeting) * 3)
        peer.welcome()
        peer.send(FrameType.RESPONSE, peer.receive()[1])

    with FakeGuest(terminal_then_echo) as guest:
        assert asks(guest) == b"ping"


def test_welcome_may_come_byte_by_byte_with_the_first_frame_behind_it() -> None:
    def dribble(peer: GuestPeer) -> None:
        greeting = peer.hello()
        answer = wire.pack_frame(greeting.session, FrameType.RESPONSE, b"early")
        for byte in wire.pack_welcome(greeting) + answer:
            peer.send_bytes(bytes([byte]))

    with FakeGuest(dribble) as guest, open_session(guest.connect, soon()) as session:
        assert bytes(session.receive_frame(soon()).payload) == b"early"


def test_agent_stuck_in_a_broken_frame_is_resynchronised() -> None:
    def in_the_middle_of_a_frame(peer: GuestPeer) -> None:
        missing = wire.PAYLOAD_MOST + wire.TRAILER_SIZE
        while missing > 0:
            missing -= len(peer.receive_bytes())
        echo(peer)

    with FakeGuest(in_the_middle_of_a_frame) as guest:
        assert asks(guest, quiet=0.05) == b"ping"


def test_agent_that_greets_late_and_again_after_the_resync_is_understood() -> None:
    def late(peer: GuestPeer) -> None:
        first = peer.hello()
        zeros = 0
        while zeros < len(wire.RESYNC):  # the host has lost patience
            zeros += len(peer.receive_bytes())
        peer.welcome()
        if zeros < len(wire.RESYNC) + wire.GREETING_SIZE:
            peer.hello()
        peer.send_bytes(wire.pack_welcome(first))
        peer.send(FrameType.RESPONSE, b"once")

    with FakeGuest(late) as guest, open_session(guest.connect, soon(), quiet=0.05) as session:
        assert bytes(session.receive_frame(soon()).payload) == b"once"


def test_connection_closed_before_the_greeting_is_tried_again() -> None:
    def resets(peer: GuestPeer) -> None:
        peer.hello()

    with FakeGuest(resets, resets, resets, echo) as guest:
        assert asks(guest) == b"ping"


def test_socket_that_is_not_there_yet_is_tried_again() -> None:
    refusals = [FileNotFoundError(2, "No such file"), ConnectionRefusedError(111, "refused"), TimeoutError()]

    with FakeGuest(echo) as guest:

        def connect(deadline: Deadline) -> socket.socket:
            if refusals:
                raise refusals.pop()
            return guest.connect(deadline)

        open_session(connect, soon()).close()
    assert not refusals


def test_error_of_ours_from_connecting_goes_up_at_once() -> None:
    def connect(_deadline: Deadline) -> socket.socket:
        raise MachineDied("gone")

    with pytest.raises(MachineDied, match="gone"):
        open_session(connect, soon())


def test_silent_guest_is_a_link_timeout_at_the_deadline() -> None:
    def silent(peer: GuestPeer) -> None:
        while True:
            peer.receive_bytes()

    with FakeGuest(silent) as guest, pytest.raises(LinkTimeout, match="greeting"):
        open_session(guest.connect, Deadline.after(0.2), quiet=0.05)


def test_guest_that_reads_nothing_is_a_link_timeout_at_the_deadline() -> None:
    host, guest = socket.socketpair()
    with guest, pytest.raises(LinkTimeout, match="greeting"):
        open_session(lambda _: host, Deadline.after(0.2), quiet=0.05)
    assert host.fileno() == -1


def test_guest_nobody_can_connect_to_is_a_link_timeout_that_says_why() -> None:
    def connect(_deadline: Deadline) -> socket.socket:
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(LinkTimeout, match="Connection refused"):
        open_session(connect, Deadline.after(0.05))


def test_other_generation_is_refused_with_a_remedy() -> None:
    def newer(peer: GuestPeer) -> None:
        peer.hello()
        peer.welcome(generation=2)
        peer.receive_bytes()

    with FakeGuest(newer) as guest, pytest.raises(GuestProtocol, match="generation 2") as caught:
        open_session(guest.connect, soon())
    assert "create it again" in caught.value.remedy


def test_stale_bytes_without_end_are_refused() -> None:
    def torrent(peer: GuestPeer) -> None:
        while True:
            peer.send_bytes(bytes(1 << 16))

    with FakeGuest(torrent) as guest, pytest.raises(GuestProtocol, match="without end"):
        open_session(guest.connect, soon(), stale_most=8 << 20)


def test_our_nonce_sent_back_without_end_is_refused() -> None:
    def parrot(peer: GuestPeer) -> None:
        hello = wire.pack_hello(peer.hello())
        while True:
            peer.send_bytes(hello[20:] * 5000)

    with FakeGuest(parrot) as guest, pytest.raises(GuestProtocol, match="without end"):
        open_session(guest.connect, soon(), stale_most=2 << 20)


class Machine:
    """A stand-in for a VMM's pidfd: readable once it has ended."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def end(self) -> None:
        os.close(self.writer)
        self.writer = -1

    def close(self) -> None:
        os.close(self.reader)
        if self.writer >= 0:
            os.close(self.writer)

    @property
    def watch(self) -> Watch:
        return Watch(self.reader, self.explain)

    def explain(self) -> PyroError:
        return MachineDied("the console said: kernel panic")


def test_machine_that_ends_during_the_greeting_ends_the_wait_at_once() -> None:
    machine = Machine()

    def ends(peer: GuestPeer) -> None:
        peer.hello()
        machine.end()
        while True:
            peer.receive_bytes()

    with FakeGuest(ends) as guest, pytest.raises(MachineDied, match="kernel panic"):
        open_session(guest.connect, Deadline.never(), watch=machine.watch)
    machine.close()


def test_machine_that_ends_while_connecting_ends_the_wait_at_once() -> None:
    machine = Machine()

    def connect(_deadline: Deadline) -> socket.socket:
        if machine.writer >= 0:
            machine.end()
        raise FileNotFoundError(2, "No such file")

    with pytest.raises(MachineDied, match="kernel panic"):
        open_session(connect, Deadline.never(), watch=machine.watch)
    machine.close()


def test_machine_that_ends_during_an_answer_ends_the_wait_at_once() -> None:
    machine = Machine()

    def ends(peer: GuestPeer) -> None:
        peer.greet()
        peer.receive()
        machine.end()
        peer.receive()

    with FakeGuest(ends) as guest, open_session(guest.connect, soon(), watch=machine.watch) as session:
        session.send_frame(FrameType.REQUEST, b"{}", soon())
        with pytest.raises(MachineDied, match="kernel panic"):
            session.receive_frame(Deadline.never())
    machine.close()


def test_last_frame_of_a_machine_that_ended_is_still_read() -> None:
    machine = Machine()
    sent = threading.Event()

    def answers_and_ends(peer: GuestPeer) -> None:
        peer.greet()
        peer.send(FrameType.RESPONSE, b"bye")
        machine.end()
        peer.close()
        sent.set()

    with FakeGuest(answers_and_ends) as guest, open_session(guest.connect, soon(), watch=machine.watch) as session:
        assert sent.wait(SOON)
        assert bytes(session.receive_frame(soon()).payload) == b"bye"
        with pytest.raises(MachineDied, match="kernel panic"):
            session.receive_frame(soon())
    machine.close()


def test_closed_link_of_a_living_machine_is_a_lost_link() -> None:
    machine = Machine()

    def closes(peer: GuestPeer) -> None:
        peer.greet()
        peer.receive()

    with FakeGuest(closes) as guest, open_session(guest.connect, soon(), watch=machine.watch) as session:
        session.send_frame(FrameType.REQUEST, b"{}", soon())
        with pytest.raises(LinkLost):
            session.receive_frame(soon())
    machine.close()


def test_peer_that_stops_reading_is_a_link_timeout_when_sending() -> None:
    def stops(peer: GuestPeer) -> None:
        peer.greet()
        done.wait(SOON)

    done = threading.Event()
    with FakeGuest(stops) as guest, open_session(guest.connect, soon()) as session:
        for _ in range(20):  # more than any socket buffer
            session.queue(FrameType.STDIN, bytes(wire.PAYLOAD_MOST))
        with pytest.raises(LinkTimeout, match="sending"):
            session.send_frame(FrameType.STDIN, b"", Deadline.after(0.1))
        done.set()


def test_sending_to_a_closed_link_is_reported_by_the_next_receive() -> None:
    def closes(peer: GuestPeer) -> None:
        peer.greet()

    with FakeGuest(closes) as guest, open_session(guest.connect, soon()) as session:
        for _ in range(20):
            session.send_frame(FrameType.STDIN, bytes(wire.PAYLOAD_MOST), soon())
        with pytest.raises(LinkLost):
            session.receive_frame(soon())


def test_a_silent_connection_is_made_anew_where_that_costs_nothing() -> None:
    def silent(peer: GuestPeer) -> None:
        peer.hello()
        peer.receive_bytes()  # until the host gives it up

    with (
        FakeGuest(silent, silent, GuestPeer.greet) as guest,
        open_session(guest.connect, soon(), quiet=0.02, redial=True) as session,
    ):
        assert session.number > 0
