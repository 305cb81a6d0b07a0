"""QEMU's control protocol (QMP): one greeting, then commands, answers and events, a JSON object per line.

Source: QEMU's docs/interop/qmp-spec.rst. The other side is a VMM that a guest may have taken over, so what it says is
bounded and believed only as far as our own question goes.
"""

import contextlib
import json
import socket
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyro_mcp.drivers.launcher import connect
from pyro_mcp.errors import MachineFault
from pyro_mcp.host.deadline import Deadline

LINE_MOST = 1 << 20
EVENTS_MOST = 1024
CHUNK = 1 << 16
FD_NAME = "pyro"


class QmpFault(MachineFault):
    """QEMU refused a command, or did not answer as the protocol has it."""


def command_line(command: str, **arguments: object) -> bytes:
    """A command as it is sent."""
    return json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"


class Qmp:
    """A connection on which commands may be given. For one thread."""

    def __init__(self, connected: socket.socket, deadline: Deadline) -> None:
        self._socket = connected
        self._buffer = bytearray()
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS_MOST)
        if "QMP" not in self._receive(deadline):
            raise QmpFault("QEMU did not greet on its control socket")
        self.execute("qmp_capabilities", deadline)

    def execute(
        self, command: str, deadline: Deadline, *, descriptor: int | None = None, **arguments: object
    ) -> object:
        """Give a command, with *descriptor* for it if any, and return its answer; raises QmpFault when refused."""
        self._send(command_line(command, **arguments), descriptor, deadline)
        while True:
            message = self._receive(deadline)
            if "event" in message:
                self._events.append(message)
            elif "error" in message:
                raise QmpFault(f"QEMU refused {command}: {_description(message['error'])}")
            elif "return" in message:
                answer: object = message["return"]
                return answer

    def pass_descriptor(self, descriptor: int, deadline: Deadline) -> str:
        """Give QEMU *descriptor*; the URI by which a migration names it."""
        self.execute("getfd", deadline, descriptor=descriptor, fdname=FD_NAME)
        return f"fd:{FD_NAME}"

    def wait_for_migration(self, deadline: Deadline) -> None:
        """Wait for the event that says a migration is complete; raises QmpFault when it failed.

        The capability ``events`` must be on. Without an event the connection ends: QEMU exits when it cannot load.
        """
        while True:
            event = self._events.popleft() if self._events else self._receive(deadline)
            if event.get("event") != "MIGRATION":
                continue
            data = event.get("data")
            status = data.get("status") if isinstance(data, dict) else None
            if status == "completed":
                return
            if status in ("failed", "cancelled"):
                raise QmpFault(f"the migration of QEMU's state {status}")

    def _send(self, data: bytes, descriptor: int | None, deadline: Deadline) -> None:
        with translated():
            self._socket.settimeout(deadline.timeout)
            # Small enough to go in one piece: a descriptor travels with its first byte.
            if descriptor is None:
                self._socket.sendall(data)
            else:
                socket.send_fds(self._socket, [data], [descriptor])

    def _receive(self, deadline: Deadline) -> dict[str, Any]:
        """The next message."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > LINE_MOST:
                raise QmpFault("QEMU sends without end on its control socket")
            deadline.check("QEMU's answer on its control socket", QmpFault)
            with translated():
                self._socket.settimeout(deadline.timeout)
                data = self._socket.recv(CHUNK)
            if not data:
                raise QmpFault("QEMU closed its control socket")
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            message = json.loads(line)
        except ValueError as error:
            raise QmpFault("QEMU sent nonsense on its control socket") from error
        if not isinstance(message, dict):
            raise QmpFault("QEMU sent nonsense on its control socket")
        return message


@contextlib.contextmanager
def control(path: Path, deadline: Deadline) -> Iterator[Qmp]:
    """A connection to the control socket at *path*, ready for commands."""
    with translated():
        connected = connect(path, deadline)
    with connected:
        yield Qmp(connected, deadline)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """A broken connection to QEMU in our words."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise QmpFault(f"QEMU's control socket: {reason}") from error


def _description(error: object) -> str:
    text = error.get("desc") if isinstance(error, dict) else None
    return str(text)[:300]
