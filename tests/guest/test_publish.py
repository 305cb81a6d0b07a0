"""Ports of real guests as ports of this host."""

import signal
import socket
import threading
from typing import Any

from tests.guest.conftest import Cli, start_pyro

from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.progress import Silent
from pyro_mcp.host.wait import until
from pyro_mcp.paths import Paths
from pyro_mcp.sdk import Pyro

SOON = 60.0
LISTENER = (
    'use IO::Socket::INET; $|=1; my $s=IO::Socket::INET->new(LocalAddr=>"127.0.0.1",LocalPort=>80,Listen=>64)or die $!;'
)
# Answers one request and ends: its machine goes at once.
ONE_ANSWER = (
    LISTENER
    + 'print "ready\\n"; my $c=$s->accept; my $r=<$c>; print $c "HTTP/1.0 200 OK\\r\\n\\r\\n", "x" x 50_000, $r;'
)
WAITING = LISTENER + 'print "ready\\n"; sleep 300;'


def listens(port: int, address: str = "127.0.0.1") -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(SOON)
        return probe.connect_ex((address, port)) == 0


def read_all(connection: socket.socket) -> bytes:
    received = bytearray()
    while data := connection.recv(1 << 16):
        received += data
    return bytes(received)


class Told(Silent):
    """A progress that keeps the published port."""

    def __init__(self) -> None:
        self.ports: list[int] = []

    def phase(self, name: str, **fields: object) -> None:
        """Keep the host's port."""
        if name == "publish":
            self.ports.append(int(str(fields["address"]).rpartition(":")[2]))


def perl(script: str) -> str:
    return f"perl -e '{script}'"


def test_program_of_a_run_is_reached_and_its_last_words_arrive(home: Paths) -> None:
    told, ready, results = Told(), threading.Event(), []

    def work() -> None:
        results.append(
            Pyro(progress=told).run_in_vm(
                environment="debian:12",
                command=perl(ONE_ANSWER),
                timeout_seconds=SOON,
                on_stdout=lambda _: ready.set(),
                publish=["0:80"],
            )
        )

    runner = threading.Thread(target=work)
    runner.start()
    assert ready.wait(SOON * 2)
    with socket.create_connection(("127.0.0.1", told.ports[0]), SOON) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = read_all(connection)
    runner.join(SOON)
    assert answer == b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 50_000 + b"GET / HTTP/1.0\r\n"
    result: dict[str, Any] = dict(results[0])
    assert result["exit_code"] == 0
    assert result["published_ports"] == [{"address": "127.0.0.1", "host_port": told.ports[0], "guest_port": 80}]
    assert not listens(told.ports[0])


def test_port_in_use_is_refused_before_anything_is_started(cli: Cli, home: Paths) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = cli("run", "--publish", f"{port}:80", "debian:12", "--", "true")
    assert ended.code == 125
    assert ended.errors.splitlines()[0] == f"[error] 127.0.0.1:{port} is in use by another program"
    assert "0 for a free one" in ended.errors
    assert "phase=" not in ended.errors
    assert not home.machines.exists() or not list(home.machines.iterdir())


def test_quiet_run_tells_the_port_that_was_chosen_and_its_kill_leaves_no_listener(home: Paths) -> None:
    process = start_pyro("run", "--quiet", "-p", "0:80", "debian:12", "--", perl(WAITING))
    assert process.stdout
    assert process.stderr
    with process:
        assert process.stdout.readline() == b"ready\n"
        line = process.stderr.readline().decode()  # the one that is told however quiet it is to be
        assert line.startswith("[run] phase=publish ")
        port = int(line.split("127.0.0.1:")[1].split()[0])
        assert listens(port)
        assert not listens(port, "127.0.0.2")
        process.send_signal(signal.SIGKILL)
    assert until(lambda: not listens(port), Deadline.after(SOON))
