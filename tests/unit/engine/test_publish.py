"""Published ports: what can be asked for, who may listen, and the way of bytes between clients and a guest."""

import contextlib
import os
import secrets
import select
import socket
import threading
from collections.abc import Iterator, Sequence

import pytest

from pyro_mcp.engine.publish.connection import Connection
from pyro_mcp.engine.publish.door import Door, reset
from pyro_mcp.engine.publish.forwarder import Forwarder
from pyro_mcp.engine.publish.in_run import listening
from pyro_mcp.engine.publish.ports import Listener, Port
from pyro_mcp.errors import InvalidRequest, PortUnavailable
from pyro_mcp.guest.tunnel import Kind, Reason, Tunnel
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.testing.fake_tunnel import ECHO_PORT, WINDOW, begin, close, echo, receive, send
from pyro_mcp.testing.guest_peer import Behaviour, FakeGuest, GuestPeer, HostGone

SOON = 20.0
FORWARDER = "forwarder of the test"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080:80", Port(8080, 80)),
        ("0:80", Port(0, 80)),
        ("127.0.0.2:8080:80", Port(8080, 80, "127.0.0.2")),
        ("0.0.0.0:8080:80", Port(8080, 80, "0.0.0.0")),  # noqa: S104 - what is asked for
        ("[::1]:65535:65535", Port(65535, 65535, "::1")),
    ],
)
def test_port_is_read(text: str, expected: Port) -> None:
    assert Port.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "80",
        ":80",
        "80:",
        "80:0",
        "65536:80",
        "80:65536",
        "-1:80",
        "a:80",
        "80:80:80",
        "localhost:80:80",
        "::1:80:80",
        "[127.0.0.1]x:80:80",
        "[::1%lo]:80:80",
        "127.1:80:80",
        "80:80/udp",
        "\u0661:80",
        "80:80\n",
        "1.2.3.4.5:1:1",
    ],
)
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Port.parse(text)
    assert caught.value.remedy


def test_only_loopback_addresses_are_of_this_host_alone() -> None:
    assert [Port(1, 1, address).on_loopback for address in ("127.0.0.1", "127.9.9.9", "::1")] == [True] * 3
    assert [Port(1, 1, address).on_loopback for address in ("0.0.0.0", "::", "192.168.1.1")] == [False] * 3  # noqa: S104


def test_port_zero_becomes_one_that_is_free_and_nothing_else_listens() -> None:
    with listening([Port(0, 80)]) as [listener]:
        assert listener.port.host_port > 0
        assert listener.socket.getsockname() == ("127.0.0.1", listener.port.host_port)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", listener.port.host_port), SOON)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", listener.port.host_port), SOON)


def test_port_in_use_is_refused_and_those_before_it_are_let_go() -> None:
    with listening([Port(0, 80)]) as [taken]:
        with listening([Port(0, 80)]) as [free]:
            pass
        with (
            pytest.raises(PortUnavailable, match="is in use") as caught,
            listening([free.port, taken.port]),
        ):
            raise AssertionError
        assert "0 for a free one" in caught.value.remedy
        Listener.open(free.port).close()


def test_address_of_another_host_is_refused() -> None:
    with pytest.raises(PortUnavailable, match=r"no address 192\.0\.2\.1"):
        Listener.open(Port(0, 80, "192.0.2.1"))


@contextlib.contextmanager
def published(
    *behaviours: Behaviour, ports: Sequence[int] = (ECHO_PORT,)
) -> Iterator[tuple[list[int], FakeGuest, int]]:
    """A guest that behaves so, with its *ports* published; the host's ports, the guest, what ends it when closed."""
    machine, machine_end = os.pipe()
    stop, stop_end = os.pipe()
    with FakeGuest(*behaviours) as guest, listening([Port(0, port) for port in ports]) as listeners:
        forwarder = Forwarder(Door(listeners), guest, ended=machine, stop=stop)
        thread = threading.Thread(target=forwarder.serve, name=FORWARDER)
        thread.start()
        try:
            yield [listener.port.host_port for listener in listeners], guest, machine_end
        finally:
            os.close(stop_end)
            thread.join(SOON)
            assert not thread.is_alive()
    for descriptor in (machine, machine_end, stop):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def connected() -> tuple[socket.socket, socket.socket]:
    """The two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = client(server.getsockname()[1])
        return server.accept()[0], theirs


def client(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), SOON)


def read_all(connection: socket.socket) -> bytes:
    received = bytearray()
    while data := connection.recv(1 << 16):
        received += data
    return bytes(received)


def exchange(port: int, data: bytes) -> bytes:
    """Send *data* and its end, while what comes back is read to its end."""
    with client(port) as connection:

        def send_all() -> None:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send_all)
        sender.start()
        received = read_all(connection)
        sender.join(SOON)
    return received


def test_bytes_and_the_end_of_each_direction_are_carried() -> None:
    data = secrets.token_bytes(1_500_000)
    with published(echo) as ([port], _, _):
        assert exchange(port, data) == data
        assert exchange(port, b"") == b""


def test_all_that_a_client_said_arrives_though_the_guest_ended_first_and_the_client_is_gone() -> None:
    data, received, full = secrets.token_bytes(90_000), bytearray(), threading.Event()

    def slow(peer: GuestPeer) -> None:
        begin(peer)
        receive(peer)
        send(peer, 1, Kind.END)
        while len(received) < WINDOW:
            received.extend(receive(peer)[2])
        full.set()
        assert receive(peer)[:2] == (2, Kind.OPEN)  # so the host has looked at the first client since it went
        send(peer, 1, Kind.CREDIT, WINDOW.to_bytes(4, "big"))
        while (word := receive(peer))[1] is Kind.DATA:
            received.extend(word[2])
        assert word == (1, Kind.END, b"")
        close(peer, 1, Reason.ENDED)
        close(peer, 2, Reason.ENDED)

    with published(slow) as ([port], _, _):
        with client(port) as connection:
            assert read_all(connection) == b""
            connection.sendall(data)
        assert full.wait(SOON)
        with client(port) as other:
            assert read_all(other) == b""
    assert received == data


def test_client_that_is_gone_is_not_polled_until_the_guest_has_room() -> None:
    def full(peer: GuestPeer) -> None:
        begin(peer)
        receive(peer)
        send(peer, 1, Kind.END)
        receive(peer)
        send(peer, 1, Kind.CREDIT, WINDOW.to_bytes(4, "big"))
        receive(peer)

    soon = Deadline.after(SOON)
    ours, theirs = connected()
    number = ours.fileno()
    with FakeGuest(full) as guest, guest.open(soon) as session, theirs:
        tunnel = Tunnel(session, soon)
        connection = Connection(ours, tunnel, 80)

        def news() -> None:
            while not (found := list(tunnel.events())):
                session.wait(soon)
                session.advance()
            for _, data in found:
                connection.arrived(data)

        news()
        assert read_all(theirs) == b""
        theirs.sendall(bytes(WINDOW + 1))
        while connection.stream.credit:
            connection.turn(select.POLLIN)
        theirs.close()
        poller = select.poll()
        poller.register(connection.fileno, connection.events)
        [(_, events)] = poller.poll(SOON * 1000)
        assert events == select.POLLHUP
        connection.turn(events)
        assert connection.fileno == -1
        assert not connection.over
        news()
        assert (connection.fileno, connection.events) == (number, select.POLLIN)
        connection.abort()


def test_many_clients_share_one_line() -> None:
    pieces = [secrets.token_bytes(1000 + 37 * number) for number in range(60)]
    with published(echo) as ([port], guest, _):
        clients = [client(port) for _ in pieces]
        for connection, piece in zip(clients, pieces, strict=True):
            connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        assert [read_all(connection) for connection in clients] == pieces
        for connection in clients:
            connection.close()
        assert guest.connections == 1


def test_client_of_a_port_on_which_nobody_listens_is_reset() -> None:
    with published(echo, ports=(80, ECHO_PORT)) as ([nobody, port], _, _):
        with pytest.raises(ConnectionResetError), client(nobody) as connection:
            connection.recv(1)
        assert exchange(port, b"x") == b"x"


def test_client_that_breaks_off_is_told_to_the_guest_and_hurts_nobody() -> None:
    words: list[tuple[int, Kind]] = []
    told = threading.Event()

    def watching(peer: GuestPeer) -> None:
        begin(peer)
        while (word := receive(peer))[1] is not Kind.RESET:
            words.append(word[:2])
            if word[1] is Kind.DATA:
                send(peer, word[0], Kind.DATA, word[2])
        words.append(word[:2])
        close(peer, word[0], Reason.LOST)
        told.set()
        number, kind, body = receive(peer)
        words.append((number, kind))
        send(peer, number, Kind.DATA, body)
        peer.receive_bytes()

    with published(watching) as ([port], _, _), client(port) as other:
        other.sendall(b"w")
        assert other.recv(1) == b"w"
        broken = client(port)
        broken.sendall(b"x")
        assert broken.recv(1) == b"x"
        reset(broken)
        assert told.wait(SOON)
        other.sendall(b"y")
        assert other.recv(1) == b"y"
    opened = [(1, Kind.OPEN), (1, Kind.DATA), (2, Kind.OPEN), (2, Kind.DATA)]
    assert [word for word in words if word[1] is not Kind.CREDIT] == [*opened, (2, Kind.RESET), (1, Kind.DATA)]


def test_what_a_program_said_before_it_broke_off_arrives_first() -> None:
    def last_words(peer: GuestPeer) -> None:
        begin(peer)
        receive(peer)
        send(peer, 1, Kind.DATA, b"last words")
        close(peer, 1, Reason.LOST)
        peer.receive_bytes()

    with published(last_words) as ([port], _, _), client(port) as connection:
        assert connection.recv(10) == b"last words"
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_guest_that_sends_without_end_is_bounded_by_what_its_client_reads() -> None:
    granted, cut = [], threading.Event()

    def flood(peer: GuestPeer) -> None:
        credit = begin(peer)
        receive(peer)
        try:
            while True:
                send(peer, 1, Kind.DATA, bytes(min(credit, WINDOW)))
                _, kind, body = receive(peer)
                credit = WINDOW  # also when it was told to stop
                if kind is Kind.CREDIT:
                    credit = int.from_bytes(body, "big")
                    granted.append(credit)
        except HostGone:
            cut.set()

    with published(flood, echo) as ([port], _, _):
        slow = client(port)
        assert slow.recv(1) == b"\0"
        slow.close()
        assert cut.wait(SOON)
        assert exchange(port, b"x") == b"x"
    assert sum(granted) < 64 << 20  # what the kernel's buffers took


def test_guest_that_breaks_the_rules_costs_its_clients_and_the_next_gets_a_new_link() -> None:
    def bad(peer: GuestPeer) -> None:
        begin(peer)
        receive(peer)
        send(peer, 1, Kind.CREDIT, b"\xff\xff\xff\xff")
        peer.receive_bytes()

    with published(bad, echo) as ([port], guest, _):
        with pytest.raises(ConnectionResetError), client(port) as connection:
            connection.recv(1)
        assert exchange(port, b"again") == b"again"
        assert guest.connections == 2


def test_lost_link_resets_its_clients() -> None:
    def lost(peer: GuestPeer) -> None:
        begin(peer)
        receive(peer)

    with published(lost, echo) as ([port], _, _):
        with pytest.raises(ConnectionResetError), client(port) as connection:
            connection.recv(1)
        assert exchange(port, b"again") == b"again"


def test_end_lets_what_is_under_way_arrive() -> None:
    ready, go = threading.Event(), threading.Event()

    def late(peer: GuestPeer) -> None:
        begin(peer)
        receive(peer)
        ready.set()
        go.wait(SOON)
        send(peer, 1, Kind.DATA, b"answer")
        send(peer, 1, Kind.END)
        close(peer, 1, Reason.ENDED)
        peer.receive_bytes()

    with published(late) as ([port], _, _):
        connection = client(port)
        assert ready.wait(SOON)
        go.set()
    with connection:
        assert read_all(connection) == b"answer"


def test_end_of_the_machine_ends_the_forwarder() -> None:
    with published(echo) as ([port], _, machine):
        assert exchange(port, b"x") == b"x"
        [forwarder] = [thread for thread in threading.enumerate() if thread.name == FORWARDER]
        os.close(machine)
        forwarder.join(SOON)
        assert not forwarder.is_alive()
