"""The vsock line against a socket that behaves as Firecracker's does (docs/vsock.md), or worse."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyro_mcp.drivers.firecracker import lines
from pyro_mcp.drivers.firecracker.lines import VsockLines, dial
from pyro_mcp.errors import MachineDied
from pyro_mcp.guest.channel import open_session
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.paths import MachinePaths
from pyro_mcp.testing.guest_peer import GuestPeer

Serve = Callable[[socket.socket], None]


@pytest.fixture
def machine(tmp_path: Path) -> MachinePaths:
    # A path far longer than the 108 bytes of a Unix socket's address.
    paths = MachinePaths(tmp_path / ("d" * 120) / "0123456789ab")
    paths.run.mkdir(parents=True)
    return paths


@contextmanager
def firecracker(paths: MachinePaths, *serves: Serve) -> Iterator[None]:
    """A v.sock whose connections are served by *serves*, one after the other."""
    with socket.socket(socket.AF_UNIX) as listener:
        directory = os.open(paths.run, os.O_PATH)
        listener.bind(f"/proc/self/fd/{directory}/{paths.vsock.name}")
        os.close(directory)
        listener.listen()

        def run() -> None:
            for serve in serves:
                connection, _ = listener.accept()
                with connection:
                    serve(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield
        thread.join(10)


def asked(connection: socket.socket) -> bytes:
    return connection.recv(100)


def greets(connection: socket.socket) -> None:
    """Firecracker's answer and the agent's first bytes in one segment, which must not get lost."""
    assert asked(connection) == b"CONNECT 5005\n"
    connection.sendall(b"OK 1073741824\nfirst bytes")
    connection.recv(1)


def closes(connection: socket.socket) -> None:
    asked(connection)


def stays_silent(connection: socket.socket) -> None:
    asked(connection)
    connection.recv(1)


def serves_a_session(connection: socket.socket) -> None:
    asked(connection)
    connection.sendall(b"OK 1073741825\n")
    GuestPeer(connection).greet()
    connection.recv(1)


def test_the_answer_is_read_to_its_last_byte_and_not_further(machine: MachinePaths) -> None:
    with firecracker(machine, greets), dial(machine, Deadline.after(10)) as client:
        assert client.recv(100) == b"first bytes"


def test_nobody_listening_is_a_refused_connection(machine: MachinePaths) -> None:
    with firecracker(machine, closes), pytest.raises(ConnectionRefusedError):
        dial(machine, Deadline.after(10))


@pytest.mark.parametrize("text", [b"KO 1\n", b"OK \n", b"OK 1 2\n", b"OK 99999999999\n", b"x" * 1000, b"\n"])
def test_any_other_answer_ends_the_attempt(machine: MachinePaths, text: bytes) -> None:
    def answers(connection: socket.socket) -> None:
        asked(connection)
        connection.sendall(text)

    with firecracker(machine, answers), pytest.raises(OSError, match="Firecracker answered"):
        dial(machine, Deadline.after(10))


def test_a_silent_firecracker_is_given_up_and_asked_again(
    machine: MachinePaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "FIRST_PATIENCE", 0.02)
    here = ProcessId.current()
    with (
        firecracker(machine, stays_silent, closes, stays_silent, serves_a_session),
        VsockLines(machine, here).take(Deadline.after(20)) as line,
        open_session(line.connect, Deadline.after(20)) as session,
    ):
        assert session.number > 0


def test_no_line_is_given_for_a_machine_that_has_ended(machine: MachinePaths) -> None:
    gone = ProcessId(ProcessId.current().pid, 1)
    with pytest.raises(MachineDied), VsockLines(machine, gone).take(Deadline.after(1)):
        pass


def test_any_number_of_lines_may_be_taken_at_once(machine: MachinePaths) -> None:
    many = VsockLines(machine, ProcessId.current())
    with many.take(Deadline.after(1)) as first, many.take(Deadline.after(1)) as second:
        assert first.ended != second.ended
