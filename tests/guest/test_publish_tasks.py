"""Ports of tasks as ports of this host: one guest for all tests of this module."""

import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyro_mcp.engine.store import Store
from pyro_mcp.engine.tasks.records import Publication
from pyro_mcp.engine.tasks.rows import TaskRows
from pyro_mcp.errors import InvalidRequest, PortUnavailable
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths
from pyro_mcp.sdk import Pyro

SOON = 120.0
BIG = 4 << 20
# Port 7 echoes, port 80 answers as HTTP servers do, port 9 sends without end.
SERVER = r"""
use strict; use IO::Socket::INET; use IO::Select; $SIG{CHLD} = 'IGNORE'; $| = 1;
my %kind; my $all = IO::Select->new;
for my $port (7, 80, 9) {
  my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 128) or die "$port: $!";
  $kind{$s} = $port; $all->add($s);
}
print "ready\n";
while (my @some = $all->can_read) { for my $s (@some) {
  my $c = $s->accept or next;
  my $port = $kind{$s};
  if (fork) { close $c; next }
  my $data;
  while ($port == 7 && (my $n = sysread $c, $data, 65536)) {
    for (my $o = 0; $o < $n;) { $o += syswrite $c, $data, $n - $o, $o }
  }
  if ($port == 80) { my $ask = <$c>; print $c "HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n"; }
  if ($port == 9) { 1 while syswrite $c, "x" x 65536 }
  exit 0;
} }
"""


@pytest.fixture(scope="module")
def guest(shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pyro, str]]:
    """A task in which the server runs."""
    assert shared_cache
    pyro = Pyro(base_dir=tmp_path_factory.mktemp("publish"))
    task_id = pyro.create_task(environment="debian:12")["task_id"]
    try:
        ready = "cat > /s.pl && (setsid perl /s.pl > /s.log 2>&1 & ) && until grep -q ready /s.log; do sleep 0.1; done"
        assert pyro.exec_task(task_id, command=ready, stdin=SERVER.encode(), timeout_seconds=SOON)["exit_code"] == 0
        yield pyro, task_id
    finally:
        pyro.delete_task(task_id)


@contextmanager
def published(guest: tuple[Pyro, str], port: int) -> Iterator[int]:
    """The host's port that leads to *port* of the guest."""
    pyro, task_id = guest
    host_port = pyro.publish_task(task_id, f"0:{port}")["host_port"]
    try:
        yield host_port
    finally:
        pyro.unpublish_task(task_id)
        assert not listens(host_port)


def listens(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.settimeout(SOON)
        return probe.connect_ex((address, port)) == 0


def exchange(port: int, data: bytes) -> bytes:
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port), SOON) as connection:

        def send() -> None:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        while piece := connection.recv(1 << 16):
            received += piece
        sender.join(SOON)
    return bytes(received)


def publications(guest: tuple[Pyro, str]) -> tuple[Publication, ...]:
    """What is on record."""
    pyro, task_id = guest
    paths = Paths.of_user(state=pyro.state_directory)
    return TaskRows(Store(paths.database).database).find(task_id).publications


def test_server_of_a_task_is_reached_and_status_shows_its_port(guest: tuple[Pyro, str]) -> None:
    pyro, task_id = guest
    with published(guest, 80) as port:
        assert exchange(port, b"GET / HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\nhello\n")
        shown = {"address": "127.0.0.1", "host_port": port, "guest_port": 80}
        assert pyro.status_task(task_id)["published_ports"] == [shown]
        assert not listens(port, "127.0.0.2")
    assert pyro.status_task(task_id)["published_ports"] == []


def test_large_transfer_is_the_same_in_both_directions(guest: tuple[Pyro, str]) -> None:
    data = secrets.token_bytes(BIG)
    with published(guest, 7) as port:
        assert exchange(port, data) == data


def test_fifty_clients_at_once_leave_room_for_commands(guest: tuple[Pyro, str]) -> None:
    pyro, task_id = guest
    with published(guest, 7) as port:
        clients = [socket.create_connection(("127.0.0.1", port), SOON) for _ in range(50)]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
        assert pyro.exec_task(task_id, command="echo there", timeout_seconds=SOON)["stdout"] == "there\n"
        for number, client in enumerate(clients):
            assert client.recv(10) == b"%d" % number
            client.close()


def test_program_that_sends_without_end_is_held_up_by_its_client(guest: tuple[Pyro, str]) -> None:
    pyro, task_id = guest
    with published(guest, 9) as port, published(guest, 7) as other:
        with socket.create_connection(("127.0.0.1", port), SOON) as slow:
            assert slow.recv(1) == b"x"
            assert exchange(other, b"still here") == b"still here"
            assert pyro.exec_task(task_id, command="true", timeout_seconds=SOON)["exit_code"] == 0
        assert listens(port)


def test_port_in_use_is_refused_and_changes_nothing(guest: tuple[Pyro, str]) -> None:
    pyro, task_id = guest
    with published(guest, 80) as port:
        with pytest.raises(PortUnavailable):
            pyro.publish_task(task_id, f"{port}:80")
        assert len(publications(guest)) == 1
        with pytest.raises(InvalidRequest, match="is not published"):
            pyro.unpublish_task(task_id, 1)


def test_killed_publisher_leaves_no_listener_and_is_forgotten(guest: tuple[Pyro, str]) -> None:
    pyro, task_id = guest
    port = pyro.publish_task(task_id, "0:80")["host_port"]
    [publication] = publications(guest)
    os.kill(publication.publisher.pid, signal.SIGKILL)
    assert until(lambda: not listens(port), Deadline.after(SOON))
    assert pyro.status_task(task_id)["published_ports"] == []
    assert Pyro(base_dir=pyro.state_directory).list_tasks()  # each command tidies
    assert until(lambda: not publications(guest), Deadline.after(SOON))


def test_publisher_ends_with_its_task(home: Paths) -> None:
    pyro = Pyro()
    task_id = pyro.create_task(environment="debian:12")["task_id"]
    port = pyro.publish_task(task_id, "0:80")["host_port"]
    [publication] = publications((pyro, task_id))
    assert listens(port)
    pyro.delete_task(task_id)
    assert not publication.publisher.alive
    assert not listens(port)
    assert home.state.exists()
