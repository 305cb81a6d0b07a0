"""The lines to a Firecracker guest: vsock connections, as many as are wanted, through Firecracker's Unix socket.

The host writes ``CONNECT <port>``, Firecracker answers ``OK <its port>``; when nobody listens it just closes the
connection (docs/vsock.md). A CONNECT sent just after a restore may never be answered, so each has a patience of its
own and is sent again.
"""

import contextlib
import re
import socket
from collections.abc import Iterator

from pyro_mcp.drivers.base import Line
from pyro_mcp.drivers.launcher import connect, watched
from pyro_mcp.host.deadline import Deadline
from pyro_mcp.host.processes import ProcessId
from pyro_mcp.paths import MachinePaths

PORT = 5005
ANSWER = re.compile(rb"OK [0-9]{1,10}\n")
ANSWER_MOST = 14
FIRST_PATIENCE = 0.2
LONGEST_PATIENCE = 5.0  # for a guest that is slow to accept, under load


class VsockLines:
    """The agent's port of one machine."""

    def __init__(self, paths: MachinePaths, launcher: ProcessId) -> None:
        self._paths = paths
        self._launcher = launcher

    @contextlib.contextmanager
    def take(self, deadline: Deadline) -> Iterator[Line]:  # noqa: ARG002 - a line is never waited for
        """A line; see ``Lines``."""
        with watched(self._launcher) as ended:
            patience = FIRST_PATIENCE

            def connect_port(limit: Deadline) -> socket.socket:
                nonlocal patience
                try:
                    return dial(self._paths, limit.sooner(patience))
                except TimeoutError:
                    patience = min(patience * 2, LONGEST_PATIENCE)
                    raise

            yield Line(connect_port, ended, redial=True)


def dial(paths: MachinePaths, deadline: Deadline) -> socket.socket:
    """A connection to the agent's port. Raises OSError; ConnectionRefusedError when nobody listens there yet."""
    with contextlib.ExitStack() as on_failure:
        client = connect(paths.vsock, deadline)
        on_failure.callback(client.close)
        client.sendall(b"CONNECT %d\n" % PORT)
        _expect_ok(client, deadline)
        on_failure.pop_all()
    return client


def _expect_ok(client: socket.socket, deadline: Deadline) -> None:
    """Read the answer's bytes and not one more: what follows belongs to the session."""
    answer = b""
    while not answer.endswith(b"\n"):
        client.settimeout(max(deadline.remaining, 0.001))
        byte = client.recv(1)
        if not byte:
            raise ConnectionRefusedError("nobody listens in the guest yet")
        answer += byte
        if len(answer) > ANSWER_MOST:
            break
    if not ANSWER.fullmatch(answer):
        raise ConnectionAbortedError(f"Firecracker answered {answer!r}")
