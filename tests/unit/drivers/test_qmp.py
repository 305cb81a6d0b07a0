"""The client of QEMU's control protocol, against a peer that plays QEMU."""

import array
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pyro_mcp.drivers.qemu.qmp import LINE_MOST, Qmp, QmpFault, control
from pyro_mcp.host.deadline import Deadline

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'
OK = b'{"return": {}}\r\n'
Script = Callable[[socket.socket], None]


def talk(script: Script, use: Callable[[Qmp], object], *, seconds: float = 5.0) -> object:
    """Run *use* against a peer that greets, agrees to the capabilities, and then does as *script* says."""
    ours, theirs = socket.socketpair()

    def play() -> None:
        with theirs:
            theirs.sendall(GREETING)
            theirs.recv(4096)
            theirs.sendall(OK)
            script(theirs)

    peer = threading.Thread(target=play)
    peer.start()
    try:
        with ours:
            return use(Qmp(ours, Deadline.after(seconds)))
    finally:
        peer.join(5)


def say(data: bytes) -> Script:
    def play(peer: socket.socket) -> None:
        peer.sendall(data)
        peer.recv(1)  # until we close

    return play


def answer(*lines: bytes) -> Script:
    def play(peer: socket.socket) -> None:
        peer.recv(4096)
        peer.sendall(b"".join(lines))
        peer.recv(1)  # until we close

    return play


def test_a_command_gets_its_answer_and_events_in_between_are_kept() -> None:
    event = b'{"event": "MIGRATION", "data": {"status": "completed"}}\n'

    def use(qmp: Qmp) -> object:
        answered = qmp.execute("query-name", Deadline.after(5))
        qmp.wait_for_migration(Deadline.after(5))
        return answered

    assert talk(answer(event, b'{"return": {"name": "x"}}\n'), use) == {"name": "x"}


def test_a_refusal_is_a_fault_with_qemus_words() -> None:
    with pytest.raises(QmpFault, match=r"refused migrate: no way"):
        talk(
            answer(b'{"error": {"class": "G", "desc": "no way"}}\n'),
            lambda qmp: qmp.execute("migrate", Deadline.after(5)),
        )


def test_a_failed_migration_is_a_fault() -> None:
    events = [{"event": "MIGRATION", "data": {"status": status}} for status in ("setup", "failed")]
    data = "".join(json.dumps(event) + "\n" for event in events).encode()
    with pytest.raises(QmpFault, match="failed"):
        talk(say(data), lambda qmp: qmp.wait_for_migration(Deadline.after(5)))


@pytest.mark.parametrize("line", [b"nonsense\n", b"[1]\n", b"\xff\xfe\n", b"{\n"])
def test_nonsense_is_a_fault(line: bytes) -> None:
    with pytest.raises(QmpFault, match="nonsense"):
        talk(answer(line), lambda qmp: qmp.execute("stop", Deadline.after(5)))


def test_a_line_without_end_is_a_fault() -> None:
    def flood(peer: socket.socket) -> None:
        peer.recv(4096)
        try:
            peer.sendall(b"x" * (LINE_MOST * 2))
        except OSError:
            return

    with pytest.raises(QmpFault, match="without end"):
        talk(flood, lambda qmp: qmp.execute("stop", Deadline.after(5)))


def test_a_peer_that_closes_is_a_fault() -> None:
    with pytest.raises(QmpFault, match="closed"):
        talk(lambda peer: peer.close(), lambda qmp: qmp.wait_for_migration(Deadline.after(5)))


def test_a_silent_peer_ends_at_the_deadline() -> None:
    with pytest.raises(QmpFault, match="tim"):
        talk(answer(), lambda qmp: qmp.execute("stop", Deadline.after(0.05)))


def test_no_greeting_is_a_fault() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b'{"hello": 1}\n')
        with pytest.raises(QmpFault, match="greet"):
            Qmp(ours, Deadline.after(5))


def test_no_socket_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(QmpFault, match="control socket"), control(tmp_path / "none", Deadline.after(1)):
        pass


def test_a_descriptor_travels_with_its_command() -> None:
    read, write = os.pipe()
    got: list[object] = []

    def take(peer: socket.socket) -> None:
        data, ancillary, _, _ = peer.recvmsg(4096, socket.CMSG_SPACE(4))
        got.append(json.loads(data))
        descriptor = array.array("i", ancillary[0][2])[0]
        os.write(descriptor, b"hello")
        os.close(descriptor)
        peer.sendall(OK)
        peer.recv(1)

    try:
        uri = talk(take, lambda qmp: qmp.pass_descriptor(write, Deadline.after(5)))
        assert uri == "fd:pyro"
        assert os.read(read, 5) == b"hello"
        assert got == [{"execute": "getfd", "arguments": {"fdname": "pyro"}}]
    finally:
        os.close(read)
        os.close(write)
